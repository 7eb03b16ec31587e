# SPDX-License-Identifier: GPL-2.0-only
"""The events that every driver counts, besides acquisitions by lock class."""

from __future__ import annotations

from typing import Final

STAT_NAMES: Final = (
    "page_faults",  # faults that reached handle_mm_fault
    "tlb_flushes",  # flushes of an mm's translations on its CPUs, local and remote
    "tlb_flush_pages",  # pages those flushes covered, but for those of a whole address space
    "tlb_freed_tables",  # flushes that also covered the paging-structure caches
    "ipis",  # rounds of interrupts to other CPUs: flushes and tlb_remove_table_sync_one
    "rcu_callbacks",  # call_rcu
    "synchronize_rcu",
    "pte_tables_allocated",
    "pte_tables_freed",
    "pmd_tables_allocated",
    "pmd_tables_freed",
    "reclaimed_fast",  # PT_RECLAIM: empty tables freed in the pass that emptied them
    "reclaimed_slow",  # PT_RECLAIM: after a rescan
    "retracted",  # tables that retract_page_tables took from some mapping of a file
    "retract_left",  # tables of other mappings of the file that a kernel before 6.6 does not take
    "mremap_vmas",  # VMAs that an mremap moved beside the first
    "thp_fault_alloc",
    "thp_split_pmd",
    "thp_collapse_alloc",
    "fault_around_pages",
)
NR_STATS: Final = len(STAT_NAMES)
(
    PAGE_FAULTS,
    TLB_FLUSHES,
    TLB_FLUSH_PAGES,
    TLB_FREED_TABLES,
    IPIS,
    RCU_CALLBACKS,
    SYNCHRONIZE_RCU,
    PTE_TABLES_ALLOCATED,
    PTE_TABLES_FREED,
    PMD_TABLES_ALLOCATED,
    PMD_TABLES_FREED,
    RECLAIMED_FAST,
    RECLAIMED_SLOW,
    RETRACTED,
    RETRACT_LEFT,
    MREMAP_VMAS,
    THP_FAULT_ALLOC,
    THP_SPLIT_PMD,
    THP_COLLAPSE_ALLOC,
    FAULT_AROUND_PAGES,
) = range(NR_STATS)
