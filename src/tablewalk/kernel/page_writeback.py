# SPDX-License-Identifier: GPL-2.0-only
"""Dirty pages of a file go to its disk, in no time (mm/page-writeback.c, folio_mkclean() in mm/rmap.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import WRITE_ONCE, down_read, forget, mutex_unlock, spin_unlock, store, up_read
from .filemap import filemap_lock_folio, folio_next_index, i_size_pages
from .huge_pmd import pmd_trans_huge_lock, pmdp_huge_clear_flush
from .mm_types import address_space, folio, vm_area_struct
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import PG_DIRTY, PG_RECLAIM, folio_page, folio_put
from .pgtable import (
    DIRTY,
    PRESENT,
    PROTNONE,
    RW,
    mm_find_pmd,
    pmd_p,
    pmd_page,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap_walk import folio_tables, rmap_vmas
from .tlb import flush_tlb_range
from .vm_flags import VM_SHARED


def filemap_write_and_wait_range(mapping: address_space, first: int, last: int) -> None:
    """Write the dirty ones of the file's pages first..last, so that they are clean until somebody writes again."""
    index = first
    end = min(last + 1, i_size_pages(mapping))
    while index < end:
        f = filemap_lock_folio(mapping, index)
        index += 1
        if f:
            index = folio_next_index(f)
            folio_clear_dirty_for_io(mapping, f)
            mutex_unlock(f.lock)
            folio_put(f)
        forget(index)


def folio_clear_dirty_for_io(mapping: address_space, f: folio) -> None:
    """A locked folio is no longer dirty, and its next write by anybody will be noticed."""
    if f.flags & PG_DIRTY:
        folio_mkclean(mapping, f)
        WRITE_ONCE(f, "flags", f.flags & ~(PG_DIRTY | PG_RECLAIM))  # the latter in folio_end_writeback()


def folio_mkclean(mapping: address_space, f: folio) -> None:
    """Write-protect and clean the entries of all shared mappings of a locked folio."""
    down_read(mapping.i_mmap_rwsem)
    for vma in rmap_vmas(f):
        if vma.vm_flags & VM_SHARED:
            for address, nr, idx in folio_tables(f, vma):
                end = address + (nr << arch.page_shift)
                mmu_notifier_invalidate_range_start(vma, address, end)
                page_vma_mkclean_one(f, vma, address, nr, idx)
                mmu_notifier_invalidate_range_end(vma, address, end)
    up_read(mapping.i_mmap_rwsem)


def page_vma_mkclean_one(f: folio, vma: vm_area_struct, address: int, nr: int, idx: int) -> None:
    """Clean what one table maps from `address` on of `nr` pages of the folio from its page `idx` on."""
    pmd = mm_find_pmd(vma.vm_mm, address)
    if not pmd:
        return
    pmdval = pmdp_get_lockless(pmd)
    if pmd_trans_huge(pmdval) and pmd_page(pmdval) == f.page:
        mkclean_huge_pmd(vma, pmd, address & -arch.pmd_size)
        return
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address)
    if not pte:
        return
    for i in range(nr):
        entry = ptep_get(pte + i)
        mapped = entry & (PRESENT | PROTNONE) and pte_page(entry) == folio_page(f, idx + i)
        if mapped and entry & (DIRTY | RW):
            entry = ptep_get_and_clear(pte + i)
            flush_tlb_range(vma.vm_mm, address + (i << arch.page_shift), address + (i + 1 << arch.page_shift), False)
            store(pte + i, entry & ~(DIRTY | RW))
    pte_unmap_unlock(pte, ptl)


def mkclean_huge_pmd(vma: vm_area_struct, pmd: pmd_p, haddr: int) -> None:
    """Clean a huge pmd, if it still is one."""
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, haddr)
    if pml:
        store(pmd, pmdp_huge_clear_flush(vma, haddr, pmd) & ~(DIRTY | RW))
        spin_unlock(pml)
