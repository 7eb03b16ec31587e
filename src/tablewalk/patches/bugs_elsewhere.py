# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs in what the model does not have: each with the feature that it lacks."""

from __future__ import annotations

from typing import Final

from . import Claim, without_code

HUGETLB: Final = "hugetlb, but for tables that are shared (huge_pmd_share.py)"

# (id, commit, title, first release with the fix, what is not modelled)
BUGS: Final = (
    ("K62", "", "fs/proc: smaps reads migration entries of hugetlb under their lock (CVE-2025-39754)", "6.17", HUGETLB),
)  # fmt: skip

for _id, _commit, _title, _since, _lacks in BUGS:
    without_code(
        __name__,
        _id,
        commit=_commit,
        title=_title,
        series="",
        since=_since,
        files=(),
        claim=Claim("not modelled", note=_lacks),
    )

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
