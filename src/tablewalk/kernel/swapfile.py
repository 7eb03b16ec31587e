# SPDX-License-Identifier: GPL-2.0-only
"""Who refers to slots of the swap device: entries of page tables, files, the swap cache (mm/swapfile.c; 7.2)."""

from __future__ import annotations

from ..machine import WRITE_ONCE, load, mutex_trylock, mutex_unlock, spin_unlock
from .config import config
from .mm_types import folio
from .page_alloc import (
    PG_DIRTY,
    PG_SWAPCACHE,
    folio_mapcount,
    folio_nr_pages,
    folio_page_idx,
    folio_put,
)
from .pgtable import page_t
from .swap_state import __swap_cache_add_folio, swap_cache_del_folio, swap_cache_get_folio
from .swap_table import (
    SLOT_CELLS,
    SLOT_COUNT,
    swap_alloc_slots,
    swap_cluster_lock,
    swap_cluster_of,
    swap_count_add,
    swap_slot,
    swap_slot_release,
    swap_slots_take,
)


def folio_alloc_swap(f: folio) -> bool:
    """Give a locked folio slots, and cache it for them; false if there is no swap."""
    if not config.swap:
        return False
    nr = folio_nr_pages(f)
    ci, offset = swap_alloc_slots(nr)
    __swap_cache_add_folio(ci, f, offset)
    swap_slots_take(ci, nr)
    spin_unlock(ci.lock)
    return True


def folio_slots(f: folio, page: page_t) -> range:
    """Offsets of the slots of a cached folio, or of its one page."""
    if page:
        first = f.swap + folio_page_idx(f, page)
        return range(first, first + 1)
    return range(f.swap, f.swap + folio_nr_pages(f))


def folio_dup_swap(f: folio, page: page_t = 0) -> None:
    """One more entry for each page of a locked, cached folio, or for one page."""
    ci = swap_cluster_lock(f.swap)
    for offset in folio_slots(f, page):
        swap_count_add(ci, offset, 1)
    spin_unlock(ci.lock)


def folio_put_swap(f: folio, page: page_t = 0) -> None:
    """One entry less; the slots stay, being cached."""
    ci = swap_cluster_lock(f.swap)
    for offset in folio_slots(f, page):
        swap_count_add(ci, offset, -1)
    spin_unlock(ci.lock)


def swap_dup_entry_direct(offset: int) -> None:
    """One more entry of a page table refers to the slot: fork."""
    ci = swap_cluster_lock(offset)
    swap_count_add(ci, offset, 1)
    spin_unlock(ci.lock)


def swap_put_entries_direct(offset: int) -> None:
    """An entry less; with the last the slot is free, and a folio cached for it goes unless it is mapped."""
    ci = swap_cluster_lock(offset)
    slot = swap_slot(ci, offset)
    cached = swap_count_add(ci, offset, -1) == 0 and load(slot) != 0
    if not cached:
        swap_slot_release(ci, slot)
    spin_unlock(ci.lock)
    if cached:
        __try_to_reclaim_swap(offset)


def __try_to_reclaim_swap(offset: int) -> None:
    """Drop the folio cached for a slot if nobody maps it and no entry refers to it."""
    f = swap_cache_get_folio(offset)
    if not f:
        return
    free_swap_cache(f)
    folio_put(f)


def folio_swapped(f: folio) -> bool:
    """Whether entries refer to slots of a locked, cached folio."""
    slot = swap_slot(swap_cluster_of(f.swap), f.swap)
    return any([load(slot + SLOT_CELLS * i + SLOT_COUNT) for i in range(folio_nr_pages(f))])


def folio_free_swap(f: folio) -> bool:
    """Take a locked folio out of the swap cache if no entry needs it there; whether it was taken out."""
    if f.flags & PG_SWAPCACHE == 0 or folio_swapped(f):
        return False
    swap_cache_del_folio(f)
    WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
    return True


def free_swap_cache(f: folio) -> None:
    """Before a reference is dropped: take the folio out of the swap cache if it is of no use there (swap_state.c)."""
    if f.flags & PG_SWAPCACHE and folio_mapcount(f) == 0 and mutex_trylock(f.lock):
        folio_free_swap(f)
        mutex_unlock(f.lock)
