# SPDX-License-Identifier: GPL-2.0-only
"""get_user_pages_fast while munmap frees the tables that it walks, by how they are flushed and freed.

It has interrupts off.  An interrupt that flushes waits for that, and so does a grace period of RCU; a broadcast does
not.
"""

from __future__ import annotations

from tablewalk.explore.scenario import Setup, scenario


def _gup_and_munmap(s: Setup) -> None:
    p = s.written()
    s.thread("gup", lambda: p.gup_fast(s.A))
    s.thread("munmap", lambda: p.munmap(s.A, 2 * s.huge))
    s.sometimes_ends("a page is pinned", lambda results: results["gup"] == 1)


@scenario()
def gup_fast_and_munmap(s: Setup) -> None:
    """Interrupts and RCU (x86)."""
    _gup_and_munmap(s)


@scenario(options={"hypervisor": "kvm"})
def gup_fast_and_munmap_in_a_guest(s: Setup) -> None:
    """The hypervisor flushes, and RCU (x86)."""
    _gup_and_munmap(s)


@scenario(arch="arm64/1")
def gup_fast_and_munmap_broadcast(s: Setup) -> None:
    """Broadcasts and RCU (arm64)."""
    _gup_and_munmap(s)


@scenario(arch="sh/1")
def gup_fast_and_munmap_interrupt(s: Setup) -> None:
    """Interrupts alone (sh)."""
    _gup_and_munmap(s)


@scenario(arch="ia64/1")
def gup_and_munmap(s: Setup) -> None:
    """Broadcasts alone, where nobody walks tables without locks (ia64)."""
    _gup_and_munmap(s)
