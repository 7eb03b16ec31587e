# SPDX-License-Identifier: GPL-2.0-only
"""Hugetlb pages: a fault, migration, and what smaps says (mm/hugetlb.c, mm/rmap.c, mm/migrate.c, task_mmu.c; 7.2).

Of an address space's own memory, mapped once.  Reservations, hugetlbfs, copy-on-write, and what user code sees are not
modelled.  Sizes, in bytes, are those of a PMD entry or of a run of entries (hugetlbpage.py); tables that processes
share are in huge_pmd_share.py.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import WRITE_ONCE, add, load, mutex_lock, mutex_trylock, mutex_unlock, spin_lock, spin_unlock
from .bug import BugOn
from .hugetlbpage import huge_pte_alloc, huge_ptep_clear_flush, huge_ptep_get, set_huge_pte_at
from .mm_types import folio, mm_struct, ptdesc, spinlock_t
from .page_alloc import PAGE_CELLS, PG_HUGETLB, __folio_mark_uptodate, copy_page, folio_alloc, folio_get, folio_put
from .pgtable import (
    LEAF,
    PFN_SHIFT,
    PRESENT,
    RW,
    SWP_MIGRATION,
    TABLE_ENTRY,
    mk_table,
    page_folio,
    pte_index,
    pte_p,
    pte_page,
    pte_present,
    swp_entry,
    swp_offset,
)
from .pgtable_generic import pmd_lockptr, pte_lockptr


def huge_pte_lock(mm: mm_struct, pte: pte_p, addr: int, size: int) -> spinlock_t:
    """Take the lock of the table that a page's entries are in; returns it (include/linux/hugetlb.h)."""
    if size >= arch.pmd_size:
        ptl = pmd_lockptr(mm, pte, addr)
    else:
        ptl = pte_lockptr(mm, mk_table(ptdesc(pte - pte_index(addr) - TABLE_ENTRY)))
    spin_lock(ptl)
    return ptl


def hugetlb_no_page(mm: mm_struct, addr: int, size: int) -> pte_p:
    """A first touch of the page that begins at `addr`: a new one; the entry that maps it, or the first of a run."""
    pte = huge_pte_alloc(mm, addr, size)
    f = hugetlb_alloc_folio(size)
    ptl = huge_pte_lock(mm, pte, addr, size)
    taken = load(pte) != 0
    if not taken:
        map_hugetlb_folio(pte, f, size)
    spin_unlock(ptl)
    if taken:
        folio_put(f)
    return pte


def hugetlb_alloc_folio(size: int) -> folio:
    """A new page of the pool."""
    f = folio_alloc((size >> arch.page_shift).bit_length() - 1)
    WRITE_ONCE(f, "flags", PG_HUGETLB)
    return f


def map_hugetlb_folio(pte: pte_p, f: folio, size: int) -> None:
    """Let its entries map a page, whose reference they get; under their lock."""
    add(f._entire_mapcount, 1)
    __folio_mark_uptodate(f)
    set_huge_pte_at(pte, f.page << PFN_SHIFT | PRESENT | LEAF | RW, size)


def unmap_and_move_huge_page(mm: mm_struct, pte: pte_p, addr: int, size: int) -> None:
    """Let another page take the place of the one that is mapped at `addr`, which has to be there."""
    src, dst = page_folio(pte_page(load(pte))), hugetlb_alloc_folio(size)
    folio_get(src)
    mutex_lock(src.lock)
    mutex_lock(dst.lock)
    ptl = huge_pte_lock(mm, pte, addr, size)  # try_to_migrate_one
    huge_ptep_clear_flush(mm, addr, pte, size)
    set_huge_pte_at(pte, swp_entry(SWP_MIGRATION, src.page), size)
    add(src._entire_mapcount, -1)
    spin_unlock(ptl)
    folio_put(src)
    for i in range(0, (size >> arch.page_shift) * PAGE_CELLS, PAGE_CELLS):
        copy_page(dst.page + i, src.page + i)
    ptl = huge_pte_lock(mm, pte, addr, size)  # remove_migration_pte
    map_hugetlb_folio(pte, dst, size)
    spin_unlock(ptl)
    mutex_unlock(dst.lock)
    mutex_unlock(src.lock)
    folio_put(src)


def smaps_hugetlb_range(mm: mm_struct, pte: pte_p, addr: int, size: int) -> tuple[int, int]:
    """What a page's entries have in bytes: shared, as everything under migration may be, and private."""
    ptl = huge_pte_lock(mm, pte, addr, size)
    counted = smaps_hugetlb_entry(huge_ptep_get(pte, size), size)
    spin_unlock(ptl)
    return counted


def smaps_hugetlb_entry(entry: int, size: int) -> tuple[int, int]:
    """The same of what an entry was when it was read."""
    if entry == 0:
        return 0, 0
    if not pte_present(entry):
        softleaf_to_folio(entry)
        return size, 0
    shared = load(page_folio(pte_page(entry))._entire_mapcount) > 1
    return (size, 0) if shared else (0, size)


def softleaf_to_folio(entry: int) -> folio:
    """The page that a migration entry stands for: it is locked for as long as the entry is there."""
    f = page_folio(swp_offset(entry))
    if mutex_trylock(f.lock):
        raise BugOn("a migration entry stands for a page that is not locked")
    return f
