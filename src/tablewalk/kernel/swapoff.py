# SPDX-License-Identifier: GPL-2.0-only
"""swapoff(2) of one process: what it has in swap is read in (unuse_mm in mm/swapfile.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import add, forget, mt_values, mutex_lock, mutex_unlock, store
from .mm_types import folio, mm_struct, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_alloc import (
    PAGE_ANON_EXCLUSIVE,
    PG_UPTODATE,
    folio_get,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_test_anon,
    page_flags,
)
from .pagewalk import walk_page_range_vma
from .pgtable import (
    PFN_SHIFT,
    SOFT_DIRTY,
    SWP_EXCLUSIVE,
    SWP_SWAP,
    UFFD_WP,
    is_swap_pte,
    pmd_p,
    ptep_get,
    ptep_get_lockless,
    swp_offset,
    swp_type,
    vm_page_prot,
)
from .pgtable_generic import pte_offset_map, pte_offset_map_lock, pte_unmap, pte_unmap_unlock
from .rmap import folio_add_rmap_ptes
from .swap_pte import __folio_set_anon
from .swap_state import folio_matches_swap_entry, swapin_sync
from .swapfile import folio_free_swap, folio_put_swap


def unuse_mm(mm: mm_struct) -> None:
    """Once through all that a process has in swap; the caller looks again whether any is left."""
    mmap_read_lock(mm)
    for found in mt_values(mm.mm_mt):
        vma = vm_area_struct(found)
        if vma.anon_vma:
            walk_page_range_vma(vma, vma.vm_start, vma.vm_end, unuse_pte_range, 0)
    mmap_read_unlock(mm)


def unuse_pte_range(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """The same of one table, which is not mapped while pages are read; if it went away, nothing is left to do."""
    while addr < end:
        pte = pte_offset_map(pmd, addr)
        if not pte:
            break
        entry = ptep_get_lockless(pte)
        pte_unmap(pte)
        if is_swap_pte(entry) and swp_type(entry) == SWP_SWAP:
            f = swapin_sync(swp_offset(entry))
            if f:
                mutex_lock(f.lock)
                unuse_pte(vma, pmd, addr, entry, f)
                folio_free_swap(f)
                mutex_unlock(f.lock)
                folio_put(f)
        addr += arch.page_size
        forget((addr,))
    return 0


def unuse_pte(vma: vm_area_struct, pmd: pmd_p, addr: int, entry: int, f: folio) -> bool:
    """Map the locked folio of a swap entry in its place, read-only and old; false if the entry has gone."""
    if not folio_matches_swap_entry(f, swp_offset(entry)):
        return False
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return False
    there = ptep_get(pte) == entry and f.flags & PG_UPTODATE != 0
    if there:
        page = folio_page(f, swp_offset(entry) & folio_nr_pages(f) - 1)
        add(vma.vm_mm.swapents, -1)
        add(vma.vm_mm.anon_rss, 1)
        folio_get(f)
        if entry & SWP_EXCLUSIVE:
            store(page_flags(page), PAGE_ANON_EXCLUSIVE)
        if not folio_test_anon(f):
            __folio_set_anon(f, vma, addr, entry & SWP_EXCLUSIVE != 0)
        folio_add_rmap_ptes(f, page, 1, vma)
        store(pte, page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | entry & (SOFT_DIRTY | UFFD_WP))
        folio_put_swap(f, page)
    pte_unmap_unlock(pte, ptl)
    return there
