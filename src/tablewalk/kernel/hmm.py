# SPDX-License-Identifier: GPL-2.0-only
"""What a device that shares a process's address space asks of its page tables (mm/hmm.c; 7.2).

The device's MMU notifier, which tells it that what it was given is no longer so, is not modelled.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget
from .gup import faultin_page
from .mm_types import vm_area_struct
from .page_alloc import PAGE_CELLS
from .pagewalk import find_pmd
from .pgtable import PRESENT, page_t, pmd_p, pmd_trans_huge, pmdp_get_lockless, pte_index, pte_page, ptep_get_lockless
from .pgtable_generic import pte_offset_map, pte_unmap

NEED_FAULT: Final[page_t] = 0


def hmm_range_fault(vma: vm_area_struct, start: int, end: int) -> tuple[page_t, ...]:
    """The pages of [start, end), each faulted in if it has to be; mmap_lock is held.  Fewer where one cannot be had."""
    pages: tuple[page_t, ...] = ()
    addr = start
    while addr < end:
        pmd, _ = find_pmd(vma, addr, end)
        page = hmm_vma_walk_pmd(pmd, addr) if pmd else NEED_FAULT
        if page:
            pages += (page,)
            addr += arch.page_size
        elif faultin_page(vma, addr, 0):
            break
        forget((addr, pages))
    return pages


def hmm_vma_walk_pmd(pmd: pmd_p, addr: int) -> page_t:
    """The page that an entry or a huge page maps at `addr`, or NEED_FAULT.

    No lock is taken: that it is split or goes away the notifier would say.
    """
    while True:
        pmdval = pmdp_get_lockless(pmd)
        if pmdval & PRESENT == 0:
            return NEED_FAULT
        if pmd_trans_huge(pmdval):
            return pte_page(pmdval) + PAGE_CELLS * pte_index(addr)
        pte = pte_offset_map(pmd, addr)
        if pte:
            entry = ptep_get_lockless(pte)
            pte_unmap(pte)
            return pte_page(entry) if entry & PRESENT else NEED_FAULT
        forget(())
