# SPDX-License-Identifier: GPL-2.0-only
"""32-bit arm's own users of page tables (arch/arm/lib/uaccess_with_memcpy.c, mm/fault.c, mm/fault-armv.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, load, spin_lock, spin_lock_nested, spin_unlock, store
from .fault import user_write
from .mm_types import mm_struct, spinlock_t
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_alloc import PAGE_CELLS, page_content
from .pgtable import (
    ACCESSED,
    DIRTY,
    PRESENT,
    RW,
    mm_find_pmd,
    page_t,
    pmd_is_table,
    pmd_page,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_index,
    pte_p,
    pte_page,
    ptep_get,
)
from .pgtable_generic import (
    pte_offset_map,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
)

WRITABLE: Final = PRESENT | ACCESSED | RW | DIRTY  # an entry through which a write does not fault

UNCACHED: Final = 32  # of an entry: L_PTE_MT_BUFFERABLE or so


def pin_page_for_write(mm: mm_struct, addr: int) -> tuple[page_t, pte_p, spinlock_t]:
    """(page, pte, its lock held) if a write does not fault; (0, 0, 0) if it has to.  The pte of a huge page is 0."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd or load(pmd) == 0:
        return 0, 0, 0
    if pmd_trans_huge(load(pmd)):
        return pin_huge_page_for_write(mm, pmd, addr)
    pte, ptl = pte_offset_map_lock(mm, pmd, addr)
    if not pte:
        return 0, 0, 0
    entry = ptep_get(pte)
    if entry & WRITABLE != WRITABLE:
        pte_unmap_unlock(pte, ptl)
        return 0, 0, 0
    return pte_page(entry), pte, ptl


def pin_huge_page_for_write(mm: mm_struct, pmd: int, addr: int) -> tuple[page_t, pte_p, spinlock_t]:
    """The same for a huge page: its lock is that of the mm here."""
    ptl = mm.page_table_lock
    spin_lock(ptl)
    entry = load(pmd)
    if not pmd_trans_huge(entry) or entry & WRITABLE != WRITABLE:
        spin_unlock(ptl)
        return 0, 0, 0
    return pmd_page(entry) + PAGE_CELLS * pte_index(addr), 0, ptl


def copy_to_user_memcpy(mm: mm_struct, to: int, value: int) -> int:
    """Write the content of a page of user memory without a fault: pages that could not be written, 0 or 1."""
    while True:
        mmap_read_lock(mm)
        page, pte, ptl = pin_page_for_write(mm, to)
        if page:
            break
        mmap_read_unlock(mm)
        if user_write(mm, to, 0):  # __put_user
            return 1
        forget(())
    store(page_content(page), value)
    if pte:
        pte_unmap_unlock(pte, ptl)
    else:
        spin_unlock(ptl)
    mmap_read_unlock(mm)
    return 0


def show_pte(mm: mm_struct, addr: int) -> tuple[int, ...]:
    """The entries that an oops prints of an address: the pmd, and the pte if there is a table."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd:
        return ()
    pmdval = pmdp_get_lockless(pmd)
    if not pmd_is_table(pmdval):
        return (pmdval,)
    pte = pte_offset_map(pmd, addr)
    if not pte:
        return (pmdval,)
    entry = ptep_get(pte)
    pte_unmap(pte)
    return pmdval, entry


# --- virtually indexed caches: pages that are mapped twice ------------------------------------------------


def make_coherent(mm: mm_struct, addr: int, pte: pte_p, alias: int) -> bool:
    """A page has been mapped at `addr`, whose table's lock is held: if it is at `alias` too, neither is cached.

    The kernel finds the aliases by the file's tree of mappings, and gives no more than one VMA at a time.
    """
    aliased = adjust_pte(mm, alias, addr >> arch.pmd_shift != alias >> arch.pmd_shift)
    if aliased:
        do_adjust_pte(pte)
    return aliased


def adjust_pte(mm: mm_struct, addr: int, need_lock: bool) -> bool:
    """Make an entry uncached, if there is one; without `need_lock` its table's lock is held."""
    while True:
        pmd = mm_find_pmd(mm, addr)
        if not pmd or load(pmd) == 0:
            return False
        pte, pmdval, ptl = pte_offset_map_rw_nolock(mm, pmd, addr)
        if not pte:
            return False
        if need_lock:
            spin_lock_nested(ptl)
        same = not need_lock or pmdp_get_lockless(pmd) == pmdval
        present = same and do_adjust_pte(pte)
        if need_lock:
            spin_unlock(ptl)
        pte_unmap(pte)
        if same:
            return present
        forget(())


def do_adjust_pte(pte: pte_p) -> bool:
    """The same of an entry whose lock is held."""
    entry = ptep_get(pte)
    if entry & PRESENT and entry & UNCACHED == 0:
        store(pte, entry | UNCACHED)
    return entry & PRESENT != 0
