# SPDX-License-Identifier: GPL-2.0-only
"""Collapsing file and shared memory into a huge page (collapse_file in mm/khugepaged.c; 7.2).

Of the isolation from the LRU lists there is only its reference.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    THP_COLLAPSE_ALLOC,
    WRITE_ONCE,
    add,
    count,
    down_read,
    forget,
    interval_tree_overlapping,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    publish,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    up_read,
    xa_load,
    xa_range,
    xa_store,
)
from .collapse_policy import collapse_max_ptes_none, collapse_max_ptes_swap
from .filemap import (
    XA_RETRY_ENTRY,
    XA_SHADOW,
    filemap_lock_folio,
    folio_entry,
    folio_test_uptodate,
    i_size_pages,
    page_cache_wanted,
    xa_is_value,
)
from .mm_types import address_space, folio, mm_struct, vm_area_struct
from .mmap_lock import NO_VMA
from .page_alloc import (
    MAPPING_SHIFT,
    PG_DIRTY,
    PG_SWAPBACKED,
    PG_UPTODATE,
    copy_page,
    folio_alloc,
    folio_get,
    folio_mapcount,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_put_refs,
    folio_ref_count,
    folio_try_get,
)
from .retract import retract_page_tables
from .rmap_walk import unmap_folio
from .scan_result import (
    SCAN_EXCEED_NONE_PTE,
    SCAN_EXCEED_SWAP_PTE,
    SCAN_FAIL,
    SCAN_PAGE_COUNT,
    SCAN_PAGE_DIRTY_OR_WRITEBACK,
    SCAN_PAGE_FILLED,
    SCAN_PAGE_LOCK,
    SCAN_PTE_MAPPED_HUGEPAGE,
    SCAN_SUCCEED,
    SCAN_TRUNCATED,
)
from .shmem import shmem_lock_folio, shmem_mark_uptodate
from .vm_flags import VM_UFFD_MISSING


def collapse_scan_file(mm: mm_struct, address: int, mapping: address_space, start: int, is_khugepaged: bool) -> int:
    """Look at the cached pages of a huge page at index `start`, and collapse them if it is worth it.

    No lock is held; `mm` and `address` are those for whom it is done.  Returns a scan result.
    """
    result, present = scan_cache(mapping, start, is_khugepaged)
    if result != SCAN_SUCCEED:
        return result
    if present < arch.hpage_pmd_nr - collapse_max_ptes_none(is_khugepaged, NO_VMA):
        return SCAN_EXCEED_NONE_PTE
    return collapse_file(mm, address, mapping, start, is_khugepaged)


def scan_cache(mapping: address_space, start: int, is_khugepaged: bool) -> tuple[int, int]:
    """(scan result, pages present) of the cache."""
    rcu_read_lock()
    result = SCAN_SUCCEED
    index = start
    present = swapped = 0
    while index < start + arch.hpage_pmd_nr and result == SCAN_SUCCEED:
        result, nr, is_value = scan_cached_folio(mapping, index)
        if nr >= 0:
            present += nr
            swapped += is_value
            index += max(nr, 1)
        if swapped > collapse_max_ptes_swap(is_khugepaged):
            result = SCAN_EXCEED_SWAP_PTE
        forget((result, index, present, swapped))
    rcu_read_unlock()
    return result, present


def scan_cached_folio(mapping: address_space, index: int) -> tuple[int, int, bool]:
    """(scan result, its pages from `index` on, whether it is swapped out) of the folio at `index`.

    0 pages for a hole or a page swapped out (one that was reclaimed counts as that), -1 to look again.
    """
    value = xa_load(mapping.i_pages, index)
    if value == XA_RETRY_ENTRY:
        return SCAN_SUCCEED, -1, False
    if value <= XA_SHADOW:
        return SCAN_SUCCEED, 0, value != 0
    f = folio(value)
    if not folio_try_get(f):
        return SCAN_SUCCEED, -1, False
    if xa_load(mapping.i_pages, index) != value:
        folio_put(f)
        return SCAN_SUCCEED, -1, False
    result = SCAN_SUCCEED
    if f.order == arch.pte_bits:
        result = SCAN_PTE_MAPPED_HUGEPAGE
    elif folio_ref_count(f) != folio_mapcount(f) + folio_nr_pages(f) + 1:
        result = SCAN_PAGE_COUNT
    nr = folio_nr_pages(f) - (index & folio_nr_pages(f) - 1)
    folio_put(f)
    return result, nr, False


def collapse_file(mm: mm_struct, address: int, mapping: address_space, start: int, is_khugepaged: bool) -> int:
    """Replace the cached pages from index `start` on by one huge page, unmapped everywhere.  Returns a scan result.

    For MADV_COLLAPSE success is SCAN_PTE_MAPPED_HUGEPAGE: collapse_pte_mapped_thp() has its part still to do.
    """
    new = folio_alloc(arch.pte_bits)
    count(THP_COLLAPSE_ALLOC)
    mutex_lock(new.lock)
    new.index = start
    new.mapping = mapping.addr << MAPPING_SHIFT
    result, old, holes = gather_pages(mapping, start)
    if result == SCAN_SUCCEED:
        copy_pages(old, new)
        result = fill_holes(mapping, start, holes)
    if result != SCAN_SUCCEED:
        for f in old:
            mutex_unlock(f.lock)
            folio_put_refs(f, 2)
        new.mapping = 0
        mutex_unlock(new.lock)
        folio_put(new)
        return result
    WRITE_ONCE(new, "flags", PG_UPTODATE | (PG_SWAPBACKED | PG_DIRTY if mapping.shmem else 0))
    add(new._refcount, arch.hpage_pmd_nr - 1)
    publish(new.addr)
    for index in range(start, start + arch.hpage_pmd_nr):
        xa_store(mapping.i_pages, index, new.addr)
    mapping.nrpages += holes
    spin_unlock(mapping.i_pages_lock)
    result = retract_page_tables(mapping, start, mm, address, new, is_khugepaged)
    mutex_unlock(new.lock)
    for f in old:
        f.mapping = 0
        mutex_unlock(f.lock)
        folio_put_refs(f, 2 + folio_nr_pages(f))
    return result


def gather_pages(mapping: address_space, start: int) -> tuple[int, tuple[folio, ...], int]:
    """Lock, isolate and unmap each page from `start` on: (scan result, folios taken, holes).

    Each folio taken has two references of ours, and otherwise the cache's only.
    """
    old: tuple[folio, ...] = ()
    holes = 0
    index = start
    result = SCAN_SUCCEED
    while index < start + arch.hpage_pmd_nr:
        result, f = collapse_lock_page(mapping, start, index)
        if result != SCAN_SUCCEED:
            break
        if not f:
            holes += 1
            index += 1
            continue
        result = collapse_unmap_folio(mapping, f)
        if result != SCAN_SUCCEED:
            mutex_unlock(f.lock)
            folio_put(f)
            break
        old += (f,)
        index += folio_nr_pages(f)
    return result, old, holes


def collapse_lock_page(mapping: address_space, start: int, index: int) -> tuple[int, folio]:
    """(scan result, the folio at `index` locked and referenced); NULL is a hole, which only shared memory has."""
    spin_lock(mapping.i_pages_lock)
    value = xa_load(mapping.i_pages, index)
    swapped = xa_is_value(value)
    f = folio_entry(value)
    result = SCAN_SUCCEED
    if f:
        if not mapping.shmem and f.flags & PG_DIRTY:
            result = SCAN_PAGE_DIRTY_OR_WRITEBACK
        elif mutex_trylock(f.lock):
            folio_get(f)
        else:
            result = SCAN_PAGE_LOCK
    elif not swapped and mapping.shmem and index == start and not any_cached(mapping, start):
        result = SCAN_TRUNCATED
    spin_unlock(mapping.i_pages_lock)
    if swapped:
        f = shmem_lock_folio(mapping, index)
        if not f:
            result = SCAN_FAIL
    elif result == SCAN_SUCCEED and not f and not mapping.shmem:
        page_cache_wanted(mapping, index)
        f = filemap_lock_folio(mapping, index)
        if not f:
            result = SCAN_FAIL
    if result == SCAN_SUCCEED and f and mapping.shmem and not folio_test_uptodate(f):
        if index < i_size_pages(mapping):
            shmem_mark_uptodate(f)
        else:
            mutex_unlock(f.lock)
            folio_put(f)
            result = SCAN_FAIL
    return result, f


def any_cached(mapping: address_space, start: int) -> bool:
    """Whether any page of a huge page's is cached, or in swap; under i_pages_lock."""
    return bool(xa_range(mapping.i_pages, start, start + arch.hpage_pmd_nr - 1))


def collapse_unmap_folio(mapping: address_space, f: folio) -> int:
    """Isolate a locked folio, unmap it everywhere, and see that nobody else has a reference.  Returns a scan result."""
    if not folio_test_uptodate(f):
        return SCAN_FAIL
    if f.order == arch.pte_bits:
        return SCAN_PTE_MAPPED_HUGEPAGE
    if f.mapping != mapping.addr << MAPPING_SHIFT:
        return SCAN_TRUNCATED
    folio_get(f)
    if folio_mapcount(f):
        down_read(mapping.i_mmap_rwsem)
        unmap_folio(f, migrate=False)
        up_read(mapping.i_mmap_rwsem)
    spin_lock(mapping.i_pages_lock)
    result = SCAN_SUCCEED
    if folio_ref_count(f) != 2 + folio_nr_pages(f):
        result = SCAN_PAGE_COUNT
    elif not mapping.shmem and f.flags & PG_DIRTY:
        result = SCAN_PAGE_DIRTY_OR_WRITEBACK
    spin_unlock(mapping.i_pages_lock)
    if result != SCAN_SUCCEED:
        folio_put(f)
    return result


def copy_pages(old: tuple[folio, ...], new: folio) -> None:
    """Copy the pages to their places in the new folio; what was a hole is zero there."""
    for f in old:
        for i in range(folio_nr_pages(f)):
            copy_page(folio_page(new, f.index + i - new.index), folio_page(f, i))


def fill_holes(mapping: address_space, start: int, holes: int) -> int:
    """Let nobody fill the holes any more: with SCAN_SUCCEED i_pages_lock is held, and the holes hold retry entries."""
    if holes == 0:
        spin_lock(mapping.i_pages_lock)
        return SCAN_SUCCEED
    down_read(mapping.i_mmap_rwsem)
    spin_lock(mapping.i_pages_lock)
    last = start + arch.hpage_pmd_nr - 1
    empty = 0
    for index in range(start, last + 1):
        if xa_load(mapping.i_pages, index) == 0:
            xa_store(mapping.i_pages, index, XA_RETRY_ENTRY)
            empty += 1
    result = SCAN_SUCCEED if empty == holes else SCAN_PAGE_FILLED
    if holes_are_awaited(mapping, start, last):
        result = SCAN_EXCEED_NONE_PTE
    up_read(mapping.i_mmap_rwsem)
    if result != SCAN_SUCCEED:
        for index in range(start, last + 1):
            if xa_load(mapping.i_pages, index) == XA_RETRY_ENTRY:
                xa_store(mapping.i_pages, index, 0)
        spin_unlock(mapping.i_pages_lock)
    return result


def holes_are_awaited(mapping: address_space, first: int, last: int) -> bool:
    """Whether a userfaultfd is to be told of missing pages first..last; under i_mmap_rwsem."""
    vmas = [vm_area_struct(found) for found in interval_tree_overlapping(mapping.i_mmap, first, last + 1)]
    return any([vma.vm_flags & VM_UFFD_MISSING != 0 for vma in vmas])
