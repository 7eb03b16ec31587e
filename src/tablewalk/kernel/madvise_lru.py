# SPDX-License-Identifier: GPL-2.0-only
"""MADV_FREE, MADV_COLD and MADV_PAGEOUT: advice that goes by pages and keeps the tables (mm/madvise.c; 7.2).

There is no memory pressure.  Files are assumed to be the caller's to page out.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    WRITE_ONCE,
    add,
    forget,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    spin_unlock,
    store,
)
from .folio_split import split_folio
from .huge_memory import madvise_free_huge_pmd
from .huge_mm import vma_is_anonymous
from .huge_pmd import pmd_trans_huge_lock
from .mm_types import folio, mm_struct, vm_area_struct
from .mmu_gather import mmu_gather, tlb_change_page_size, tlb_finish_mmu, tlb_flush_range, tlb_gather_mmu
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import (
    NO_FOLIO,
    PG_DIRTY,
    PG_MLOCKED,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    folio_get,
    folio_mapcount,
    folio_nr_pages,
    folio_pte_batch,
    folio_put,
    folio_test_anon,
)
from .pagewalk import walk_page_range_vma
from .pgtable import (
    ACCESSED,
    DIRTY,
    PRESENT,
    PROTNONE,
    PTE_MARKER_POISONED,
    SPECIAL,
    SWP_HWPOISON,
    SWP_SWAP,
    page_folio,
    page_t,
    pmd_p,
    pmd_page,
    pmd_trans_huge,
    pmdp_get_lockless,
    pmdp_invalidate,
    pte_marker,
    pte_p,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    swp_offset,
    swp_type,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import folio_maybe_mapped_shared
from .swapfile import folio_free_swap, swap_put_entries_direct
from .vm_flags import EINVAL, VM_HUGETLB, VM_LOCKED, VM_PFNMAP
from .vmscan import reclaim_pages

FREE: Final = 0
COLD: Final = 1
PAGEOUT: Final = 2

# What becomes of a folio of which a table maps pages (advise_how).
WHOLE: Final = 0
SPLIT: Final = 1
SKIP: Final = 2
STOP: Final = 3


def madvise_free_single_vma(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int) -> int:
    """The pages of [start, end) may be dropped until they are written again.  0 or -EINVAL."""
    if not vma_is_anonymous(vma):
        return -EINVAL
    mmu_notifier_invalidate_range_start(vma, start, end)
    ret = walk_page_range_vma(vma, start, end, madvise_free_pmd, tlb.addr)
    mmu_notifier_invalidate_range_end(vma, start, end)
    return ret


def madvise_cold(vma: vm_area_struct, start: int, end: int) -> int:
    """The pages of [start, end) are not needed soon: they lose their accessed bit.  0 or -EINVAL."""
    if vma.vm_flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
        return -EINVAL
    tlb = tlb_gather_mmu(vma.vm_mm)
    walk_page_range_vma(vma, start, end, madvise_cold_pmd, tlb.addr)
    tlb_finish_mmu(tlb)
    return 0


def madvise_pageout(vma: vm_area_struct, start: int, end: int) -> int:
    """Reclaim the pages of [start, end).  0 or -EINVAL."""
    if vma.vm_flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
        return -EINVAL
    tlb = tlb_gather_mmu(vma.vm_mm)
    walk_page_range_vma(vma, start, end, madvise_pageout_pmd, tlb.addr)
    tlb_finish_mmu(tlb)
    return 0


# --- one PMD entry ---------------------------------------------------------------------------------------


def madvise_free_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """MADV_FREE of a huge page or of a table's entries; `private` is the gather."""
    tlb = mmu_gather(private)
    if pmd_trans_huge(load(pmd)) and madvise_free_huge_pmd(tlb, vma, pmd, addr, end):
        return 0
    advise_ptes(tlb, vma, pmd, addr, end, FREE)
    return 0


def madvise_cold_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """MADV_COLD of a huge page or of a table's entries."""
    tlb = mmu_gather(private)
    if pmd_trans_huge(load(pmd)) and cold_huge_pmd(tlb, vma, pmd, addr, end):
        return 0
    advise_ptes(tlb, vma, pmd, addr, end, COLD)
    return 0


def madvise_pageout_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """MADV_PAGEOUT of a huge page or of a table's entries."""
    if pmd_trans_huge(load(pmd)) and pageout_huge_pmd(vma, pmd, addr, end):
        return 0
    reclaim_pages(advise_ptes(mmu_gather(private), vma, pmd, addr, end, PAGEOUT))
    return 0


def exclusive_huge_folio(vma: vm_area_struct, pmd: pmd_p, addr: int) -> tuple[folio, int]:
    """(folio of this huge pmd that no other mm maps, pml held); (NULL, 0) if there is none."""
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if not pml:
        return NO_FOLIO, 0
    pmdval = pmdp_get_lockless(pmd)
    if pmd_trans_huge(pmdval) and pmdval & SPECIAL == 0:
        f = page_folio(pmd_page(pmdval))
        if not mapped_besides(f):
            return f, pml
    spin_unlock(pml)
    return NO_FOLIO, 0


def mapped_besides(f: folio) -> bool:
    """Whether others map the folio of a huge pmd, as far as counts tell."""
    return folio_maybe_mapped_shared(f)


def cold_huge_pmd(tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int) -> bool:
    """MADV_COLD of a huge page; false if it has been split, since only a part of it is meant."""
    tlb_change_page_size(tlb, arch.pmd_shift)
    f, pml = exclusive_huge_folio(vma, pmd, addr)
    if not f:
        return True
    if end - addr != arch.pmd_size:
        folio_get(f)
        spin_unlock(pml)
        return split_locked_folio(f) != 0
    if pmdp_get_lockless(pmd) & ACCESSED:
        pmdval = pmdp_invalidate(pmd)
        store(pmd, pmdval & ~ACCESSED)
        tlb_flush_range(tlb, addr, end)
    spin_unlock(pml)
    return True


def pageout_huge_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int) -> bool:
    """MADV_PAGEOUT of a huge page; false if it has been split, since only a part of it is meant."""
    f, pml = exclusive_huge_folio(vma, pmd, addr)
    if not f:
        return True
    folio_get(f)
    spin_unlock(pml)
    if end - addr != arch.pmd_size:
        return split_locked_folio(f) != 0
    reclaim_pages((f,))
    return True


def split_locked_folio(f: folio) -> int:
    """Lock and split a folio; the caller's reference is dropped.  0 or -EAGAIN."""
    mutex_lock(f.lock)
    ret = split_folio(f)
    mutex_unlock(f.lock)
    folio_put(f)
    return ret


# --- entries ---------------------------------------------------------------------------------------------


def advise_ptes(
    tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, advice: int
) -> tuple[folio, ...]:
    """Go through the entries of one table; the folios that PAGEOUT isolates, with a reference each."""
    tlb_change_page_size(tlb, arch.page_shift)
    isolated: tuple[folio, ...] = ()
    while addr < end:
        addr, skip, large, found = advise_ptes_locked(tlb, vma, pmd, addr, end, advice)
        isolated += found
        if large:
            ret = split_folio(large)
            mutex_unlock(large.lock)
            folio_put(large)
            if ret:
                addr += skip
        forget((addr, isolated))
    return isolated


def advise_ptes_locked(
    tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, advice: int
) -> tuple[int, int, folio, tuple[folio, ...]]:
    """One hold of ptl: (address reached, bytes to skip if the folio there cannot be split, that folio locked and
    with a reference or NULL, what was isolated)."""
    isolated: tuple[folio, ...] = ()
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return end, 0, NO_FOLIO, isolated
    ptep = pte
    while addr < end:
        entry = ptep_get(ptep)
        nr = 1
        if entry & (PRESENT | PROTNONE) == 0:
            if advice == FREE:
                free_nonpresent_pte(vma.vm_mm, ptep, entry)
        elif entry & SPECIAL == 0:
            f = page_folio(pte_page(entry))
            nr = folio_pte_batch(f, ptep, entry, end - addr >> arch.page_shift)
            how = advise_how(f, pte_page(entry), nr, advice)
            if how == STOP:
                break
            if how == SPLIT:
                if mutex_trylock(f.lock):
                    folio_get(f)
                    pte_unmap_unlock(pte, ptl)
                    return addr, nr << arch.page_shift, f, isolated
            elif how == WHOLE and advise_folio(tlb, f, ptep, addr, nr, advice):
                isolated += (f,)
        ptep += nr
        addr += nr << arch.page_shift
    pte_unmap_unlock(pte, ptl)
    return end, 0, NO_FOLIO, isolated


def advise_how(f: folio, page: page_t, nr: int, advice: int) -> int:
    """WHOLE if the entries map all `nr` pages of the folio, whose first one here is `page`; else SPLIT, if nobody else
    maps it, or SKIP (STOP: nothing after it is looked at either)."""
    if nr == folio_nr_pages(f):
        return WHOLE
    return SKIP if folio_maybe_mapped_shared(f) else SPLIT


def free_nonpresent_pte(mm: mm_struct, ptep: pte_p, entry: int) -> None:
    """MADV_FREE drops what is in swap, and poison, which a reuse of the address would trip over."""
    if entry == 0:
        return
    kind = swp_type(entry)
    if kind == SWP_SWAP:
        add(mm.swapents, -1)
        swap_put_entries_direct(swp_offset(entry))
        store(ptep, 0)
    elif kind == SWP_HWPOISON or pte_marker(entry) & PTE_MARKER_POISONED:
        store(ptep, 0)


def advise_folio(tlb: mmu_gather, f: folio, ptep: pte_p, addr: int, nr: int, advice: int) -> bool:
    """A folio all of whose `nr` pages are mapped here, under ptl; whether it was isolated for PAGEOUT."""
    if advice == FREE:
        free_folio_ptes(tlb, f, ptep, addr, nr)
        return False
    if folio_mapcount(f) != nr:
        return False
    if advice == COLD:
        clear_young_dirty_ptes(tlb, ptep, addr, nr, ACCESSED)
        return False
    if f.flags & PG_MLOCKED:
        return False
    folio_get(f)
    return True


def free_folio_ptes(tlb: mmu_gather, f: folio, ptep: pte_p, addr: int, nr: int) -> None:
    """MADV_FREE of a folio: clean from now on, unless others map it and it is dirty, or somebody works on it."""
    if f.flags & (PG_DIRTY | PG_SWAPCACHE):
        if not mutex_trylock(f.lock):
            return
        alone = folio_mapcount(f) == nr and (f.flags & PG_SWAPCACHE == 0 or folio_free_swap(f))
        if alone:
            WRITE_ONCE(f, "flags", f.flags & ~PG_DIRTY)
        mutex_unlock(f.lock)
        if not alone:
            return
    clear_young_dirty_ptes(tlb, ptep, addr, nr, ACCESSED | DIRTY)
    if folio_test_anon(f) and f.flags & PG_MLOCKED == 0:
        WRITE_ONCE(f, "flags", f.flags & ~PG_SWAPBACKED)


def clear_young_dirty_ptes(tlb: mmu_gather, ptep: pte_p, addr: int, nr: int, bits: int) -> None:
    """Clear accessed or dirty bits of live entries, and let the gather flush them."""
    for i in range(nr):
        if ptep_get(ptep + i) & bits:
            store(ptep + i, ptep_get_and_clear(ptep + i) & ~bits)
            tlb_flush_range(tlb, addr + (i << arch.page_shift), addr + (i + 1 << arch.page_shift))
