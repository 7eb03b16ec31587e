# SPDX-License-Identifier: GPL-2.0-only
"""Collapsing anonymous memory into a huge page (collapse_scan_pmd, collapse_huge_page in mm/khugepaged.c; 7.2).

Only PMD-sized pages are collapsed into: those of other sizes change no table.  Of the isolation from the LRU lists
there is only its reference.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    READ_ONCE,
    THP_COLLAPSE_ALLOC,
    add,
    count,
    mutex_trylock,
    mutex_unlock,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
)
from .collapse_policy import (
    collapse_max_ptes_none,
    collapse_max_ptes_shared,
    collapse_max_ptes_swap,
    hugepage_vma_revalidate,
)
from .huge_memory import map_anon_folio_pmd
from .mm_types import folio, mm_struct, spinlock_t, vm_area_struct
from .mmap_lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import (
    PG_SWAPBACKED,
    copy_page,
    folio_alloc,
    folio_expected_ref_count,
    folio_get,
    folio_mapcount,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    zero_page,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    PRESENT,
    PROTNONE,
    PTE_MARKER_UFFD_WP,
    SPECIAL,
    UFFD_WP,
    is_swap_pte,
    page_folio,
    pmd_p,
    pmd_pgtable,
    pmd_populate,
    pte_marker,
    pte_p,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    ptep_get_lockless,
)
from .pgtable_generic import (
    pgtable_trans_huge_deposit,
    pmd_lock,
    pmdp_collapse_flush,
    pte_lockptr,
    pte_offset_map,
    pte_offset_map_lock,
    pte_unmap,
    pte_unmap_unlock,
)
from .rmap import anon_vma_lock_write, anon_vma_unlock_write, folio_remove_rmap_pte
from .scan_result import (
    SCAN_EXCEED_NONE_PTE,
    SCAN_EXCEED_SHARED_PTE,
    SCAN_EXCEED_SWAP_PTE,
    SCAN_FAIL,
    SCAN_LACK_REFERENCED_PAGE,
    SCAN_NO_PTE_TABLE,
    SCAN_PAGE_ANON,
    SCAN_PAGE_COUNT,
    SCAN_PAGE_LAZYFREE,
    SCAN_PAGE_LOCK,
    SCAN_PAGE_NULL,
    SCAN_PTE_NON_PRESENT,
    SCAN_PTE_UFFD_WP,
    SCAN_SUCCEED,
    find_pmd_or_thp_or_none,
)
from .swap_pte import do_swap_page
from .swapfile import free_swap_cache
from .tlb import tlb_remove_table_sync_one
from .vm_fault import vm_fault
from .vm_flags import VM_FAULT_ERROR


def collapse_scan_pmd(mm: mm_struct, vma: vm_area_struct, address: int, is_khugepaged: bool) -> tuple[int, bool]:
    """Look at 2 MiB (a PMD's worth) of anonymous memory, and collapse it if it is worth it.

    mmap_lock is held for reading.  Returns (scan result, whether mmap_lock was let go).
    """
    result, pmd = find_pmd_or_thp_or_none(mm, address)
    if result != SCAN_SUCCEED:
        return result, False
    pte, ptl = pte_offset_map_lock(mm, pmd, address)
    if not pte:
        return SCAN_NO_PTE_TABLE, False
    result, swapped = scan_ptes(vma, pte, is_khugepaged)
    pte_unmap_unlock(pte, ptl)
    if result != SCAN_SUCCEED:
        return result, False
    mmap_read_unlock(mm)
    return collapse_huge_page(mm, address, swapped, is_khugepaged), True


def scan_ptes(vma: vm_area_struct, pte: pte_p, is_khugepaged: bool) -> tuple[int, int]:
    """(scan result, entries that are not present) of a table; under ptl."""
    none = shared = swapped = referenced = 0
    for i in range(arch.hpage_pmd_nr):
        entry = ptep_get(pte + i)
        if is_none_or_zero(entry):
            none += 1
            if none > collapse_max_ptes_none(is_khugepaged, vma):
                return SCAN_EXCEED_NONE_PTE, swapped
        elif entry & (PRESENT | PROTNONE) == 0:
            swapped += 1
            if swapped > collapse_max_ptes_swap(is_khugepaged):
                return SCAN_EXCEED_SWAP_PTE, swapped
            if entry & UFFD_WP or pte_marker(entry) & PTE_MARKER_UFFD_WP:
                return SCAN_PTE_UFFD_WP, swapped
        else:
            result = scan_present_pte(entry, is_khugepaged)
            if result != SCAN_SUCCEED:
                return result, swapped
            shared += folio_mapped_shared(page_folio(pte_page(entry)))
            if shared > collapse_max_ptes_shared(is_khugepaged):
                return SCAN_EXCEED_SHARED_PTE, swapped
            referenced += entry & ACCESSED != 0
    if is_khugepaged and (referenced == 0 or (swapped and referenced < arch.hpage_pmd_nr // 2)):
        return SCAN_LACK_REFERENCED_PAGE, swapped
    return SCAN_SUCCEED, swapped


def scan_present_pte(entry: int, is_khugepaged: bool) -> int:
    """Whether the page of one entry can be collapsed, as far as that can be seen without its lock."""
    if entry & UFFD_WP:
        return SCAN_PTE_UFFD_WP
    if entry & SPECIAL:
        return SCAN_PAGE_NULL
    f = page_folio(pte_page(entry))
    if is_khugepaged and entry & DIRTY == 0 and READ_ONCE(f, "flags") & PG_SWAPBACKED == 0:
        return SCAN_PAGE_LAZYFREE
    if not folio_test_anon(f):
        return SCAN_PAGE_ANON
    return SCAN_SUCCEED if folio_ref_count(f) == folio_expected_ref_count(f) else SCAN_PAGE_COUNT


def folio_mapped_shared(f: folio) -> bool:
    """Whether several processes map the folio, as far as counts tell (folio_maybe_mapped_shared)."""
    return folio_mapcount(f) > folio_nr_pages(f)


def is_none_or_zero(entry: int) -> bool:
    """Nothing, or the zero page."""
    return entry == 0 or (entry & SPECIAL != 0 and entry & (PRESENT | PROTNONE) != 0 and pte_page(entry) == zero_page())


def collapse_huge_page(mm: mm_struct, address: int, swapped: int, is_khugepaged: bool) -> int:
    """Collapse the table at `address`, of which `swapped` entries are not present; mmap_lock is not held.

    Returns a scan result.
    """
    new = folio_alloc(arch.pte_bits)
    count(THP_COLLAPSE_ALLOC)
    mmap_read_lock(mm)
    result, vma = hugepage_vma_revalidate(mm, address, True, is_khugepaged)
    pmd = 0
    if result == SCAN_SUCCEED:
        result, pmd = find_pmd_or_thp_or_none(mm, address)
    if result == SCAN_SUCCEED and swapped:
        result = __collapse_huge_page_swapin(vma, address, pmd)
    mmap_read_unlock(mm)
    if result == SCAN_SUCCEED:
        mmap_write_lock(mm)
        result, vma = hugepage_vma_revalidate(mm, address, True, is_khugepaged)
        if result == SCAN_SUCCEED:
            result = collapse_pmd_of_vma(vma, address, pmd, new, is_khugepaged)
        mmap_write_unlock(mm)
    if result != SCAN_SUCCEED:
        folio_put(new)
    return result


def __collapse_huge_page_swapin(vma: vm_area_struct, start: int, pmd: pmd_p) -> int:
    """Read in what a table has in swap; a guard or poison marker cannot be.  mmap_lock is held; a scan result."""
    for address in range(start, start + arch.pmd_size, arch.page_size):
        pte = pte_offset_map(pmd, address)
        if not pte:
            return SCAN_NO_PTE_TABLE
        entry = ptep_get_lockless(pte)
        pte_unmap(pte)
        if is_swap_pte(entry) and do_swap_page(vm_fault(vma, address, 0, pmd), entry) & VM_FAULT_ERROR:
            return SCAN_FAIL
    return SCAN_SUCCEED


def collapse_pmd_of_vma(vma: vm_area_struct, address: int, pmd: pmd_p, new: folio, is_khugepaged: bool) -> int:
    """Replace the table by the huge page `new`; mmap_lock is held for writing.  Returns a scan result."""
    mm = vma.vm_mm
    result = lock_and_check_pmd(vma, address, pmd)
    if result != SCAN_SUCCEED:
        return result
    av = vma.anon_vma
    anon_vma_lock_write(av)
    mmu_notifier_invalidate_range_start(vma, address, address + arch.pmd_size)
    pml = pmd_lock(mm, pmd, address)
    pmdval = pmdp_collapse_flush(vma, address, pmd)
    spin_unlock(pml)
    mmu_notifier_invalidate_range_end(vma, address, address + arch.pmd_size)
    tlb_remove_table_sync_one()
    pgtable = pmd_pgtable(pmdval)
    ptl = pte_lockptr(mm, pmdval)
    rcu_read_lock()
    spin_lock(ptl)
    result, locked = collapse_isolate(vma, pgtable.entry, is_khugepaged)
    spin_unlock(ptl)
    if result != SCAN_SUCCEED:
        spin_lock(pml)
        pmd_populate(pmd, pgtable)
        spin_unlock(pml)
    anon_vma_unlock_write(av)
    if result == SCAN_SUCCEED:
        collapse_copy(vma, pgtable.entry, ptl, new)
        for f in locked:
            mutex_unlock(f.lock)
            free_swap_cache(f)
            folio_put(f)
        spin_lock(pml)
        pgtable_trans_huge_deposit(mm, pmd, address, pgtable)
        map_anon_folio_pmd(new, pmd, vma, address)
        spin_unlock(pml)
    rcu_read_unlock()
    return result


def lock_and_check_pmd(vma: vm_area_struct, address: int, pmd: pmd_p) -> int:
    """Exclude those who hold the VMA's lock, and only then see whether the slot still points to a table."""
    vma_start_write(vma)
    result, now = find_pmd_or_thp_or_none(vma.vm_mm, address)
    if result == SCAN_SUCCEED and now != pmd:
        return SCAN_FAIL
    return result


def collapse_isolate(vma: vm_area_struct, pte: pte_p, is_khugepaged: bool) -> tuple[int, tuple[folio, ...]]:
    """Lock and isolate the folios of a detached table, if nothing but page tables refers to them; under ptl.

    Returns (scan result, folios locked); on failure none is left locked.
    """
    locked: tuple[folio, ...] = ()
    none = shared = referenced = 0
    result = SCAN_SUCCEED
    for i in range(arch.hpage_pmd_nr):
        entry = ptep_get(pte + i)
        if is_none_or_zero(entry):
            none += 1
            if none > collapse_max_ptes_none(is_khugepaged, vma):
                result = SCAN_EXCEED_NONE_PTE
                break
            continue
        result, new = isolate_pte(entry, locked, is_khugepaged)
        if result != SCAN_SUCCEED:
            break
        locked += new
        f = page_folio(pte_page(entry))
        shared += folio_mapped_shared(f)
        if shared > collapse_max_ptes_shared(is_khugepaged):
            result = SCAN_EXCEED_SHARED_PTE
            break
        referenced += entry & ACCESSED != 0
    if result == SCAN_SUCCEED and is_khugepaged and referenced == 0:
        result = SCAN_LACK_REFERENCED_PAGE
    if result != SCAN_SUCCEED:
        release_folios(locked)
        return result, ()
    return result, locked


def release_folios(locked: tuple[folio, ...]) -> None:
    """Unlock isolated folios, and put them back."""
    for f in locked:
        mutex_unlock(f.lock)
        folio_put(f)


def isolate_pte(entry: int, locked: tuple[folio, ...], is_khugepaged: bool) -> tuple[int, tuple[folio, ...]]:
    """Lock and isolate the folio of one entry unless that is done already: (scan result, what was locked)."""
    if entry & (PRESENT | PROTNONE) == 0:
        return SCAN_PTE_NON_PRESENT, ()
    if entry & UFFD_WP:
        return SCAN_PTE_UFFD_WP, ()
    if entry & SPECIAL:
        return SCAN_PAGE_NULL, ()
    f = page_folio(pte_page(entry))
    if is_khugepaged and entry & DIRTY == 0 and READ_ONCE(f, "flags") & PG_SWAPBACKED == 0:
        return SCAN_PAGE_LAZYFREE, ()
    if f.order and f in locked:
        return SCAN_SUCCEED, ()
    if not mutex_trylock(f.lock):
        return SCAN_PAGE_LOCK, ()
    if folio_ref_count(f) != folio_expected_ref_count(f):
        mutex_unlock(f.lock)
        return SCAN_PAGE_COUNT, ()
    folio_get(f)
    return SCAN_SUCCEED, (f,)


def collapse_copy(vma: vm_area_struct, pte: pte_p, ptl: spinlock_t, new: folio) -> None:
    """Copy the pages of a detached table into the new folio, and unmap them; their locks and isolation stay."""
    for i in range(arch.hpage_pmd_nr):
        entry = ptep_get(pte + i)
        if not is_none_or_zero(entry):
            copy_page(folio_page(new, i), pte_page(entry))
    for i in range(arch.hpage_pmd_nr):
        entry = ptep_get(pte + i)
        if is_none_or_zero(entry):
            add(vma.vm_mm.anon_rss, 1)
        if entry:
            spin_lock(ptl)
            ptep_get_and_clear(pte + i)
            if not is_none_or_zero(entry):
                folio_remove_rmap_pte(page_folio(pte_page(entry)), pte_page(entry), vma)
                folio_put(page_folio(pte_page(entry)))
            spin_unlock(ptl)
