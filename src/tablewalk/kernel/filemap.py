# SPDX-License-Identifier: GPL-2.0-only
"""Files and the page cache (mm/filemap.c, fs/file_table.c, fs/inode.c; 7.2).

An `address_space` stands for the inode too: `i_count` are the open files and other holders that keep it.  A folio of
2^n pages has an entry at each of its indices.  One reference of each page belongs to the cache.

What a recording does not say is which pages of a regular file were cached.  Here all of them are: a page enters
the cache when it is first looked for, and reading it in takes no time.  The tables don't depend on it.  Only a page
that was reclaimed is known not to be cached: it comes back when it is wanted itself, and nothing is read ahead.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    FAULT_AROUND_PAGES,
    READ_ONCE,
    WRITE_ONCE,
    add,
    add_return,
    count,
    forget,
    interval_tree_destroy,
    interval_tree_init,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    publish,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    store,
    xa_destroy,
    xa_init,
    xa_load,
    xa_range,
    xa_store,
)
from .huge_pmd import do_set_pmd
from .mlock_folio import mlock_vma_folio
from .mm_types import address_space, file, folio, ptdesc, vm_area_struct
from .page_alloc import (
    MAPPING_SHIFT,
    NO_FOLIO,
    PAGE_CELLS,
    PG_DIRTY,
    PG_RECLAIM,
    PG_UPTODATE,
    folio_alloc,
    folio_nr_pages,
    folio_page,
    folio_put,
    folio_put_refs,
    folio_try_get,
)
from .pgtable import (
    ACCESSED,
    MKDIRTY,
    PFN_SHIFT,
    RW,
    page_t,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_p,
)
from .pgtable_generic import NO_TABLE, pmd_install, pte_offset_map_lock, pte_unmap_unlock
from .rmap import folio_add_rmap_ptes, folio_dup_rmap_ptes, mm_counter_file, vma_address, vma_pages
from .swapfile import swap_put_entries_direct
from .vm_fault import vm_fault
from .vm_flags import VM_FAULT_NOPAGE, VM_FAULT_SIGBUS, VM_RAND_READ

NO_FILE: Final = file(0)
NO_MAPPING: Final = address_space(0)
SIZE_UNKNOWN: Final = -1
RADIX_ORDER_BITS: Final = 4
XA_SHADOW: Final = 1  # left where a page of a regular file was reclaimed (workingset_eviction)
XA_RETRY_ENTRY: Final = 2  # put into holes by a collapse: whoever meets it looks again


def swp_to_radix_entry(offset: int, order: int) -> int:
    """What stands in a cache for a page in swap, one of 2^order with an entry in common (include/linux/swapops.h)."""
    return -(offset << RADIX_ORDER_BITS | order)


def radix_to_swp_entry(value: int) -> int:
    """The page's offset in swap."""
    return -value >> RADIX_ORDER_BITS


def radix_order(value: int) -> int:
    """The order of the entry (xas_get_order)."""
    return -value & (1 << RADIX_ORDER_BITS) - 1


def xa_is_value(value: int) -> bool:
    """Whether an entry of a cache stands for a page that is in swap."""
    return value < 0


def folio_entry(value: int) -> folio:
    """The folio of an entry of a cache, or NULL: there is none, it is in swap, or was reclaimed."""
    return NO_FOLIO if value <= XA_SHADOW else folio(value)


# --- files and inodes ------------------------------------------------------------------------------------


def file_mapping(i_size: int = SIZE_UNKNOWN, shmem: bool = False, can_collapse: bool = False) -> address_space:
    """A new inode of `i_size` bytes (SIZE_UNKNOWN: nothing lies beyond its end), held once by the caller.

    `can_collapse`: its file system can have huge pages in the cache.
    """
    mapping: address_space = address_space.alloc()
    xa_init(mapping.i_pages)
    interval_tree_init(mapping.i_mmap)
    mapping.shmem = int(shmem)
    mapping.can_collapse = int(can_collapse)
    mapping.i_size = i_size
    store(mapping.i_count, 1)
    return mapping


def iput(mapping: address_space) -> None:
    """Give up one hold; with the last the inode and its pages go."""
    if add_return(mapping.i_count, -1):
        return
    done = -1
    for index, value in xa_range(mapping.i_pages, 0, MAX_INDEX):
        if xa_is_value(value):
            swap_put_entries_direct(radix_to_swp_entry(value))
        elif index > done and value != XA_SHADOW:
            f = folio(value)
            mutex_lock(f.lock)
            done = folio_next_index(f) - 1
            f.mapping = 0
            mutex_unlock(f.lock)
            folio_put_refs(f, folio_nr_pages(f))
    xa_destroy(mapping.i_pages)
    interval_tree_destroy(mapping.i_mmap)
    mapping.free()


MAX_INDEX: Final = (1 << 63) - 1


def open_file(mapping: address_space, ident: int = 0) -> file:
    """A new open file with one reference; `ident` tells two opens of one inode apart."""
    f: file = file.alloc()
    add(mapping.i_count, 1)
    f.f_mapping = mapping
    f.f_ident = ident
    store(f.f_count, 1)
    return f


def get_file(f: file) -> file:
    """One reference more."""
    add(f.f_count, 1)
    return f


def fput(f: file) -> None:
    """Drop a reference; with the last the file is closed."""
    if add_return(f.f_count, -1) == 0:
        mapping = f.f_mapping
        f.free()
        iput(mapping)


def i_size_pages(mapping: address_space) -> int:
    """Pages that the file reaches into, MAX_INDEX where its size is not known."""
    i_size: int = READ_ONCE(mapping, "i_size")
    return MAX_INDEX if i_size == SIZE_UNKNOWN else i_size + arch.page_size - 1 >> arch.page_shift


# --- the cache -------------------------------------------------------------------------------------------


def folio_test_uptodate(f: folio) -> bool:
    """Whether its content is valid."""
    flags: int = READ_ONCE(f, "flags")
    return flags & PG_UPTODATE != 0


def may_map_around(f: folio) -> bool:
    """Whether its content is valid, and no fault of its own is wanted to go on with read-ahead."""
    flags: int = READ_ONCE(f, "flags")
    return flags & (PG_UPTODATE | PG_RECLAIM) == PG_UPTODATE


def folio_file_page(f: folio, index: int) -> page_t:
    """Its struct page for the file's page `index`."""
    return folio_page(f, index & folio_nr_pages(f) - 1)


def folio_next_index(f: folio) -> int:
    """Index in the file behind the folio's last page."""
    return f.index + folio_nr_pages(f)


def filemap_get_folio(mapping: address_space, index: int) -> folio:
    """The cached folio at page `index` with a reference, or NULL."""
    while True:
        f, again = filemap_get_entry(mapping, index)
        if not again:
            return f
        forget(())


def filemap_get_entry(mapping: address_space, index: int) -> tuple[folio, bool]:
    """One try of `filemap_get_folio`: (folio, whether to look again)."""
    rcu_read_lock()
    value = xa_load(mapping.i_pages, index)
    if value == XA_RETRY_ENTRY:
        rcu_read_unlock()
        return NO_FOLIO, True
    f = folio_entry(value)
    if f:
        if not folio_try_get(f):
            rcu_read_unlock()
            return NO_FOLIO, True
        if xa_load(mapping.i_pages, index) != value:
            rcu_read_unlock()
            folio_put(f)
            return NO_FOLIO, True
    rcu_read_unlock()
    return f, False


def filemap_lock_folio(mapping: address_space, index: int) -> folio:
    """The cached folio at page `index` locked and with a reference, or NULL."""
    while True:
        f = filemap_get_folio(mapping, index)
        if not f:
            return f
        mutex_lock(f.lock)
        if f.mapping == mapping.addr << MAPPING_SHIFT:
            return f
        mutex_unlock(f.lock)
        folio_put(f)
        forget(())


def filemap_add_folio(mapping: address_space, f: folio, index: int) -> bool:
    """Add a locked folio at the aligned `index` with references for the cache; false if a page is there already."""
    nr = folio_nr_pages(f)
    spin_lock(mapping.i_pages_lock)
    if any([value != XA_SHADOW for _, value in xa_range(mapping.i_pages, index, index + nr - 1)]):
        spin_unlock(mapping.i_pages_lock)
        return False
    add(f._refcount, nr)
    f.mapping = mapping.addr << MAPPING_SHIFT
    f.index = index
    publish(f.addr)
    for i in range(nr):
        xa_store(mapping.i_pages, index + i, f.addr)
    mapping.nrpages += nr
    spin_unlock(mapping.i_pages_lock)
    return True


def filemap_remove_folio(mapping: address_space, f: folio, shadow: int = 0) -> None:
    """Take a locked folio out of the cache and drop the cache's references; `shadow` is left in its place."""
    nr = folio_nr_pages(f)
    spin_lock(mapping.i_pages_lock)
    for i in range(nr):
        xa_store(mapping.i_pages, f.index + i, shadow)
    mapping.nrpages -= nr
    f.mapping = 0
    spin_unlock(mapping.i_pages_lock)
    folio_put_refs(f, nr)


def page_cache_read(mapping: address_space, index: int) -> None:
    """See to it that page `index` of a regular file is in the cache and valid."""
    f = folio_alloc(0)
    mutex_lock(f.lock)
    if filemap_add_folio(mapping, f, index):
        WRITE_ONCE(f, "flags", PG_UPTODATE)
    mutex_unlock(f.lock)
    folio_put(f)


def page_cache_present(mapping: address_space, first: int, last: int) -> None:
    """Let pages first..last of a regular file be cached, as far as the file reaches and they are not reclaimed."""
    if mapping.shmem:
        return
    for index in range(first, min(last + 1, i_size_pages(mapping))):
        if xa_load(mapping.i_pages, index) == 0:
            page_cache_read(mapping, index)


def page_cache_wanted(mapping: address_space, index: int) -> None:
    """Let page `index` of a regular file, which itself is asked for, be cached if it lies in the file."""
    if index < i_size_pages(mapping) and xa_load(mapping.i_pages, index) <= XA_SHADOW:
        page_cache_read(mapping, index)


def page_cache_async_ra(f: folio) -> None:
    """Who wants a page that is marked for it reads ahead, of what is cached all (mm/readahead.c)."""
    if f.flags & PG_RECLAIM:
        WRITE_ONCE(f, "flags", f.flags & ~PG_RECLAIM)


# --- faults ----------------------------------------------------------------------------------------------


def filemap_fault(vmf: vm_fault) -> tuple[int, folio]:
    """(VM_FAULT bits, the locked and referenced folio of the page) of a regular file."""
    mapping = vmf.vma.vm_file.f_mapping
    if vmf.pgoff >= i_size_pages(mapping):
        return VM_FAULT_SIGBUS, NO_FOLIO
    while True:
        page_cache_wanted(mapping, vmf.pgoff)
        f = filemap_lock_folio(mapping, vmf.pgoff)
        if f:
            break
        forget(())
    if vmf.pgoff >= i_size_pages(mapping):
        mutex_unlock(f.lock)
        folio_put(f)
        return VM_FAULT_SIGBUS, NO_FOLIO
    if vmf.vma.vm_flags & VM_RAND_READ == 0:
        page_cache_async_ra(f)
    return 0, f


def file_pte_flags(vma: vm_area_struct, f: folio) -> int:
    """Flags of a new entry of a file mapping: writable at once only where nobody wants to know of the first write, and
    then dirty as the folio is."""
    flags = vma.vm_page_prot | ACCESSED
    return flags | MKDIRTY if flags & RW and f.flags & PG_DIRTY else flags


def next_uptodate_folio(mapping: address_space, first: int, last: int) -> tuple[int, folio]:
    """(index, folio) of the first page in first..last that can be mapped now, locked and referenced; or (0, NULL)."""
    for index in range(first, last + 1):
        value = xa_load(mapping.i_pages, index)
        if value > XA_RETRY_ENTRY and get_uptodate_folio(mapping, index, folio(value)):
            return index, folio(value)
    return 0, NO_FOLIO


def get_uptodate_folio(mapping: address_space, index: int, f: folio) -> bool:
    """Try to lock a folio seen at `index`, without sleeping."""
    if not folio_try_get(f):
        return False
    if xa_load(mapping.i_pages, index) == f.addr and may_map_around(f) and mutex_trylock(f.lock):
        if f.mapping == mapping.addr << MAPPING_SHIFT and may_map_around(f) and index < i_size_pages(mapping):
            return True
        mutex_unlock(f.lock)
    folio_put(f)
    return False


def filemap_map_pmd(vmf: vm_fault, f: folio, prealloc: ptdesc) -> tuple[bool, ptdesc]:
    """Map the huge page whole, and give it up, or see to a table; (whether done, table not used)."""
    if pmd_trans_huge(pmdp_get_lockless(vmf.pmd)):
        mutex_unlock(f.lock)
        folio_put(f)
        return True, prealloc
    if pmdp_get_lockless(vmf.pmd) == 0 and f.order >= arch.pte_bits:
        ret, prealloc = do_set_pmd(vmf, f, prealloc)
        if ret == 0:
            mutex_unlock(f.lock)
            return True, prealloc
    if pmdp_get_lockless(vmf.pmd) == 0 and prealloc and pmd_install(vmf.vma.vm_mm, vmf.pmd, vmf.address, prealloc):
        prealloc = NO_TABLE
    return False, prealloc


def filemap_map_pages(vmf: vm_fault, first: int, last: int, prealloc: ptdesc) -> tuple[int, ptdesc]:
    """Map the cached pages first..last around a fault, without sleeping; (VM_FAULT bits, table not used).

    The window lies in one table and in the VMA.
    """
    vma = vmf.vma
    mapping = vma.vm_file.f_mapping
    last = min(last, i_size_pages(mapping) - 1)
    rcu_read_lock()
    index, f = next_uptodate_folio(mapping, first, last)
    if not f:
        rcu_read_unlock()
        return 0, prealloc
    if mapping.shmem or i_size_pages(mapping) - 1 >= folio_next_index(f):
        done, prealloc = filemap_map_pmd(vmf, f, prealloc)
        if done:
            rcu_read_unlock()
            return VM_FAULT_NOPAGE, prealloc
    pte, ptl = pte_offset_map_lock(vma.vm_mm, vmf.pmd, vmf.address)
    if not pte:
        mutex_unlock(f.lock)
        folio_put(f)
        rcu_read_unlock()
        return 0, prealloc
    base = pte - vmf.pgoff
    wanted = load(pte) == 0
    counter = mm_counter_file(vma.vm_mm, f)
    rss = 0
    while f:
        flags = file_pte_flags(vma, f)
        if f.order:
            low, high = pages_to_map(vma, f, index, last)
            rss += filemap_map_folio_range(vma, f, base + low, low, high, flags)
        else:
            high = index
            rss += filemap_map_order0_folio(vma, f, base + index, flags)
        mutex_unlock(f.lock)
        if high >= last:
            break
        index, f = next_uptodate_folio(mapping, high + 1, last)
    add(counter, rss)
    count(FAULT_AROUND_PAGES, rss)
    ret = VM_FAULT_NOPAGE if wanted and load(pte) else 0
    pte_unmap_unlock(pte, ptl)
    rcu_read_unlock()
    return ret, prealloc


def pages_to_map(vma: vm_area_struct, f: folio, first: int, last: int) -> tuple[int, int]:
    """First and last page to map of a large folio met at `first`: all of it, where VMA, table and file have room."""
    end = folio_next_index(f)
    start = vma_address(vma, f.index)
    in_file = vma.vm_file.f_mapping.shmem or end <= i_size_pages(vma.vm_file.f_mapping)
    in_vma = f.index >= vma.vm_pgoff and end <= vma.vm_pgoff + vma_pages(vma)
    in_table = start + (folio_nr_pages(f) << arch.page_shift) <= (start & -arch.pmd_size) + arch.pmd_size
    if in_file and in_vma and in_table:
        return f.index, end - 1
    return first, min(end - 1, last)


def filemap_map_order0_folio(vma: vm_area_struct, f: folio, pte: pte_p, flags: int) -> int:
    """Map a single page where nothing is mapped; uses up the caller's reference.  Returns the pages mapped."""
    if load(pte):
        folio_put(f)
        return 0
    folio_add_rmap_ptes(f, f.page, 1, vma)
    store(pte, f.page << PFN_SHIFT | flags)
    return 1


def filemap_map_folio_range(
    vma: vm_area_struct, f: folio, pte: pte_p, first: int, last: int, flags: int
) -> int:
    """The same for pages first..last of a large folio."""
    page = folio_file_page(f, first)
    nr = 0
    for i in range(last - first + 1):
        if load(pte + i) == 0:
            store(pte + i, page + PAGE_CELLS * i << PFN_SHIFT | flags)
            folio_dup_rmap_ptes(f, page + PAGE_CELLS * i, 1, vma.vm_mm)
            nr += 1
    if nr == 0:
        folio_put(f)
        return 0
    if nr == folio_nr_pages(f):
        mlock_vma_folio(f, vma)
    add(f._refcount, nr - 1)
    return nr
