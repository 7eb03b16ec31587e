# SPDX-License-Identifier: GPL-2.0-only
"""MADV_DONTNEED whose batch of pages is full after each: it lets the table's lock go in the middle."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Process, Setup, override, scenario

from ..kernel.mmu_gather import mmu_gather
from ..machine import vec_push


@override("mmu_gather.tlb_remove_page")
def batch_of_one(tlb: mmu_gather, page: int, delay_rmap: bool = False) -> bool:
    """Each page fills the batch, of about 10,000 otherwise."""
    if delay_rmap:
        tlb.delayed_rmap = 1
    vec_push(tlb.pages, page << 1 | delay_rmap)
    return True


def _full(s: Setup) -> Process:
    p = s.process()
    p.mmap(s.A, s.huge)
    p.fill(s.A, s.huge, 1)
    return p


@scenario()
def fault_and_dontneed_in_pieces(s: Setup) -> None:
    """A write fault while MADV_DONTNEED empties the table page by page."""
    p = _full(s)
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_slow")


@scenario()
def dontneed_twice_in_pieces(s: Setup) -> None:
    """Two MADV_DONTNEED of one range, page by page: the table is taken away once."""
    p = _full(s)
    s.thread("first", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("second", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_slow")
