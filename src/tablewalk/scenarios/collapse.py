# SPDX-License-Identifier: GPL-2.0-only
"""MADV_COLLAPSE of shared memory, which retracts page tables, and those who use them meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_HUGEPAGE,
    Process,
    Setup,
    scenario,
)


@scenario()
def shmem_collapse_fault_dontneed(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory, a write fault, and MADV_DONTNEED with PT_RECLAIM: nothing written is lost."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("thp_collapse_alloc", "retracted")


@scenario()
def shmem_collapse_fault(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory and a write fault."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("thp_collapse_alloc", "retracted")


@scenario()
def shmem_collapse_dontneed(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory and MADV_DONTNEED of the same range."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")
    s.sometimes("retracted", "reclaimed_fast")


@scenario()
def shmem_collapse_fault_elsewhere(s: Setup) -> None:
    """MADV_COLLAPSE in one process retracts the table of another, whose write fault comes in between."""
    p, q = s.sharing(2)
    q.read(s.A + s.page)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: q.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("retracted")


@scenario(slots=5)
def shmem_collapse_munmap(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table of a process that unmaps it at the same time."""
    p, q = s.sharing(2)
    q.read(s.A)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("munmap", lambda: q.munmap(s.A, s.huge))
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")
    s.sometimes("retracted", "free_pgtables")


@scenario(slots=5)
def shmem_collapse_exit(s: Setup) -> None:
    """MADV_COLLAPSE retracts the table of a process that exits at the same time."""
    p, q = s.sharing(2)
    q.read(s.A)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("exit", q.exit)
    s.sometimes("retracted", "exit_mmap")


@scenario(slots=5, options={"transparent_hugepage": "always", "shmem_enabled": "advise"})
def shmem_khugepaged_exit(s: Setup) -> None:
    """khugepaged retracts the table of a process that exits at the same time."""
    p, q = s.sharing(2)
    q.read(s.A)
    p.madvise(s.A, s.huge, MADV_HUGEPAGE)
    khugepaged = s.model.kernel("khugepaged")
    s.thread("khugepaged", lambda: khugepaged.khugepaged_scan_mm(p.mm))
    s.thread("exit", q.exit)
    s.sometimes("retracted")


@scenario()
def shmem_collapse_gup_fast(s: Setup) -> None:
    """MADV_COLLAPSE while get_user_pages_fast pins a page of it."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("gup", lambda: p.gup_fast(s.A))
    s.finally_(lambda results: None if results["gup"] == 1 else f"{results['gup']} pages were pinned")
    s.sometimes("retracted", "gup_fast_pmd_leaf", "gup_fast_pte")


def _anonymous(s: Setup) -> Process:
    """A process with one huge page's worth of anonymous memory; all pages hold 1."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.fill(s.A, s.huge, 1)
    return p


def _collapse_and_write(s: Setup) -> None:
    p = _anonymous(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("thp_collapse_alloc")


@scenario()
def anon_collapse_fault(s: Setup) -> None:
    """MADV_COLLAPSE of anonymous memory and a write."""
    _collapse_and_write(s)


@scenario(arch="x86-pae/1", options={"highpte": "y"})
def anon_collapse_fault_highpte(s: Setup) -> None:
    """The same with tables in high memory, each of which is mapped while it is used."""
    _collapse_and_write(s)


@scenario()
def anon_collapse_dontneed(s: Setup) -> None:
    """MADV_COLLAPSE of anonymous memory and MADV_DONTNEED of it, which takes the table away."""
    p = _anonymous(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}, not 0")
    s.sometimes("collapse_copy", "reclaimed_fast", "zap_huge_pmd")


@scenario()
def anon_collapse_gup_fast(s: Setup) -> None:
    """MADV_COLLAPSE of anonymous memory while get_user_pages_fast pins a page of it."""
    p = _anonymous(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("gup", lambda: p.gup_fast(s.A))
    s.finally_(lambda results: None if results["gup"] == 1 else f"{results['gup']} pages were pinned")
    s.sometimes("collapse_copy", "gup_fast_pmd_leaf", "gup_fast_pte")


@scenario(arch="arm64/1")
def shmem_collapse_gup_fast_broadcast(s: Setup) -> None:
    """As shmem-collapse-gup-fast, where a flush is a broadcast that waits for no interrupt."""
    (p,) = s.sharing(1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("gup", lambda: p.gup_fast(s.A))
    s.finally_(lambda results: None if results["gup"] == 1 else f"{results['gup']} pages were pinned")
    s.sometimes("retracted", "gup_fast_pmd_leaf", "gup_fast_pte")


@scenario(arch="arm64/1")
def anon_collapse_gup_write_broadcast(s: Setup) -> None:
    """MADV_COLLAPSE of anonymous memory while a page of it is pinned and written: the write is not lost."""
    p = _anonymous(s)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("gup", lambda: p.gup_write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("collapse_copy", "gup_fast_pmd_leaf", "gup_fast_pte")


@scenario()
def anon_collapse_remap_file(s: Setup) -> None:
    """MADV_COLLAPSE lets mmap_lock go, and finds a file mapped in the place of its anonymous memory."""
    p = _anonymous(s)
    f = s.shmem(s.huge)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("remap", lambda: (p.mmap(s.A, s.huge, f), p.read(s.A)))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}, not 0")
    s.sometimes("collapse_copy", "collapse_file")


@scenario(options={"transparent_hugepage": "always"})
def huge_fault_twice(s: Setup) -> None:
    """Two write faults of memory that can be huge: one huge page is mapped."""
    p = s.process()
    p.mmap(s.A, s.huge)
    s.thread("first", lambda: p.write(s.A, 1))
    s.thread("second", lambda: p.write(s.A + s.page, 2))
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")
    s.finally_(lambda results: None if p.read(s.A + s.page) == 2 else f"the next reads {p.read(s.A + s.page)}, not 2")
    s.sometimes("thp_fault_alloc")


@scenario(options={"transparent_hugepage": "always"})
def huge_split_and_fault(s: Setup) -> None:
    """MADV_DONTNEED of a part splits a huge page while another part is written."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("dontneed", lambda: p.madvise(s.A, 1, MADV_DONTNEED))
    s.thread("write", lambda: p.write(s.A + s.page, 2))
    s.finally_(lambda results: None if p.read(s.A + s.page) == 2 else f"the page reads {p.read(s.A + s.page)}, not 2")
    s.sometimes("thp_split_pmd")


@scenario(options={"transparent_hugepage": "always"})
def huge_split_and_parents_fault(s: Setup) -> None:
    """A child splits the huge page that it shares with its parent, which writes to it: that the child does not see."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.fill(s.A, s.huge, 1)
    child = p.fork()
    s.processes.append(child)
    there = s.A + s.page
    s.thread("dontneed", lambda: child.madvise(s.A, 1, MADV_DONTNEED))
    s.thread("write", lambda: p.write(there, 2))

    def each_has_its_own(results: dict[str, int]) -> str | None:
        found = p.read(there), child.read(there)
        return None if found == (2, 1) else f"the page reads {found} in parent and child, not (2, 1)"

    s.finally_(each_has_its_own)
    s.sometimes("split_anon_pmd", "wp_page_copy")


@scenario(options={"transparent_hugepage": "always"})
def huge_free_and_dontneed(s: Setup) -> None:
    """MADV_FREE changes the entry of a huge page that MADV_DONTNEED unmaps."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("free", lambda: p.madvise(s.A, s.huge, MADV_FREE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}, not 0")
    s.sometimes("madvise_free_huge_pmd", "zap_huge_pmd")
