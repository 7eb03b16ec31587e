# SPDX-License-Identifier: GPL-2.0-only
"""Pages that move elsewhere in memory (migration), and those who use them meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Process, Setup, scenario


def _moved(s: Setup, pages: int = 1) -> Process:
    """A process whose page at A holds 1, and a thread that moves it."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("migrate", lambda: p.move_pages(s.A))
    s.sometimes_ends("the page moves", lambda results: results["migrate"] == (0,))
    return p


@scenario()
def migrate_and_dontneed(s: Setup) -> None:
    """A page moves while MADV_DONTNEED drops it, or its migration entry, with the table."""
    p = _moved(s)
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) == 0 else f"the page reads {p.read(s.A)}, not 0")
    s.sometimes("reclaimed_fast")


@scenario()
def migrate_and_fault(s: Setup) -> None:
    """A page moves while it is written: the write waits, and is not lost."""
    p = _moved(s)
    s.thread("fault", lambda: p.write(s.A, 2))
    s.finally_(lambda results: None if p.read(s.A) == 2 else f"the page reads {p.read(s.A)}, not 2")
    s.sometimes("softleaf_entry_wait_on_locked")


@scenario()
def migrate_fault_dontneed(s: Setup) -> None:
    """Who waits for a page that moves finds its table gone: MADV_DONTNEED has taken it away."""
    p = _moved(s)
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes("softleaf_entry_wait_on_locked", "reclaimed_fast")
