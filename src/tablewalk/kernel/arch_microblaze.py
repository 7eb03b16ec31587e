# SPDX-License-Identifier: GPL-2.0-only
"""microblaze's own user of page tables (arch/microblaze/kernel/signal.c; 7.2)."""

from __future__ import annotations

from ..machine import local_irq_restore, local_irq_save
from .fault import user_write
from .mm_types import mm_struct
from .pgtable import mm_find_pmd, pte_present, ptep_get
from .pgtable_generic import pte_offset_map, pte_unmap


def setup_rt_frame(mm: mm_struct, frame: int, trampoline: int) -> int:
    """Write a signal's frame, and flush the caches of the instructions in it: pages flushed, or -1 if it is killed.

    Without mmap_lock.  There is one CPU: nobody else runs while preemption is off, which here are interrupts.
    """
    if user_write(mm, frame, trampoline):
        return -1
    flags = local_irq_save()
    flushed = 0
    pmd = mm_find_pmd(mm, frame)
    if pmd:
        pte = pte_offset_map(pmd, frame)
        if pte:
            flushed = int(pte_present(ptep_get(pte)))
            pte_unmap(pte)
    local_irq_restore(flags)
    return flushed
