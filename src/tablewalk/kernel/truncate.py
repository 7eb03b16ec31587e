# SPDX-License-Identifier: GPL-2.0-only
"""Taking pages out of files: truncation and holes (mm/truncate.c, shmem_fallocate in mm/shmem.c; 7.2).

A page's content is all or nothing: of a page that a size cuts, the rest is not zeroed.  Nobody waits for a hole that
is being made (shmem_falloc_wait), and what serializes system calls on an inode is left out.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import READ_ONCE, WRITE_ONCE, mutex_trylock, mutex_unlock, store, xa_range
from .filemap import (
    MAX_INDEX,
    SIZE_UNKNOWN,
    filemap_get_folio,
    filemap_lock_folio,
    filemap_remove_folio,
    folio_file_page,
    folio_next_index,
)
from .folio_split import split_file_folio_at
from .memory_zap import unmap_mapping_range
from .mm_types import address_space, folio
from .page_alloc import MAPPING_SHIFT, folio_mapcount, folio_nr_pages, folio_put, page_content


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


def truncate_pagecache(mapping: address_space, newsize: int) -> None:
    """Unmap and drop all pages beyond `newsize` bytes, private copies too, also those made meanwhile."""
    first = newsize + arch.page_size - 1 >> arch.page_shift
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
    f = filemap_lock_folio(mapping, index)
    if not f:
        return index + 1
    after = min(folio_next_index(f), end)
    if f.index >= first and folio_next_index(f) <= end:
        truncate_inode_folio(mapping, f)
    elif truncate_split(f, max(first - f.index, 0)) == 0:
        if end < folio_next_index(f):
            split_end(mapping, end)
        after = index
    else:
        for i in range(index, after):
            store(page_content(folio_file_page(f, i)), 0)
    mutex_unlock(f.lock)
    folio_put(f)
    return after


def truncate_split(f: folio, at: int) -> int:
    """Split a locked file folio so that a piece begins with its page `at`; 0, or -EAGAIN if it is in use."""
    return split_file_folio_at(f, at)


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
