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

from tablewalk.machine.drivers import Model

from .process import MADV_COLLAPSE as MADV_COLLAPSE
from .process import MADV_DONTNEED as MADV_DONTNEED
from .process import MADV_FREE as MADV_FREE
from .process import MADV_GUARD_INSTALL as MADV_GUARD_INSTALL
from .process import MADV_HUGEPAGE as MADV_HUGEPAGE
from .process import MADV_NOHUGEPAGE as MADV_NOHUGEPAGE
from .process import MADV_PAGEOUT as MADV_PAGEOUT
from .process import MADV_REMOVE as MADV_REMOVE
from .process import PROT_READ as PROT_READ
from .process import PROT_WRITE as PROT_WRITE
from .process import RW as RW
from .process import UFFD_MISSING as UFFD_MISSING
from .process import UFFD_WP as UFFD_WP
from .process import Process as Process
from .process import Uffd as Uffd


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
        return int(self.model.arch.page_size)

    @property
    def huge(self) -> int:
        """Pages that a page table maps."""
        return int(self.model.arch.ptrs_per_pte)

    @property
    def A(self) -> int:
        """An address at which a table's range begins."""
        return 16 * int(self.model.arch.pmd_size)

    def process(self) -> Process:
        """A process with an empty address space."""
        p = Process.new(self.model)
        self.processes.append(p)
        return p

    def sharing(self, processes: int) -> list[Process]:
        """Processes that map shared memory of a huge page's size; all pages hold 1, and the first has them mapped."""
        f = self.shmem(self.huge)
        found = [self.process() for _ in range(processes)]
        for p in found:
            p.mmap(self.A, self.huge, f)
        found[0].fill(self.A, self.huge, 1)
        return found

    def written(self) -> Process:
        """A process with private memory of two tables' range, the first page of which holds 1."""
        p = self.process()
        p.mmap(self.A, 2 * self.huge)
        p.write(self.A, 1)
        return p

    def huge_page(self) -> Process:
        """A process with a huge page of ones."""
        p = self.process()
        p.mmap(self.A, self.huge)
        p.madvise(self.A, self.huge, MADV_HUGEPAGE)
        p.fill(self.A, self.huge, 1)
        return p

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
