# SPDX-License-Identifier: GPL-2.0-only
"""Huge pmds: mapping a file's, zap and split (mm/huge_memory.c, do_set_pmd in mm/memory.c; 7.2).

With every anonymous huge pmd (the huge zero page's too) a PTE table is deposited, and counted; with one of a file
only where the architecture asks for it.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import THP_SPLIT_PMD, add, count, load, publish, spin_unlock, store, store_range
from .huge_mm import thp_vma_suitable_pmd, vma_is_anonymous, vma_thp_disabled
from .mm_types import folio, mm_struct, ptdesc, spinlock_t, vm_area_struct
from .mmu_gather import mmu_gather, ptep_get_and_clear_full, tlb_change_page_size, tlb_flush_range, tlb_remove_page
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .not_modelled import NotModelled
from .page_alloc import (
    NO_FOLIO,
    PAGE_ANON_EXCLUSIVE,
    PAGE_CELLS,
    folio_get,
    folio_mark_dirty,
    folio_maybe_dma_pinned,
    folio_put,
    folio_test_anon,
    page_flags,
    zero_page,
)
from .pgtable import (
    ACCESSED,
    DIRTY,
    LEAF,
    MIGRATION_EXCLUSIVE,
    MKDIRTY,
    PFN_SHIFT,
    PROTNONE,
    RW,
    SOFT_DIRTY,
    SPECIAL,
    SWP_MIGRATION,
    UFFD_WP,
    is_pmd_migration_entry,
    is_swap_pte,
    maybe_mkwrite,
    mm_find_pmd,
    page_folio,
    page_t,
    pmd_p,
    pmd_page,
    pmd_populate,
    pmd_present,
    pmd_trans_huge,
    pmdp_get_lockless,
    pmdp_huge_get_and_clear,
    pmdp_invalidate,
    pte_page,
    swp_entry,
    vm_page_prot,
)
from .pgtable_generic import (
    NO_TABLE,
    mm_dec_nr_ptes,
    mm_inc_nr_ptes,
    pgtable_trans_huge_deposit,
    pgtable_trans_huge_withdraw,
    pmd_lock,
    pte_alloc_one,
    pte_free,
)
from .rmap import folio_add_rmap_pmd, folio_add_rmap_ptes, folio_remove_rmap_pmd, mm_counter_file
from .tlb import flush_tlb_range
from .vm_fault import vm_fault
from .vm_flags import FAULT_FLAG_WRITE, VM_FAULT_FALLBACK


def pmdp_huge_clear_flush(vma: vm_area_struct, haddr: int, pmd: pmd_p) -> int:
    """Empty the slot of a huge page and flush; returns the old value.  Under pml."""
    pmdval = pmdp_huge_get_and_clear(pmd)
    flush_tlb_range(vma.vm_mm, haddr, haddr + arch.pmd_size)
    return pmdval


def pmd_trans_huge_lock(mm: mm_struct, pmd: pmd_p, addr: int) -> spinlock_t:
    """pml held if the slot holds a huge page or its migration entry, else 0 and nothing held."""
    pml = pmd_lock(mm, pmd, addr)
    pmdval = pmdp_get_lockless(pmd)
    if pmd_trans_huge(pmdval) or is_swap_pte(pmdval):
        return pml
    spin_unlock(pml)
    return 0


def pmd_mapping_disabled(vma: vm_area_struct) -> bool:
    """Whether a huge page that the cache has already must be mapped by entries."""
    return vma_thp_disabled(vma, vma.vm_flags, True)


def do_set_pmd(vmf: vm_fault, f: folio, prealloc: ptdesc) -> tuple[int, ptdesc]:
    """Map a huge file folio whole, with the caller's reference; (0 or VM_FAULT_FALLBACK, table not used)."""
    vma = vmf.vma
    mm = vma.vm_mm
    if pmd_mapping_disabled(vma) or f.order != arch.pte_bits or not thp_vma_suitable_pmd(vma, vmf.address):
        return VM_FAULT_FALLBACK, prealloc
    if arch.file_thp_deposits and not prealloc:
        prealloc = pte_alloc_one(mm)
    haddr = vmf.address & -arch.pmd_size
    pml = pmd_lock(mm, vmf.pmd, haddr)
    if pmdp_get_lockless(vmf.pmd) != 0:
        spin_unlock(pml)
        return VM_FAULT_FALLBACK, prealloc
    entry = f.page << PFN_SHIFT | huge_page_prot(vma.vm_page_prot) | LEAF
    if vmf.flags & FAULT_FLAG_WRITE:
        entry = maybe_mkwrite(entry | MKDIRTY, vma.vm_flags)
    add(mm_counter_file(mm, f), arch.hpage_pmd_nr)
    add(mm.file_huge, 1)
    folio_add_rmap_pmd(f, vma)
    if arch.file_thp_deposits:
        pgtable_trans_huge_deposit(mm, vmf.pmd, haddr, prealloc)
        mm_inc_nr_ptes(mm)
        prealloc = NO_TABLE
    store(vmf.pmd, entry)
    spin_unlock(pml)
    return 0, prealloc


def huge_page_prot(prot: int) -> int:
    """The flags `prot`, for a huge page.

    Not modelled is one without permissions where that is not present: zap_huge_pmd() takes it for a migration entry,
    warns, and follows NULL.
    """
    if prot & PROTNONE and not arch.protnone_pmd_present:
        raise NotModelled("huge pages without permissions on 32-bit arm")
    return prot


# --- zap -------------------------------------------------------------------------------------------------


def zap_deposited_table(mm: mm_struct, pmd: pmd_p, addr: int) -> None:
    """Free the table deposited for a huge page: nobody has ever seen it.  Under pml."""
    pte_free(mm, pgtable_trans_huge_withdraw(mm, pmd, addr))
    mm_dec_nr_ptes(mm)


def zap_huge_pmd(tlb: mmu_gather, vma: vm_area_struct, pmd: pmd_p, addr: int) -> bool:
    """Unmap a whole huge page; false if there is none (any more)."""
    mm = vma.vm_mm
    tlb_change_page_size(tlb, arch.pmd_shift)
    pml = pmd_trans_huge_lock(mm, pmd, addr)
    if not pml:
        return False
    pmdval = ptep_get_and_clear_full(tlb, pmd, addr, arch.pmd_size)
    tlb_flush_range(tlb, addr, addr + arch.pmd_size)
    f = NO_FOLIO if pmdval & SPECIAL and pmd_present(pmdval) else page_folio(pte_page(pmdval))
    if f:
        zap_huge_pmd_folio(vma, f, pmdval)
    if arch.file_thp_deposits or not f or folio_test_anon(f):
        zap_deposited_table(mm, pmd, addr)
    spin_unlock(pml)
    if f and pmd_present(pmdval):
        tlb_remove_page(tlb, f.page)
    return True


def zap_huge_pmd_folio(vma: vm_area_struct, f: folio, pmdval: int) -> None:
    """Counters, rmap and dirty state of a huge page that is being unmapped; under pml."""
    mm = vma.vm_mm
    if pmd_present(pmdval):
        folio_remove_rmap_pmd(f, vma)
        if folio_test_anon(f):
            add(mm.anon_huge, -1)
        else:
            add(mm.file_huge, -1)
            if pmdval & DIRTY:
                folio_mark_dirty(f)
    add(mm.anon_rss if folio_test_anon(f) else mm_counter_file(mm, f), -arch.hpage_pmd_nr)


# --- split -----------------------------------------------------------------------------------------------


def __split_huge_pmd(vma: vm_area_struct, pmd: pmd_p, address: int, freeze: bool = False) -> None:
    """Replace the huge pmd around `address`, if it is one: by a table (anonymous), or by nothing (file).

    With `freeze` the table has migration entries, as the folio itself is going to be split.
    """
    haddr = address & -arch.pmd_size
    mmu_notifier_invalidate_range_start(vma, haddr, haddr + arch.pmd_size)
    pml = pmd_lock(vma.vm_mm, pmd, haddr)
    pmdval = pmdp_get_lockless(pmd)
    if pmd_trans_huge(pmdval) or is_swap_pte(pmdval):
        count(THP_SPLIT_PMD)
        if not vma_is_anonymous(vma):
            split_file_pmd(vma, pmd, haddr)
        elif pmdval & SPECIAL and pmd_present(pmdval):
            split_zero_pmd(vma, pmd, haddr)
        elif pmd_present(pmdval):
            split_anon_pmd(vma, pmd, haddr, freeze)
        else:
            split_migration_pmd(vma, pmd, haddr)
    spin_unlock(pml)
    mmu_notifier_invalidate_range_end(vma, haddr, haddr + arch.pmd_size)


def split_file_pmd(vma: vm_area_struct, pmd: pmd_p, haddr: int) -> None:
    """Unmap a huge page of a file: faults bring its pages back.  Under pml."""
    mm = vma.vm_mm
    pmdval = pmdp_huge_clear_flush(vma, haddr, pmd)
    if arch.file_thp_deposits:
        zap_deposited_table(mm, pmd, haddr)
    f = page_folio(pte_page(pmdval))
    zap_huge_pmd_folio(vma, f, pmdval)
    if pmd_present(pmdval):
        folio_put(f)


def split_zero_pmd(vma: vm_area_struct, pmd: pmd_p, haddr: int) -> None:
    """The huge zero page becomes the zero page in each entry.  Under pml."""
    pmdval = pmdp_huge_clear_flush(vma, haddr, pmd)
    entry = zero_page() << PFN_SHIFT | vm_page_prot(vma.vm_flags) | SPECIAL | pmdval & UFFD_WP
    install_split_table(vma.vm_mm, pmd, haddr, entry, 0)


def split_anon_pmd(vma: vm_area_struct, pmd: pmd_p, haddr: int, freeze: bool) -> None:
    """The deposited table maps the same pages one by one, or has their migration entries.  Under pml."""
    pmdval = pmdp_invalidate(pmd)
    flush_tlb_range(vma.vm_mm, haddr, haddr + arch.pmd_size)
    f = page_folio(pmd_page(pmdval))
    if pmdval & DIRTY:
        folio_mark_dirty(f)
    entry = migration_entry(f.page, pmdval) if freeze else map_split_pages(vma, f, pmdval)
    add(vma.vm_mm.anon_huge, -1)
    folio_remove_rmap_pmd(f, vma)
    if freeze:
        folio_put(f)
    install_split_table(vma.vm_mm, pmd, haddr, entry, PAGE_CELLS)


def migration_entry(page: page_t, old: int) -> int:
    """What takes the place of the entry `old`, of a huge page or not; what is dirty is not soft-dirty for that."""
    kept = old & (RW | ACCESSED | DIRTY | SOFT_DIRTY | UFFD_WP)
    if load(page_flags(page)) & PAGE_ANON_EXCLUSIVE:
        kept |= MIGRATION_EXCLUSIVE
        store(page_flags(page), 0)
    return swp_entry(SWP_MIGRATION, page, kept)


def pmd_maps_folio(pmdval: int, f: folio) -> bool:
    """Whether a huge pmd maps the folio."""
    return pmd_trans_huge(pmdval) and pmd_page(pmdval) == f.page


def set_pmd_migration_entry(f: folio, vma: vm_area_struct, haddr: int, pmd: pmd_p) -> bool:
    """Let a migration entry take the place of the huge pmd that maps the folio, unless it is pinned.

    False if no huge pmd maps it any more.
    """
    mm = vma.vm_mm
    pml = pmd_lock(mm, pmd, haddr)
    pmdval = pmdp_get_lockless(pmd)
    if not pmd_maps_folio(pmdval, f):
        spin_unlock(pml)
        return False
    pmdval = pmdp_invalidate(pmd)
    flush_tlb_range(mm, haddr, haddr + arch.pmd_size)
    pinned = load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE != 0 and folio_maybe_dma_pinned(f)
    if not pinned and pmdval & DIRTY:
        folio_mark_dirty(f)
    store(pmd, pmdval if pinned else migration_entry(f.page, pmdval))
    if not pinned:
        add(mm.anon_huge if folio_test_anon(f) else mm.file_huge, -1)
        folio_remove_rmap_pmd(f, vma)
        folio_put(f)
    spin_unlock(pml)
    return True


def remove_migration_pmd(old: folio, new: folio, vma: vm_area_struct, haddr: int, pmd: pmd_p) -> bool:
    """Let the huge pmd that is a migration entry of `old` map `new`; false if there is none."""
    mm = vma.vm_mm
    pml = pmd_lock(mm, pmd, haddr)
    entry = pmdp_get_lockless(pmd)
    found = is_pmd_migration_entry(entry) and pmd_page(entry) == old.page
    if found:
        folio_get(new)
        folio_add_rmap_pmd(new, vma)
        add(mm.anon_huge if folio_test_anon(new) else mm.file_huge, 1)
        if entry & MIGRATION_EXCLUSIVE:
            store(page_flags(new.page), PAGE_ANON_EXCLUSIVE)
        kept = entry & (RW | ACCESSED | DIRTY | SOFT_DIRTY | UFFD_WP)
        store(pmd, new.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | LEAF | kept)
    spin_unlock(pml)
    return found


def map_split_pages(vma: vm_area_struct, f: folio, pmdval: int) -> int:
    """Count each page as mapped by itself; the first one's entry."""
    add(f._refcount, arch.hpage_pmd_nr - 1)
    if load(page_flags(f.page)) & PAGE_ANON_EXCLUSIVE:
        for i in range(1, arch.hpage_pmd_nr):
            store(page_flags(f.page + PAGE_CELLS * i), PAGE_ANON_EXCLUSIVE)
    folio_add_rmap_ptes(f, f.page, arch.hpage_pmd_nr, vma)
    return f.page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | split_pte_flags(pmdval)


def split_pte_flags(pmdval: int) -> int:
    """What each entry of a split huge page takes from it; the dirty ones become soft-dirty, too."""
    dirty = MKDIRTY if pmdval & DIRTY else 0
    return pmdval & (RW | ACCESSED | SOFT_DIRTY | UFFD_WP) | dirty


def split_migration_pmd(vma: vm_area_struct, pmd: pmd_p, haddr: int) -> None:
    """Each page has its own migration entry.  Under pml."""
    install_split_table(vma.vm_mm, pmd, haddr, pmdp_get_lockless(pmd), PAGE_CELLS)


def install_split_table(mm: mm_struct, pmd: pmd_p, haddr: int, entry: int, step: int) -> None:
    """Fill the deposited table, the entries `step` cells of struct page apart, and let the slot point to it."""
    pgtable = pgtable_trans_huge_withdraw(mm, pmd, haddr)
    stride = step << PFN_SHIFT
    store_range(pgtable.entry, [entry + i * stride for i in range(arch.hpage_pmd_nr)])
    publish(pgtable.addr)  # smp_wmb()
    pmd_populate(pmd, pgtable)


def split_huge_pmd_address(vma: vm_area_struct, address: int) -> None:
    """Split the huge pmd around `address`, if one is mapped there."""
    pmd = mm_find_pmd(vma.vm_mm, address)
    if pmd:
        __split_huge_pmd(vma, pmd, address)


def split_huge_pmd_if_needed(vma: vm_area_struct, address: int) -> None:
    """Split what `address` cuts, where the VMA has room for a huge page there."""
    haddr = address & -arch.pmd_size
    if address != haddr and haddr >= vma.vm_start and haddr + arch.pmd_size <= vma.vm_end:
        split_huge_pmd_address(vma, address)


def vma_adjust_trans_huge(vma: vm_area_struct, start: int, end: int) -> None:
    """The VMA is about to span start..end: split the huge pages that its new ends cut."""
    split_huge_pmd_if_needed(vma, start)
    split_huge_pmd_if_needed(vma, end)
