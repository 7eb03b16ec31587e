# SPDX-License-Identifier: GPL-2.0-only
"""How page tables were freed before: on x86 by whom runs the machine, and without memory by an interrupt."""

from __future__ import annotations

from ..arch import arch
from ..kernel.config import config
from ..kernel.mmu_gather import (
    __tlb_remove_table,
    table_batch,
    tlb_remove_table_free,
    tlb_remove_table_one,
    tlb_remove_table_rcu,
)
from ..kernel.paravirt import PV_MMU
from ..kernel.tlb import tlb_remove_table_sync_one
from . import Claim, patch


@patch(
    "R-pv-tlb-remove-table",
    title="x86/mm: make MMU_GATHER_RCU_TABLE_FREE unconditional (and remove pv_ops.mmu.tlb_remove_table)",
    since="6.15",
    site="mmu_gather.tlb_remove_table_free",
    files=("arch/x86/mm/pgtable.c", "arch/x86/kernel/paravirt.c", "arch/x86/Kconfig"),
    claim=Claim("count", measure="callbacks-of-munmap", before=0, after=1),
)
def pv_ops_tlb_remove_table(batch: table_batch) -> None:
    """Xen PV, Hyper-V and KVM: by RCU; without one of them, unless tables are reclaimed (D10), with the pages.

    An interrupt that flushes waits for those who have interrupts off, as get_user_pages_fast; a hypervisor does not.
    """
    if arch.pv_ops and not PV_MMU[config.hypervisor].rcu_tables and not config.pt_reclaim:
        tlb_remove_table_rcu(batch.addr)  # native_tlb_remove_table: tlb_remove_page
    else:
        tlb_remove_table_free(batch)


@patch(
    "R-table-sync-rcu",
    commit="1fb3d8c20bfa",
    title="mm/mmu_gather: replace IPI with synchronize_rcu() when batch allocation fails",
    since="7.1",
    site="mmu_gather.tlb_remove_table_one",
    files=("mm/mmu_gather.c",),
    claim=Claim("count", measure="interrupts-for-lack-of-memory", before=3, after=0),
)
def sync_by_interrupt(table: int) -> None:
    """All CPUs are interrupted before a table is freed for which there was no batch."""
    if config.pt_reclaim:
        tlb_remove_table_one(table)
        return
    if arch.rcu_table_free:
        tlb_remove_table_sync_one()
    __tlb_remove_table(table)
