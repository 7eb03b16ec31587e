# SPDX-License-Identifier: GPL-2.0-only
"""Faults on non-present entries: markers, migration, swap (mm/memory.c; 7.2)."""

from __future__ import annotations

from ..machine import add, mutex_lock, mutex_unlock, store
from .migrate import migration_entry_wait
from .mm_types import folio, vm_area_struct
from .page_alloc import (
    FOLIO_MAPPING_ANON,
    MAPPING_SHIFT,
    PAGE_ANON_EXCLUSIVE,
    PG_UPTODATE,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_ref_count,
    folio_test_anon,
    page_flags,
)
from .pgtable import (
    ACCESSED,
    MKDIRTY,
    PFN_SHIFT,
    PTE_MARKER_GUARD,
    PTE_MARKER_POISONED,
    RW,
    SOFT_DIRTY,
    SWP_EXCLUSIVE,
    SWP_HWPOISON,
    SWP_MARKER,
    SWP_MIGRATION,
    UFFD_WP,
    pte_needs_soft_dirty_wp,
    ptep_get,
    swp_offset,
    swp_type,
    vm_page_prot,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import folio_add_rmap_ptes, linear_page_index
from .swap_readahead import swapin_readahead
from .swap_state import folio_matches_swap_entry
from .swapfile import folio_free_swap, folio_put_swap
from .userfaultfd_k import userfaultfd_pte_wp
from .vm_fault import vm_fault
from .vm_flags import FAULT_FLAG_WRITE, VM_FAULT_HWPOISON, VM_FAULT_SIGSEGV, VM_WRITE


def do_swap_page(vmf: vm_fault, entry: int) -> int:
    """Serve a fault on the non-present `entry`; the table is not mapped."""
    kind = swp_type(entry)
    if kind == SWP_MARKER:
        return handle_pte_marker(vmf, entry)
    if kind == SWP_MIGRATION:
        migration_entry_wait(vmf.vma.vm_mm, vmf.pmd, vmf.address)
        return 0
    if kind == SWP_HWPOISON:
        return VM_FAULT_HWPOISON
    f = swapin_readahead(vmf, swp_offset(entry))
    if f:
        mutex_lock(f.lock)
        if not map_swapped_in(vmf, entry, f):
            mutex_unlock(f.lock)
            folio_put(f)
    return 0


def map_swapped_in(vmf: vm_fault, entry: int, f: folio) -> bool:
    """Map the locked folio of a swap entry, and unlock it; false if entry or folio have changed meanwhile.

    A write to a page that may be shared faults again, on the entry made here.
    """
    if not folio_matches_swap_entry(f, swp_offset(entry)):
        return False
    vma = vmf.vma
    pte, ptl = pte_offset_map_lock(vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        return False
    if ptep_get(pte) != entry or f.flags & PG_UPTODATE == 0:
        pte_unmap_unlock(pte, ptl)
        return False
    page = folio_page(f, swp_offset(entry) & folio_nr_pages(f) - 1)
    add(vma.vm_mm.anon_rss, 1)
    add(vma.vm_mm.swapents, -1)
    new = page << PFN_SHIFT | vm_page_prot(vma.vm_flags) | ACCESSED | entry & (SOFT_DIRTY | UFFD_WP)
    exclusive = swapin_exclusive(f, entry)
    if exclusive:
        if swapin_writable(vmf, new):
            new |= RW | (MKDIRTY if vmf.flags & FAULT_FLAG_WRITE else 0)
        store(page_flags(page), PAGE_ANON_EXCLUSIVE)
    if not folio_test_anon(f):
        __folio_set_anon(f, vma, vmf.address, exclusive)
    folio_add_rmap_ptes(f, page, 1, vmf.vma)
    folio_put_swap(f, page)
    store(pte, new)
    folio_free_swap(f)
    mutex_unlock(f.lock)
    pte_unmap_unlock(pte, ptl)
    return True


def swapin_exclusive(f: folio, entry: int) -> bool:
    """Whether a page that is swapped in belongs to the faulting mapping alone; its folio is cached."""
    return entry & SWP_EXCLUSIVE != 0 or folio_ref_count(f) == 1


def swapin_writable(vmf: vm_fault, new: int) -> bool:
    """Whether the new entry of a page that is the mapping's own shall be writable."""
    vma = vmf.vma
    return vma.vm_flags & VM_WRITE != 0 and not userfaultfd_pte_wp(vma, new) and not pte_needs_soft_dirty_wp(vma, new)


def __folio_set_anon(f: folio, vma: vm_area_struct, address: int, exclusive: bool) -> None:
    """Make a folio that was read in anonymous memory: of the VMA's anon_vma if its own alone, else of the root."""
    av = vma.anon_vma if exclusive else vma.anon_vma.root
    f.mapping = av.addr << MAPPING_SHIFT | FOLIO_MAPPING_ANON
    f.index = linear_page_index(vma, address)


def handle_pte_marker(vmf: vm_fault, entry: int) -> int:
    """A guard region or a poisoned page kills; a uffd-wp marker goes: no userfaultfd is left to care."""
    marker = swp_offset(entry)
    if marker & PTE_MARKER_POISONED:
        return VM_FAULT_HWPOISON
    if marker & PTE_MARKER_GUARD:
        return VM_FAULT_SIGSEGV
    return pte_marker_clear(vmf, entry)


def pte_marker_clear(vmf: vm_fault, entry: int) -> int:
    """Drop a marker that means nothing any more; the access faults again."""
    pte, ptl = pte_offset_map_lock(vmf.vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        return 0
    if ptep_get(pte) == entry:
        store(pte, 0)
    pte_unmap_unlock(pte, ptl)
    return 0
