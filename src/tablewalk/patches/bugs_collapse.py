# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of khugepaged and the collapse of files: each row undoes a fix."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..kernel.collapse_policy import collapse_possible
from ..kernel.config import config
from ..kernel.filemap import filemap_get_folio
from ..kernel.huge_mm import thp_vma_suitable_pmd
from ..kernel.memory_zap import free_pgtables, unmap_vmas
from ..kernel.mm_types import address_space, folio, mm_struct, ptdesc, vm_area_struct
from ..kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_mark_detached, vma_start_write
from ..kernel.mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from ..kernel.mmu_notifier import mmu_notifier_invalidate_range_start
from ..kernel.page_alloc import (
    MAPPING_SHIFT,
    folio_get,
    folio_mapcount,
    folio_nr_pages,
    folio_put,
    folio_put_refs,
    folio_ref_count,
    folio_try_get,
)
from ..kernel.pgtable import (
    PFN_SHIFT,
    SPECIAL,
    mm_find_pmd,
    page_folio,
    page_t,
    pmd_clear,
    pmd_p,
    pmd_pgtable,
    pmd_populate,
    pte_offset_kernel,
)
from ..kernel.pgtable import ptep_get_lockless as read_pte
from ..kernel.pgtable_generic import (
    mm_inc_nr_ptes,
    pmd_lock,
    pmd_lockptr,
    pte_offset_map,
    pte_offset_map_lock,
    pte_unmap,
    pte_unmap_unlock,
)
from ..kernel.retract import check_entries
from ..kernel.rmap import linear_page_index, mm_counter_file
from ..kernel.rmap_walk import unmap_folio
from ..kernel.scan_result import (
    SCAN_ADDRESS_RANGE,
    SCAN_FAIL,
    SCAN_PAGE_COUNT,
    SCAN_PTE_MAPPED_HUGEPAGE,
    SCAN_SUCCEED,
    SCAN_TRUNCATED,
    SCAN_VMA_CHECK,
    SCAN_VMA_NULL,
    find_pmd_or_thp_or_none,
)
from ..kernel.tlb import flush_tlb_range
from ..kernel.vma import vma_lookup
from ..kernel.vma_change import remove_vma
from ..machine import (
    add,
    down_read,
    load,
    lock_map_acquire,
    lock_map_release,
    might_sleep,
    mt_erase,
    mt_find,
    mt_values,
    publish,
    spin_lock,
    spin_lock_nested,
    spin_unlock,
    up_read,
)
from . import Claim, patch
from .khugepaged import collapse_and_free_pmd, remove_rmaps, remove_table
from .mm_series import kmap_atomic, kunmap_atomic

FILES: Final = ("mm/khugepaged.c",)


# --- removing tables, before 6.6 -------------------------------------------------------------------------


@patch(
    "K1",
    commit="8d3c106e19e8",
    title="mm/khugepaged: take the right locks for page table retraction",
    since="6.1",
    site="patches.khugepaged.remove_table",
    files=FILES,
    mutant=True,
    claim=Claim("race", "mapped-huge-collapse-punch", "I1", kernel="6.1"),
)
def without_rmap_locks(vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio) -> int:
    """mmap_lock alone, which those who come by the reverse map do not have."""
    mm = vma.vm_mm
    pte, ptl = pte_offset_map_lock(mm, pmd, haddr)
    result = check_entries(pte, f) if pte else SCAN_FAIL
    nr = remove_rmaps(vma, pte, f) if result == SCAN_SUCCEED else 0
    if pte:
        pte_unmap_unlock(pte, ptl)
    if result == SCAN_SUCCEED:
        if nr:
            folio_put_refs(f, nr)
            add(mm_counter_file(mm, f), -nr)
        collapse_and_free_pmd(vma, haddr, pmd)
    return result


@patch(
    "K6",
    commit="ab0c3f1251b4",
    title="mm/khugepaged: fix collapse_pte_mapped_thp() to allow anon_vma",
    since="6.1",
    site="patches.khugepaged.remove_table",
    files=FILES,
    mutant=True,
    claim=Claim("count", measure="error-of-collapse-beside-own-pages", before=22, after=0, kernel="6.1"),
)
def not_beside_own_pages(vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio) -> int:
    """A mapping that has pages of its own anywhere is left alone."""
    return SCAN_VMA_CHECK if vma.anon_vma else remove_table(vma, haddr, pmd, f)


@patch(
    "K8",
    commit="119a5fc16105",
    title="khugepaged: collapse_pte_mapped_thp() protect the pmd lock",
    since="5.8",
    site="patches.khugepaged.collapse_pte_mapped_thp",
    files=FILES,
    mutant=True,
    claim=Claim("race", "mapped-huge-collapse-unmap", "I1", kernel="6.1", without=("K1",)),
)
def without_folio_lock(mm: mm_struct, address: int, install_pmd: bool) -> int:
    """Those who walk by the reverse map with the folio locked are not excluded (K1 excludes all who do)."""
    haddr = address & -arch.pmd_size
    result, pmd = find_pmd_or_thp_or_none(mm, haddr)
    vma = vma_lookup(mm, haddr)
    if result != SCAN_SUCCEED or not vma or not vma.vm_file:
        return result
    f = filemap_get_folio(vma.vm_file.f_mapping, linear_page_index(vma, haddr))
    if not f:
        return SCAN_FAIL
    result = without_rmap_locks(vma, haddr, pmd, f) if f.order == arch.pte_bits else SCAN_FAIL
    folio_put(f)
    return result


@patch(
    "K2",
    commit="2ba99c5e0881",
    title="mm/khugepaged: fix GUP-fast interaction by sending IPI",
    since="6.1",
    site="tlb.tlb_remove_table_sync_one",
    files=FILES,
    mutant=True,
    claim=Claim("race", "shmem-collapse-gup-fast-broadcast", "I1", kernel="6.1"),
)
def no_interrupt() -> None:
    """Who flushes by a broadcast interrupts nobody, and so waits for no one who walks with interrupts disabled."""


@patch(
    "K9",
    commit="18e77600f7a1",
    title="khugepaged: retract_page_tables() remember to test exit",
    since="5.8",
    site="scan_result.collapse_test_exit",
    files=FILES,
    mutant=True,
    claim=Claim("race", "shmem-khugepaged-exit", "I1", kernel="6.1", without=("exit-mmap-lock",)),
)
def never_exits(mm: mm_struct) -> bool:
    """A process that is exiting frees its tables at the same time."""
    return False


@patch(
    "exit-mmap-lock",
    title="mm: protect free_pgtables with mmap_lock write lock in exit_mmap",
    since="5.18",
    site="mmap.exit_mmap",
    files=("mm/mmap.c",),
    mutant=True,
    claim=Claim(
        "cleanup",
        "shmem-khugepaged-exit",
        kernel="6.1",
        note="who comes by the reverse map tests mm_users under mmap_lock (K9), and exit waits for it once",
    ),
)
def exit_without_mmap_lock(mm: mm_struct) -> None:
    """Only khugepaged is waited for (khugepaged_exit); that the VMAs are this task's alone their locks say."""
    mmap_write_lock(mm)
    mmap_write_unlock(mm)
    vmas = tuple([vm_area_struct(found) for found in mt_values(mm.mm_mt)])
    for vma in vmas:
        lock_map_acquire(vma.vm_lock)
    tlb = tlb_gather_mmu(mm, fullmm=True)
    unmap_vmas(tlb, vmas, 0, arch.task_size)
    if vmas:
        free_pgtables(tlb, vmas, arch.first_user_address, arch.user_pgtables_ceiling)
    tlb_finish_mmu(tlb)
    for vma in vmas:
        lock_map_release(vma.vm_lock)
    mmap_write_lock(mm)
    for vma in vmas:
        vma_start_write(vma)
        vma_mark_detached(vma)
        remove_vma(vma)
    mt_erase(mm.mm_mt, 0, arch.task_size)
    mm.map_count = 0
    mmap_write_unlock(mm)


# --- anonymous memory ------------------------------------------------------------------------------------


@patch(
    "K4",
    commit="70cbc3cc78a9",
    title="mm: gup: fix the fast GUP race against THP collapse",
    since="6.1",
    site="gup.gup_fast_pte",
    files=("mm/gup.c", "mm/khugepaged.c"),
    mutant=True,
    claim=Claim("race", "anon-collapse-gup-write-broadcast", "RESULT", without=("K2",)),
)
def gup_fast_without_pmd(pmd: pmd_p, pmdval: int, address: int, gup_flags: int) -> page_t:
    """The pte is compared, but not the pmd: the entries of a detached table stay for a while."""
    pte = pte_offset_map(pmd, address)
    if not pte:
        return 0
    entry = read_pte(pte)
    page = 0
    needed = 3 if gup_flags else 1
    if entry & needed == needed and entry & SPECIAL == 0:
        f = page_folio(entry >> PFN_SHIFT)
        if folio_try_get(f):
            if load(pte) == entry:
                page = entry >> PFN_SHIFT
            else:
                folio_put(f)
    pte_unmap(pte)
    return page


@patch(
    "K11",
    commit="594cced14ad3",
    title="khugepaged: fix null-pointer dereference due to race",
    since="5.8",
    site="collapse_policy.hugepage_vma_revalidate",
    files=FILES,
    mutant=True,
    claim=Claim("race", "anon-collapse-remap-file", "I1"),
)
def revalidate_any(
    mm: mm_struct, address: int, expect_anon: bool, is_khugepaged: bool
) -> tuple[int, vm_area_struct]:
    """Any VMA that may have huge pages will do, one of a file too."""
    vma = vm_area_struct(mt_find(mm.mm_mt, address))
    if not vma:
        return SCAN_VMA_NULL, vma
    if not thp_vma_suitable_pmd(vma, address):
        return SCAN_ADDRESS_RANGE, vma
    if not collapse_possible(vma, vma.vm_flags, not is_khugepaged):
        return SCAN_VMA_CHECK, vma
    return SCAN_SUCCEED, vma


# --- files -----------------------------------------------------------------------------------------------


@patch(
    "K15",
    title="mm/filemap: fault-around installs the table that it has at hand only into an empty pmd",
    since="5.16",
    site="filemap:pmd_install",
    files=("mm/filemap.c",),
    mutant=True,
    claim=Claim("race", "file-reads", "I2"),
)
def install_over(mm: mm_struct, pmd: pmd_p, addr: int, pgtable: ptdesc) -> bool:
    """What was none before the lock is taken to be none under it."""
    pml = pmd_lock(mm, pmd, addr)
    mm_inc_nr_ptes(mm)
    publish(pgtable.addr)
    pmd_populate(pmd, pgtable)
    spin_unlock(pml)
    return True


# --- retraction since 6.6 --------------------------------------------------------------------------------


@patch(
    "K16d",
    title="review of free by RCU: retract_page_tables() looks at anon_vma and uffd-wp again under ptl",
    series="mm: free retracted page table by RCU",
    since="6.6",
    site="retract.recheck_vma_is_retractable",
    files=FILES,
    mutant=True,
    claim=Claim("race", "shmem-collapse-uffd-copy", "I2"),
)
def retract_without_second_look(vma: vm_area_struct) -> bool:
    """What was looked at before the locks is taken to hold under them."""
    return True


@patch(
    "K17",
    commit="6fa1066fc5d0",
    title="mm/mremap: fix move_normal_pmd/retract_page_tables race (CVE-2024-50066)",
    since="6.12",
    site="move_page_tables.move_normal_pmd",
    files=("mm/mremap.c",),
    mutant=True,
    claim=Claim("race", "shmem-collapse-mremap", "I5"),
)
def move_whatever_is_there(
    vma: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p
) -> bool:
    """The pmd that was a table before the locks is taken for one under them."""
    if load(new_pmd) != 0:
        return False
    mm = vma.vm_mm
    old_ptl = pmd_lock(mm, old_pmd, old_addr)
    new_ptl = pmd_lockptr(mm, new_pmd, new_addr)
    if new_ptl != old_ptl:
        spin_lock_nested(new_ptl)
    pmdval = load(old_pmd)
    pmd_clear(old_pmd)
    pmd_populate(new_pmd, pmd_pgtable(pmdval))
    flush_tlb_range(mm, old_addr, old_addr + arch.pmd_size)
    if new_ptl != old_ptl:
        spin_unlock(new_ptl)
    spin_unlock(old_ptl)
    return True


@patch(
    "K47",
    title="mm/khugepaged: a page may be found dirty only once it is unmapped (seen in 7.2)",
    since="7.0",
    site="collapse_file.collapse_unmap_folio",
    files=FILES,
    mutant=True,
    claim=Claim("race", "file-collapse-write", "RESULT"),
)
def dirty_is_not_looked_at_again(mapping: address_space, f: folio) -> int:
    """The dirty bit of an entry goes to the page after that was seen to be clean."""
    if f.order == arch.pte_bits:
        return SCAN_PTE_MAPPED_HUGEPAGE
    if f.mapping != mapping.addr << MAPPING_SHIFT:
        return SCAN_TRUNCATED
    folio_get(f)
    if folio_mapcount(f):
        down_read(mapping.i_mmap_rwsem)
        unmap_folio(f, migrate=False)
        up_read(mapping.i_mmap_rwsem)
    spin_lock(mapping.i_pages_lock)
    result = SCAN_SUCCEED if folio_ref_count(f) == 2 + folio_nr_pages(f) else SCAN_PAGE_COUNT
    spin_unlock(mapping.i_pages_lock)
    if result != SCAN_SUCCEED:
        folio_put(f)
    return result


@patch(
    "K59",
    commit="ec649c9d454e",
    title="mm/khugepaged: fix might_sleep() warn with CONFIG_HIGHPTE=y",
    since="5.4",
    site="collapse_huge_page:mmu_notifier_invalidate_range_start",
    files=("mm/khugepaged.c",),
    mutant=True,
    claim=Claim("race", "anon-collapse-fault-highpte", "I27", without=("B03",)),
)
def told_while_the_table_is_mapped(vma: vm_area_struct, start: int, end: int) -> None:
    """The table is mapped already when MMU notifiers are told, which may sleep: that was kmap_atomic() then (B03)."""
    pte = pte_offset_kernel(mm_find_pmd(vma.vm_mm, start), start)
    if config.highpte:
        kmap_atomic(pte)
    might_sleep()  # an annotation: whether somebody has subscribed or not
    mmu_notifier_invalidate_range_start(vma, start, end)
    if config.highpte:
        kunmap_atomic(pte)
