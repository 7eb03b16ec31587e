# SPDX-License-Identifier: GPL-2.0-only
"""MADV_DONTNEED that takes empty tables away (PT_RECLAIM), and those who use the tables meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Process, Setup, scenario


def _written(s: Setup, value: int) -> Process:
    p = s.process()
    p.mmap(s.A, 2 * s.huge)
    p.write(s.A, value)
    return p


@scenario()
def fault_and_dontneed(s: Setup) -> None:
    """A write fault while MADV_DONTNEED empties the table and takes it away: the write is never lost."""
    p = _written(s, 1)
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_fast")


@scenario()
def faults_and_dontneed_slow(s: Setup) -> None:
    """The pmd lock is taken by a fault of the next table: MADV_DONTNEED proves by a rescan that its table is empty."""
    p = _written(s, 1)
    s.thread("faults", lambda: (p.write(s.A + s.huge * s.page, 3), p.write(s.A, 2)))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("reclaimed_slow")
