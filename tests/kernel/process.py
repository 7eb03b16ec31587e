# SPDX-License-Identifier: GPL-2.0-only
"""A process of the model, spoken to as a program speaks to the kernel; sizes in bytes, VmPTE and rss in kB."""

from __future__ import annotations

from tablewalk.arch import arch
from tablewalk.kernel import page_alloc
from tablewalk.kernel.fault import do_user_addr_fault
from tablewalk.kernel.fork import dup_mm
from tablewalk.kernel.mm_init import mm_alloc, mmput
from tablewalk.kernel.mm_types import file, mm_struct, vm_area_struct
from tablewalk.kernel.mmap import sys_mmap, sys_munmap
from tablewalk.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock
from tablewalk.kernel.pgtable_generic import mm_pgtables_bytes
from tablewalk.machine import load, mt_values, quiescent, reset

K = 1 << 10
M = 1 << 20
G = 1 << 30
T = 1 << 40
PAGE = 4096
BASE = 0x1000_0000_0000

READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE = 1, 2
FIXED, ANON, GROWSDOWN, LOCKED, POPULATE = 0x10, 0x20, 0x100, 0x2000, 0x8000
NO_FILE = file(0)


class Process:
    """An address space; `Process()` boots the model, `fork` makes another one beside it."""

    def __init__(self, mm: mm_struct | None = None) -> None:
        if mm is None:
            reset()
            page_alloc.boot()
            mm = mm_alloc()
        self.mm = mm

    def mmap(
        self, addr: int, length: int, prot: int = READ | WRITE, flags: int = PRIVATE | ANON, f: file = NO_FILE, off: int = 0
    ) -> int:
        """Map at `addr`; returns it."""
        ret = sys_mmap(self.mm, addr, length, prot, flags, f, off // arch.page_size)
        assert ret == addr
        return ret

    def munmap(self, addr: int, length: int) -> None:
        assert sys_munmap(self.mm, addr, length) == 0

    def touch(self, addr: int, length: int = 1, write: bool = True) -> None:
        """Access a page of every PTE table in the range, the first."""
        for a in range(addr, addr + length, arch.pmd_size):
            assert do_user_addr_fault(self.mm, a, write) == 0

    def fill(self, addr: int, length: int, write: bool = True) -> None:
        """Access every page in the range."""
        for a in range(addr, addr + length, arch.page_size):
            assert do_user_addr_fault(self.mm, a, write) == 0

    def fork(self) -> Process:
        return Process(dup_mm(self.mm))

    def exit(self) -> None:
        """The last user goes: everything must be given back."""
        mmput(self.mm)
        quiescent()

    @property
    def vmpte(self) -> int:
        return mm_pgtables_bytes(self.mm) >> 10

    @property
    def anon(self) -> int:
        """Pages."""
        return load(self.mm.anon_rss)

    @property
    def rss(self) -> int:
        """Pages."""
        return load(self.mm.anon_rss) + load(self.mm.file_rss) + load(self.mm.shmem_rss)

    def vmas(self) -> list[tuple[int, int]]:
        """(start, end) of all VMAs."""
        return [(v.vm_start, v.vm_end) for v in map(vm_area_struct, mt_values(self.mm.mm_mt))]

    def vma(self, addr: int) -> vm_area_struct:
        """The VMA at `addr`."""
        return next(v for v in map(vm_area_struct, mt_values(self.mm.mm_mt)) if v.vm_start <= addr < v.vm_end)

    def set_flags(self, addr: int, vm_flags: int) -> None:
        """Add flags that no system call sets."""
        mmap_write_lock(self.mm)
        vma = self.vma(addr)
        vma.vm_flags |= vm_flags
        mmap_write_unlock(self.mm)
