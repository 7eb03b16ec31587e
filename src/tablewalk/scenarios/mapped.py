# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages of files that are mapped by page tables: taking those tables away, and who uses them meanwhile."""

from __future__ import annotations

from typing import Any

from tablewalk.explore.scenario import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_GUARD_INSTALL,
    MADV_REMOVE,
    UFFD_MISSING,
    Process,
    Setup,
    scenario,
)


def file_huge(s: Setup) -> tuple[Process, Process]:
    """(process that maps a file of one huge page by its table, another that has it mapped and nothing touched)."""
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    q.mmap(s.A, s.huge, f)
    q.fill(s.A, s.huge, 1)
    map_by_table(s, p, q, f)
    return p, q


def map_by_table(s: Setup, p: Process, q: Process, f: Any) -> None:
    """Make the pages of a file that `q` has mapped a huge page, which `p` maps by its table."""
    q.madvise(s.A, s.huge, MADV_COLLAPSE)
    q.madvise(s.A, s.huge, MADV_DONTNEED)
    for i in range(s.huge):  # one page does not hold a huge page; in the end the mappings are merged to one
        p.mmap(s.A + i * s.page, 1, f, i)
        p.read(s.A + i * s.page)


@scenario()
def mapped_huge_collapse_punch(s: Setup) -> None:
    """MADV_COLLAPSE removes the table that maps a huge page, while another process punches a hole."""
    p, q = file_huge(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("punch", lambda: q.madvise(s.A, s.huge, MADV_REMOVE))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}, not 0")
    s.sometimes("try_collapse_pte_mapped_thp", "truncate_inode_pages_range")


@scenario()
def mapped_huge_collapse_fault(s: Setup) -> None:
    """MADV_COLLAPSE removes the table that maps a huge page, while a write fault uses it."""
    p, _ = file_huge(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("try_collapse_pte_mapped_thp", "do_shared_fault")


@scenario()
def mapped_huge_collapse_unmap(s: Setup) -> None:
    """MADV_COLLAPSE removes the table that maps a huge page, which another task has locked and unmaps."""
    p, _ = file_huge(s)
    f = s.model.kernel("filemap").filemap_get_folio(s.model.kernel("vma").vma_lookup(p.mm, s.A).vm_file.f_mapping, 0)
    machine, vmscan = s.model.machine, s.model.kernel("vmscan")

    def unmap() -> None:
        machine.mutex_lock(f.lock)
        vmscan.try_to_unmap(f)
        machine.mutex_unlock(f.lock)
        s.model.kernel("page_alloc").folio_put(f)

    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("unmap", unmap)
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")
    s.sometimes("try_collapse_pte_mapped_thp", "try_to_unmap")


def _copy(s: Setup, p: Process, to: int) -> None:
    """A thread that fills the page at address `to` of `p` by UFFDIO_COPY; if that succeeds the page stays."""
    source = s.A + 2 * s.huge * s.page
    p.mmap(source, 1)
    p.write(source, 7)
    uffd = p.uffd(s.A, s.huge, UFFD_MISSING)
    s.thread("copy", lambda: uffd.copy(to, source))

    def copied_is_there(results: dict[str, int]) -> str | None:
        found = p.read(to)
        return None if results["copy"] or found == 7 else f"UFFDIO_COPY succeeded, and the page reads {found}"

    s.finally_(copied_is_there)


@scenario()
def mapped_huge_collapse_uffd_copy(s: Setup) -> None:
    """MADV_COLLAPSE removes the table of a private mapping while UFFDIO_COPY fills an empty entry of it."""
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    q.mmap(s.A, s.huge, f)
    q.fill(s.A, s.huge, 1)
    q.madvise(s.A, s.huge, MADV_COLLAPSE)
    p.mmap(s.A, 1, f, shared=False)
    p.read(s.A)
    p.mmap(s.A + s.page, s.huge - 1, f, 1, shared=False)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    _copy(s, p, s.A + s.page)
    s.sometimes("try_collapse_pte_mapped_thp", "mfill_atomic_install_pte")


def _private(s: Setup) -> tuple[Process, Process]:
    """(process that maps shared memory, another with a private mapping of it and a table for it)."""
    f = s.shmem(s.huge)
    p, q = s.process(), s.process()
    p.mmap(s.A, s.huge, f)
    q.mmap(s.A, s.huge, f, shared=False)
    p.fill(s.A, s.huge, 1)
    q.read(s.A + s.page)
    return p, q


@scenario()
def shmem_collapse_cow(s: Setup) -> None:
    """MADV_COLLAPSE would retract the table of a private mapping that is written for the first time."""
    p, q = _private(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: q.write(s.A, 2))
    s.finally_(lambda results: None if q.read(s.A) == 2 else f"the page reads {q.read(s.A)}, not 2")
    s.sometimes("retracted", "do_cow_fault")


@scenario()
def shmem_collapse_uffd_copy(s: Setup) -> None:
    """MADV_COLLAPSE would retract the table of a private mapping in which UFFDIO_COPY puts a first page."""
    p, q = _private(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    _copy(s, q, s.A)
    s.sometimes("retracted", "mfill_atomic_install_pte")


@scenario()
def shmem_collapse_guard(s: Setup) -> None:
    """MADV_COLLAPSE would retract the table in which a guard marker is being installed."""
    p, q = s.sharing(2)
    q.read(s.A + s.page)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("guard", lambda: q.madvise(s.A, 1, MADV_GUARD_INSTALL))
    s.finally_(lambda results: None if q.read(s.A) == -1 else "the guard page can be read")
    s.sometimes("retracted", "guard_install_ptes")


@scenario(options={"split_ptlocks": "n"})
def shmem_collapse_one_lock(s: Setup) -> None:
    """MADV_COLLAPSE retracts tables where all have one lock, that of the mm."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("retracted")


@scenario(pool=4)
def shmem_collapse_mremap(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table that another process's mremap moves."""
    p, q = s.sharing(2)
    q.read(s.A)
    there = s.A + 4 * s.huge * s.page
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("mremap", lambda: q.mremap(s.A, s.huge, s.huge, there))
    s.finally_(lambda results: None if q.read(there) == 1 else f"the page reads {q.read(there)}, not 1")
    s.sometimes("retracted", "move_normal_pmd")


@scenario(options={"transparent_hugepage": "always"})
def file_collapse_write(s: Setup) -> None:
    """khugepaged collapses a regular file that is written: what was written is known to be dirty."""
    f = s.regular(s.huge)
    p = s.process()
    p.mmap(s.A, s.huge, f)
    for i in range(s.huge):
        p.read(s.A + i * s.page)
    khugepaged = s.model.kernel("khugepaged")
    s.thread("khugepaged", lambda: khugepaged.khugepaged_scan_mm(p.mm))
    s.thread("write", lambda: p.write(s.A, 2))
    s.sometimes("thp_collapse_alloc")

    def written_stays(results: dict[str, int]) -> str | None:
        if p.read(s.A) != 2:
            return f"the page reads {p.read(s.A)}, not 2"
        p.munmap(s.A, s.huge)
        page_alloc = s.model.kernel("page_alloc")
        cached = s.model.machine.xa_load(f.f_mapping.i_pages, 0)
        dirty = s.model.kernel("mm_types").folio(cached).flags & page_alloc.PG_DIRTY
        return None if dirty else "what was written is not written back: the page is clean"

    s.finally_(written_stays)
