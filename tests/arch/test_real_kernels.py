# SPDX-License-Identifier: GPL-2.0-only
"""The programs of `layouts` on the model, for every kernel that ran them: VmPTE to the kB at each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.kernels import KERNELS, Kernel
from tablewalk.validate.run import run

from .layouts import CHUNK, GUESTS, MEMFD, MIB, ROWS, Row

PROGRAM = Path(__file__).parent / "vmpte"
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
        self.has_thp: bool = arch.arch.has_thp
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


def samples(row: Row) -> list[int]:
    """What the model shows of VmPTE at each step of the program."""
    program = Program(row)
    seen = [program.vmpte()]
    program.map(row.arena, row.arena_bytes)
    touch_and_give_back(program, row.arena, row.arena_bytes)
    seen.append(program.vmpte())
    program.unmap(row.arena, row.arena_bytes)
    seen.append(program.vmpte())
    memfd = program.model.kernel("shmem").shmem_file_setup(MEMFD)
    for start in (row.first, row.second):
        program.map(start, MEMFD, memfd)
        program.touch_all(start, MEMFD)
        seen.append(program.vmpte())
    assert program.advise(row.first, MEMFD, MADV_COLLAPSE) == (0 if program.has_thp else -EINVAL)
    seen.append(program.vmpte())
    for start in (row.first, row.second):
        program.touch_all(start, MEMFD)
    seen.append(program.vmpte())
    program.exit()
    return seen


def deltas(seen: list[int]) -> tuple[int, ...]:
    """Against the start."""
    return tuple(kb - seen[0] for kb in seen)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kernel)
def test_real_kernels(row: Row) -> None:
    assert tuple(samples(row)) == row.samples


def test_every_guest_is_here() -> None:
    assert [row.kernel for row in GUESTS] == [name for name, kernel in KERNELS.items() if not kernel.is_host]


@pytest.mark.parametrize("row", GUESTS, ids=lambda row: row.kernel)
def test_guests(row: Row) -> None:
    assert deltas(samples(row)) == row.samples


@pytest.mark.kernels
@pytest.mark.parametrize("row", GUESTS, ids=lambda row: row.kernel)
def test_guests_again(row: Row, kernel_here: Callable[[str], Kernel]) -> None:
    """They are booted, and run the program once more."""
    numbers = (row.arena, row.arena_bytes, row.first, row.second)
    lines = run(kernel_here(row.kernel), " ".join(f"{n:x}" for n in numbers), agent=PROGRAM)
    assert deltas([int(line) for line in lines]) == row.samples
