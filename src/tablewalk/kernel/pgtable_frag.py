# SPDX-License-Identifier: GPL-2.0-only
"""Freeing PTE tables that share a page (arch/powerpc/mm/pgtable-frag.c; 7.2. arch/s390/mm/pgalloc.c; 6.6).

The model's own tables have a page each, on all architectures: what is here is explored by itself.  A page has one
rcu_head, whichever of its tables is freed, and on s390 the link of the list of pages half free lies over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..machine import add_return, atomic, call_rcu, const, load, spin_lock, spin_unlock, store, struct, xchg
from .bug import BugOn
from .mm_types import atomic_t, mm_struct

TABLES: Final = 2  # 16 on powerpc with pages of 64 KiB
LISTED: Final = 1
QUEUED: Final = 2
PENDING: Final = 1 << 8  # of pt_frag_refcount, on s390: a half that is free soon


class table_page(struct):
    """A page of PTE tables (struct ptdesc)."""

    pt_mm: mm_struct = const()
    pt_frag_refcount: atomic_t = atomic()  # tables in use; on s390 bits of page->_refcount
    active: atomic_t = atomic()  # a table of it was freed by RCU, so the page is too (PG_active)
    rcu_head: atomic_t = atomic()  # 0, LISTED or QUEUED
    entry: atomic_t = atomic()  # of one of the tables; what a reader looks at


def table_page_alloc(mm: mm_struct) -> table_page:
    """A page all tables of which are in use."""
    page: table_page = table_page.alloc()
    page.pt_mm = mm
    store(page.pt_frag_refcount, TABLES)
    return page


def table_page_free(address: int) -> None:
    """Free the page; also as RCU callback."""
    table_page(address).free()


def queue_rcu_head(page: table_page, func: Callable[[int], None]) -> None:
    """call_rcu of the page's rcu_head, which must not be in use."""
    if xchg(page.rcu_head, QUEUED):
        raise BugOn("the rcu_head of a page is in use already")
    call_rcu(func, page.addr)


def page_free(page: table_page) -> None:
    """Free a page none of whose tables is in use."""
    if load(page.active):
        queue_rcu_head(page, table_page_free)
    else:
        table_page_free(page.addr)


# --- powerpc ---------------------------------------------------------------------------------------------


def pte_fragment_free(page: table_page) -> None:
    """A table less; the page goes with the last, after a grace period if any was to wait for one."""
    if add_return(page.pt_frag_refcount, -1) == 0:
        page_free(page)


def pte_fragment_free_defer(page: table_page) -> None:
    """pte_free_defer: the table stays as it is until the page goes."""
    store(page.active, 1)
    pte_fragment_free(page)


def tlb_remove_fragment(page: table_page) -> None:
    """A table that munmap took is one of a batch of the gather's, and needs no rcu_head of its own."""
    call_rcu(__tlb_remove_table, page.addr)


def __tlb_remove_table(address: int) -> None:
    """RCU callback, of the batch: powerpc's own (HAVE_ARCH_TLB_REMOVE_TABLE; pgtable_free)."""
    pte_fragment_free(table_page(address))


# --- s390, until tables got pages of their own -----------------------------------------------------------


def page_table_free(mm: mm_struct, page: table_page) -> None:
    """A half less; the page goes with the other, after a grace period if one was to wait for that."""
    half_free(mm, page)
    pending_is_over(page.addr)


def half_free(mm: mm_struct, page: table_page) -> None:
    """A half is not in use any more, but pending (its AA bit becomes its PP bit); the page is listed or taken off.

    The page is listed for reuse of the half if the other is in use, and none was to wait for a grace period.  As long
    as one is pending the page stays: who frees the other holds no lock, and this is not off the list yet.
    """
    spin_lock(mm.page_table_lock)  # context.lock
    left = add_return(page.pt_frag_refcount, PENDING - 1)
    store(page.rcu_head, LISTED if left & PENDING - 1 and load(page.active) == 0 else 0)
    spin_unlock(mm.page_table_lock)


def pending_is_over(address: int) -> None:
    """A half is free; also as RCU callback, of the gather's batch (s390's own __tlb_remove_table)."""
    page = table_page(address)
    if add_return(page.pt_frag_refcount, -PENDING) == 0:
        page_free(page)


def page_table_free_defer(mm: mm_struct, page: table_page) -> None:
    """pte_free_defer."""
    store(page.active, 1)
    page_table_free(mm, page)


def page_table_free_rcu(mm: mm_struct, page: table_page) -> None:
    """munmap took a half: it is pending until the grace period of the gather's batch is over."""
    half_free(mm, page)
    call_rcu(pending_is_over, page.addr)
