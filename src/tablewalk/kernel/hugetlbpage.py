# SPDX-License-Identifier: GPL-2.0-only
"""Entries of hugetlb pages that are smaller than a PTE table's range (arch/*/mm/hugetlbpage.c; 7.2, ia64 6.1).

Such a page is a run of entries: contiguous ones on arm64 and riscv (NAPOT), the size of the page on ia64, parisc, sh
and sparc.  Nothing but a hugetlb VMA has entries in its tables, so they cannot go away: no RCU section is begun, and
generic code ends none.  Hugetlb itself is not modelled.
"""

from __future__ import annotations

from ..machine import load
from .mm_types import mm_struct
from .pgtable import mm_find_pmd, pmd_is_table, pmd_p, pte_p
from .pgtable import pte_offset_kernel as pte_offset_huge
from .pgtable_generic import pte_alloc, walk_to_pmd


def pte_alloc_huge(mm: mm_struct, pmd: pmd_p, addr: int) -> pte_p:
    """The entry of `addr`, its table allocated if need be (include/linux/hugetlb.h)."""
    pte_alloc(mm, pmd, addr)
    return pte_offset_huge(pmd, addr)


def huge_pte_alloc(mm: mm_struct, addr: int, size: int) -> pte_p:
    """The first entry of the page of `size` bytes at `addr`, tables allocated."""
    return pte_alloc_huge(mm, walk_to_pmd(mm, addr), addr & -size)


def huge_pte_offset(mm: mm_struct, addr: int, size: int) -> pte_p:
    """The same where there is one; 0 otherwise."""
    pmd = mm_find_pmd(mm, addr)
    return pte_offset_huge(pmd, addr & -size) if pmd and pmd_is_table(load(pmd)) else 0
