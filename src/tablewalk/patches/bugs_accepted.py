# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of which nothing can be undone: each with the reason."""

from __future__ import annotations

from . import Claim, without_code

without_code(
    __name__,
    "K55",
    commit="1d65b771bc08",
    title="syzbot f96e045d95fe: a fault in __pte_offset_map_lock(); this is the patch that it was traced to",
    series="",
    since="6.6",
    files=(),
    claim=Claim("cleanup", note="what mended it is not known: there is nothing to undo"),
)
without_code(
    __name__,
    "K61",
    commit="6375e95f381e",
    title="PT_RECLAIM flushes after pml is dropped: two sizes of translation for one address, for a moment",
    series="",
    since="6.14",
    files=(),
    claim=Claim("cleanup", note="accepted: all that can be reached is held by the gather until its flush"),
)
