# SPDX-License-Identifier: GPL-2.0-only
"""Freeing pages and tables only after the TLBs were flushed (mm/mmu_gather.c, include/asm-generic/tlb.h; 7.2).

For each page and table: entry cleared, then TLBs and paging-structure caches flushed, then freed; tables moreover
only after an RCU grace period.  A gather belongs to one task.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    READ_ONCE,
    add,
    call_rcu,
    container,
    load,
    plain,
    struct,
    vec_init,
    vec_push,
    vec_take,
)
from .mm_types import mm_struct, ptdesc, vector_t, vm_area_struct
from .page_alloc import PG_SWAPCACHE, folio_put
from .pgtable import page_folio, page_t
from .pgtable_generic import pte_free_now
from .rmap import folio_remove_rmap_pte
from .swapfile import free_swap_cache
from .tlb import flush_tlb_range

# x86-64: 8 slots on the stack and 19 batches of 510
MAX_GATHER_PAGES: Final = 8 + 19 * 510
MAX_TABLE_BATCH: Final = 509


class mmu_gather(struct):
    """What one task has unmapped and not yet freed (struct mmu_gather)."""

    mm: mm_struct = plain()
    fullmm: int = plain()
    start: int = plain()
    end: int = plain()  # the range to flush; empty while end is 0
    freed_tables: int = plain()
    delayed_rmap: int = plain()
    nr_pages: int = plain()
    pages: vector_t = container()  # struct page << 1, | 1 if its rmap is still to be removed
    tables: vector_t = container()





def tlb_gather_mmu(mm: mm_struct, fullmm: bool = False) -> mmu_gather:
    """Begin: other gathers of this mm learn that flushes are pending."""
    tlb: mmu_gather = mmu_gather.alloc()
    tlb.mm = mm
    tlb.fullmm = int(fullmm)
    vec_init(tlb.pages)
    vec_init(tlb.tables)
    add(mm.tlb_flush_pending, 1)
    return tlb


def tlb_flush_range(tlb: mmu_gather, start: int, end: int) -> None:
    """Let [start, end) be flushed."""
    if tlb.end == 0:
        tlb.start = start
        tlb.end = end
        return
    if start < tlb.start:
        tlb.start = start
    if end > tlb.end:
        tlb.end = end


def tlb_remove_page(tlb: mmu_gather, page: page_t, delay_rmap: bool = False) -> bool:
    """Free a reference of the page's folio after the flush; true if the batch is full."""
    if delay_rmap:
        tlb.delayed_rmap = 1
    return vec_push(tlb.pages, page << 1 | delay_rmap) >= MAX_GATHER_PAGES


def pte_free_tlb(tlb: mmu_gather, pgtable: ptdesc, addr: int) -> None:
    """Free a PTE table that was unlinked from `addr`, after flush and grace period."""
    tlb_flush_range(tlb, addr, addr + arch.page_size)
    tlb.freed_tables = 1
    tlb_remove_table(tlb, pgtable.addr, 0)


def pxd_free_tlb(tlb: mmu_gather, table: ptdesc, addr: int, nr: int) -> None:
    """The same for a table of an upper level with `nr` entries."""
    tlb_flush_range(tlb, addr, addr + arch.page_size)
    tlb.freed_tables = 1
    tlb_remove_table(tlb, table.addr, nr)


def tlb_remove_table(tlb: mmu_gather, table: int, nr: int) -> None:
    """Queue a table (`nr` 0: a PTE table); a full batch is flushed and given to RCU."""
    if vec_push(tlb.tables, table << 20 | nr) >= MAX_TABLE_BATCH:
        tlb_flush_mmu_tlbonly(tlb)
        tlb_table_flush(tlb)


def tlb_table_flush(tlb: mmu_gather) -> None:
    """Give the queued tables to RCU, one callback for the batch."""
    tables = vec_take(tlb.tables)
    if tables:
        batch: table_batch = table_batch.alloc()
        vec_init(batch.tables)
        for table in tables:
            vec_push(batch.tables, table)
        call_rcu(tlb_remove_table_rcu, batch.addr)


class table_batch(struct):
    """Tables that wait for one grace period (struct mmu_table_batch)."""

    tables: vector_t = container()


def tlb_remove_table_rcu(address: int) -> None:
    """RCU callback: free a batch of tables."""
    batch = table_batch(address)
    for table in vec_take(batch.tables):
        nr = table & (1 << 20) - 1
        if nr == 0:
            pte_free_now(table >> 20)
        else:
            ptdesc(table >> 20).free(nr)
    batch.free()


def tlb_flush_mmu_tlbonly(tlb: mmu_gather) -> None:
    """Flush what was gathered, free nothing yet."""
    if tlb.fullmm:
        flush_tlb_range(tlb.mm, 0, arch.task_size, freed_tables=True)
    elif tlb.end != 0:
        flush_tlb_range(tlb.mm, tlb.start, tlb.end, freed_tables=tlb.freed_tables != 0)
    tlb.start = tlb.end = tlb.freed_tables = 0


def tlb_flush_rmaps(tlb: mmu_gather, vma: vm_area_struct) -> None:
    """After the flush, still under ptl: remove the rmaps that had to wait for it."""
    if tlb.delayed_rmap == 0:
        return
    for encoded in vec_take(tlb.pages):
        if encoded & 1:
            folio_remove_rmap_pte(page_folio(encoded >> 1), encoded >> 1, vma)
        vec_push(tlb.pages, encoded & ~1)
    tlb.delayed_rmap = 0


def tlb_flush_mmu_free(tlb: mmu_gather) -> None:
    """Free what the flush has made unreachable."""
    tlb_table_flush(tlb)
    for encoded in vec_take(tlb.pages):
        f = page_folio(encoded >> 1)
        if READ_ONCE(f, "flags") & PG_SWAPCACHE:
            free_swap_cache(f)
        folio_put(f)


def tlb_flush_mmu(tlb: mmu_gather) -> None:
    """Flush and free."""
    tlb_flush_mmu_tlbonly(tlb)
    tlb_flush_mmu_free(tlb)


def tlb_finish_mmu(tlb: mmu_gather) -> None:
    """End.  If another gather of this mm ran meanwhile, what it cleared may be unflushed still: flush everything."""
    mm = tlb.mm
    if load(mm.tlb_flush_pending) > 1:
        tlb.fullmm = 1
    tlb_flush_mmu(tlb)
    add(mm.tlb_flush_pending, -1)
    tlb.free()
