# SPDX-License-Identifier: GPL-2.0-only
"""Walking the page tables of a range within one VMA (mm/pagewalk.c; 7.2).

PMD tables and those above are stable under mmap_lock or the VMA's lock; what a PMD entry holds is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..machine import forget, load
from .mm_types import mm_struct, vm_area_struct
from .pgtable import (
    p4d_addr_end,
    p4d_offset,
    pgd_addr_end,
    pgd_offset,
    pmd_addr_end,
    pmd_offset,
    pmd_p,
    pud_addr_end,
    pud_offset,
)

ACTION_AGAIN: Final = -1 << 20  # from a handler: the entry changed meanwhile, look at it again

# (vma, pmd, addr, end, private) -> 0 to go on, ACTION_AGAIN, or what the walk is to end with
PmdEntry = Callable[[vm_area_struct, pmd_p, int, int, int], int]


def walk_page_range_vma(vma: vm_area_struct, start: int, end: int, pmd_entry: PmdEntry, private: int) -> int:
    """Call `pmd_entry` for each PMD entry of [start, end) that is not none; 0, or what the handler ended with."""
    addr = start
    while addr < end:
        pmd, next_ = find_pmd(vma.vm_mm, addr, end)
        ret = walk_pmd(vma, pmd, addr, next_, pmd_entry, private) if pmd else 0
        if ret:
            return ret
        addr = next_
        forget((addr,))
    return 0


def walk_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, pmd_entry: PmdEntry, private: int) -> int:
    """Call the handler as long as it wants to be called again and there is something."""
    while load(pmd) != 0:
        ret = pmd_entry(vma, pmd, addr, end, private)
        if ret != ACTION_AGAIN:
            return ret
        forget(())
    return 0


def find_pmd(mm: mm_struct, addr: int, end: int) -> tuple[pmd_p, int]:
    """(address of the PMD entry, end of its range), or (0, end of the range that the missing table would cover)."""
    pgd = pgd_offset(mm, addr)
    if load(pgd) == 0:
        return 0, pgd_addr_end(addr, end)
    p4d = p4d_offset(pgd, addr)
    if load(p4d) == 0:
        return 0, p4d_addr_end(addr, end)
    pud = pud_offset(p4d, addr)
    if load(pud) == 0:
        return 0, pud_addr_end(addr, end)
    return pmd_offset(pud, addr), pmd_addr_end(addr, end)
