# SPDX-License-Identifier: GPL-2.0-only
"""Taking pages out of files: truncation and holes (mm/truncate.c, shmem_fallocate in mm/shmem.c; 7.2).

A page's content is all or nothing: of a page that a size cuts, the rest is not zeroed.  Nobody waits for a hole that
is being made (shmem_falloc_wait), and what serializes system calls on an inode is left out.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    mutex_trylock,
    mutex_unlock,
    spin_lock,
    spin_unlock,
    store,
    xa_load,
    xa_range,
    xa_store,
)
from .filemap import (
    MAX_INDEX,
    SIZE_UNKNOWN,
    XA_SHADOW,
    filemap_get_folio,
    filemap_remove_folio,
    folio_file_page,
    folio_next_index,
    i_size_pages,
    radix_order,
    radix_to_swp_entry,
    xa_is_value,
)
from .folio_split import split_file_folio_at
from .memory_zap import unmap_mapping_range
from .mm_types import address_space, folio
from .page_alloc import MAPPING_SHIFT, PG_DIRTY, folio_mapcount, folio_nr_pages, folio_put, page_content
from .rmap_walk import folio_mapping, try_to_unmap
from .shmem import shmem_lock_folio
from .swapfile import swap_put_entries_direct


def shmem_fallocate(mapping: address_space, first: int, nr: int) -> int:
    """Make a hole of pages first..first+nr-1: FALLOC_FL_PUNCH_HOLE, MADV_REMOVE; private copies stay.  Returns 0."""
    if nr > 0:
        unmap_mapping_range(mapping, first, nr, False)
        truncate_inode_pages_range(mapping, first, first + nr)
    return 0


def truncate_setsize(mapping: address_space, newsize: int) -> None:
    """Give the file a new size in bytes: ftruncate."""
    i_size: int = READ_ONCE(mapping, "i_size")
    WRITE_ONCE(mapping, "i_size", newsize)
    if i_size == SIZE_UNKNOWN or newsize < i_size:
        truncate_pagecache(mapping, newsize)
    elif newsize == i_size and mapping.shmem:  # what fallocate() keeps beyond the end
        truncate_inode_pages_range(mapping, page_index_after(newsize), MAX_INDEX)


def page_index_after(size: int) -> int:
    """The first page of which nothing is within `size` bytes."""
    return size + arch.page_size - 1 >> arch.page_shift


def truncate_pagecache(mapping: address_space, newsize: int) -> None:
    """Unmap and drop all pages beyond `newsize` bytes, private copies too, also those made meanwhile."""
    first = page_index_after(newsize)
    unmap_mapping_range(mapping, first, MAX_INDEX - first, True)
    truncate_inode_pages_range(mapping, first, MAX_INDEX)
    unmap_mapping_range(mapping, first, MAX_INDEX - first, True)


def truncate_inode_pages_range(mapping: address_space, first: int, end: int) -> None:
    """Drop pages first..end-1 from the cache; a folio that reaches beyond is split for it."""
    index = first
    for found, _ in xa_range(mapping.i_pages, first, end - 1):
        index = max(index, found)
        while index == found:
            index = truncate_folio_at(mapping, index, first, end)


def truncate_folio_at(mapping: address_space, index: int, first: int, end: int) -> int:
    """Drop what is cached at `index`; returns where to go on, which is `index` again after a split."""
    gone = shmem_free_swap(mapping, index, first, end) if mapping.shmem else clear_shadow_entry(mapping, index)
    if gone:
        return index + 1
    if index >= i_size_pages(mapping) and xa_is_value(xa_load(mapping.i_pages, index)):
        return index + 1  # an entry across the end of the file is not read in, and stays
    f = shmem_lock_folio(mapping, index)
    if not f:
        return index + 1
    after = min(folio_next_index(f), end)
    if f.index >= first and folio_next_index(f) <= end:
        truncate_inode_folio(mapping, f)
    elif truncate_partial_folio(mapping, f, first, end):
        after = index
    else:
        for i in range(index, after):
            store(page_content(folio_file_page(f, i)), 0)
    mutex_unlock(f.lock)
    folio_put(f)
    return after


def truncate_partial_folio(mapping: address_space, f: folio, first: int, end: int) -> bool:
    """Split a locked folio that reaches out of the pages to drop; false if it is in use.  Shared memory's is dirty."""
    if mapping.shmem:
        WRITE_ONCE(f, "flags", f.flags | PG_DIRTY)
    if truncate_split(f, max(first - f.index, 0)):
        return False
    if end < folio_next_index(f):
        split_end(mapping, end)
    return True


def clear_shadow_entry(mapping: address_space, index: int) -> bool:
    """Forget that page `index` was reclaimed; false if it was not."""
    spin_lock(mapping.i_pages_lock)
    was_reclaimed = xa_load(mapping.i_pages, index) == XA_SHADOW
    if was_reclaimed:
        xa_store(mapping.i_pages, index, 0)
    spin_unlock(mapping.i_pages_lock)
    return was_reclaimed


def shmem_free_swap(mapping: address_space, index: int, first: int, end: int) -> bool:
    """Drop the page in swap at `index`; false if there is none, or its entry reaches out of first..end-1."""
    spin_lock(mapping.i_pages_lock)
    value = xa_load(mapping.i_pages, index)
    base, nr = index & -(1 << radix_order(value)), 1 << radix_order(value)
    freed = xa_is_value(value) and base >= first and base + nr <= end
    if freed:
        xa_store(mapping.i_pages, index, 0)
        WRITE_ONCE(mapping, "swapped", mapping.swapped - 1)
    spin_unlock(mapping.i_pages_lock)
    if freed:
        swap_put_entries_direct(radix_to_swp_entry(value))
    return freed


def truncate_split(f: folio, at: int) -> int:
    """Split a locked file folio so that a piece begins with its page `at`; 0, or -errno if it cannot be.

    A regular file's is unmapped then: behind the end of the file huge pages must not go on (folio_split_or_unmap).
    """
    ret = split_file_folio_at(f, at)
    if ret and not folio_mapping(f).shmem:
        try_to_unmap(f)
    return ret


def split_end(mapping: address_space, end: int) -> None:
    """Split also what is cached at page `end`, behind the pages to drop, if nobody works on it."""
    f = filemap_get_folio(mapping, end)
    if not f:
        return
    if f.order and mutex_trylock(f.lock):
        if f.mapping == mapping.addr << MAPPING_SHIFT:
            truncate_split(f, end - f.index)
        mutex_unlock(f.lock)
    folio_put(f)


def truncate_inode_folio(mapping: address_space, f: folio) -> None:
    """Unmap a locked folio, if it is mapped still, and take it out of the cache."""
    if folio_mapcount(f):
        unmap_mapping_range(mapping, f.index, folio_nr_pages(f), False)
    filemap_remove_folio(mapping, f)
