# SPDX-License-Identifier: GPL-2.0-only
"""From a folio to its mappings: unmapping it everywhere (mm/page_vma_mapped.c, mm/rmap.c, mm/migrate.c; 7.2).

The folio is locked; the caller holds the lock of its reverse map.  TLBs are flushed table by table at once, where the
kernel may gather flushes of several folios.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import WRITE_ONCE, add, down_read, interval_tree_overlapping, load, spin_unlock, store, up_read
from .config import config
from .huge_mm import thp_vma_suitable_pmd, vma_is_anonymous
from .huge_pmd import (
    __split_huge_pmd,
    migration_entry,
    pmd_maps_folio,
    pmdp_huge_clear_flush,
    remove_migration_pmd,
    set_pmd_migration_entry,
    zap_deposited_table,
    zap_huge_pmd_folio,
)
from .mlock_folio import mlock_drain_local
from .mm_types import address_space, anon_vma, anon_vma_chain, folio, rwsem_t, vm_area_struct
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .not_modelled import NotModelled
from .page_alloc import (
    FOLIO_MAPPING_ANON,
    MAPPING_SHIFT,
    PAGE_ANON_EXCLUSIVE,
    PG_DIRTY,
    PG_MLOCKED,
    PG_SWAPBACKED,
    folio_get,
    folio_mapcount,
    folio_mark_dirty,
    folio_maybe_dma_pinned,
    folio_nr_pages,
    folio_page,
    folio_page_idx,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    folio_test_ksm,
    page_content,
    page_flags,
    zero_page,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    MIGRATION_EXCLUSIVE,
    PFN_SHIFT,
    PRESENT,
    PROTNONE,
    PTE_MARKER_UFFD_WP,
    RW,
    SOFT_DIRTY,
    SPECIAL,
    SWP_EXCLUSIVE,
    SWP_MIGRATION,
    SWP_SWAP,
    UFFD_WP,
    is_pmd_migration_entry,
    is_swap_pte,
    make_pte_marker,
    mm_find_pmd,
    page_folio,
    pmd_none,
    pmd_p,
    pmdp_get_lockless,
    pte_p,
    pte_page,
    ptep_get,
    ptep_get_and_clear,
    swp_entry,
    swp_offset,
    swp_type,
    vm_page_prot,
)
from .pgtable_generic import pmd_lock, pte_offset_map_lock, pte_unmap_unlock
from .rmap import folio_add_rmap_ptes, folio_remove_rmap_pte, mm_counter_file, vma_address, vma_last_pgoff
from .swapfile import folio_dup_swap
from .tlb import flush_tlb_range
from .userfaultfd_k import userfaultfd_pte_wp
from .vm_flags import VM_LOCKED


def folio_anon_vma(f: folio) -> anon_vma:
    """The anon_vma of an anonymous folio."""
    return anon_vma(f.mapping >> MAPPING_SHIFT)


def folio_mapping(f: folio) -> address_space:
    """The file that a folio belongs to; NULL for anonymous memory, and after truncation."""
    return address_space(0 if f.mapping & FOLIO_MAPPING_ANON else f.mapping >> MAPPING_SHIFT)


def rmap_vmas(f: folio) -> tuple[vm_area_struct, ...]:
    """The VMAs in which pages of the folio may be mapped."""
    if folio_test_ksm(f):
        raise NotModelled("reclaim of pages that KSM has merged")
    last = f.index + folio_nr_pages(f) - 1
    if folio_test_anon(f):
        chains = interval_tree_overlapping(folio_anon_vma(f).rb_root, f.index, last)
        return tuple([anon_vma_chain(avc).vma for avc in chains])
    return tuple([vm_area_struct(vma) for vma in interval_tree_overlapping(folio_mapping(f).i_mmap, f.index, last)])


def folio_tables(f: folio, vma: vm_area_struct) -> tuple[tuple[int, int, int], ...]:
    """Where the VMA may map the folio, table by table: (address, pages, index of the first in the folio)."""
    index = max(f.index, vma.vm_pgoff)
    end = min(f.index + folio_nr_pages(f), vma_last_pgoff(vma) + 1)
    parts: tuple[tuple[int, int, int], ...] = ()
    while index < end:
        address = vma_address(vma, index)
        room = arch.ptrs_per_pte - (address >> arch.page_shift & arch.ptrs_per_pte - 1)
        nr = min(room, end - index)
        parts += ((address, nr, index - f.index),)
        index += nr
    return parts


def rmap_lock_read(f: folio) -> rwsem_t:
    """Lock the folio's reverse map shared, and what keeps it is the caller's care; what is to be released."""
    sem = folio_anon_vma(f).root.rwsem if folio_test_anon(f) else folio_mapping(f).i_mmap_rwsem
    down_read(sem)
    return sem


def try_to_unmap(f: folio) -> bool:
    """Unmap a locked folio everywhere; whether nothing maps it any more."""
    sem = rmap_lock_read(f)
    unmapped = unmap_folio(f)
    up_read(sem)
    return unmapped


def try_to_migrate(f: folio) -> bool:
    """Let migration entries take the place of all that maps a locked folio; whether nothing does any more."""
    sem = rmap_lock_read(f)
    unmapped = unmap_folio(f, migrate=True, split=False)
    up_read(sem)
    return unmapped


def unmap_folio(f: folio, migrate: bool = False, split: bool = True) -> bool:
    """Unmap the folio everywhere, huge pmds split unless they shall become migration entries too.

    Whether nothing maps it any more.

    What is left are migration entries (`migrate`), or swap entries of anonymous memory, nothing where it was given up
    by MADV_FREE or is a file's.
    """
    for vma in rmap_vmas(f):
        for address, nr, idx in folio_tables(f, vma):
            end = address + (nr << arch.page_shift)
            mmu_notifier_invalidate_range_start(vma, address, end)
            unmap_table(f, vma, address, nr, idx, migrate, split)
            mmu_notifier_invalidate_range_end(vma, address, end)
    return load(f._mapcount) + load(f._entire_mapcount) == 0


def unmap_table(f: folio, vma: vm_area_struct, address: int, nr: int, idx: int, migrate: bool, split: bool) -> None:
    """Unmap `nr` pages of the folio from its page `idx` on, that one table may map from `address` on."""
    mm = vma.vm_mm
    pmd = mm_find_pmd(mm, address)
    if not pmd:
        return
    pmdval = pmdp_get_lockless(pmd)
    if pmd_none(pmdval):
        if split:  # TTU_SYNC
            sync_with_folio_pmd_zap(f, vma, address, pmd)
        return
    if pmd_maps_folio(pmdval, f):
        if not migrate and folio_test_lazyfree(f) and unmap_huge_pmd_locked(vma, address, pmd, f):
            return
        if not split and set_pmd_migration_entry(f, vma, address, pmd):
            return
        if split:
            __split_huge_pmd(vma, pmd, address, freeze=migrate)
    pte, ptl = pte_offset_map_lock(mm, pmd, address)
    if not pte:
        return
    done = 0
    for i in range(nr):
        entry = ptep_get(pte + i)
        if entry & (PRESENT | PROTNONE) and entry & SPECIAL == 0 and pte_page(entry) == folio_page(f, idx + i):
            if not unmap_page(f, vma, pte + i, migrate):
                break
            folio_remove_rmap_pte(f, folio_page(f, idx + i), vma)
            folio_put(f)
            done += 1
    if done:
        flush_tlb_range(mm, address, address + (nr << arch.page_shift))
        if not migrate:
            add(mm.anon_rss if folio_test_anon(f) else mm_counter_file(mm, f), -done)
    pte_unmap_unlock(pte, ptl)


def sync_with_folio_pmd_zap(f: folio, vma: vm_area_struct, address: int, pmd: pmd_p) -> None:
    """Who has emptied the slot, to unmap a huge page or to move it on, is done with that when this returns."""
    if folio_nr_pages(f) >= arch.hpage_pmd_nr and thp_vma_suitable_pmd(vma, address):
        spin_unlock(pmd_lock(vma.vm_mm, pmd, address))


def unmap_page(f: folio, vma: vm_area_struct, pte: pte_p, migrate: bool) -> bool:
    """Clear one present entry, and let another take its place; false if the page has to stay.  Under ptl."""
    entry = ptep_get_and_clear(pte)
    if entry & DIRTY:
        folio_mark_dirty(f)
    if migrate:
        if load(page_flags(pte_page(entry))) & PAGE_ANON_EXCLUSIVE and folio_maybe_dma_pinned(f):
            store(pte, entry)
            return False
        store(pte, migration_entry(pte_page(entry), entry))
    elif folio_test_anon(f):
        stays = lazyfree_must_stay(f) if folio_test_lazyfree(f) else not swap_out_page(f, vma, pte, entry)
        if stays:
            store(pte, entry)
            return False
    elif userfaultfd_pte_wp(vma, entry) and not vma_is_anonymous(vma):
        store(pte, make_pte_marker(PTE_MARKER_UFFD_WP))
    return True


def swap_out_page(f: folio, vma: vm_area_struct, pte: pte_p, entry: int) -> bool:
    """Let a swap entry take the place of an entry that was cleared; false if the page is pinned."""
    page = pte_page(entry)
    kept = entry & (SOFT_DIRTY | UFFD_WP)
    if load(page_flags(page)) & PAGE_ANON_EXCLUSIVE:
        if folio_maybe_dma_pinned(f):
            return False
        kept |= SWP_EXCLUSIVE
        store(page_flags(page), 0)
    folio_dup_swap(f, page)
    add(vma.vm_mm.swapents, 1)
    store(pte, swp_entry(SWP_SWAP, f.swap + folio_page_idx(f, page), kept))
    return True


def folio_test_lazyfree(f: folio) -> bool:
    """Whether an anonymous folio was given up by MADV_FREE."""
    return folio_test_anon(f) and f.flags & PG_SWAPBACKED == 0


def lazyfree_must_stay(f: folio) -> bool:
    """Whether a folio given up is wanted again: it was written since, or somebody uses it."""
    if f.flags & PG_DIRTY:
        WRITE_ONCE(f, "flags", f.flags | PG_SWAPBACKED)
        return True
    return folio_ref_count(f) != 1 + folio_mapcount(f)


def unmap_huge_pmd_locked(vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio) -> bool:
    """Drop a huge page that was given up, with its table; whether it was looked at at all, or shall be split.

    mm/huge_memory.c
    """
    mm = vma.vm_mm
    pml = pmd_lock(mm, pmd, haddr)
    pmdval = pmdp_get_lockless(pmd)
    if pmd_maps_folio(pmdval, f):
        if pmdval & DIRTY:
            folio_mark_dirty(f)
        if not lazyfree_must_stay(f):
            zap_huge_pmd_folio(vma, f, pmdp_huge_clear_flush(vma, haddr, pmd))
            zap_deposited_table(mm, pmd, haddr)
            folio_put(f)
    spin_unlock(pml)
    return True


def remove_migration_ptes(old: folio, pages: tuple[int, ...], use_zero_page: bool = False) -> None:
    """Let the migration entries of each page of `old` map the struct page in `pages` instead.

    `use_zero_page` (TTU_USE_SHARED_ZEROPAGE): or the zero page where it holds only zeroes.
    """
    for vma in rmap_vmas(old):
        for address, nr, _ in folio_tables(old, vma):
            remove_migration_table(old, vma, address, nr, pages, use_zero_page)


def remove_migration_table(
    old: folio, vma: vm_area_struct, address: int, nr: int, pages: tuple[int, ...], use_zero_page: bool
) -> None:
    """remove_migration_ptes() in one table."""
    pmd = mm_find_pmd(vma.vm_mm, address)
    if not pmd:
        return
    pmdval = pmdp_get_lockless(pmd)
    if pmd_none(pmdval):
        sync_with_folio_pmd_zap(old, vma, address, pmd)
        return
    if is_pmd_migration_entry(pmdval) and remove_migration_pmd(old, page_folio(pages[0]), vma, address, pmd):
        return
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address)
    if not pte:
        return
    for i in range(nr):
        entry = ptep_get(pte + i)
        if is_swap_pte(entry) and swp_type(entry) == SWP_MIGRATION and page_folio(swp_offset(entry)) == old:
            page = pages[folio_page_idx(old, swp_offset(entry))]
            if use_zero_page and may_map_zero_page(vma, page):
                kept = SPECIAL | entry & (SOFT_DIRTY | UFFD_WP)
                store(pte + i, zero_page() << PFN_SHIFT | vm_page_prot(vma.vm_flags) | kept)
                add(vma.vm_mm.anon_rss, -1)
            else:
                remove_migration_pte(vma, pte + i, entry, page)
    pte_unmap_unlock(pte, ptl)


def remove_migration_pte(vma: vm_area_struct, pte: pte_p, entry: int, page: int) -> None:
    """Map `page` as the migration entry says."""
    folio_get(page_folio(page))
    folio_add_rmap_ptes(page_folio(page), page, 1, vma)
    if entry & MIGRATION_EXCLUSIVE:
        store(page_flags(page), PAGE_ANON_EXCLUSIVE)
    store(pte, page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | migration_pte_flags(entry))
    if vma.vm_flags & VM_LOCKED:
        mlock_drain_local()


def migration_pte_flags(entry: int) -> int:
    """What of a migration entry the new entry has."""
    return entry & (RW | ACCESSED | DIRTY | SOFT_DIRTY | UFFD_WP)


def may_map_zero_page(vma: vm_area_struct, page: int) -> bool:
    """Whether the zero page may take the place of an anonymous page (try_to_map_unused_to_zeropage)."""
    if not config.known_contents or vma.vm_flags & VM_LOCKED or page_folio(page).flags & PG_MLOCKED:
        return False
    return load(page_content(page)) == 0
