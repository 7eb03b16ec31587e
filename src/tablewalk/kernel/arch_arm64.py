# SPDX-License-Identifier: GPL-2.0-only
"""arm64's own user of page tables (arch/arm64/mm/fault.c; 7.2)."""

from __future__ import annotations

from ..machine import local_irq_restore, local_irq_save
from .mm_types import mm_struct
from .pgtable import mm_find_pmd, pmd_is_table, pmdp_get_lockless, ptep_get
from .pgtable_generic import pte_offset_map, pte_unmap


def show_pte(mm: mm_struct, addr: int) -> tuple[int, ...]:
    """The entries that an oops prints of an address, with interrupts off: the pmd, and the pte if there is a table."""
    flags = local_irq_save()
    shown: tuple[int, ...] = ()
    pmd = mm_find_pmd(mm, addr)
    if pmd:
        pmdval = pmdp_get_lockless(pmd)
        shown = (pmdval,)
        pte = pte_offset_map(pmd, addr) if pmd_is_table(pmdval) else 0
        if pte:
            shown = pmdval, ptep_get(pte)
            pte_unmap(pte)
    local_irq_restore(flags)
    return shown
