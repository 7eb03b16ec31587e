# SPDX-License-Identifier: GPL-2.0-only
"""The size of page that perf's samples tell (kernel/events/core.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import local_irq_restore, local_irq_save, rcu_read_lock, rcu_read_unlock
from .mm_types import mm_struct
from .pgtable import LEAF, mm_find_pmd, pmd_pgtable, pmd_present, pmdp_get_lockless, pte_index, pte_present, ptep_get


def perf_get_page_size(mm: mm_struct, address: int) -> int:
    """Bytes of the page that is mapped at an address, 0 if none is; a sample is taken wherever the task is."""
    flags = local_irq_save()
    size = perf_get_pgtable_size(mm, address)
    local_irq_restore(flags)
    return size


def perf_get_pgtable_size(mm: mm_struct, address: int) -> int:
    """The same with interrupts off, which keeps tables from being freed.

    What is mapped is the table of a copy of the pmd, which cannot fail.  Runs of entries (`pte_leaf_size`) count as
    single ones.
    """
    pmdp = mm_find_pmd(mm, address)
    if not pmdp:
        return 0
    pmd = pmdp_get_lockless(pmdp)
    if not pmd_present(pmd):
        return 0
    if pmd & LEAF:
        return arch.pmd_size
    rcu_read_lock()
    entry = ptep_get(pmd_pgtable(pmd).entry + pte_index(address))
    rcu_read_unlock()
    return arch.page_size if pte_present(entry) else 0
