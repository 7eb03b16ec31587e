# SPDX-License-Identifier: GPL-2.0-only
"""The swap cache: folios by slot (mm/swap_state.c, mm/page_io.c; 7.2).

One reference of each page belongs to the cache.  The device is read and written at once.
"""

from __future__ import annotations

from ..machine import (
    WRITE_ONCE,
    add,
    forget,
    load,
    mutex_lock,
    mutex_unlock,
    publish,
    rcu_read_lock,
    rcu_read_unlock,
    spin_unlock,
    store,
)
from .mm_types import folio, swap_cluster_info
from .page_alloc import (
    NO_FOLIO,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    PG_UPTODATE,
    folio_alloc,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_put_refs,
    folio_try_get,
    page_content,
)
from .swap_table import (
    SLOT_CELLS,
    SLOT_CONTENT,
    SLOT_COUNT,
    swap_cluster_lock,
    swap_cluster_of,
    swap_slot,
    swap_slot_release,
)


def swap_cache_get_folio(offset: int) -> folio:
    """The folio cached for a slot with a reference, or NULL; its lock is what keeps it cached."""
    while True:
        rcu_read_lock()
        f = folio(load(swap_slot(swap_cluster_of(offset), offset)))
        got = not f or folio_try_get(f)
        rcu_read_unlock()
        if got:
            return f
        forget(())


def swap_cache_has_folio(offset: int) -> bool:
    """Whether a folio is cached for the slot."""
    return load(swap_slot(swap_cluster_of(offset), offset)) != 0


def folio_matches_swap_entry(f: folio, offset: int) -> bool:
    """Whether a locked folio is still cached for the slot."""
    return f.flags & PG_SWAPCACHE != 0 and f.swap == offset & -folio_nr_pages(f)


def __swap_cache_add_folio(ci: swap_cluster_info, f: folio, offset: int) -> None:
    """Cache a locked folio for the slots from `offset` on; under the cluster's lock."""
    nr = folio_nr_pages(f)
    publish(f.addr)
    for i in range(nr):
        store(swap_slot(ci, offset + i), f.addr)
    add(f._refcount, nr)
    f.swap = offset
    WRITE_ONCE(f, "flags", f.flags | PG_SWAPCACHE)


def swap_cache_del_folio(f: folio) -> None:
    """Take a locked folio out of the cache and drop the cache's references; slots without an entry become free."""
    ci = swap_cluster_lock(f.swap)
    __swap_cache_del_folio(ci, f)
    spin_unlock(ci.lock)
    folio_put_refs(f, folio_nr_pages(f))


def __swap_cache_del_folio(ci: swap_cluster_info, f: folio) -> None:
    """The same under the cluster's lock; the references stay."""
    for i in range(folio_nr_pages(f)):
        slot = swap_slot(ci, f.swap + i)
        store(slot, 0)
        swap_slot_release(ci, slot)
    f.swap = 0
    WRITE_ONCE(f, "flags", f.flags & ~PG_SWAPCACHE)


def swap_cache_alloc_folio(offset: int, order: int) -> folio:
    """A new folio for the slots around `offset`, cached, locked and with a reference; NULL if they are not all free
    of folios and in use by entries."""
    first = offset & -(1 << order)
    f = folio_alloc(order)
    mutex_lock(f.lock)
    WRITE_ONCE(f, "flags", PG_SWAPBACKED)
    ci = swap_cluster_lock(first)
    fits = __swap_cache_add_check(ci, first, 1 << order)
    if fits:
        __swap_cache_add_folio(ci, f, first)
    spin_unlock(ci.lock)
    if fits:
        return f
    mutex_unlock(f.lock)
    folio_put(f)
    return NO_FOLIO


def __swap_cache_add_check(ci: swap_cluster_info, first: int, nr: int) -> bool:
    """Whether each of the slots has an entry, and none a folio."""
    slots = [swap_slot(ci, first + i) for i in range(nr)]
    return all([load(slot) == 0 and load(slot + SLOT_COUNT) != 0 for slot in slots])


def swapin_sync(offset: int, order: int = 0) -> folio:
    """The folio of a slot with a reference, not locked, read in if need be; NULL if no entry refers to it any more.

    An `order` that does not fit is a folio of one page.
    """
    f = swap_cache_get_folio(offset)
    if f:
        return f
    f = swap_cache_alloc_folio(offset, order)
    if not f and order:
        f = swap_cache_alloc_folio(offset, 0)
    if f:
        swap_read_folio(f)
        return f
    return swap_cache_get_folio(offset)


def read_swap_cache(offset: int) -> None:
    """Cache the page of a slot, if an entry refers to it (read_swap_cache_async)."""
    f = swapin_sync(offset)
    if f:
        folio_put(f)


def swap_read_folio(f: folio) -> None:
    """Read a locked, cached folio from its slots, and unlock it."""
    slot = swap_slot(swap_cluster_of(f.swap), f.swap)
    for i in range(folio_nr_pages(f)):
        store(page_content(folio_page(f, i)), load(slot + SLOT_CELLS * i + SLOT_CONTENT))
    WRITE_ONCE(f, "flags", f.flags | PG_UPTODATE)
    mutex_unlock(f.lock)


def swap_write_folio(f: folio) -> None:
    """Write a locked, cached folio to its slots (swap_writeout)."""
    ci = swap_cluster_lock(f.swap)
    for i in range(folio_nr_pages(f)):
        store(swap_slot(ci, f.swap + i) + SLOT_CONTENT, load(page_content(folio_page(f, i))))
    spin_unlock(ci.lock)
