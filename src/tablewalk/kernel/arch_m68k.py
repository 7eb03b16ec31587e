# SPDX-License-Identifier: GPL-2.0-only
"""m68k's own users of page tables (arch/m68k/mm/mcfmmu.c, kernel/sys_m68k.c, include/asm/mmu_context.h; 7.2).

A ColdFire has a TLB and no walker: a miss is an exception, which looks for the entry with interrupts off.  Accessed and
dirty bits, which the kernel sets here, are set by faults in the model.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, load, local_irq_restore, local_irq_save, store, tlb_fill
from .fault import do_user_addr_fault
from .mm_types import mm_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_alloc import page_content
from .pgtable import DIRTY, PRESENT, RW, mm_find_pmd, pte_offset_kernel, pte_page, ptep_get
from .pgtable_generic import pte_offset_map, pte_offset_map_lock, pte_unmap, pte_unmap_unlock
from .vm_flags import VM_FAULT_ERROR

DEADBEEF: Final = 0xDEADBEEF  # what a process that is killed for its access gets


def cf_tlb_miss(mm: mm_struct, address: int, write: bool, kernel: bool) -> int:
    """A miss in the TLB of `address`, of the kernel's or of user space: 0, or -1 if there has to be a fault."""
    flags = local_irq_save()
    ret = -1
    pmd = mm_find_pmd(mm, address)
    if pmd and load(pmd):
        pte = pte_offset_kernel(pmd, address) if kernel else pte_offset_map(pmd, address)
        if pte:
            entry = ptep_get(pte)
            needed = PRESENT | RW if write else PRESENT
            if entry & needed == needed:
                tlb_fill(mm.addr, address, (), page_content(pte_page(entry)), entry & RW != 0, arch.page_shift)
                ret = 0
            if not kernel:
                pte_unmap(pte)
    local_irq_restore(flags)
    return ret


def load_ksp_mmu(mm: mm_struct, ksp: int, kernel: bool) -> int:
    """Before a switch to another task: put its kernel stack into the TLB.  0, or -1 where that failed."""
    return cf_tlb_miss(mm, ksp, False, kernel)


def sys_atomic_cmpxchg_32(mm: mm_struct, mem: int, oldval: int, newval: int) -> int:
    """cmpxchg of user memory, through an entry that is kept locked meanwhile; returns what was there."""
    while True:
        mmap_read_lock(mm)
        pmd = mm_find_pmd(mm, mem)
        pte, ptl = pte_offset_map_lock(mm, pmd, mem) if pmd and load(pmd) & PRESENT else (0, 0)
        if pte:
            entry = ptep_get(pte)
            writable = entry & (PRESENT | DIRTY | RW) == PRESENT | DIRTY | RW
            value = load(page_content(pte_page(entry))) if writable else 0
            if writable and value == oldval:
                store(page_content(pte_page(entry)), newval)
            pte_unmap_unlock(pte, ptl)
            if writable:
                mmap_read_unlock(mm)
                return value
        mmap_read_unlock(mm)
        if do_user_addr_fault(mm, mem, True, 0) & VM_FAULT_ERROR:
            return DEADBEEF
        forget(())
