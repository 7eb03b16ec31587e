# SPDX-License-Identifier: GPL-2.0-only
"""Splitting a large folio into single pages (folio_split in mm/huge_memory.c; 7.2).

The kernel leaves as large folios as it can; here all become single pages, since no table depends on it.  A page's
struct page is a new one.  Pages that hold only zeroes are kept, where the kernel may map the zero page.
"""

from __future__ import annotations

from ..machine import (
    WRITE_ONCE,
    cmpxchg,
    down_read,
    load,
    spin_lock,
    spin_unlock,
    store,
    up_read,
    xa_store,
)
from .filemap import i_size_pages
from .mm_types import folio
from .page_alloc import (
    copy_page,
    folio_alloc,
    folio_mapcount,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_put_refs,
    folio_ref_count,
    folio_test_anon,
)
from .rmap import anon_vma_lock_write, anon_vma_unlock_write
from .rmap_walk import folio_anon_vma, folio_mapping, remove_migration_ptes, unmap_folio
from .vm_flags import EAGAIN


def split_folio(f: folio) -> int:
    """Split a locked folio, of which the caller has a reference: 0 (it is empty then), or -EAGAIN if it is in use."""
    if folio_test_anon(f):
        av = folio_anon_vma(f)
        anon_vma_lock_write(av)
        ret = split_anon_folio(f)
        anon_vma_unlock_write(av)
        return ret
    mapping = folio_mapping(f)
    down_read(mapping.i_mmap_rwsem)
    ret = split_file_folio(f)
    up_read(mapping.i_mmap_rwsem)
    return ret


def split_anon_folio(f: folio) -> int:
    """The anonymous case, with the anon_vma locked."""
    nr = folio_nr_pages(f)
    if folio_ref_count(f) != folio_mapcount(f) + 1:
        return -EAGAIN
    unmap_folio(f, migrate=True)
    if cmpxchg(f._refcount, 1, 0) != 1:
        remove_migration_ptes(f, tuple([folio_page(f, i) for i in range(nr)]))
        return -EAGAIN
    pages = tuple([split_off(f, i).page for i in range(nr)])
    remove_migration_ptes(f, pages)
    for page in pages:
        folio_put(folio(load(page)))
    store(f._refcount, 1)
    return 0


def split_file_folio(f: folio) -> int:
    """The file's case, with i_mmap_rwsem held; pages beyond the end of the file are dropped."""
    mapping = folio_mapping(f)
    nr = folio_nr_pages(f)
    if folio_ref_count(f) != folio_mapcount(f) + nr + 1:
        return -EAGAIN
    unmap_folio(f, migrate=False)
    new = tuple([split_off(f, i) for i in range(nr)])
    end = i_size_pages(mapping)
    spin_lock(mapping.i_pages_lock)
    frozen = cmpxchg(f._refcount, nr + 1, 0) == nr + 1
    if frozen:
        for page in new:
            kept = page.index < end
            xa_store(mapping.i_pages, page.index, page.addr if kept else 0)
            if not kept:
                page.mapping = 0
                mapping.nrpages -= 1
        f.mapping = 0
        store(f._refcount, 1)
    spin_unlock(mapping.i_pages_lock)
    for page in new:
        if not frozen or not page.mapping:
            page.mapping = 0
            folio_put_refs(page, 1)
    return 0 if frozen else -EAGAIN


def split_off(f: folio, i: int) -> folio:
    """A single page that takes the place of page `i`, with the reference that mapping or cache will own."""
    new = folio_alloc(0)
    new.mapping = f.mapping
    new.index = f.index + i
    WRITE_ONCE(new, "flags", f.flags)
    copy_page(new.page, folio_page(f, i))
    return new
