# SPDX-License-Identifier: GPL-2.0-only
"""Page tables that a huge page in the cache has made superfluous (mm/khugepaged.c; 7.2).

Both functions detach tables under locks that exclude neither page faults nor those who walk under other locks: who
has mapped such a table sees it empty until a grace period has passed.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    READ_ONCE,
    RETRACTED,
    add,
    count,
    down_read,
    interval_tree_overlapping,
    mutex_unlock,
    spin_lock,
    spin_lock_nested,
    spin_unlock,
    up_read,
)
from .collapse_policy import collapse_possible
from .filemap import filemap_lock_folio
from .huge_pmd import do_set_pmd
from .mm_types import address_space, folio, mm_struct, vm_area_struct
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import folio_get, folio_page, folio_put, folio_put_refs
from .pgtable import (
    PRESENT,
    PROTNONE,
    SPECIAL,
    pmd_p,
    pmd_pgtable,
    pmdp_get_lockless,
    pte_p,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
)
from .pgtable_generic import (
    NO_TABLE,
    mm_dec_nr_ptes,
    pmd_lock,
    pmdp_collapse_flush,
    pte_free,
    pte_free_defer,
    pte_lockptr,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
    walk_to_pmd,
)
from .rmap import folio_remove_rmap_pte, linear_page_index, mm_counter_file, vma_address
from .scan_result import (
    SCAN_FAIL,
    SCAN_NO_PTE_TABLE,
    SCAN_PAGE_COMPOUND,
    SCAN_PAGE_NULL,
    SCAN_PMD_MAPPED,
    SCAN_PTE_MAPPED_HUGEPAGE,
    SCAN_PTE_NON_PRESENT,
    SCAN_PTE_UFFD_WP,
    SCAN_SUCCEED,
    SCAN_VMA_CHECK,
    check_pmd_state,
    collapse_test_exit,
    find_pmd_or_thp_or_none,
)
from .tlb import flush_tlb_mm, pmdp_get_lockless_sync
from .userfaultfd_k import userfaultfd_armed
from .vm_fault import vm_fault
from .vm_flags import VM_MAYBE_GUARD, VM_SHARED, VM_UFFD_WP
from .vma import vma_lookup

# --- every mapping of the file ---------------------------------------------------------------------------


def retract_page_tables(
    mapping: address_space, pgoff: int, mm: mm_struct, address: int, new: folio, is_khugepaged: bool
) -> int:
    """Take the empty table from every VMA that maps the huge page `new` at `pgoff`; `new` is locked.

    `mm` and `address` are those for whom the collapse was made: only kernels before 6.6 treat them differently.
    Returns SCAN_SUCCEED, or for MADV_COLLAPSE SCAN_PTE_MAPPED_HUGEPAGE: it maps its own address next.
    """
    down_read(mapping.i_mmap_rwsem)
    for found in interval_tree_overlapping(mapping.i_mmap, pgoff, pgoff):
        retract_page_table(vm_area_struct(found), pgoff)
    up_read(mapping.i_mmap_rwsem)
    return SCAN_SUCCEED if is_khugepaged else SCAN_PTE_MAPPED_HUGEPAGE


def retract_page_table(vma: vm_area_struct, pgoff: int) -> None:
    """Take the table with which the VMA maps the file from `pgoff` on, if it must be empty."""
    address = vma_address(vma, pgoff)
    if address & arch.pmd_size - 1 or vma.vm_end < address + arch.pmd_size:
        return
    mm = vma.vm_mm
    result, pmd = find_pmd_or_thp_or_none(mm, address)
    if result != SCAN_SUCCEED or collapse_test_exit(mm) or not file_backed_vma_is_retractable(vma):
        return
    mmu_notifier_invalidate_range_start(vma, address, address + arch.pmd_size)
    pml = pmd_lock(mm, pmd, address)
    pmdval = 0
    if recheck_pmd_state(pmd) == SCAN_SUCCEED:
        ptl = pte_lockptr(mm, pmdp_get_lockless(pmd))
        if ptl != pml:
            spin_lock_nested(ptl)
        if recheck_vma_is_retractable(vma):
            pmdval = pmdp_collapse_flush(vma, address, pmd)
            pmdp_get_lockless_sync()
        if ptl != pml:
            spin_unlock(ptl)
    spin_unlock(pml)
    mmu_notifier_invalidate_range_end(vma, address, address + arch.pmd_size)
    if pmdval:
        count(RETRACTED)
        mm_dec_nr_ptes(mm)
        pte_free_defer(mm, pmd_pgtable(pmdval))


def recheck_pmd_state(pmd: pmd_p) -> int:
    """Under pml: the table seen before may be gone by now, or be another one, which is as empty."""
    return check_pmd_state(pmd)


def recheck_vma_is_retractable(vma: vm_area_struct) -> bool:
    """Under ptl: a first copy or marker may have come meanwhile."""
    return file_backed_vma_is_retractable(vma)


def file_backed_vma_is_retractable(vma: vm_area_struct) -> bool:
    """Whether no entry but the file's can be in the VMA's tables: neither copies, nor markers."""
    if READ_ONCE(vma, "anon_vma"):
        return False
    vm_flags: int = READ_ONCE(vma, "vm_flags")
    return vm_flags & (VM_UFFD_WP | VM_MAYBE_GUARD) == 0


# --- the mapping for which it was done -------------------------------------------------------------------


def try_collapse_pte_mapped_thp(mm: mm_struct, address: int, install_pmd: bool) -> int:
    """Replace a table whose entries all map one huge page of a file by nothing, or with `install_pmd` by the page.

    mmap_lock is held.  Returns a scan result.
    """
    haddr = address & -arch.pmd_size
    vma = vma_lookup(mm, haddr)
    if not vma or not vma.vm_file or vma.vm_start > haddr or haddr + arch.pmd_size > vma.vm_end:
        return SCAN_VMA_CHECK
    result, pmd = find_pmd_or_thp_or_none(mm, haddr)
    if result == SCAN_PMD_MAPPED:
        return result
    if not collapse_possible(vma, vma.vm_flags, True):
        return SCAN_VMA_CHECK
    if vma.vm_flags & VM_UFFD_WP:
        return SCAN_PTE_UFFD_WP
    f = filemap_lock_folio(vma.vm_file.f_mapping, linear_page_index(vma, haddr))
    if not f:
        return SCAN_PAGE_NULL
    result = SCAN_PAGE_COMPOUND
    if f.order == arch.pte_bits:
        result, pmd = find_pmd_or_thp_or_none(mm, haddr)
        if result == SCAN_SUCCEED:
            result = remove_pte_mapped_table(vma, haddr, pmd, f)
        elif result == SCAN_NO_PTE_TABLE:
            result = no_table_to_remove(pmd)
        if result == SCAN_SUCCEED and install_pmd:
            result = set_huge_pmd(vma, haddr, f)
    mutex_unlock(f.lock)
    folio_put(f)
    return result


def no_table_to_remove(pmd: pmd_p) -> int:
    """What is there to map the huge page in: an empty slot, or (`pmd` 0) no PMD table yet.  A scan result."""
    return SCAN_SUCCEED


def set_huge_pmd(vma: vm_area_struct, haddr: int, f: folio) -> int:
    """Map a locked huge folio of a file; mmap_lock is held.  Returns a scan result."""
    vmf = vm_fault(vma, haddr, 0, walk_to_pmd(vma.vm_mm, haddr))
    ret, prealloc = do_set_pmd(vmf, f, NO_TABLE)
    if ret:
        if prealloc:
            pte_free(vma.vm_mm, prealloc)
        return SCAN_FAIL
    folio_get(f)
    return SCAN_SUCCEED


def check_entries(pte: pte_p, f: folio) -> int:
    """SCAN_SUCCEED if every entry is empty or maps its page of the folio; under ptl."""
    for i in range(arch.hpage_pmd_nr):
        result = check_entry(ptep_get(pte + i), folio_page(f, i))
        if result != SCAN_SUCCEED:
            return result
    return SCAN_SUCCEED


def check_entry(entry: int, page: int) -> int:
    """SCAN_SUCCEED if the entry is empty or maps the page."""
    if entry == 0:
        return SCAN_SUCCEED
    if entry & (PRESENT | PROTNONE) == 0:
        return SCAN_PTE_NON_PRESENT
    return SCAN_SUCCEED if entry & SPECIAL == 0 and pte_page(entry) == page else SCAN_FAIL


def remove_pte_mapped_table(vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio) -> int:
    """Unmap a huge folio of a file, mapped by entries, and free the table; the folio is locked, mmap_lock held."""
    mm = vma.vm_mm
    pte, ptl = pte_offset_map_lock(mm, pmd, haddr)
    if not pte:
        return SCAN_FAIL
    result = check_entries(pte, f)
    pte_unmap_unlock(pte, ptl)
    if result != SCAN_SUCCEED:
        return result
    mmu_notifier_invalidate_range_start(vma, haddr, haddr + arch.pmd_size)
    result, pmdval = detach_pte_mapped_table(mm, vma, haddr, pmd, f)
    mmu_notifier_invalidate_range_end(vma, haddr, haddr + arch.pmd_size)
    if result == SCAN_SUCCEED:
        mm_dec_nr_ptes(mm)
        pte_free_defer(mm, pmd_pgtable(pmdval))
    return result


def detach_pte_mapped_table(
    mm: mm_struct, vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio
) -> tuple[int, int]:
    """Empty the table and detach it: (SCAN_SUCCEED, what its slot held), or (another scan result, 0)."""
    # UFFDIO_COPY into private memory doesn't take the folio's lock: there ptl must be held to the end, so pml first
    pml = pmd_lock(mm, pmd, haddr) if uffd_may_fill_table(vma) else 0
    pte, pmdval, ptl = pte_offset_map_rw_nolock(mm, pmd, haddr)
    if not pte:
        if pml:
            spin_unlock(pml)
        return SCAN_FAIL, 0
    if not pml:
        spin_lock(ptl)
    elif ptl != pml:
        spin_lock_nested(ptl)
    if pmdp_get_lockless(pmd) != pmdval:
        result = SCAN_FAIL
        nr = 0
    else:
        result, nr = clear_entries(vma, pte, f)
    if result != SCAN_SUCCEED:
        put_entries(mm, f, nr, True)
        pte_unmap_unlock(pte, ptl)
        if pml and pml != ptl:
            spin_unlock(pml)
        return result, 0
    if pml:
        put_entries(mm, f, nr, False)
    else:
        spin_unlock(ptl)
        put_entries(mm, f, nr, False)
        pml = pmd_lock(mm, pmd, haddr)
        if ptl != pml:
            spin_lock_nested(ptl)
            if pmdp_get_lockless(pmd) != pmdval:
                flush_tlb_mm(mm)
                pte_unmap_unlock(pte, ptl)
                spin_unlock(pml)
                return SCAN_FAIL, 0
    pmdval = pmdp_collapse_flush(vma, haddr, pmd)
    pmdp_get_lockless_sync()
    pte_unmap(pte)
    if ptl != pml:
        spin_unlock(ptl)
    spin_unlock(pml)
    return SCAN_SUCCEED, pmdval


def uffd_may_fill_table(vma: vm_area_struct) -> bool:
    """Whether UFFDIO_COPY can fill the table while only the folio's lock is held."""
    return userfaultfd_armed(vma) and vma.vm_flags & VM_SHARED == 0


def clear_entries(vma: vm_area_struct, pte: pte_p, f: folio) -> tuple[int, int]:
    """Unmap the folio's pages one by one up to what is none of them: (scan result, entries cleared).  Under ptl."""
    nr = 0
    for i in range(arch.hpage_pmd_nr):
        entry = ptep_get(pte + i)
        result = check_entry(entry, folio_page(f, i))
        if result != SCAN_SUCCEED:
            return result, nr
        if entry:
            ptep_get_and_clear(pte + i)
            folio_remove_rmap_pte(f, folio_page(f, i), vma)
            nr += 1
    return SCAN_SUCCEED, nr


def put_entries(mm: mm_struct, f: folio, nr: int, flush: bool) -> None:
    """References and RSS of entries that were cleared; `flush` where no table goes, which would flush them."""
    if nr:
        if flush:
            flush_tlb_mm(mm)
        folio_put_refs(f, nr)
        add(mm_counter_file(mm, f), -nr)
