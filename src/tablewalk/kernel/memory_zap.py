# SPDX-License-Identifier: GPL-2.0-only
"""Unmapping pages, and giving empty PTE tables back on the way (mm/memory.c, mm/madvise.c; 7.2).

MADV_DONTNEED of a whole table's range frees the table (PT_RECLAIM).  It is proven empty either within the one hold of
its lock in which the entries were cleared, or by a rescan under both locks.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    PMD_TABLES_FREED,
    RECLAIMED_FAST,
    RECLAIMED_SLOW,
    add,
    clear_unreachable,
    count,
    down_read,
    forget,
    interval_tree_overlapping,
    load,
    load_range,
    spin_lock_nested,
    spin_trylock,
    spin_unlock,
    store,
    up_read,
)
from .config import config
from .huge_memory import __split_huge_pmd, zap_huge_pmd
from .huge_mm import vma_is_anonymous
from .huge_pud import zap_huge_pud
from .mm_types import address_space, folio, mm_struct, vm_area_struct
from .mmu_gather import (
    mmu_gather,
    pte_free_tlb,
    ptep_get_and_clear_full,
    pxd_free_tlb,
    tlb_change_page_size,
    tlb_end_vma,
    tlb_finish_mmu,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_flush_range,
    tlb_flush_rmaps,
    tlb_gather_mmu,
    tlb_remove_page,
)
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .not_modelled import NotModelled
from .page_alloc import PG_SWAPBACKED, folio_mark_dirty, folio_test_anon
from .pgtable import (
    DIRTY,
    LEAF,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    PTE_MARKER_GUARD,
    PTE_MARKER_UFFD_WP,
    SPECIAL,
    SWP_MARKER,
    SWP_MIGRATION,
    SWP_SWAP,
    UFFD_WP,
    make_pte_marker,
    p4d_addr_end,
    p4d_offset,
    page_folio,
    pgd_addr_end,
    pgd_offset,
    pmd_addr_end,
    pmd_clear,
    pmd_offset,
    pmd_p,
    pmd_pgtable,
    pmdp_get_lockless,
    ptes_none,
    pud_addr_end,
    pud_offset,
    swp_offset,
    swp_type,
)
from .pgtable_generic import (
    mm_dec_nr_ptes,
    pmd_lock,
    pmd_lockptr,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
)
from .rmap import folio_remove_rmap_pte, mm_counter_file, unlink_anon_vmas, vma_address, vma_last_pgoff
from .swapfile import swap_put_entries_direct
from .userfaultfd_k import userfaultfd_pte_wp
from .vm_flags import VM_HUGETLB
from .vma_change import unlink_file_vma

ZAP_RECLAIM_PT: Final = 1  # zap_details.reclaim_pt
ZAP_DROP_MARKERS: Final = 2  # ZAP_FLAG_DROP_MARKER
ZAP_KEEP_COWS: Final = 4  # unmap_mapping_range(even_cows = false): private copies stay

# what one pass over a table's entries found
SKIPPED: Final = 1  # an entry was left non-none
FORCE_FLUSH: Final = 2  # the TLB has to be flushed before ptl is dropped
FORCE_BREAK: Final = 4  # the batch of pages is full


def zap_page_range_single(vma: vm_area_struct, start: int, size: int, details: int) -> None:
    """Unmap [start, start + size) bytes of one VMA; mmap_lock, the VMA's lock or its i_mmap_rwsem is held."""
    tlb = tlb_gather_mmu(vma.vm_mm)
    zap_page_range_single_batched(tlb, vma, start, size, details)
    tlb_finish_mmu(tlb)


def zap_page_range_single_batched(tlb: mmu_gather, vma: vm_area_struct, start: int, size: int, details: int) -> None:
    """The same within a gather."""
    mmu_notifier_invalidate_range_start(vma, start, start + size)
    unmap_single_vma(tlb, vma, start, start + size, details)
    mmu_notifier_invalidate_range_end(vma, start, start + size)


def unmap_vmas(tlb: mmu_gather, vmas: tuple[vm_area_struct, ...], start: int, end: int) -> None:
    """Unmap all of [start, end) that the VMAs have, markers too: they are going away."""
    if not vmas:
        return
    mmu_notifier_invalidate_range_start(vmas[0], start, end)
    for vma in vmas:
        unmap_single_vma(tlb, vma, start, end, ZAP_DROP_MARKERS)
    mmu_notifier_invalidate_range_end(vmas[0], start, end)


def unmap_single_vma(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int, details: int) -> None:
    """Unmap what lies both in the VMA and in [start, end)."""
    start = max(start, vma.vm_start)
    end = min(end, vma.vm_end)
    if start >= end:
        return
    if vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    unmap_page_range(tlb, vma, start, end, details)


def unmap_page_range(tlb: mmu_gather, vma: vm_area_struct, addr: int, end: int, details: int) -> None:
    """Walk down from the PGD."""
    while addr < end:
        pgd = pgd_offset(vma.vm_mm, addr)
        next_addr = pgd_addr_end(addr, end)
        if load(pgd):
            zap_p4d_range(tlb, vma, pgd, addr, next_addr, details)
        addr = next_addr
    tlb_end_vma(tlb)


def zap_p4d_range(tlb: mmu_gather, vma: vm_area_struct, pgd: int, addr: int, end: int, details: int) -> None:
    """Walk the P4D table."""
    while addr < end:
        p4d = p4d_offset(pgd, addr)
        next_addr = p4d_addr_end(addr, end)
        if load(p4d):
            zap_pud_range(tlb, vma, p4d, addr, next_addr, details)
        addr = next_addr


def zap_pud_range(tlb: mmu_gather, vma: vm_area_struct, p4d: int, addr: int, end: int, details: int) -> None:
    """Walk the PUD table."""
    while addr < end:
        pud = pud_offset(p4d, addr)
        next_addr = pud_addr_end(addr, end)
        value = load(pud)
        if value & LEAF and arch.pmd_bits:
            value = 0 if zap_huge_pud(tlb, vma, pud, addr, next_addr) else load(pud)
        if value:
            zap_pmd_range(tlb, vma, pud, addr, next_addr, details)
        addr = next_addr


def zap_pmd_range(tlb: mmu_gather, vma: vm_area_struct, pud: int, addr: int, end: int, details: int) -> None:
    """Walk the PMD table; a slot whose table went away meanwhile is looked at again."""
    pmd = pmd_offset(pud, addr)
    while addr < end:
        next_addr = pmd_addr_end(addr, end)
        if zap_pmd(tlb, vma, pmd, addr, next_addr, details):
            addr = next_addr
            pmd += 1
        forget((addr, pmd))


def zap_pmd(tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, details: int) -> bool:
    """Unmap the range of one slot; false to be called again."""
    pmdval = pmdp_get_lockless(pmd)
    if pmdval == 0:
        return True
    if pmdval & (PRESENT | LEAF) != PRESENT:
        if end - addr == arch.pmd_size:
            return zap_huge_pmd(tlb, vma, pmd, addr)
        __split_huge_pmd(vma, pmd, addr)
        return pmdp_get_lockless(pmd) == 0 or zap_pte_range(tlb, vma, pmd, addr, end, details)
    return zap_pte_range(tlb, vma, pmd, addr, end, details)


def zap_pte_range(tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, details: int) -> bool:
    """Unmap within one PTE table; false if there was no table to map any more."""
    mm = vma.vm_mm
    start = addr
    can_reclaim = pte_table_reclaim_possible(addr, end, details)
    direct = True
    pmdval = 0
    tlb_change_page_size(tlb, arch.page_shift)
    while True:
        pte, ptl = pte_offset_map_lock(mm, pmd, addr)
        if not pte:
            return False
        nr, found = zap_ptes(tlb, vma, pte, addr, end, details)
        addr += nr << arch.page_shift
        if found & SKIPPED:
            can_reclaim = False
        if not zapped_at_once(found):
            direct = False
        if can_reclaim and direct and addr == end:
            pmdval = zap_empty_pte_table(mm, pmd, addr - 1, ptl)
            direct = pmdval != 0
        if found & FORCE_FLUSH:
            tlb_flush_mmu_tlbonly(tlb)
            tlb_flush_rmaps(tlb, vma)
        pte_unmap_unlock(pte, ptl)
        if found & FORCE_FLUSH:
            tlb_flush_mmu(tlb)
        if addr == end:
            break
        forget((addr, can_reclaim, direct))
    if can_reclaim:
        if not direct:
            pmdval = zap_pte_table_if_empty(mm, pmd, start)
        if pmdval:
            free_reclaimed_pte(tlb, pmdval, start)
    return True


def pte_table_reclaim_possible(addr: int, end: int, details: int) -> bool:
    """Whether the whole table is zapped by one who wants it back."""
    return config.pt_reclaim and details & ZAP_RECLAIM_PT != 0 and end - addr >= arch.pmd_size


def zapped_at_once(found: int) -> bool:
    """Whether ptl was held until the end: else entries before may be there again."""
    return found & FORCE_BREAK == 0


def free_reclaimed_pte(tlb: mmu_gather, pmdval: int, addr: int) -> None:
    """Free the table that was unlinked, with the gather: flush first, then RCU."""
    pte_free_tlb(tlb, pmd_pgtable(pmdval), addr)
    mm_dec_nr_ptes(tlb.mm)


def zap_empty_pte_table(mm: mm_struct, pmd: pmd_p, addr: int, ptl: int) -> int:
    """Unlink the table that this hold of ptl has emptied, if the pmd lock is free; returns its pmd value, or 0."""
    pml = pmd_lockptr(mm, pmd, addr)
    if ptl != pml and not spin_trylock(pml):
        return 0
    pmdval = load(pmd)
    pmd_clear(pmd)
    if ptl != pml:
        spin_unlock(pml)
    count(RECLAIMED_FAST)
    return pmdval


def zap_pte_table_if_empty(mm: mm_struct, pmd: pmd_p, addr: int) -> int:
    """Unlink the table if a scan under both locks finds it empty; returns its pmd value, or 0."""
    pml = pmd_lock(mm, pmd, addr)
    pte, pmdval, ptl = pte_offset_map_rw_nolock(mm, pmd, addr)
    empty = False
    if pte:
        if ptl != pml:
            spin_lock_nested(ptl)
        empty = ptes_none(pte, arch.ptrs_per_pte)
        pte_unmap(pte)
        if empty:
            pmd_clear(pmd)
        if ptl != pml:
            spin_unlock(ptl)
    spin_unlock(pml)
    if not empty:
        return 0
    count(RECLAIMED_SLOW)
    return pmdval


def zap_ptes(tlb: mmu_gather, vma: vm_area_struct, pte: int, addr: int, end: int, details: int) -> tuple[int, int]:
    """Clear the entries of [addr, end) under ptl; returns (entries done, SKIPPED | FORCE_FLUSH | FORCE_BREAK)."""
    mm = vma.vm_mm
    found = 0
    anon = file = shmem = 0
    done = nr = end - addr >> arch.page_shift
    first = -1
    last = 0
    for i, entry in enumerate(load_range(pte, nr)):
        if entry == 0:
            continue
        if entry & (PRESENT | PROTNONE) == 0:
            if not zap_nonpresent_pte(vma, pte + i, entry, details):
                found |= SKIPPED
            continue
        page = entry >> PFN_SHIFT
        if entry & SPECIAL:
            ptep_get_and_clear_full(tlb, pte + i, addr + (i << arch.page_shift), arch.page_size)
            if entry & UFFD_WP and zap_install_uffd_wp_if_needed(vma, pte + i, entry, details):
                found |= SKIPPED
            first = i if first < 0 else first
            last = i
            continue
        f = page_folio(page)
        if folio_test_anon(f):
            if details & ZAP_KEEP_COWS:
                found |= SKIPPED
                continue
            ptep_get_and_clear_full(tlb, pte + i, addr + (i << arch.page_shift), arch.page_size)
            if entry & UFFD_WP and zap_install_uffd_wp_if_needed(vma, pte + i, entry, details):
                found |= SKIPPED
            anon += 1
            folio_remove_rmap_pte(f, page, vma)
            full = tlb_remove_page(tlb, page)
        else:
            if f.flags & PG_SWAPBACKED:
                shmem += 1
            else:
                file += 1
            delay, kept = zap_present_file_pte(tlb, vma, pte + i, addr + (i << arch.page_shift), f, details)
            found |= kept
            full = tlb_remove_page(tlb, page, delay)
        first = i if first < 0 else first
        last = i
        if full:
            found |= FORCE_FLUSH | FORCE_BREAK
            done = i + 1
            break
    if first >= 0 and (tlb.fullmm or not arch.no_gather):
        tlb_flush_range(tlb, addr + (first << arch.page_shift), addr + (last + 1 << arch.page_shift))
    if anon:
        add(mm.anon_rss, -anon)
    if file:
        add(mm.file_rss, -file)
    if shmem:
        add(mm.shmem_rss, -shmem)
    return done, found


def zap_present_file_pte(
    tlb: mmu_gather, vma: vm_area_struct, pte: int, addr: int, f: folio, details: int
) -> tuple[bool, int]:
    """Clear an entry that maps a file page.  Returns (its rmap waits for the flush, SKIPPED and FORCE_FLUSH bits)."""
    entry = ptep_get_and_clear_full(tlb, pte, addr, arch.page_size)
    found = 0
    if entry & UFFD_WP and zap_install_uffd_wp_if_needed(vma, pte, entry, details):
        found = SKIPPED
    if entry & DIRTY:
        folio_mark_dirty(f)
        if not arch.no_gather:  # tlb_delay_rmap
            return True, found | FORCE_FLUSH
    folio_remove_rmap_pte(f, entry >> PFN_SHIFT, vma)
    return False, found


def zap_install_uffd_wp_if_needed(vma: vm_area_struct, pte: int, entry: int, details: int) -> bool:
    """Leave a marker where a file's page was write-protected by userfaultfd: whether one was, in the cleared entry."""
    if details & ZAP_DROP_MARKERS or vma_is_anonymous(vma) or not userfaultfd_pte_wp(vma, entry):
        return False
    store(pte, make_pte_marker(PTE_MARKER_UFFD_WP))
    return True


def zap_nonpresent_pte(vma: vm_area_struct, pte: int, entry: int, details: int) -> bool:
    """Clear a non-present entry; false if it has to stay."""
    kind = swp_type(entry)
    if kind == SWP_MARKER:
        marker = swp_offset(entry)
        if marker & PTE_MARKER_UFFD_WP:
            keep = not vma_is_anonymous(vma) and details & ZAP_DROP_MARKERS == 0
        elif marker & PTE_MARKER_GUARD:
            keep = details & ZAP_DROP_MARKERS == 0
        else:
            keep = details & ZAP_KEEP_COWS != 0
        if keep:
            return False
    elif kind == SWP_SWAP:
        if details & ZAP_KEEP_COWS:
            return False
        add(vma.vm_mm.swapents, -1)
        swap_put_entries_direct(swp_offset(entry))
    elif kind == SWP_MIGRATION:
        f = page_folio(swp_offset(entry))
        if details & ZAP_KEEP_COWS and folio_test_anon(f):
            return False
        add(vma.vm_mm.anon_rss if folio_test_anon(f) else mm_counter_file(vma.vm_mm, f), -1)
    store(pte, 0)
    if kind not in (SWP_SWAP, SWP_MIGRATION) or entry & UFFD_WP == 0:
        return True
    return not zap_install_uffd_wp_if_needed(vma, pte, entry, details)


# --- tables ----------------------------------------------------------------------------------------------

TOP: Final = 1 << 64  # a ceiling of 0 means none


def free_pgtables(tlb: mmu_gather, vmas: tuple[vm_area_struct, ...], floor: int, ceiling: int) -> None:
    """Hide the write-locked VMAs from their reverse maps, then free the tables that only they used.

    `floor` and `ceiling` are where the neighbours end and begin, 0 where there is none.
    """
    start = 0
    for i, vma in enumerate(vmas):
        unlink_anon_vmas(vma)
        unlink_file_vma(vma)
        if start == 0:
            start = vma.vm_start
        next_start = vmas[i + 1].vm_start if i + 1 < len(vmas) else 0
        if next_start == 0 or next_start > vma.vm_end + arch.pmd_size:
            free_pgd_range(tlb, start, vma.vm_end, floor, next_start or ceiling)
            start = 0


def free_pgd_range(tlb: mmu_gather, addr: int, end: int, floor: int, ceiling: int) -> None:
    """Free the tables of the unmapped range [addr, end) that nothing above `floor` and below `ceiling` shares."""
    from_addr = addr & -arch.pmd_size
    if from_addr < floor:
        from_addr += arch.pmd_size
    if ceiling:
        ceiling &= -arch.pmd_size
        if not ceiling:
            return
    if end > (ceiling or TOP):
        end -= arch.pmd_size
    if from_addr >= end:
        return
    addr = from_addr
    while addr < end:
        pgd = pgd_offset(tlb.mm, addr)
        next_addr = pgd_addr_end(addr, end)
        if load(pgd):
            free_p4d_range(tlb, pgd, addr, next_addr, floor, ceiling)
        addr = next_addr


def outside(start: int, end: int, floor: int, ceiling: int, size: int) -> bool:
    """Whether a table that covers `size` bytes around start..end may be shared with what floor or ceiling shut out."""
    if start & -size < floor:
        return True
    if ceiling:
        ceiling &= -size
        if not ceiling:
            return True
    return end > (ceiling or TOP)


def free_p4d_range(tlb: mmu_gather, pgd: int, addr: int, end: int, floor: int, ceiling: int) -> None:
    """Free the PUD tables below a PGD entry, then the P4D table itself."""
    start = addr
    while addr < end:
        p4d = p4d_offset(pgd, addr)
        next_addr = p4d_addr_end(addr, end)
        if load(p4d):
            free_pud_range(tlb, p4d, addr, next_addr, floor, ceiling)
        addr = next_addr
    if arch.p4d_bits and not outside(start, end, floor, ceiling, 1 << arch.pgdir_shift):
        free_upper_table(tlb, pgd, start, arch.ptrs_per_p4d, tlb.mm.nr_p4ds)


def free_pud_range(tlb: mmu_gather, p4d: int, addr: int, end: int, floor: int, ceiling: int) -> None:
    """Free the PMD tables below a P4D entry, then the PUD table itself."""
    start = addr
    while addr < end:
        pud = pud_offset(p4d, addr)
        next_addr = pud_addr_end(addr, end)
        if load(pud):
            free_pmd_range(tlb, pud, addr, next_addr, floor, ceiling)
        addr = next_addr
    if arch.pud_bits and not outside(start, end, floor, ceiling, 1 << arch.p4d_shift):
        free_upper_table(tlb, p4d, start, arch.ptrs_per_pud, tlb.mm.nr_puds)


def free_pmd_range(tlb: mmu_gather, pud: int, addr: int, end: int, floor: int, ceiling: int) -> None:
    """Free the PTE tables below a PUD entry, then the PMD table itself."""
    start = addr
    pmd = pmd_offset(pud, addr)
    while addr < end:
        next_addr = pmd_addr_end(addr, end)
        pmdval = load(pmd)
        if pmdval & (PRESENT | LEAF) == PRESENT:
            clear_unreachable(pmd)
            pte_free_tlb(tlb, pmd_pgtable(pmdval), addr)
            mm_dec_nr_ptes(tlb.mm)
        pmd += 1
        addr = next_addr
    if arch.pmd_bits and not outside(start, end, floor, ceiling, 1 << arch.pud_shift):
        count(PMD_TABLES_FREED)
        free_upper_table(tlb, pud, start, arch.ptrs_per_pmd, tlb.mm.nr_pmds)


def free_upper_table(tlb: mmu_gather, slot: int, addr: int, nr: int, counter: int) -> None:
    """Unlink and free the table of `nr` entries that `slot` points to."""
    table = pmd_pgtable(load(slot))
    clear_unreachable(slot)
    pxd_free_tlb(tlb, table, addr, nr)
    add(counter, -1)


# --- by file ---------------------------------------------------------------------------------------------


def unmap_mapping_range(mapping: address_space, first: int, nr: int, even_cows: bool) -> None:
    """Unmap pages first..first+nr-1 of a file from every VMA; private copies too if `even_cows`."""
    details = 0 if even_cows else ZAP_KEEP_COWS
    last = first + nr - 1
    down_read(mapping.i_mmap_rwsem)
    for found in interval_tree_overlapping(mapping.i_mmap, first, last):
        vma = vm_area_struct(found)
        low = max(first, vma.vm_pgoff)
        pages = min(last, vma_last_pgoff(vma)) - low + 1
        zap_page_range_single(vma, vma_address(vma, low), pages << arch.page_shift, details)
    up_read(mapping.i_mmap_rwsem)
