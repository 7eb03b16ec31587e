# SPDX-License-Identifier: GPL-2.0-only
"""Reclaiming isolated folios (reclaim_pages and shrink_folio_list in mm/vmscan.c, shmem_writeout in mm/shmem.c; 7.2).

There is no memory pressure: what is reclaimed was asked for by MADV_PAGEOUT.  Dirty pages of regular files stay: they
are only marked, to be reclaimed once they are written.
"""

from __future__ import annotations

from ..machine import WRITE_ONCE, mutex_trylock, mutex_unlock, spin_lock, spin_unlock, xa_store
from .config import config
from .filemap import (
    XA_SHADOW,
    filemap_get_folio,
    filemap_remove_folio,
    folio_next_index,
    i_size_pages,
    swp_to_radix_entry,
)
from .folio_split import split_folio
from .mm_types import address_space, folio
from .page_alloc import (
    PG_DIRTY,
    PG_MLOCKED,
    PG_RECLAIM,
    PG_SWAPBACKED,
    PG_SWAPCACHE,
    folio_mapcount,
    folio_maybe_dma_pinned,
    folio_nr_pages,
    folio_put,
    folio_put_refs,
    folio_ref_count,
    folio_test_anon,
)
from .rmap_walk import folio_mapping, try_to_unmap
from .swap_state import swap_cache_del_folio, swap_write_folio
from .swapfile import folio_alloc_swap, folio_dup_swap


def reclaim_pages(isolated: tuple[folio, ...]) -> None:
    """Reclaim folios if nobody minds; the caller's references are dropped."""
    for f in isolated:
        if mutex_trylock(f.lock):
            if f.flags & PG_MLOCKED == 0:
                shrink_folio(f)
            mutex_unlock(f.lock)
        folio_put(f)


def shrink_folio(f: folio) -> None:
    """Unmap a locked folio, write it to swap if it was written, and free it: the caller has the last reference then."""
    swap_backed = f.flags & PG_SWAPBACKED != 0
    if folio_test_anon(f) and swap_backed and f.flags & PG_SWAPCACHE == 0 and not shrink_add_to_swap(f):
        return
    if folio_mapcount(f) and not try_to_unmap(f):
        return
    if folio_maybe_dma_pinned(f):
        return
    mapping = folio_mapping(f)
    if f.flags & PG_DIRTY:
        if not swap_backed:
            if mapping:
                WRITE_ONCE(f, "flags", f.flags | PG_RECLAIM)
            return
        if mapping and not shmem_writeout(mapping, f):
            return
        if f.flags & PG_SWAPCACHE == 0:  # truncated meanwhile
            return
        WRITE_ONCE(f, "flags", f.flags & ~PG_DIRTY)
        swap_write_folio(f)
    if folio_ref_count(f) != folio_nr_pages(f) + 1:
        return
    if f.flags & PG_SWAPCACHE:
        swap_cache_del_folio(f)
    elif mapping:
        filemap_remove_folio(mapping, f, 0 if swap_backed else XA_SHADOW)


def shrink_add_to_swap(f: folio) -> bool:
    """Give an anonymous folio slots; a large one for which there are none is split.  Whether it has them."""
    if folio_maybe_dma_pinned(f) or (f.order and folio_ref_count(f) != folio_mapcount(f) + 1):
        return False
    if not folio_alloc_swap(f):
        if f.order:
            split_folio(f)
        return False
    WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
    return True


def shmem_writeout(mapping: address_space, f: folio) -> bool:
    """Move a locked, dirty folio of shmem from the file to the swap cache; false if it stays, or was split."""
    if not config.swap:
        return False
    if f.order and shmem_must_split(mapping, f):
        first, nr = f.index, folio_nr_pages(f)
        if split_folio(f) == 0:
            for index in range(first, first + nr):
                piece = filemap_get_folio(mapping, index)
                reclaim_pages((piece,) if piece else ())
        return False
    if not folio_alloc_swap(f):
        return False
    folio_dup_swap(f)
    shmem_delete_from_page_cache(mapping, f)
    return True


def shmem_must_split(mapping: address_space, f: folio) -> bool:
    """Whether a large folio of shmem cannot go to swap whole: the file ends in it."""
    return f.index < i_size_pages(mapping) < folio_next_index(f)


def shmem_delete_from_page_cache(mapping: address_space, f: folio) -> None:
    """Let the file have a cached folio's slots in its place."""
    nr = folio_nr_pages(f)
    spin_lock(mapping.i_pages_lock)
    for i in range(nr):
        xa_store(mapping.i_pages, f.index + i, swp_to_radix_entry(f.swap + i, f.order))
    mapping.nrpages -= nr
    WRITE_ONCE(mapping, "swapped", mapping.swapped + nr)
    f.mapping = 0
    spin_unlock(mapping.i_pages_lock)
    folio_put_refs(f, nr)
