# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages in PUD entries, of a device's memory that has no struct pages, as vfio maps it (mm/huge_memory.c; 7.2).

Walks and zaps know them.  Nothing else has to: only a driver inserts them, and user code that reads them, fork,
mprotect() and mremap() of them are not modelled.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import load, spin_lock, spin_unlock, store, xchg
from .mm_types import vm_area_struct
from .mmu_gather import mmu_gather, tlb_flush_range
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .pgtable import LEAF, PFN_SHIFT, SPECIAL, vm_page_prot
from .tlb import flush_tlb_range


def insert_pud(vma: vm_area_struct, pud: int, pfn: int) -> None:
    """A driver's answer to a fault: let the empty entry map the device's memory that begins at `pfn`."""
    spin_lock(vma.vm_mm.page_table_lock)
    if load(pud) == 0:
        store(pud, pfn << PFN_SHIFT | vm_page_prot(vma.vm_flags) | LEAF | SPECIAL)
    spin_unlock(vma.vm_mm.page_table_lock)


def zap_huge_pud(tlb: mmu_gather, vma: vm_area_struct, pud: int, addr: int, end: int) -> bool:
    """Unmap a huge page, which is split to unmap a part of it; false if it was, or if there is none (any more)."""
    if end - addr != arch.pud_size:
        __split_huge_pud(vma, pud, addr)
        return False
    spin_lock(vma.vm_mm.page_table_lock)
    huge = load(pud) & LEAF != 0
    if huge:
        xchg(pud, 0)
        tlb_flush_range(tlb, addr, end)
    spin_unlock(vma.vm_mm.page_table_lock)
    return huge


def __split_huge_pud(vma: vm_area_struct, pud: int, addr: int) -> None:
    """Empty the entry of a huge page: faults will map its parts."""
    haddr = addr & -arch.pud_size
    mmu_notifier_invalidate_range_start(vma, haddr, haddr + arch.pud_size)
    spin_lock(vma.vm_mm.page_table_lock)
    if load(pud) & LEAF:
        xchg(pud, 0)
        flush_tlb_range(vma.vm_mm, haddr, haddr + arch.pud_size, freed_tables=False)
    spin_unlock(vma.vm_mm.page_table_lock)
    mmu_notifier_invalidate_range_end(vma, haddr, haddr + arch.pud_size)
