# SPDX-License-Identifier: GPL-2.0-only
"""How the multi-generational LRU looks for pages in use (walk_pte_range in mm/vmscan.c; 7.2).

Which generation a page goes to is not modelled: only which entries are young.
"""

from __future__ import annotations

from ..machine import spin_trylock, store
from .mm_types import mm_struct
from .pgtable import ACCESSED, pmd_p, pmdp_get_lockless, pte_present, ptep_get
from .pgtable_generic import pte_offset_map_rw_nolock, pte_unmap, pte_unmap_unlock


def walk_pte_range(mm: mm_struct, pmd: pmd_p, addr: int, nr: int) -> int:
    """Make `nr` entries of one table old; how many were young, none if somebody else is at the table.

    mmap_lock is held for reading.
    """
    pte, pmdval, ptl = pte_offset_map_rw_nolock(mm, pmd, addr)
    if not pte:
        return 0
    if not spin_trylock(ptl):
        pte_unmap(pte)
        return 0
    young = 0
    if pmdp_get_lockless(pmd) == pmdval:
        for i in range(nr):
            entry = ptep_get(pte + i)
            if pte_present(entry) and entry & ACCESSED:
                store(pte + i, entry & ~ACCESSED)
                young += 1
    pte_unmap_unlock(pte, ptl)
    return young
