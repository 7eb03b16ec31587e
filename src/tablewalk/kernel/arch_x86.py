# SPDX-License-Identifier: GPL-2.0-only
"""x86's own users of page tables (arch/x86/kernel/ldt.c, mm/mem_encrypt_identity.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import load, store
from .bug import BugOn
from .mm_types import mm_struct, spinlock_t
from .pgtable import PRESENT, SPECIAL, mk_pte, page_t, pmd_p, pmd_trans_huge, pte_offset_kernel, pte_p
from .pgtable_generic import pte_alloc_map_lock, pte_unmap_unlock, walk_to_pmd
from .tlb import flush_tlb_range


def get_locked_pte(mm: mm_struct, addr: int) -> tuple[pte_p, spinlock_t]:
    """The entry of `addr`, its table allocated, mapped and locked; (0, 0) if there is none (mm/memory.c)."""
    return pte_alloc_map_lock(mm, walk_to_pmd(mm, addr), addr)


def map_ldt_struct(mm: mm_struct, va: int, page: page_t) -> None:
    """With page-table isolation: map a page of a process's LDT, at an address that no VMA has."""
    pte, ptl = get_locked_pte(mm, va)
    store(pte, mk_pte(page, PRESENT | SPECIAL))
    pte_unmap_unlock(pte, ptl)


def unmap_ldt_struct(mm: mm_struct, va: int) -> None:
    """Unmap it.  Its table cannot go away."""
    pte, ptl = get_locked_pte(mm, va)
    if not pte:
        raise BugOn("the page table of the LDT is gone")  # WARN_ON_ONCE
    store(pte, 0)
    pte_unmap_unlock(pte, ptl)
    flush_tlb_range(mm, va, va + arch.page_size, freed_tables=False)


def sme_populate_pgd(pmd: pmd_p, vaddr: int, page: page_t, flags: int) -> None:
    """Fill in an entry of the tables with which memory is encrypted, early at boot."""
    if pmd_trans_huge(load(pmd)):
        return
    pte = pte_offset_kernel(pmd, vaddr)
    if load(pte) == 0:
        store(pte, mk_pte(page, flags))
