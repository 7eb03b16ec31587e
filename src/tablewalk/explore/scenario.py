# SPDX-License-Identifier: GPL-2.0-only
"""What a scenario is written in: processes, mappings and files, threads that make system calls, assertions.

    @scenario(arch="x86_64/1")
    def dontneed_and_fault(s):
        '''A write fault while MADV_DONTNEED takes the table away.'''
        p = s.process()
        p.mmap(s.A, 2)
        p.write(s.A, 1)
        s.thread("fault", lambda: p.write(s.A, 2))
        s.thread("dontneed", lambda: p.madvise(s.A, 2, MADV_DONTNEED))

The function sets up by making the same calls, one after the other; what is in memory when it returns is the initial
state.  Sizes are in pages.  Threads and `finally_` may use whatever the set-up made, and nothing else that changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import Model

PROT_READ, PROT_WRITE = 1, 2
RW = PROT_READ | PROT_WRITE
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT = 4, 8, 9, 14, 15, 21
MADV_COLLAPSE, MADV_GUARD_INSTALL = 25, 102
UFFD_MISSING, UFFD_WP = 1, 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: its name, what it is about, and the function that sets it up."""

    name: str
    title: str
    setup: Callable[[Setup], None]
    arch: str
    options: tuple[tuple[str, str], ...]
    pool: int
    slots: int


@dataclass(frozen=True, slots=True)
class Override:
    """A function that takes the place of `site` (`module.function` of kernel/) in a file's scenarios."""

    site: str
    function: Callable[..., Any]


_defined: list[Scenario] = []
_overrides: list[Override] = []


def scenario(
    arch: str = "x86_64/1", options: dict[str, str] | None = None, pool: int = 3, slots: int = 3
) -> Callable[[Callable[[Setup], None]], Callable[[Setup], None]]:
    """Declare a scenario by the function that sets it up; its name is the function's, with dashes.

    `pool`: how many objects of a kind a thread may have allocated at a time; `slots`: RCU callbacks pending at a time.
    """

    def declare(setup: Callable[[Setup], None]) -> Callable[[Setup], None]:
        name = setup.__name__.replace("_", "-")
        title = (setup.__doc__ or "").strip().partition("\n")[0]
        _defined.append(Scenario(name, title, setup, arch, tuple((options or {}).items()), pool, slots))
        return setup

    return declare


def override(site: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let the decorated function stand for `site` in the scenarios of the same file: a change under test."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        _overrides.append(Override(site, function))
        return function

    return declare


def collect() -> tuple[list[Scenario], list[Override]]:
    """What was declared since the last call."""
    found = list(_defined), list(_overrides)
    _defined.clear()
    _overrides.clear()
    return found


@dataclass(slots=True)
class Setup:
    """What a scenario's function is given: a kernel just booted."""

    model: Model
    threads: list[tuple[str, Callable[[], Any]]] = field(default_factory=list)
    checks: list[Callable[[dict[str, Any]], str | None]] = field(default_factory=list)
    promises: list[str] = field(default_factory=list)
    endings: list[tuple[str, Callable[[dict[str, Any]], bool]]] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    @property
    def page(self) -> int:
        """Bytes of a page."""
        return int(self.model.module("arch").arch.page_size)

    @property
    def huge(self) -> int:
        """Pages that a page table maps."""
        return int(self.model.module("arch").arch.ptrs_per_pte)

    @property
    def A(self) -> int:
        """An address at which a table's range begins."""
        return 16 * int(self.model.module("arch").arch.pmd_size)

    def process(self) -> Process:
        """A process with an empty address space."""
        p = Process(self, self.model.kernel("mm_init").mm_alloc())
        self.processes.append(p)
        return p

    def sharing(self, processes: int) -> list[Process]:
        """Processes that map shared memory of a huge page's size; all pages hold 1, and the first has them mapped."""
        f = self.shmem(self.huge)
        found = [self.process() for _ in range(processes)]
        for p in found:
            p.mmap(self.A, self.huge, f)
        found[0].fill(self.A, 1)
        return found

    def shmem(self, pages: int) -> Any:
        """A shared-memory file."""
        return self.model.kernel("shmem").shmem_file_setup(pages * self.page)

    def regular(self, pages: int) -> Any:
        """A regular file, of a file system with large folios."""
        f = self.model.kernel("filemap")
        return f.open_file(f.file_mapping(pages * self.page, can_collapse=True))

    def thread(self, name: str, body: Callable[[], Any]) -> None:
        """A thread that does `body` on a CPU of its own; what it returns is its result."""
        self.threads.append((name, body))

    def finally_(self, check: Callable[[dict[str, Any]], str | None]) -> None:
        """When all threads have ended, `check` gets their results by name; what it returns says what is wrong."""
        self.checks.append(check)

    def sometimes(self, *events: str) -> None:
        """Each of these happens in some schedule; a scenario in which one does not fails.

        An event of `machine/stat.py`, or a function of the model in which a thread does something; or an operation
        that a function does itself, as `pte_offset_map_lock: unlock`, where it has to look again.
        """
        self.promises.extend(events)

    def sometimes_ends(self, what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        """In some schedule the threads' results, by name, are such that `holds` of them."""
        self.endings.append((what, holds))


@dataclass(slots=True)
class Process:
    """A process of a scenario; addresses in bytes, sizes in pages."""

    setup: Setup
    mm: Any

    def _k(self, module: str) -> Any:
        return self.setup.model.kernel(module)

    def mmap(self, address: int, pages: int, file: Any = None, pgoff: int = 0, *, shared: bool = True) -> int:
        """Map anonymous private memory, or a file."""
        flags = MAP_FIXED | (MAP_SHARED if file is not None and shared else MAP_PRIVATE)
        if file is None:
            file = self._k("mm_types").file(0)
            flags |= MAP_ANONYMOUS
        ret = self._k("mmap").sys_mmap(self.mm, address, pages * self.setup.page, RW, flags, file, pgoff)
        if ret < 0:
            raise TablewalkError(f"mmap({address:#x}, {pages} pages): error {-ret}")
        return int(ret)

    def munmap(self, address: int, pages: int) -> int:
        """munmap(2)."""
        return int(self._k("mmap").sys_munmap(self.mm, address, pages * self.setup.page))

    def madvise(self, address: int, pages: int, advice: int) -> int:
        """madvise(2)."""
        return int(self._k("madvise").sys_madvise(self.mm, address, pages * self.setup.page, advice))

    def mprotect(self, address: int, pages: int, prot: int) -> int:
        """mprotect(2)."""
        return int(self._k("mprotect").sys_mprotect(self.mm, address, pages * self.setup.page, prot))

    def mremap(self, address: int, old: int, new: int, to: int) -> int:
        """mremap(2) with MREMAP_MAYMOVE and MREMAP_FIXED."""
        page = self.setup.page
        return int(self._k("mremap").sys_mremap(self.mm, address, old * page, new * page, 3, to))

    def read(self, address: int) -> int:
        """User code reads a page's content; -1 if it is killed for it."""
        return int(self._k("fault").user_read(self.mm, address))

    def write(self, address: int, value: int) -> int:
        """User code writes a page's content."""
        return int(self._k("fault").user_write(self.mm, address, value))

    def fill(self, address: int, value: int) -> None:
        """User code writes every page of a huge page's range."""
        for i in range(self.setup.huge):
            self.write(address + i * self.setup.page, value)

    def gup_fast(self, address: int, write: bool = False) -> int:
        """Pin a page by get_user_pages_fast, and let it go again; how many were pinned."""
        pages = self._k("gup").get_user_pages_fast(self.mm, address, 1, write)
        self._k("gup").put_user_pages(pages)
        return len(pages)

    def gup_write(self, address: int, value: int) -> int:
        """Pin a page for writing, write its content through the pin, and let it go; how many were pinned."""
        pages = self._k("gup").get_user_pages_fast(self.mm, address, 1, True)
        for page in pages:
            self.setup.model.machine.store(self._k("page_alloc").page_content(page), value)
        self._k("gup").put_user_pages(pages)
        return len(pages)

    def smaps(self) -> Any:
        """/proc/PID/smaps: what is said of each VMA (`task_mmu.smap`)."""
        return self._k("task_mmu").proc_smaps(self.mm)

    def pagemap(self, address: int, pages: int) -> int:
        """How many pages are present by /proc/PID/pagemap."""
        k = self._k("task_mmu")
        found = k.pagemap_read(self.mm, address, address + pages * self.setup.page)
        return sum(nr for _, nr, entry in found if entry & k.PM_PRESENT)

    def mincore(self, address: int, pages: int) -> int:
        """How many pages are in core by mincore(2), or -errno."""
        ret, vec = self._k("mincore").sys_mincore(self.mm, address, pages * self.setup.page)
        return int(ret) or sum(vec)

    def uffd(self, address: int, pages: int, mode: int) -> Uffd:
        """A userfaultfd with which a range is registered (UFFD_*)."""
        k = self._k("fs_userfaultfd")
        context = k.uffd_alloc(self.mm, 0)
        error, _ = k.uffdio_register(context, address, pages * self.setup.page, mode)
        if error:
            raise TablewalkError(f"UFFDIO_REGISTER: error {-error}")
        return Uffd(self, context)

    def tables(self) -> int:
        """PTE tables that it has."""
        return int(self.setup.model.machine.load(self.mm.nr_ptes))

    def fork(self) -> Process:
        """fork(2): the child, which has one user."""
        return Process(self.setup, self._k("fork").dup_mm(self.mm))

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
        return self._ioctl("uffdio_copy", dst, src, pages * self.process.setup.page, 0)

    def move(self, dst: int, src: int, pages: int = 1) -> int:
        """UFFDIO_MOVE."""
        return self._ioctl("uffdio_move", dst, src, pages * self.process.setup.page, 0)

    def writeprotect(self, address: int, pages: int, protect: bool) -> int:
        """UFFDIO_WRITEPROTECT."""
        return self._ioctl("uffdio_writeprotect", address, pages * self.process.setup.page, int(protect))
