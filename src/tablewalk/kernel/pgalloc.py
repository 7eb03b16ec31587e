# SPDX-License-Identifier: GPL-2.0-only
"""Top-level tables with what some architectures do beyond (arch/*/mm/pgd.c, pgtable.c, pgalloc.c; 7.2).

x86 PAE and arm LPAE give each process PMD tables from the beginning; arm frees its first tables only with the PGD;
s390 adds levels as addresses get higher.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import PMD_TABLES_FREED, add, clear_unreachable, count, load
from .mm_types import mm_struct, ptdesc
from .pgtable import mm_find_pmd, p4d_offset, pgd_offset, pmd_pgtable, pud_offset
from .pgtable_generic import mm_dec_nr_ptes, pte_free, walk_to_pmd


def pgd_alloc(mm: mm_struct) -> None:
    """Give a new mm its PGD, and the PMD tables that every process has on this architecture."""
    mm.pgd = ptdesc.alloc(arch.ptrs_per_pgd)
    mm.pgd.pt_mm = mm
    mm.pud_folded = int(arch.pud_folded_below != 0)
    for addr in arch.preallocated_pmds:
        walk_to_pmd(mm, addr)


def pgd_free(mm: mm_struct) -> None:
    """Free the PGD of an mm that nobody uses, and what free_pgtables() had to leave: PMD tables and first tables."""
    if arch.first_user_address:
        free_remaining(mm, 0)
    for addr in arch.preallocated_pmds:
        free_remaining(mm, addr)
    mm.pgd.free(arch.ptrs_per_pgd)


def free_remaining(mm: mm_struct, addr: int) -> None:
    """Free the PMD table of `addr`, if there is one and the level exists, and the PTE table at its slot."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd:
        return
    value = load(pmd)
    if value:
        clear_unreachable(pmd)
        pte_free(mm, pmd_pgtable(value))
        mm_dec_nr_ptes(mm)
    if arch.pmd_bits == 0:
        return
    pud = pud_offset(p4d_offset(pgd_offset(mm, addr), addr), addr)
    table = pmd_pgtable(load(pud))
    clear_unreachable(pud)
    count(PMD_TABLES_FREED)
    table.free(arch.ptrs_per_pmd)
    add(mm.nr_pmds, -1)


def crst_table_upgrade(mm: mm_struct, end: int) -> None:
    """s390: a mapping that ends above what three levels address puts a level on top, for good.

    The region-third table that was the PGD is a PUD table from then on, and counted.
    """
    if end > arch.pud_folded_below:
        mm.pud_folded = 0
