# SPDX-License-Identifier: GPL-2.0-only
"""Splitting a large folio (folio_split in mm/huge_memory.c; 7.2).

Where the kernel keeps the struct pages, the pieces here have new ones, and the folio is left empty.
"""

from __future__ import annotations

from ..machine import (
    WRITE_ONCE,
    cmpxchg,
    down_read,
    mutex_lock,
    mutex_unlock,
    publish,
    spin_lock,
    spin_unlock,
    store,
    up_read,
    xa_store,
)
from .filemap import i_size_pages
from .mm_types import address_space, folio
from .not_modelled import NotModelled
from .page_alloc import (
    NO_FOLIO,
    PG_DIRTY,
    PG_SWAPCACHE,
    copy_page,
    folio_alloc,
    folio_get,
    folio_mapcount,
    folio_nr_pages,
    folio_page,
    folio_page_idx,
    folio_put,
    folio_put_refs,
    folio_ref_count,
    folio_test_anon,
)
from .pgtable import page_folio, page_t
from .rmap import anon_vma_lock_write, anon_vma_unlock_write
from .rmap_walk import folio_anon_vma, folio_mapping, remove_migration_ptes, unmap_folio
from .vm_flags import EAGAIN, EBUSY


def split_folio(f: folio) -> int:
    """Split a locked folio, of which the caller has a reference, into single pages: 0, or -EAGAIN if it is in use.

    -EBUSY: the file system has still to write it.
    """
    if folio_test_anon(f):
        av = folio_anon_vma(f)
        anon_vma_lock_write(av)
        ret, _ = split_anon_folio(f)
        anon_vma_unlock_write(av)
        return ret
    return split_file_folio(f, tuple([(i, 0) for i in range(folio_nr_pages(f))]))


def split_file_folio_at(f: folio, at: int) -> int:
    """The same for a file's folio, into pieces as large as they can be with page `at` alone (non-uniform split)."""
    pieces: tuple[tuple[int, int], ...] = ()
    start, order = 0, f.order
    while order:
        order -= 1
        middle = start + (1 << order)
        pieces += ((start if at >= middle else middle, order),)
        start = middle if at >= middle else start
    return split_file_folio(f, tuple(sorted((*pieces, (start, 0)))))


def split_huge_page(page: page_t) -> tuple[int, page_t]:
    """Split the locked anonymous folio of `page`, of which the caller has a reference.

    Lock and reference become those of the page's piece: (0, its page), or (-EAGAIN, `page`).
    """
    f = page_folio(page)
    av = folio_anon_vma(f)
    anon_vma_lock_write(av)
    ret, piece = split_anon_folio(f, folio_page_idx(f, page))
    anon_vma_unlock_write(av)
    if ret:
        return ret, page
    mutex_lock(piece.lock)
    mutex_unlock(f.lock)
    folio_put(f)
    return 0, piece.page


def split_anon_folio(f: folio, keep: int = -1) -> tuple[int, folio]:
    """The anonymous case, with the anon_vma locked; (0 or -EAGAIN, the piece of page `keep` with a reference)."""
    nr = folio_nr_pages(f)
    if f.flags & PG_SWAPCACHE:
        raise NotModelled("splitting a folio of the swap cache")
    if folio_ref_count(f) != folio_mapcount(f) + 1:
        return -EAGAIN, NO_FOLIO
    unmap_folio(f, migrate=True)
    if cmpxchg(f._refcount, 1, 0) != 1:
        remove_migration_ptes(f, tuple([folio_page(f, i) for i in range(nr)]))
        return -EAGAIN, NO_FOLIO
    pages = tuple([split_off(f, i, 0).page for i in range(nr)])
    for page in pages:
        publish(page_folio(page).addr)
    remove_migration_ptes(f, pages, True)
    kept = page_folio(pages[keep]) if keep >= 0 else NO_FOLIO
    if kept:
        folio_get(kept)
    for page in pages:
        folio_put(page_folio(page))
    store(f._refcount, 1)
    return 0, kept


def split_file_folio(f: folio, pieces: tuple[tuple[int, int], ...]) -> int:
    """Split a file's folio into (first page, order) pieces; those beyond the end of the file are dropped."""
    mapping = folio_mapping(f)
    nr = folio_nr_pages(f)
    if not mapping.shmem and f.flags & PG_DIRTY:  # filemap_release_folio(): all of its buffers count as dirty
        return -EBUSY
    down_read(mapping.i_mmap_rwsem)
    if folio_ref_count(f) != folio_mapcount(f) + nr + 1:
        up_read(mapping.i_mmap_rwsem)
        return -EAGAIN
    unmap_folio(f)
    new = tuple([split_off(f, first, order) for first, order in pieces])
    end = i_size_pages(mapping)
    beyond = tuple([piece for piece in new if piece.index >= end])
    spin_lock(mapping.i_pages_lock)
    frozen = cmpxchg(f._refcount, nr + 1, 0) == nr + 1
    if frozen:
        for piece in new:
            replace_in_cache(mapping, piece, end)
        f.mapping = 0
        store(f._refcount, 1)
    spin_unlock(mapping.i_pages_lock)
    up_read(mapping.i_mmap_rwsem)
    for piece in beyond if frozen else new:
        piece.mapping = 0
        folio_put_refs(piece, folio_nr_pages(piece))
    return 0 if frozen else -EAGAIN


def replace_in_cache(mapping: address_space, piece: folio, end: int) -> None:
    """Let the cache have the piece of a split folio, or nothing from page `end` of the file on."""
    first, nr = piece.index, folio_nr_pages(piece)
    kept = first < end
    if kept:
        publish(piece.addr)
    else:
        mapping.nrpages -= nr
    for index in range(first, first + nr):
        xa_store(mapping.i_pages, index, piece.addr if kept else 0)


def split_off(f: folio, first: int, order: int) -> folio:
    """A folio in place of 2^order pages from page `first` on, with the references that mapping or cache will own."""
    new = folio_alloc(order)
    new.mapping = f.mapping
    new.index = f.index + first
    store(new._refcount, 1 << order)
    WRITE_ONCE(new, "flags", f.flags)
    for i in range(1 << order):
        copy_page(folio_page(new, i), folio_page(f, first + i))
    return new
