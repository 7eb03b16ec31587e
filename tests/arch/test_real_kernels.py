# SPDX-License-Identifier: GPL-2.0-only
"""The program of `layouts` on the model, for every kernel that ran it: VmPTE to the kB at each step."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .layouts import ARENA, CHUNK, FIRST_MAP, MEMFD, MIB, ROWS, SECOND_MAP, Row

PRIVATE_ANONYMOUS_FIXED, SHARED_FIXED = 0x32, 0x11
MADV_DONTNEED, MADV_COLLAPSE, EINVAL = 4, 25, 22


class Program:
    """One process on the model of a kernel, with what its execve left."""

    def __init__(self, row: Row) -> None:
        self.model = drivers.model(KernelConfig(row.release, row.arch))
        arch = self.model.module("arch")
        if not row.has_thp:
            arch.use(arch.variant(arch.arch, has_thp=False))
        self.page_size: int = arch.arch.page_size
        kernel = self.model.kernel
        self.mm: Any = kernel("mm_init").mm_alloc()
        self.fault = kernel("fault").do_user_addr_fault
        self.madvise = kernel("madvise").sys_madvise
        self.quiescent = self.model.machine.quiescent
        for address in row.touched_first:
            self.map(address & -MIB, MIB)
            self.touch(address)

    def map(self, address: int, length: int, file: Any = None) -> None:
        file = file or self.model.kernel("mm_types").file(0)
        flags = SHARED_FIXED if file else PRIVATE_ANONYMOUS_FIXED
        assert self.model.kernel("mmap").sys_mmap(self.mm, address, length, 3, flags, file, 0) == address

    def unmap(self, address: int, length: int) -> None:
        assert self.model.kernel("mmap").sys_munmap(self.mm, address, length) == 0
        self.quiescent()

    def touch(self, address: int) -> None:
        assert self.fault(self.mm, address, True) == 0

    def touch_all(self, start: int, length: int) -> None:
        for address in range(start, start + length, self.page_size):
            self.touch(address)

    def advise(self, start: int, length: int, advice: int) -> int:
        ret: int = self.madvise(self.mm, start, length, advice)
        self.quiescent()
        return ret

    def vmpte(self) -> int:
        """kB."""
        size: int = self.model.kernel("pgtable_generic").mm_pgtables_bytes(self.mm)
        return size >> 10

    def exit(self) -> None:
        self.model.kernel("mm_init").mmput(self.mm)
        self.quiescent()


def touch_and_give_back(program: Program, start: int, length: int) -> None:
    for address in range(start, start + length, CHUNK):
        program.touch(address)
        assert program.advise(address, CHUNK, MADV_DONTNEED) == 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kernel)
def test_real_kernels(row: Row) -> None:
    program = Program(row)
    seen = [program.vmpte()]
    program.map(row.arena, ARENA)
    touch_and_give_back(program, row.arena, ARENA)
    seen.append(program.vmpte())
    program.unmap(row.arena, ARENA)
    seen.append(program.vmpte())
    memfd = program.model.kernel("shmem").shmem_file_setup(MEMFD)
    for start in (FIRST_MAP, SECOND_MAP):
        program.map(start, MEMFD, memfd)
        program.touch_all(start, MEMFD)
        seen.append(program.vmpte())
    assert program.advise(FIRST_MAP, MEMFD, MADV_COLLAPSE) == (0 if row.has_thp else -EINVAL)
    seen.append(program.vmpte())
    for start in (FIRST_MAP, SECOND_MAP):
        program.touch_all(start, MEMFD)
    seen.append(program.vmpte())
    assert tuple(seen) == row.samples
    program.exit()
