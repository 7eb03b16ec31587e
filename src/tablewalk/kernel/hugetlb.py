# SPDX-License-Identifier: GPL-2.0-only
"""Hugetlb pages of a PMD entry's size: a fault, migration, and what smaps says (mm/hugetlb.c, mm/rmap.c, mm/migrate.c,
fs/proc/task_mmu.c; 7.2).

Of an address space's own memory, mapped once.  Reservations, hugetlbfs, copy-on-write, and what user code sees are not
modelled.  Smaller pages are in hugetlbpage.py, tables that processes share in huge_pmd_share.py.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import WRITE_ONCE, add, load, mutex_lock, mutex_trylock, mutex_unlock, spin_unlock, store, xchg
from .bug import BugOn
from .mm_types import folio, mm_struct
from .page_alloc import PAGE_CELLS, PG_HUGETLB, __folio_mark_uptodate, copy_page, folio_alloc, folio_get, folio_put
from .pgtable import (
    LEAF,
    PFN_SHIFT,
    PRESENT,
    RW,
    SWP_MIGRATION,
    page_folio,
    pmd_p,
    pmd_page,
    pmd_present,
    swp_entry,
    swp_offset,
)
from .pgtable_generic import pmd_lock, walk_to_pmd
from .tlb import flush_tlb_range


def hugetlb_no_page(mm: mm_struct, addr: int) -> pmd_p:
    """A first touch: a new page; the entry that maps it."""
    pte = walk_to_pmd(mm, addr)
    f = hugetlb_alloc_folio()
    ptl = pmd_lock(mm, pte, addr)  # huge_pte_lock
    taken = load(pte) != 0
    if not taken:
        map_hugetlb_folio(pte, f)
    spin_unlock(ptl)
    if taken:
        folio_put(f)
    return pte


def hugetlb_alloc_folio() -> folio:
    """A new page of the pool."""
    f = folio_alloc(arch.pmd_shift - arch.page_shift)
    WRITE_ONCE(f, "flags", PG_HUGETLB)
    return f


def map_hugetlb_folio(pte: pmd_p, f: folio) -> None:
    """Let the entry map a page, whose reference it gets; under its lock."""
    add(f._entire_mapcount, 1)
    __folio_mark_uptodate(f)
    store(pte, f.page << PFN_SHIFT | PRESENT | LEAF | RW)


def unmap_and_move_huge_page(mm: mm_struct, pte: pmd_p, addr: int) -> None:
    """Let another page take the place of the one that is mapped at `addr`, which has to be there."""
    src, dst = page_folio(pmd_page(load(pte))), hugetlb_alloc_folio()
    folio_get(src)
    mutex_lock(src.lock)
    mutex_lock(dst.lock)
    ptl = pmd_lock(mm, pte, addr)  # try_to_migrate_one
    xchg(pte, 0)
    flush_tlb_range(mm, addr, addr + arch.pmd_size, freed_tables=False)
    store(pte, swp_entry(SWP_MIGRATION, src.page))
    add(src._entire_mapcount, -1)
    spin_unlock(ptl)
    folio_put(src)
    for i in range(0, arch.hpage_pmd_nr * PAGE_CELLS, PAGE_CELLS):
        copy_page(dst.page + i, src.page + i)
    ptl = pmd_lock(mm, pte, addr)  # remove_migration_pte
    map_hugetlb_folio(pte, dst)
    spin_unlock(ptl)
    mutex_unlock(dst.lock)
    mutex_unlock(src.lock)
    folio_put(src)


def smaps_hugetlb_range(mm: mm_struct, pte: pmd_p, addr: int) -> tuple[int, int]:
    """What an entry has in bytes: shared, as everything under migration may be, and private."""
    ptl = pmd_lock(mm, pte, addr)  # huge_pte_lock
    counted = smaps_hugetlb_entry(load(pte))
    spin_unlock(ptl)
    return counted


def smaps_hugetlb_entry(entry: int) -> tuple[int, int]:
    """The same of what an entry was when it was read."""
    if entry == 0:
        return 0, 0
    if not pmd_present(entry):
        softleaf_to_folio(entry)
        return arch.pmd_size, 0
    shared = load(page_folio(pmd_page(entry))._entire_mapcount) > 1
    return (arch.pmd_size, 0) if shared else (0, arch.pmd_size)


def softleaf_to_folio(entry: int) -> folio:
    """The page that a migration entry stands for: it is locked for as long as the entry is there."""
    f = page_folio(swp_offset(entry))
    if mutex_trylock(f.lock):
        raise BugOn("a migration entry stands for a page that is not locked")
    return f
