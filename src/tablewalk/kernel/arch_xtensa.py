# SPDX-License-Identifier: GPL-2.0-only
"""xtensa's own user of page tables (arch/xtensa/mm/tlb.c; 7.2)."""

from __future__ import annotations

from ..machine import load
from .mm_types import mm_struct
from .pgtable import mm_find_pmd, ptep_get
from .pgtable_generic import pte_offset_map, pte_unmap


def get_pte_for_vaddr(mm: mm_struct, vaddr: int) -> int:
    """The entry to which what the TLB has of an address is compared (DEBUG_TLB_SANITY); 0 if there is none."""
    pmd = mm_find_pmd(mm, vaddr)
    if not pmd or load(pmd) == 0:
        return 0
    pte = pte_offset_map(pmd, vaddr)
    if not pte:
        return 0
    entry = ptep_get(pte)
    pte_unmap(pte)
    return entry
