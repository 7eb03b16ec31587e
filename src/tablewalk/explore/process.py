# SPDX-License-Identifier: GPL-2.0-only
"""A process of the model, and what its threads may do: system calls, accesses of user code, ioctls of userfaultfd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import Model

PROT_READ, PROT_WRITE = 1, 2
RW = PROT_READ | PROT_WRITE
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT = 4, 8, 9, 14, 15, 21
MADV_COLLAPSE, MADV_GUARD_INSTALL = 25, 102
UFFD_MISSING, UFFD_WP = 1, 2


@dataclass(slots=True)
class Process:
    """An address space and the calls that threads make in it; addresses in bytes, sizes in pages."""

    model: Model
    mm: Any

    def _k(self, module: str) -> Any:
        return self.model.kernel(module)

    @staticmethod
    def new(model: Model) -> Process:
        """One with an empty address space."""
        return Process(model, model.kernel("mm_init").mm_alloc())

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return int(self.model.arch.page_size)

    @property
    def huge(self) -> int:
        """Pages that a page table maps."""
        return int(self.model.arch.ptrs_per_pte)

    def mmap(self, address: int, pages: int, file: Any = None, pgoff: int = 0, *, shared: bool = True) -> int:
        """Map anonymous private memory, or a file."""
        flags = MAP_FIXED | (MAP_SHARED if file is not None and shared else MAP_PRIVATE)
        if file is None:
            file = self._k("mm_types").file(0)
            flags |= MAP_ANONYMOUS
        ret = self._k("mmap").sys_mmap(self.mm, address, pages * self.page, RW, flags, file, pgoff)
        if ret < 0:
            raise TablewalkError(f"mmap({address:#x}, {pages} pages): error {-ret}")
        return int(ret)

    def munmap(self, address: int, pages: int) -> int:
        """munmap(2)."""
        return int(self._k("mmap").sys_munmap(self.mm, address, pages * self.page))

    def madvise(self, address: int, pages: int, advice: int) -> int:
        """madvise(2)."""
        return int(self._k("madvise").sys_madvise(self.mm, address, pages * self.page, advice))

    def mprotect(self, address: int, pages: int, prot: int) -> int:
        """mprotect(2)."""
        return int(self._k("mprotect").sys_mprotect(self.mm, address, pages * self.page, prot))

    def mremap(self, address: int, old: int, new: int, to: int) -> int:
        """mremap(2) with MREMAP_MAYMOVE and MREMAP_FIXED."""
        page = self.page
        return int(self._k("mremap").sys_mremap(self.mm, address, old * page, new * page, 3, to))

    def read(self, address: int) -> int:
        """User code reads a page's content; -1 if it is killed for it."""
        return int(self._k("fault").user_read(self.mm, address))

    def write(self, address: int, value: int) -> int:
        """User code writes a page's content."""
        return int(self._k("fault").user_write(self.mm, address, value))

    def fill(self, address: int, pages: int, value: int) -> None:
        """User code writes every page of a range."""
        for i in range(pages):
            self.write(address + i * self.page, value)

    def gup_fast(self, address: int, write: bool = False) -> int:
        """Pin a page by get_user_pages_fast, and let it go again; how many were pinned."""
        pages = self._k("gup").get_user_pages_fast(self.mm, address, 1, write)
        self._k("gup").put_user_pages(pages)
        return len(pages)

    def gup_write(self, address: int, value: int) -> int:
        """Pin a page for writing, write its content through the pin, and let it go; how many were pinned."""
        pages = self._k("gup").get_user_pages_fast(self.mm, address, 1, True)
        for page in pages:
            self.model.machine.store(self._k("page_alloc").page_content(page), value)
        self._k("gup").put_user_pages(pages)
        return len(pages)

    def move_pages(self, address: int, pages: int = 1) -> tuple[int, ...]:
        """move_pages(2) to another node, of pages that others map too: for each 0 or -errno."""
        addresses = tuple(range(address, address + pages * self.page, self.page))
        return tuple(self._k("migrate").do_pages_move(self.mm, addresses, True))

    def smaps(self) -> Any:
        """/proc/PID/smaps: what is said of each VMA (`task_mmu.smap`)."""
        return self._k("task_mmu").proc_smaps(self.mm)

    def pagemap(self, address: int, pages: int) -> int:
        """How many pages are present by /proc/PID/pagemap."""
        k = self._k("task_mmu")
        found = k.pagemap_read(self.mm, address, address + pages * self.page)
        return sum(nr for _, nr, entry in found if entry & k.PM_PRESENT)

    def perf_page_size(self, address: int) -> int:
        """Bytes of the page at an address, as a sample of perf tells them; 0 if none is mapped."""
        return int(self._k("events_core").perf_get_page_size(self.mm, address))

    def mincore(self, address: int, pages: int) -> int:
        """How many pages are in core by mincore(2), or -errno."""
        ret, vec = self._k("mincore").sys_mincore(self.mm, address, pages * self.page)
        return int(ret) or sum(vec)

    def uffd(self, address: int, pages: int, mode: int) -> Uffd:
        """A userfaultfd with which a range is registered (UFFD_*)."""
        k = self._k("fs_userfaultfd")
        context = k.uffd_alloc(self.mm, 0)
        error, _ = k.uffdio_register(context, address, pages * self.page, mode)
        if error:
            raise TablewalkError(f"UFFDIO_REGISTER: error {-error}")
        return Uffd(self, context)

    def tables(self) -> int:
        """PTE tables that it has."""
        return int(self.model.machine.load(self.mm.nr_ptes))

    def fork(self) -> Process:
        """fork(2): the child, which has one user and may run where its parent does."""
        child = Process(self.model, self._k("fork").dup_mm(self.mm))
        child.mm.nr_cpus = self.mm.nr_cpus
        return child

    def exit(self) -> None:
        """The last thread exits."""
        self._k("mm_init").mmput(self.mm)


@dataclass(slots=True)
class Uffd:
    """A userfaultfd of a process; its ioctls return 0 or -errno."""

    process: Process
    context: Any

    def _ioctl(self, name: str, *arguments: int) -> int:
        done = getattr(self.process._k("fs_userfaultfd"), name)(self.context, *arguments)
        return int(done[0] if isinstance(done, tuple) else done)

    def copy(self, dst: int, src: int, pages: int = 1) -> int:
        """UFFDIO_COPY."""
        return self._ioctl("uffdio_copy", dst, src, pages * self.process.page, 0)

    def move(self, dst: int, src: int, pages: int = 1) -> int:
        """UFFDIO_MOVE."""
        return self._ioctl("uffdio_move", dst, src, pages * self.process.page, 0)

    def writeprotect(self, address: int, pages: int, protect: bool) -> int:
        """UFFDIO_WRITEPROTECT."""
        return self._ioctl("uffdio_writeprotect", address, pages * self.process.page, int(protect))
