# SPDX-License-Identifier: GPL-2.0-only
"""Freeing pages and tables only after the TLBs were flushed (mm/mmu_gather.c, include/asm-generic/tlb.h; 7.2).

For each page and table: entry cleared, then TLBs and paging-structure caches flushed, then freed; tables, with
MMU_GATHER_RCU_TABLE_FREE, only after an RCU grace period.  Without it they are freed with the pages.  No architecture
has MMU_GATHER_TABLE_FREE alone.  With MMU_GATHER_NO_GATHER (s390) pages are not gathered: an entry is flushed as it is
cleared.  A gather belongs to one task.
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
    synchronize_rcu,
    vec_init,
    vec_push,
    vec_take,
    xchg,
)
from .config import config
from .mm_types import folio, mm_struct, ptdesc, vector_t, vm_area_struct
from .page_alloc import PG_SWAPCACHE, folio_put
from .pgtable import page_folio, page_t
from .pgtable_generic import pte_free_now
from .rmap import folio_remove_rmap_pte
from .swapfile import free_swap_cache
from .tlb import flush_tlb_mm, flush_tlb_range

# x86-64: 8 slots on the stack and 19 batches of 510
MAX_GATHER_PAGES: Final = 8 + 19 * 510
MAX_TABLE_BATCH: Final = 509
NR_BITS: Final = 20


class mmu_gather(struct):
    """What one task has unmapped and not yet freed (struct mmu_gather)."""

    mm: mm_struct = plain()
    fullmm: int = plain()
    start: int = plain()
    end: int = plain()  # the range to flush; empty while end is 0
    freed_tables: int = plain()
    page_shift: int = plain()  # log2 of the size of the pages gathered, with MMU_GATHER_PAGE_SIZE
    delayed_rmap: int = plain()
    nr_pages: int = plain()
    pages: vector_t = container()  # struct page << 1, | 1 if its rmap is still to be removed
    batch: table_batch = plain()


class table_batch(struct):
    """A page of tables that are freed at once (struct mmu_table_batch)."""

    tables: vector_t = container()  # each << NR_BITS, | its number of entries, 0 of a PTE table


NO_BATCH = table_batch(0)


def tlb_gather_mmu(mm: mm_struct, fullmm: bool = False) -> mmu_gather:
    """Begin: other gathers of this mm learn that flushes are pending."""
    tlb: mmu_gather = mmu_gather.alloc()
    tlb.mm = mm
    tlb.fullmm = int(fullmm)
    vec_init(tlb.pages)
    add(mm.tlb_flush_pending, 1)
    if fullmm and arch.no_gather:
        flush_tlb_mm(mm)  # s390 flushes at the end: nobody can use what CPUs remember of a dead address space
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


def tlb_end_vma(tlb: mmu_gather) -> None:
    """A VMA is done: the next is far away for an architecture that flushes by ranges, unless it merges them."""
    if tlb.fullmm == 0 and not arch.merge_vmas:
        tlb_flush_mmu_tlbonly(tlb)


def tlb_change_page_size(tlb: mmu_gather, shift: int) -> None:
    """Pages of 2^`shift` bytes follow: where flushes are by size (powerpc) those of another size are flushed first."""
    if not arch.gather_page_size:
        return
    if tlb.page_shift not in (0, shift) and tlb.fullmm == 0:
        tlb_flush_mmu(tlb)
    tlb.page_shift = shift


def ptep_get_and_clear_full(tlb: mmu_gather, ptep: int, addr: int, size: int) -> int:
    """Empty an entry of `size` bytes at `addr`, also a huge page's; returns what was there.

    On s390 that flushes it on all CPUs (IPTE), unless the whole address space goes, which no CPU uses any more.
    """
    entry = xchg(ptep, 0)
    if arch.no_gather and tlb.fullmm == 0:
        flush_tlb_range(tlb.mm, addr, addr + size, freed_tables=False)
    return entry


def tlb_remove_page(tlb: mmu_gather, page: page_t, delay_rmap: bool = False) -> bool:
    """Free a reference of the page's folio after the flush, or now if that was done; true if the batch is full."""
    if arch.no_gather:
        free_page_and_swap_cache(page_folio(page))
        return False
    if delay_rmap:
        tlb.delayed_rmap = 1
    return vec_push(tlb.pages, page << 1 | delay_rmap) >= MAX_GATHER_PAGES


def pte_free_tlb(tlb: mmu_gather, pgtable: ptdesc, addr: int) -> None:
    """Free a PTE table that was unlinked from `addr`, after flush and grace period."""
    tlb_flush_range(tlb, addr, addr + arch.page_size)
    tlb.freed_tables = 1
    tlb_remove_table(tlb, pgtable.addr, 0)


def pxd_free_tlb(tlb: mmu_gather, table: ptdesc, addr: int, nr: int) -> None:
    """The same for a table of an upper level with `nr` entries; on x86 with PAE, whose CPUs load the PGD, all goes."""
    if arch.pgd_is_loaded:  # need_flush_all
        tlb_flush_range(tlb, 0, arch.task_size)
    else:
        tlb_flush_range(tlb, addr, addr + arch.page_size)
    tlb.freed_tables = 1
    tlb_remove_table(tlb, table.addr, nr)


def table_batch_alloc() -> table_batch:
    """A page for a batch, without waiting for memory; 0 if there is none."""
    batch: table_batch = table_batch.alloc()
    vec_init(batch.tables)
    return batch


def tlb_remove_table(tlb: mmu_gather, table: int, nr: int) -> None:
    """Queue a table (`nr` 0: a PTE table); a full batch is freed, and a table for which there is no batch by itself."""
    batch = tlb.batch
    if not batch:
        batch = table_batch_alloc()
        if not batch:
            tlb_table_invalidate(tlb)
            tlb_remove_table_one(table << NR_BITS | nr)
            return
        tlb.batch = batch
    if vec_push(batch.tables, table << NR_BITS | nr) >= MAX_TABLE_BATCH:
        tlb_table_flush(tlb)


def tlb_table_invalidate(tlb: mmu_gather) -> None:
    """Flush first, unless no hardware walks tables here."""
    if arch.tlb_needs_table_invalidate:
        tlb_flush_mmu_tlbonly(tlb)


def tlb_remove_table_one(table: int) -> None:
    """Free a table of which no hardware knows any more: by RCU, or wait for a grace period."""
    if config.pt_reclaim:
        call_rcu(__tlb_remove_table, table)
        return
    if arch.rcu_table_free:
        synchronize_rcu()  # tlb_remove_table_sync_rcu
    __tlb_remove_table(table)


def tlb_table_flush(tlb: mmu_gather) -> None:
    """Free the queued tables."""
    batch = tlb.batch
    if batch:
        tlb_table_invalidate(tlb)
        tlb_remove_table_free(batch)
        tlb.batch = NO_BATCH


def tlb_remove_table_free(batch: table_batch) -> None:
    """Free a batch of which no hardware knows any more, by one callback of RCU."""
    if arch.rcu_table_free:
        call_rcu(tlb_remove_table_rcu, batch.addr)
    else:
        tlb_remove_table_rcu(batch.addr)


def tlb_remove_table_rcu(address: int) -> None:
    """RCU callback: free a batch of tables."""
    batch = table_batch(address)
    for table in vec_take(batch.tables):
        __tlb_remove_table(table)
    batch.free()


def __tlb_remove_table(table: int) -> None:
    """Free a table, with its destructor; also as RCU callback."""
    nr = table & (1 << NR_BITS) - 1
    if nr == 0:
        pte_free_now(table >> NR_BITS)
    else:
        ptdesc(table >> NR_BITS).free(nr)


def tlb_flush_mmu_tlbonly(tlb: mmu_gather) -> None:
    """Flush what was gathered since the last flush, free nothing yet."""
    if tlb.end == 0:
        return
    if tlb.fullmm or arch.no_range:
        flush_tlb_range(tlb.mm, 0, arch.task_size, freed_tables=True)
    else:
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
        free_page_and_swap_cache(page_folio(encoded >> 1))


def free_page_and_swap_cache(f: folio) -> None:
    """Drop a reference, and the folio from the swap cache if it is of no use there (mm/swap_state.c)."""
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
        tlb_flush_range(tlb, 0, arch.task_size)
    tlb_flush_mmu(tlb)
    add(mm.tlb_flush_pending, -1)
    tlb.free()
