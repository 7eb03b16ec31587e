# SPDX-License-Identifier: GPL-2.0-only
"""synchronously scan and reclaim empty user PTE pages (6.14)."""

from __future__ import annotations

from typing import Final

from . import Claim, patch

SERIES: Final = "synchronously scan and reclaim empty user PTE pages"


@patch(
    "D09",
    commit="6375e95f381e",
    title="mm: pgtable: reclaim empty PTE page in madvise(MADV_DONTNEED)",
    series=SERIES,
    since="6.14",
    site="memory_zap.pte_table_reclaim_possible",
    files=("mm/memory.c", "mm/pt_reclaim.c", "mm/madvise.c", "include/linux/mm.h"),
    mutant=True,  # releases have it by the option PT_RECLAIM
    claim=Claim("count", measure="tables-left-by-dontneed", before=4, after=0),
)
def never_reclaimed(addr: int, end: int, details: int) -> bool:
    """Tables stay until the mapping goes."""
    return False
