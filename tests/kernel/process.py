# SPDX-License-Identifier: GPL-2.0-only
"""A process of the model, spoken to as a program speaks to its kernel; sizes in bytes, VmPTE in kB, rss in pages."""

from __future__ import annotations

from typing import Any

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

K = 1 << 10
M = 1 << 20
G = 1 << 30
T = 1 << 40
PAGE = 4096
BASE = 0x1000_0000_0000

NONE, READ, WRITE = 0, 1, 3
SHARED, PRIVATE = 1, 2
FIXED, ANON, GROWSDOWN = 0x10, 0x20, 0x100


class Process:
    """An address space; `Process()` configures a kernel and boots it, `fork` makes another process beside it."""

    def __init__(self, config: KernelConfig | None = None, driver: str = "sequential") -> None:
        self.model = drivers.model(config or KernelConfig(), driver)
        self.mm: Any = self.k("mm_init").mm_alloc()

    def k(self, module: str) -> Any:
        return self.model.kernel(module)

    def done(self) -> None:
        """Back in user space."""
        self.model.machine.quiescent()

    # --- system calls ------------------------------------------------------------------------------------

    def mmap(
        self, addr: int, length: int, prot: int = WRITE, flags: int = PRIVATE | ANON, f: Any = None, off: int = 0
    ) -> int:
        f = f or self.k("mm_types").file(0)
        ret = self.k("mmap").sys_mmap(self.mm, addr, length, prot, flags, f, off // self.page_size)
        assert ret == addr
        self.done()
        return addr

    def munmap(self, addr: int, length: int) -> None:
        assert self.k("mmap").sys_munmap(self.mm, addr, length) == 0
        self.done()

    def mprotect(self, addr: int, length: int, prot: int) -> None:
        assert self.k("mprotect").sys_mprotect(self.mm, addr, length, prot) == 0
        self.done()

    def mlock(self, addr: int, length: int, onfault: bool = False) -> None:
        assert self.k("mlock").sys_mlock(self.mm, addr, length, int(onfault)) == 0
        self.done()

    def mremap(self, addr: int, old: int, new: int, flags: int = 0, to: int = 0) -> int:
        ret: int = self.k("mremap").sys_mremap(self.mm, addr, old, new, flags, to)
        self.done()
        return ret

    def madvise(self, addr: int, length: int, advice: int) -> int:
        ret: int = self.k("madvise").sys_madvise(self.mm, addr, length, advice)
        self.done()
        return ret

    def fork(self) -> Process:
        child = Process.__new__(Process)
        child.model = self.model
        child.mm = self.k("fork").dup_mm(self.mm)
        self.done()
        return child

    def exit(self) -> None:
        """The last user goes; the model checks that nothing stays behind."""
        self.k("mm_init").mmput(self.mm)
        self.done()

    # --- accesses ----------------------------------------------------------------------------------------

    def fault(self, addr: int, write: bool = True) -> int:
        """VM_FAULT_* of an access."""
        ret: int = self.k("fault").do_user_addr_fault(self.mm, addr, write)
        self.done()
        return ret

    def touch(self, addr: int, length: int = 1, write: bool = True, step: int = 2 * M) -> None:
        """Access a page every `step` bytes."""
        for a in range(addr, addr + length, step):
            assert self.fault(a, write) == 0

    def fill(self, addr: int, length: int, write: bool = True) -> None:
        """Access every page."""
        self.touch(addr, length, write, self.page_size)

    def write(self, addr: int, value: int) -> None:
        assert self.k("fault").user_write(self.mm, addr, value) == 0
        self.done()

    def read(self, addr: int) -> int:
        """Content of a page; -1 for SIGSEGV."""
        ret: int = self.k("fault").user_read(self.mm, addr)
        self.done()
        return ret

    # --- files -------------------------------------------------------------------------------------------

    def memfd(self, size: int) -> Any:
        return self.k("shmem").shmem_file_setup(size, 1)

    def file(self, size: int) -> Any:
        filemap = self.k("filemap")
        mapping = filemap.file_mapping(size)
        f = filemap.open_file(mapping, 1)
        filemap.iput(mapping)
        return f

    # --- what is seen ------------------------------------------------------------------------------------

    @property
    def page_size(self) -> int:
        size: int = self.model.arch.page_size
        return size

    @property
    def vmpte(self) -> int:
        """kB."""
        return int(self.k("pgtable_generic").mm_pgtables_bytes(self.mm)) >> 10

    @property
    def rss(self) -> int:
        """Pages."""
        load = self.model.machine.load
        return int(load(self.mm.anon_rss) + load(self.mm.file_rss) + load(self.mm.shmem_rss))

    @property
    def huge(self) -> int:
        """Anonymous huge pages mapped whole."""
        return int(self.model.machine.load(self.mm.anon_huge))

    def stat(self, name: str) -> int:
        """A count of the machine."""
        return int(self.model.machine.stats[getattr(self.model.machine, name)])

    def locked(self, name: str) -> int:
        """How often locks of a class were taken."""
        return int(self.model.machine.lockstat[self.model.machine.lock_classes.index(name)])

    def vma_list(self) -> list[Any]:
        """All VMAs; their fields want a lock, see `flags` and `vmas`."""
        return [self.k("mm_types").vm_area_struct(v) for v in self.model.machine.mt_values(self.mm.mm_mt)]

    def vmas(self) -> list[tuple[int, int]]:
        """(start, end) of all VMAs, from BASE."""
        lock = self.k("mmap_lock")
        lock.mmap_read_lock(self.mm)
        found = [(v.vm_start - BASE, v.vm_end - BASE) for v in self.vma_list()]
        lock.mmap_read_unlock(self.mm)
        return found

    def field(self, addr: int, name: str) -> Any:
        """A field of the VMA that has `addr`."""
        lock = self.k("mmap_lock")
        lock.mmap_read_lock(self.mm)
        vma = self.k("vma").vma_lookup(self.mm, addr)
        value = getattr(vma, name)
        lock.mmap_read_unlock(self.mm)
        return value

    def mm_field(self, name: str) -> int:
        """A field of the mm."""
        lock = self.k("mmap_lock")
        lock.mmap_read_lock(self.mm)
        value: int = getattr(self.mm, name)
        lock.mmap_read_unlock(self.mm)
        return value

    def set_mm_field(self, name: str, value: int) -> None:
        lock = self.k("mmap_lock")
        lock.mmap_write_lock(self.mm)
        setattr(self.mm, name, value)
        lock.mmap_write_unlock(self.mm)

    def has(self, addr: int, flag: str) -> bool:
        """Whether the VMA that has `addr` has a flag (its name in vm_flags)."""
        return bool(self.field(addr, "vm_flags") & getattr(self.k("vm_flags"), flag))

    def set_flag(self, addr: int, flag: str) -> None:
        """Set a flag that no system call sets."""
        lock = self.k("mmap_lock")
        lock.mmap_write_lock(self.mm)
        vma = self.k("vma").vma_lookup(self.mm, addr)
        self.k("vma_change").vm_flags_reset(vma, vma.vm_flags | getattr(self.k("vm_flags"), flag))
        lock.mmap_write_unlock(self.mm)
