# SPDX-License-Identifier: GPL-2.0-only
"""MADV_COLLAPSE of shared memory, which retracts page tables, and those who use them meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_COLLAPSE, MADV_DONTNEED, Process, Setup, scenario


def _shared(s: Setup, processes: int) -> list[Process]:
    """Processes that map a file of one huge page's size; all pages hold 1, and the first process has them mapped."""
    f = s.shmem(s.huge)
    found = []
    for _ in range(processes):
        p = s.process()
        p.mmap(s.A, s.huge, f)
        found.append(p)
    for i in range(s.huge):
        found[0].write(s.A + i * s.page, 1)
    return found


@scenario()
def shmem_collapse_fault_dontneed(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory, a write fault, and MADV_DONTNEED with PT_RECLAIM: nothing written is lost."""
    (p,) = _shared(s, 1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("thp_collapse_alloc", "retracted")


@scenario()
def shmem_collapse_fault(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory and a write fault."""
    (p,) = _shared(s, 1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("thp_collapse_alloc", "retracted")


@scenario()
def shmem_collapse_dontneed(s: Setup) -> None:
    """MADV_COLLAPSE of shared memory and MADV_DONTNEED of the same range."""
    (p,) = _shared(s, 1)
    s.thread("collapse", lambda: p.madvise(s.A, s.huge, MADV_COLLAPSE))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 1 else f"the page reads {p.read(s.A)}, not 1")
