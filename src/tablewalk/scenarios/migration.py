# SPDX-License-Identifier: GPL-2.0-only
"""Pages that move elsewhere in memory (migration), and two who use them meanwhile."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Setup, scenario


@scenario()
def migrate_fault_dontneed(s: Setup) -> None:
    """Who waits for a page that moves finds its table gone: MADV_DONTNEED has taken it away."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("migrate", lambda: p.move_pages(s.A))
    s.thread("write-fault", lambda: p.write(s.A, 2))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.finally_(lambda results: None if p.read(s.A) in (0, 2) else f"the page reads {p.read(s.A)}")
    s.sometimes_ends("the page moves", lambda results: results["migrate"] == (0,))
    s.sometimes("softleaf_entry_wait_on_locked", "reclaimed_fast")
