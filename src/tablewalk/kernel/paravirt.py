# SPDX-License-Identifier: GPL-2.0-only
"""pv_ops.mmu of x86, by who runs the machine (arch/x86/kernel/paravirt.c, kernel/kvm.c, hyperv/mmu.c, xen/mmu_pv.c).

Of 6.1 and 6.12; since 6.15 there is no `tlb_remove_table`, and all are freed by RCU.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class pv_mmu_ops(NamedTuple):
    """What a flush of other CPUs does (`flush_tlb_multi`), and whether tables go to RCU (`tlb_remove_table`)."""

    interrupts: bool  # CPUs that run are interrupted
    waits: bool  # and each of the others, too, has interrupts on once the flush is over
    rcu_tables: bool  # tlb_remove_table, not native_tlb_remove_table, which frees them with the pages


PV_MMU: Final = {
    "none": pv_mmu_ops(interrupts=True, waits=True, rcu_tables=False),
    "kvm": pv_mmu_ops(interrupts=True, waits=False, rcu_tables=True),  # who does not run flushes before it does
    "hyperv": pv_mmu_ops(interrupts=False, waits=False, rcu_tables=True),  # by one hypercall
    "xen": pv_mmu_ops(interrupts=False, waits=False, rcu_tables=True),  # Xen PV: the same
}
