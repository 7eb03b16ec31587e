# SPDX-License-Identifier: GPL-2.0-only
"""sparc's own users of page tables (arch/sparc/mm/fault_64.c, tlb.c, iommu.c, kernel/signal32.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import forget, load, local_irq_restore, local_irq_save, store
from .mm_types import mm_struct, ptdesc
from .page_alloc import PAGE_CELLS, page_content
from .pgtable import (
    PRESENT,
    mk_pte,
    mm_find_pmd,
    page_t,
    pmd_p,
    pmd_page,
    pmd_trans_huge,
    pte_index,
    pte_offset_kernel,
    pte_page,
    pte_present,
    ptep_get,
)
from .pgtable_generic import pte_offset_map, pte_unmap


def get_user_insn(mm: mm_struct, tpc: int) -> int:
    """The instruction at `tpc`, read through the page tables with interrupts off; 0 if the page is not there."""
    pmd = mm_find_pmd(mm, tpc)
    if not pmd:
        return 0
    flags = local_irq_save()
    insn = 0
    while True:
        pmdval = load(pmd)
        if pmdval == 0:
            break
        if pmd_trans_huge(pmdval):
            insn = load(page_content(pmd_page(pmdval) + PAGE_CELLS * pte_index(tpc)))
            break
        pte = pte_offset_map(pmd, tpc)
        if pte:
            entry = ptep_get(pte)
            if pte_present(entry):
                insn = load(page_content(pte_page(entry)))
            pte_unmap(pte)
            break
        forget(())
    local_irq_restore(flags)
    return insn


def flush_signal_insns(mm: mm_struct, address: int) -> bool:
    """Flush the instructions of a signal's frame, with interrupts off against munmap; whether the page was there."""
    flags = local_irq_save()
    present = False
    pmd = mm_find_pmd(mm, address)
    if pmd and load(pmd):
        pte = pte_offset_map(pmd, address)
        if pte:
            present = pte_present(ptep_get(pte))
            pte_unmap(pte)
    local_irq_restore(flags)
    return present


def set_pmd_at(pmd: pmd_p, vaddr: int, pmdval: int) -> int:
    """Change a slot, under pml; returns what was there, of which the entries are to be flushed."""
    orig = load(pmd)
    store(pmd, pmdval)
    if orig and not pmd_trans_huge(orig):
        tlb_batch_pmd_scan(orig, vaddr & -arch.pmd_size)
    return orig


def tlb_batch_pmd_scan(orig: int, vaddr: int) -> int:
    """How many entries of the table that a slot held are to be flushed; it is mapped by a copy, on the stack."""
    stack = ptdesc.alloc(1)
    store(stack.entry, orig)
    pte = pte_offset_map(stack.entry, vaddr)
    valid = 0
    if pte:
        for i in range(arch.ptrs_per_pte):
            valid += ptep_get(pte + i) & PRESENT
        pte_unmap(pte)
    store(stack.entry, 0)
    stack.free(1)
    return valid


def iommu_map_page(pmd: pmd_p, addr: int, page: page_t, flags: int) -> None:
    """Map a page for DMA in the kernel's page table (sbus_iommu_alloc)."""
    pte = pte_offset_kernel(pmd, addr)
    store(pte, mk_pte(page, flags))
