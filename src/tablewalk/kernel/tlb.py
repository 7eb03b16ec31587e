# SPDX-License-Identifier: GPL-2.0-only
"""Flushing translations (arch/x86/mm/tlb.c, arch/arm64/include/asm/tlbflush.h; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    IPIS,
    READ_ONCE,
    TLB_FLUSH_PAGES,
    TLB_FLUSHES,
    TLB_FREED_TABLES,
    count,
    local_irq_restore,
    local_irq_save,
    smp_call_function,
    tlb_invalidate,
)
from .config import config
from .mm_types import mm_struct
from .mmu_notifier import mmu_notifier_arch_invalidate_secondary_tlbs
from .paravirt import PV_MMU


def flush_tlb_range(mm: mm_struct, start: int, end: int, freed_tables: bool = True) -> None:
    """Drop all CPUs' translations of [start, end) (bytes), and with `freed_tables` what they remember of tables there.

    That is what callers outside the gather get: they may have cleared a pmd (3ef938c35035).
    """
    count(TLB_FLUSHES)
    if end - start < arch.task_size:
        count(TLB_FLUSH_PAGES, end - start >> arch.page_shift)
    if freed_tables:
        count(TLB_FREED_TABLES)
    others = 0
    if READ_ONCE(mm, "nr_cpus") > 1:
        pv = PV_MMU[config.hypervisor if arch.pv_ops else "none"]
        others = 2 if arch.broadcast_flush or not pv.waits else 1
        if pv.interrupts and not arch.broadcast_flush:
            count(IPIS)
    tlb_invalidate(mm.addr, start, end, freed_tables, others)
    mmu_notifier_arch_invalidate_secondary_tlbs(mm, start, end)


def flush_tlb_mm(mm: mm_struct) -> None:
    """Drop all translations of the mm."""
    flush_tlb_range(mm, 0, arch.task_size)


def tlb_remove_table_sync_one() -> None:
    """Interrupt every CPU and wait: no walk with interrupts disabled that began before is left (mm/mmu_gather.c)."""
    count(IPIS)
    smp_call_function(0)


def pmdp_get_lockless_start() -> int:
    """Where a pmd is read in two halves, which the model does not: interrupts off, against pmdp_get_lockless_sync."""
    return local_irq_save()


def pmdp_get_lockless_end(flags: int) -> None:
    """It has been read."""
    local_irq_restore(flags)


def pmdp_get_lockless_sync() -> None:
    """tlb_remove_table_sync_one where a pmd is read in two halves; nothing elsewhere (include/linux/pgtable.h)."""
    if arch.split_pmd_reads:
        tlb_remove_table_sync_one()
