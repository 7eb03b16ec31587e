# SPDX-License-Identifier: GPL-2.0-only
"""Each two things that may be done to the same page table, and some three of them, at the same time.

A table of two pages: what needs an empty entry has the first, the second is in use.  In the end each page reads as it
does after one thing and then the other, in one of their orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from typing import Any, Final

from tablewalk.explore.scenario import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_PAGEOUT,
    MADV_REMOVE,
    PROT_READ,
    UFFD_MISSING,
    UFFD_WP,
    Process,
    Setup,
    Uffd,
    scenario,
)

Body = Callable[[], object]

AGAIN: Final = "-too"  # a second thread of a kind

# what is mapped: anonymous memory, shared memory, a regular file, anonymous memory that may be huge; or in one table
# two pages of different memory, the first of which is empty at first
ANON, SHMEM, FILE, HUGE = "anon", "shmem", "file", "huge"
ANON_FILE, ANON_SHMEM, SHMEM_FILE = "anon+file", "anon+shmem", "shmem+file"
MEMORIES: Final = (ANON, SHMEM, FILE, HUGE, ANON_FILE, ANON_SHMEM, SHMEM_FILE)
PAGES: Final = (ANON, SHMEM, FILE, ANON_FILE)


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that is done: in which memory, what prepares and does it, and what of the model it has to reach."""

    name: str
    what: str
    memories: tuple[str, ...]
    body: Callable[[Setup, Process], Body]
    reaches: str
    in_huge: str  # the same where at first no table is, as a huge page shall come there
    options: dict[str, str]


KINDS: Final[dict[str, Kind]] = {}


def kind(
    *memories: str, reaches: str, in_huge: str = "", **options: str
) -> Callable[[Callable[[Setup, Process], Body]], None]:
    """Declare a kind by what prepares it and returns what it does."""

    def declare(body: Callable[[Setup, Process], Body]) -> None:
        name = body.__name__.replace("_", "-")
        KINDS[name] = Kind(name, (body.__doc__ or "").rstrip("."), memories, body, reaches, in_huge or reaches, options)

    return declare


def second(s: Setup) -> int:
    """The address of the page that is in use."""
    return s.A + s.page


def elsewhere(s: Setup) -> int:
    """Where nothing is mapped."""
    return s.A + 4 * s.huge * s.page


# --- faults ----------------------------------------------------------------------------------------------


@kind(ANON, HUGE, ANON_FILE, ANON_SHMEM, reaches="do_anonymous_page", in_huge="create_huge_pmd")
def read_fault(s: Setup, p: Process) -> Body:
    """a read of a page that is not there."""
    return lambda: p.read(s.A)


@kind(ANON, SHMEM, FILE, HUGE, ANON_FILE, reaches="handle_mm_fault")
def write_fault(s: Setup, p: Process) -> Body:
    """a write to a page that is not there, and to one that is."""
    return lambda: (p.write(s.A, 2), p.write(second(s), 3))


@kind(FILE, ANON_FILE, SHMEM_FILE, reaches="handle_pte_fault")
def file_fault(s: Setup, p: Process) -> Body:
    """a read of a file's page."""
    p.madvise(second(s), 1, MADV_DONTNEED)
    return lambda: p.read(second(s))


@kind(SHMEM, ANON_SHMEM, SHMEM_FILE, reaches="handle_pte_fault")
def shmem_fault(s: Setup, p: Process) -> Body:
    """a read of a page of shared memory."""
    page = s.A if s.model.kernel("vma").vma_lookup(p.mm, s.A).vm_file else second(s)
    p.madvise(page, 1, MADV_DONTNEED)
    return lambda: p.read(page)


@kind(HUGE, reaches="create_huge_pmd", transparent_hugepage="madvise")
def huge_fault(s: Setup, p: Process) -> Body:
    """a fault that maps a huge page."""
    p.madvise(s.A, s.huge, MADV_DONTNEED)
    return lambda: p.write(s.A, 2)


# --- what unmaps, or changes, a range ----------------------------------------------------------------------


@kind(*PAGES, HUGE, reaches="unmap_page_range")
def dontneed(s: Setup, p: Process) -> Body:
    """MADV_DONTNEED."""
    return lambda: p.madvise(s.A, s.huge, MADV_DONTNEED)


@kind(*PAGES, HUGE, reaches="free_pgtables")
def munmap(s: Setup, p: Process) -> Body:
    """munmap."""
    return lambda: p.munmap(s.A, s.huge)


@kind(*PAGES, HUGE, reaches="move_page_tables")
def mremap(s: Setup, p: Process) -> Body:
    """mremap of a page to elsewhere."""
    return lambda: p.mremap(second(s), 1, 1, elsewhere(s) + s.page)


@kind(*PAGES, HUGE, reaches="change_protection")
def mprotect(s: Setup, p: Process) -> Body:
    """mprotect."""
    return lambda: p.mprotect(s.A, s.huge, PROT_READ)


@kind(*PAGES, HUGE, reaches="copy_page_range")
def fork(s: Setup, p: Process) -> Body:
    """a fork."""
    return lambda: p.fork().exit()


@kind(SHMEM, FILE, ANON_FILE, reaches="truncate_inode_pages_range")
def truncate(s: Setup, p: Process) -> Body:
    """truncation of the file, or a hole in shared memory."""
    f = s.model.kernel("vma").vma_lookup(p.mm, second(s)).vm_file.f_mapping
    if f.shmem:
        return lambda: p.madvise(s.A, s.huge, MADV_REMOVE)
    return lambda: s.model.kernel("truncate").truncate_setsize(f, 0)


# --- huge pages --------------------------------------------------------------------------------------------


@kind(ANON, HUGE, reaches="thp_collapse_alloc", in_huge="madvise_collapse")
def collapse_anon(s: Setup, p: Process) -> Body:
    """MADV_COLLAPSE of anonymous memory."""
    return lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE)


@kind(SHMEM, reaches="thp_collapse_alloc")
def collapse_shmem(s: Setup, p: Process) -> Body:
    """MADV_COLLAPSE of shared memory."""
    return lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE)


@kind(FILE, reaches="thp_collapse_alloc")
def collapse_file(s: Setup, p: Process) -> Body:
    """MADV_COLLAPSE of a file."""
    return lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE)


@kind(
    ANON, SHMEM, FILE, HUGE, reaches="thp_collapse_alloc", in_huge="khugepaged_scan_step",
    transparent_hugepage="madvise", shmem_enabled="advise",
)  # fmt: skip
def khugepaged(s: Setup, p: Process) -> Body:
    """a pass of khugepaged."""
    p.madvise(s.A, s.huge, MADV_HUGEPAGE)
    return lambda: s.model.kernel("khugepaged").khugepaged_scan_mm(p.mm)


# --- pages that are used, moved, swapped -------------------------------------------------------------------


@kind(*PAGES, HUGE, reaches="gup_fast_page")
def gup_fast(s: Setup, p: Process) -> Body:
    """get_user_pages_fast."""
    return lambda: p.gup_fast(second(s))


@kind(*PAGES, HUGE, reaches="move_to_new_folio")
def migrate(s: Setup, p: Process) -> Body:
    """migration of a page."""
    return lambda: p.move_pages(second(s))


@kind(ANON, SHMEM, ANON_FILE, reaches="swapin_sync", swap="y")
def swap_in(s: Setup, p: Process) -> Body:
    """a read of a page that is in swap."""
    page = in_use(s, p)
    p.madvise(page, 1, MADV_PAGEOUT)
    return lambda: p.read(page)


@kind(ANON, SHMEM, HUGE, ANON_FILE, reaches="shrink_folio", swap="y")
def swap_out(s: Setup, p: Process) -> Body:
    """MADV_PAGEOUT."""
    in_use(s, p)
    return lambda: p.madvise(s.A, s.huge, MADV_PAGEOUT)


def in_use(s: Setup, p: Process) -> int:
    """The address of an anonymous page that is in use, or of one of shared memory if all is."""
    if s.model.kernel("vma").vma_lookup(p.mm, s.A).vm_end == second(s):
        p.write(s.A, 1)
        return s.A
    return second(s)


# --- userfaultfd -------------------------------------------------------------------------------------------


def userfaultfd(s: Setup, p: Process, mode: int) -> Uffd:
    """The userfaultfd of the mapping at A, registered for `mode` too."""
    vma = s.model.kernel("vma").vma_lookup(p.mm, s.A)
    pages = (vma.vm_end - s.A) // s.page
    context = vma.vm_userfaultfd_ctx
    if not context:
        return p.uffd(s.A, pages, mode)
    context = s.model.kernel("mm_types").userfaultfd_ctx(context)
    s.model.kernel("fs_userfaultfd").uffdio_register(context, s.A, pages * s.page, UFFD_MISSING | UFFD_WP)
    return Uffd(p, context)


def page_elsewhere(s: Setup, p: Process) -> int:
    """The address of a page that holds 7, another one each time."""
    address = elsewhere(s) + 4 * s.huge * s.page
    while s.model.kernel("vma").vma_lookup(p.mm, address):
        address += 2 * s.page
    p.mmap(address, 1)
    p.write(address, 7)
    return address


@kind(ANON, SHMEM, HUGE, ANON_FILE, ANON_SHMEM, reaches="mfill_atomic")
def uffd_copy(s: Setup, p: Process) -> Body:
    """UFFDIO_COPY to a page that is not there."""
    uffd, source = userfaultfd(s, p, UFFD_MISSING), page_elsewhere(s, p)
    return lambda: uffd.copy(s.A, source)


@kind(ANON, HUGE, ANON_FILE, ANON_SHMEM, reaches="move_pages")
def uffd_move(s: Setup, p: Process) -> Body:
    """UFFDIO_MOVE to where no page is."""
    uffd, source = userfaultfd(s, p, UFFD_MISSING), page_elsewhere(s, p)
    return lambda: uffd.move(s.A, source)


@kind(ANON, SHMEM, HUGE, ANON_FILE, reaches="mwriteprotect_range")
def uffd_writeprotect(s: Setup, p: Process) -> Body:
    """UFFDIO_WRITEPROTECT."""
    if p.pagemap(second(s), 1):
        p.write(s.A, 1)
    uffd = userfaultfd(s, p, UFFD_WP)
    return lambda: uffd.writeprotect(s.A, s.huge, True)


# --- readers -----------------------------------------------------------------------------------------------


@kind(*PAGES, HUGE, reaches="smap_gather_stats")
def smaps(s: Setup, p: Process) -> Body:
    """smaps."""
    return lambda: len(p.smaps())


@kind(*PAGES, HUGE, reaches="pagemap_read")
def pagemap(s: Setup, p: Process) -> Body:
    """pagemap."""
    return lambda: p.pagemap(s.A, s.huge)


@kind(*PAGES, HUGE, reaches="do_mincore")
def mincore(s: Setup, p: Process) -> Body:
    """mincore."""
    return lambda: p.mincore(s.A, s.huge)


@kind(*PAGES, HUGE, reaches="perf_get_pgtable_size")
def perf(s: Setup, p: Process) -> Body:
    """the walk by which perf tells a page's size."""
    return lambda: p.perf_page_size(second(s))


# --- another process, a copy of what the others have prepared ------------------------------------------------


@kind(*PAGES, HUGE, reaches="exit_mmap")
def exit(s: Setup, p: Process) -> Body:
    """the exit of another process that maps the same."""
    child = p.fork()
    s.processes.append(child)
    return child.exit


# --- pairs -------------------------------------------------------------------------------------------------


def memory(s: Setup, of: str) -> Process:
    """A process with a table's range of such memory, of which the last page is in use and holds 1."""
    p = s.process()
    files = {SHMEM: s.shmem, FILE: s.regular}
    first, _, last = of.partition("+")
    p.mmap(s.A, s.huge, files[first](s.huge) if first in files else None)
    if last:
        p.mmap(second(s), 1, files[last](1))
    if of == HUGE:
        p.madvise(s.A, s.huge, MADV_HUGEPAGE)
    if FILE in of:
        p.read(second(s))
    else:
        p.write(second(s), 1)
    return p


def contents(s: Setup, p: Process) -> tuple[int, ...]:
    """What pages read that may be mapped."""
    places = (s.A, second(s), elsewhere(s) + s.page)
    return tuple(p.read(address) for address in places)


def outcomes(s: Setup, p: Process, bodies: list[Body]) -> list[tuple[int, ...]]:
    """What the pages read after nothing was done, and after the bodies one after the other, in each order."""
    machine, found = s.model.machine, []
    machine.quiescent()
    for order in ((), *permutations(bodies)):
        before = list(machine.mem)
        for body in order:
            body()
            machine.quiescent()
        found.append(contents(s, p))
        machine.rewind(before)
    return found


def shared(*kinds: Kind) -> str:
    """The memory in which all can be done; empty if there is none: one takes the whole range of a table then."""
    return next((m for m in MEMORIES if all(m in k.memories for k in kinds)), "")


def _meet(*kinds: Kind) -> None:
    def set_up(s: Setup) -> None:
        where = shared(*kinds)
        p = memory(s, where)
        bodies = [k.body(s, p) for k in kinds]
        untouched, *allowed = outcomes(s, p, bodies)
        waits = s.model.kernel("fault").WOULD_WAIT
        for i, k in enumerate(kinds):
            s.thread(k.name + (AGAIN if k in kinds[:i] else ""), bodies[i])
            s.sometimes(k.in_huge if where == HUGE else k.reaches)

        def as_one_by_one(results: dict[str, Any]) -> str | None:
            stopped = any(waits in (r if isinstance(r, tuple) else (r,)) for r in results.values())
            for i, value in enumerate(contents(s, p)):
                legal = {values[i] for values in allowed} | ({untouched[i]} if stopped else set())
                if value not in legal:
                    return f"page {i} reads {value}, but {' or '.join(map(str, legal))} one after the other"
            return None

        s.finally_(as_one_by_one)

    set_up.__name__ = "-x-".join(k.name for k in kinds)
    *first, last = [k.what for k in kinds]
    told = f"{', '.join(first)}, and {last} of the same table."
    set_up.__doc__ = told[0].upper() + told[1:]
    scenario(options=dict(option for k in kinds for option in k.options.items()), pool=6, slots=5)(set_up)


for _a, _b in combinations_with_replacement(KINDS.values(), 2):
    if shared(_a, _b):
        _meet(_a, _b)

# Three at a time: two that race for the table, and one that uses, moves or looks at what they leave.
for _names in (
    "write-fault dontneed gup-fast",
    "write-fault dontneed collapse-anon",
    "write-fault dontneed khugepaged",
    "write-fault dontneed perf",
    "write-fault dontneed uffd-move",
    "write-fault dontneed uffd-copy",
    "write-fault munmap gup-fast",
    "write-fault munmap khugepaged",
    "write-fault munmap pagemap",
    "write-fault munmap exit",
    "write-fault mprotect fork",
    "write-fault mremap migrate",
    "write-fault mremap dontneed",
    "write-fault collapse-shmem exit",
    "write-fault collapse-shmem gup-fast",
    "file-fault truncate dontneed",
    "huge-fault dontneed gup-fast",
    "huge-fault munmap smaps",
    "huge-fault mremap dontneed",
    "dontneed collapse-anon gup-fast",
    "dontneed collapse-shmem smaps",
    "dontneed collapse-shmem mremap",
    "dontneed migrate gup-fast",
    "dontneed khugepaged mincore",
    "dontneed swap-in swap-out",
    "dontneed uffd-copy uffd-writeprotect",
    "munmap swap-in migrate",
    "uffd-move swap-out dontneed",
    "uffd-writeprotect swap-out write-fault",
    "uffd-writeprotect fork write-fault",
    "exit collapse-shmem khugepaged",
):
    _meet(*(KINDS[_name] for _name in _names.split()))
