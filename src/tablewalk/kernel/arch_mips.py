# SPDX-License-Identifier: GPL-2.0-only
"""mips's own user of page tables (arch/mips/mm/tlb-r4k.c; 7.2).

A TLB miss is served by generated code, which reads the entry without mapping its table; a fault writes the new entry
into the TLB itself.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import load, local_irq_restore, local_irq_save, tlb_fill
from .mm_types import mm_struct
from .page_alloc import PAGE_CELLS, page_content
from .pgtable import PRESENT, RW, mm_find_pmd, pmd_page, pmd_trans_huge, pte_index, pte_page, ptep_get
from .pgtable_generic import pte_offset_map, pte_unmap


def __update_tlb(mm: mm_struct, address: int) -> None:
    """update_mmu_cache(): the entry of `address`, whose table the caller has mapped and locked, goes to the TLB."""
    flags = local_irq_save()
    pmd = mm_find_pmd(mm, address)
    pmdval = load(pmd)
    if pmd_trans_huge(pmdval):
        cell = page_content(pmd_page(pmdval) + PAGE_CELLS * pte_index(address))
        tlb_fill(mm.addr, address, (), cell, pmdval & RW != 0, arch.pmd_shift)
    else:
        pte = pte_offset_map(pmd, address)  # never NULL: the caller holds the table's lock
        entry = ptep_get(pte)
        if entry & PRESENT:
            tlb_fill(mm.addr, address, (), page_content(pte_page(entry)), entry & RW != 0, arch.page_shift)
        pte_unmap(pte)
    local_irq_restore(flags)
