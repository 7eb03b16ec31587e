# SPDX-License-Identifier: GPL-2.0-only
"""mm: free retracted page table by RCU (khugepaged's part), and what D01 adds.

Before 6.6 a table was taken from a file's mapping only under mmap_lock held for writing, which can be no more than
tried for from inside the lock of a folio, and freed at once.  MADV_COLLAPSE takes no table but its caller's: for all
others the address goes to a list, at most eight of a process that khugepaged knows of, and khugepaged tries again.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..kernel.collapse_policy import collapse_possible
from ..kernel.config import config
from ..kernel.filemap import filemap_lock_folio
from ..kernel.khugepaged import khugepaged_scan_mm
from ..kernel.mm_types import address_space, folio, mm_struct, vm_area_struct
from ..kernel.mmap_lock import (
    VM_REFCNT_EXCLUDE_READERS,
    mmap_write_lock,
    mmap_write_trylock,
    mmap_write_unlock,
)
from ..kernel.mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from ..kernel.page_alloc import folio_page, folio_put, folio_put_refs
from ..kernel.pgtable import pmd_p, pmd_pgtable, pmdp_get_lockless, pte_p, ptep_get
from ..kernel.pgtable_generic import (
    mm_dec_nr_ptes,
    pte_free,
    pte_offset_map_lock,
    pte_unmap_unlock,
)
from ..kernel.retract import check_entries, set_huge_pmd
from ..kernel.rmap import (
    anon_vma_lock_write,
    anon_vma_unlock_write,
    folio_remove_rmap_pte,
    linear_page_index,
    mm_counter_file,
    vma_address,
)
from ..kernel.scan_result import (
    SCAN_ANY_PROCESS,
    SCAN_FAIL,
    SCAN_NO_PTE_TABLE,
    SCAN_PAGE_ANON,
    SCAN_PAGE_COMPOUND,
    SCAN_PAGE_NULL,
    SCAN_PMD_MAPPED,
    SCAN_PTE_MAPPED_HUGEPAGE,
    SCAN_PTE_UFFD_WP,
    SCAN_SUCCEED,
    SCAN_VMA_CHECK,
    collapse_test_exit,
    find_pmd_or_thp_or_none,
)
from ..kernel.tlb import flush_tlb_range, tlb_remove_table_sync_one
from ..kernel.vm_flags import VM_UFFD_WP
from ..kernel.vma import vma_lookup
from ..machine import (
    READ_ONCE,
    RETRACT_LEFT,
    RETRACTED,
    WRITE_ONCE,
    add,
    clear_unreachable,
    cmpxchg,
    count,
    down_write,
    interval_tree_overlapping,
    load,
    lock_map_acquire,
    mutex_unlock,
    up_write,
    vec_push,
    vec_take,
)
from . import Claim, patch

SERIES: Final = "mm: free retracted page table by RCU"
MAX_PTE_MAPPED_THP: Final = 8


@patch(
    "C09",
    commit="1d65b771bc08",
    title="mm/khugepaged: retract_page_tables() without mmap or vma lock",
    series=SERIES,
    since="6.6",
    site="retract.retract_page_tables",
    files=("mm/khugepaged.c",),
    claim=Claim("count", measure="tables-left-elsewhere-by-collapse", before=1, after=0, kernel="6.12"),
)
def retract_page_tables(
    mapping: address_space, pgoff: int, mm: mm_struct, address: int, new: folio, is_khugepaged: bool
) -> int:
    """Take the table of the caller's mapping, and for khugepaged those of others whose mmap_lock is free.

    Returns the scan result of the caller's mapping, which MADV_COLLAPSE gets mapped here.
    """
    target = SCAN_FAIL
    down_write(mapping.i_mmap_rwsem)
    for found in interval_tree_overlapping(mapping.i_mmap, pgoff, pgoff):
        vma = vm_area_struct(found)
        is_target = vma.vm_mm == mm and vma_address(vma, pgoff) == address
        result = retract_locked(vma, vma_address(vma, pgoff), new, is_khugepaged, is_target)
        if is_target:
            target = result
        elif result == SCAN_PTE_MAPPED_HUGEPAGE:
            count(RETRACT_LEFT)
            khugepaged_add_pte_mapped_thp(vma.vm_mm, vma_address(vma, pgoff))
    up_write(mapping.i_mmap_rwsem)
    return target


def retract_locked(vma: vm_area_struct, address: int, new: folio, is_khugepaged: bool, is_target: bool) -> int:
    """One mapping; SCAN_PTE_MAPPED_HUGEPAGE if its table is left for another time."""
    if READ_ONCE(vma, "anon_vma"):
        return SCAN_PAGE_ANON
    if address & arch.pmd_size - 1 or vma.vm_end < address + arch.pmd_size:
        return SCAN_VMA_CHECK
    mm = vma.vm_mm
    result, pmd = find_pmd_or_thp_or_none(mm, address)
    if result != SCAN_SUCCEED:
        return result
    if not (is_khugepaged or is_target) or not mmap_write_trylock(mm):
        return SCAN_PTE_MAPPED_HUGEPAGE
    if config.per_vma_lock and not vma_try_start_write(vma):
        result = SCAN_PTE_MAPPED_HUGEPAGE
    elif vma.anon_vma:
        result = SCAN_PAGE_ANON
    elif collapse_test_exit(mm):
        result = SCAN_ANY_PROCESS
    elif vma.vm_flags & VM_UFFD_WP:
        result = SCAN_PTE_UFFD_WP
    else:
        collapse_and_free_pmd(vma, address, pmd)
        result = set_huge_pmd(vma, address, new) if is_target and not is_khugepaged else SCAN_SUCCEED
    mmap_write_unlock(mm)
    return result


def vma_try_start_write(vma: vm_area_struct) -> bool:
    """Lock the VMA exclusively until mmap_lock is released, if it has no reader (6.4 and 6.5); whether it was done."""
    seq = vma.vm_mm.mm_lock_seq
    if vma.vm_lock_seq == seq:
        return True
    if cmpxchg(vma.vm_refcnt, 1, 1 + VM_REFCNT_EXCLUDE_READERS) != 1:
        return False
    lock_map_acquire(vma.vm_lock)
    WRITE_ONCE(vma, "vm_lock_seq", seq)
    add(vma.vm_refcnt, -VM_REFCNT_EXCLUDE_READERS)
    return True


def collapse_and_free_pmd(vma: vm_area_struct, address: int, pmd: pmd_p) -> None:
    """Detach a table and free it at once.

    mmap_lock and the locks of the reverse map are held for writing, and so the pmd lock is not taken.
    """
    mmu_notifier_invalidate_range_start(vma, address, address + arch.pmd_size)
    pmdval = pmdp_get_lockless(pmd)
    clear_unreachable(pmd)
    flush_tlb_range(vma.vm_mm, address, address + arch.pmd_size, freed_tables=True)
    tlb_remove_table_sync_one()
    mmu_notifier_invalidate_range_end(vma, address, address + arch.pmd_size)
    count(RETRACTED)
    mm_dec_nr_ptes(vma.vm_mm)
    pte_free(vma.vm_mm, pmd_pgtable(pmdval))


def khugepaged_add_pte_mapped_thp(mm: mm_struct, address: int) -> bool:
    """Let khugepaged try again later; whether it knows of the mm, and has room."""
    if load(mm.khugepaged) == 0:
        return False
    waiting = vec_take(mm.pte_mapped_thp)
    added = len(waiting) < MAX_PTE_MAPPED_THP
    for other in waiting:
        vec_push(mm.pte_mapped_thp, other)
    if added:
        vec_push(mm.pte_mapped_thp, address)
    return added


@patch(
    "C10",
    commit="1043173eb5eb",
    title="mm/khugepaged: collapse_pte_mapped_thp() with mmap_read_lock()",
    series=SERIES,
    since="6.6",
    site="khugepaged.collapse_mapped_thp",
    files=("mm/khugepaged.c",),
    claim=Claim("latency", measure="mmap-lock-for-writing-by-collapse", before=1, after=0, kernel="6.12"),
)
def collapse_mapped_thp(mm: mm_struct, address: int, install_pmd: bool) -> int:
    """MADV_COLLAPSE takes mmap_lock for writing; khugepaged puts the address on its list."""
    if not install_pmd:
        result, _ = find_pmd_or_thp_or_none(mm, address)
        if result == SCAN_SUCCEED:
            khugepaged_add_pte_mapped_thp(mm, address)
        return result
    mmap_write_lock(mm)
    result = collapse_pte_mapped_thp(mm, address, True)
    mmap_write_unlock(mm)
    return SCAN_SUCCEED if result == SCAN_PMD_MAPPED else result


def collapse_pte_mapped_thp(mm: mm_struct, address: int, install_pmd: bool) -> int:
    """Replace a table whose entries all map one huge page of a file; mmap_lock is held for writing."""
    haddr = address & -arch.pmd_size
    result, pmd = find_pmd_or_thp_or_none(mm, haddr)
    if result == SCAN_PMD_MAPPED:
        return result
    vma = vma_lookup(mm, haddr)
    if not vma or not vma.vm_file or vma.vm_start > haddr or haddr + arch.pmd_size > vma.vm_end:
        return SCAN_VMA_CHECK
    if not collapse_possible(vma, vma.vm_flags, True):
        return SCAN_VMA_CHECK
    if vma.vm_flags & VM_UFFD_WP:
        return SCAN_PTE_UFFD_WP
    f = filemap_lock_folio(vma.vm_file.f_mapping, linear_page_index(vma, haddr))
    if not f:
        return SCAN_PAGE_NULL
    if f.order != arch.pte_bits:
        result = SCAN_PAGE_COMPOUND
    elif result == SCAN_SUCCEED:
        result = remove_table(vma, haddr, pmd, f)
    elif result == SCAN_NO_PTE_TABLE and pmd:
        result = SCAN_SUCCEED
    if result == SCAN_SUCCEED and install_pmd:
        result = set_huge_pmd(vma, haddr, f)
    mutex_unlock(f.lock)
    folio_put(f)
    return result


def remove_table(vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio) -> int:
    """Unmap the folio's pages under the table's lock, then detach and free the table under all outer locks."""
    mm = vma.vm_mm
    mapping = vma.vm_file.f_mapping
    down_write(mapping.i_mmap_rwsem)
    pte, ptl = pte_offset_map_lock(mm, pmd, haddr)
    result = check_entries(pte, f) if pte else SCAN_FAIL
    nr = remove_rmaps(vma, pte, f) if result == SCAN_SUCCEED else 0
    if pte:
        pte_unmap_unlock(pte, ptl)
    if result == SCAN_SUCCEED:
        if nr:
            folio_put_refs(f, nr)
            add(mm_counter_file(mm, f), -nr)
        if vma.anon_vma:
            anon_vma_lock_write(vma.anon_vma)
        collapse_and_free_pmd(vma, haddr, pmd)
        if vma.anon_vma:
            anon_vma_unlock_write(vma.anon_vma)
    up_write(mapping.i_mmap_rwsem)
    return result


def remove_rmaps(vma: vm_area_struct, pte: pte_p, f: folio) -> int:
    """Drop the mapping of each page that an entry maps; the entries stay as they are.  Returns their number."""
    nr = 0
    for i in range(arch.hpage_pmd_nr):
        if ptep_get(pte + i):
            folio_remove_rmap_pte(f, folio_page(f, i), vma)
            nr += 1
    return nr


@patch(
    "C11",
    commit="d50791c2bee9",
    title="mm/khugepaged: delete khugepaged_collapse_pte_mapped_thps()",
    series=SERIES,
    since="6.6",
    site="khugepaged.khugepaged_scan_mm",
    files=("mm/khugepaged.c",),
    claim=Claim("cleanup", "shmem-khugepaged-exit", note="since C09 nothing comes onto the list"),
)
def scan_with_retries(mm: mm_struct) -> int:
    """Before it scans a process, khugepaged tries the addresses on its list again, if mmap_lock is free."""
    waiting = vec_take(mm.pte_mapped_thp) if load(mm.khugepaged) else []
    if waiting and mmap_write_trylock(mm):
        if not collapse_test_exit(mm):
            for address in waiting:
                collapse_pte_mapped_thp(mm, address, False)
        mmap_write_unlock(mm)
    elif waiting:
        for address in waiting:
            vec_push(mm.pte_mapped_thp, address)
    return khugepaged_scan_mm(mm)


@patch(
    "D01",
    commit="6c18ec9af86c",
    title="mm: khugepaged: recheck pmd state in retract_page_tables()",
    series="synchronously scan and reclaim empty user PTE pages",
    since="6.14",
    site="retract.recheck_pmd_state",
    files=("mm/khugepaged.c",),
    claim=Claim("race", "shmem-collapse-dontneed", "I1"),
)
def recheck_pmd_state(pmd: pmd_p) -> int:
    """Nothing but another collapse can take the table, and that is excluded: no need to look again under pml."""
    return SCAN_SUCCEED
