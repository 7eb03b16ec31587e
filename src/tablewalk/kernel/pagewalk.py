# SPDX-License-Identifier: GPL-2.0-only
"""Walking the page tables of a range within one VMA (mm/pagewalk.c; 7.2).

PMD tables and those above are stable under mmap_lock or the VMA's lock; what a PMD entry holds is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..arch import arch
from ..machine import forget, load
from .huge_pud import __split_huge_pud
from .mm_types import vm_area_struct
from .pgtable import LEAF, PFN_SHIFT, TABLE_ENTRY, p4d_addr_end, pgd_addr_end, pmd_addr_end, pmd_p, pud_addr_end

ACTION_AGAIN: Final = -1 << 20  # from a handler: the entry changed meanwhile, look at it again

# (vma, pmd, addr, end, private) -> 0 to go on, ACTION_AGAIN, or what the walk is to end with
PmdEntry = Callable[[vm_area_struct, pmd_p, int, int, int], int]


def walk_page_range_vma(vma: vm_area_struct, start: int, end: int, pmd_entry: PmdEntry, private: int) -> int:
    """Call `pmd_entry` for each PMD entry of [start, end) that is not none; 0, or what the handler ended with."""
    addr = start
    while addr < end:
        pmd, next_ = find_pmd(vma, addr, end)
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


T = TypeVar("T")


def gather_page_range(
    vma: vm_area_struct,
    start: int,
    end: int,
    pmd_entry: Callable[[vm_area_struct, pmd_p, int, int, T], T | None],
    pte_hole: Callable[[vm_area_struct, int, int, T], T],
    gathered: T,
) -> T:
    """For readers: what the walk has gathered goes through `pmd_entry`, or `pte_hole` where the PMD entry is none.

    A handler that returns None is called again, if there still is something.
    """
    addr = start
    while addr < end:
        pmd, next_ = find_pmd(vma, addr, end)
        if pmd and load(pmd):
            found = pmd_entry(vma, pmd, addr, next_, gathered)
        else:
            found = pte_hole(vma, addr, next_, gathered)
        if found is not None:
            gathered = found
            addr = next_
        forget((addr, gathered))
    return gathered


def runs_of_equal(values: bytes) -> list[tuple[int, int, int]]:
    """(index of the first, how many, value) of equal neighbours: what a reader found of pages, together."""
    runs: list[tuple[int, int, int]] = []
    left = values
    while left:
        rest = left.lstrip(left[:1])
        runs.append((len(values) - len(left), len(left) - len(rest), left[0]))
        left = rest
    return runs


def split_huge_pud(vma: vm_area_struct, pud: int, addr: int) -> int:
    """Split a huge page as often as a fault makes it anew; what the entry shows then: a table, which stays, or nothing.

    What the entry shows is read once, and looked at before it is used (walk_pud_range, walk_pmd_range).
    """
    while True:
        __split_huge_pud(vma, pud, addr)
        value = load(pud)
        if value & LEAF == 0:
            return value
        forget(())


def find_pmd(vma: vm_area_struct, addr: int, end: int) -> tuple[pmd_p, int]:
    """(address of the PMD entry, end of its range), or (0, end of the range that the missing table would cover)."""
    slot = vma.vm_mm.pgd.entry + (addr >> arch.pgdir_shift & arch.ptrs_per_pgd - 1)
    value = load(slot)
    if value == 0:
        return 0, pgd_addr_end(addr, end)
    if arch.p4d_bits:
        slot = (value >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.p4d_shift & arch.ptrs_per_p4d - 1)
        value = load(slot)
        if value == 0:
            return 0, p4d_addr_end(addr, end)
    if arch.pud_bits:
        slot = (value >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.pud_shift & arch.ptrs_per_pud - 1)
        value = load(slot)
        if value == 0:
            return 0, pud_addr_end(addr, end)
    if arch.pmd_bits:
        if value & LEAF:
            value = split_huge_pud(vma, slot, addr)
            if value == 0:
                return 0, pud_addr_end(addr, end)
        slot = (value >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.pmd_shift & arch.ptrs_per_pmd - 1)
    return slot, pmd_addr_end(addr, end)
