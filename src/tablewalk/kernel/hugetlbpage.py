# SPDX-License-Identifier: GPL-2.0-only
"""The entries of a hugetlb page: one of a PMD table, or a run of entries (arch/*/mm/hugetlbpage.c; 7.2, ia64 6.1).

A run is what arm64 calls contiguous and riscv NAPOT; parisc and sparc have the same for pages that are smaller than a
table's range, ia64 and sh one entry.  Nothing but a hugetlb VMA has entries in its tables, so they cannot go away: no
RCU section is begun, and generic code ends none.

Each entry of a run maps its own page here.  That arm64 and riscv empty and flush a run before they change what it maps
does not come up: nothing changes a present one but by taking it away.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import load, store, xchg
from .mm_types import mm_struct
from .page_alloc import PAGE_CELLS
from .pgtable import ACCESSED, DIRTY, PFN_SHIFT, mm_find_pmd, pmd_is_table, pmd_p, pte_p, pte_present
from .pgtable import pte_offset_kernel as pte_offset_huge
from .pgtable_generic import pte_alloc, walk_to_pmd
from .tlb import flush_tlb_range


def pte_alloc_huge(mm: mm_struct, pmd: pmd_p, addr: int) -> pte_p:
    """The entry of `addr`, its table allocated if need be (include/linux/hugetlb.h)."""
    pte_alloc(mm, pmd, addr)
    return pte_offset_huge(pmd, addr)


def huge_pte_alloc(mm: mm_struct, addr: int, size: int) -> pte_p:
    """The first entry of the page of `size` bytes at `addr`, tables allocated."""
    pmd = walk_to_pmd(mm, addr)
    return pmd if size >= arch.pmd_size else pte_alloc_huge(mm, pmd, addr & -size)


def huge_pte_offset(mm: mm_struct, addr: int, size: int) -> pte_p:
    """The same where there is one; 0 otherwise."""
    pmd = mm_find_pmd(mm, addr)
    if not pmd or size >= arch.pmd_size:
        return pmd
    return pte_offset_huge(pmd, addr & -size) if pmd_is_table(load(pmd)) else 0


def num_contig_ptes(size: int) -> tuple[int, int]:
    """(entries of a page of `size` bytes, pages that each maps)."""
    each = arch.pmd_size if size >= arch.pmd_size else arch.page_size
    return size // each, each // arch.page_size


def set_huge_pte_at(pte: pte_p, entry: int, size: int) -> None:
    """Let all entries map their part of a page, `entry` its first, or all be the same one that is not present."""
    nr, pages = num_contig_ptes(size)
    step = pages * PAGE_CELLS << PFN_SHIFT if pte_present(entry) else 0
    for i in range(nr):
        store(pte + i, entry + i * step)


def huge_ptep_get(pte: pte_p, size: int) -> int:
    """The first entry, young and dirty if any is."""
    entry = load(pte)
    if pte_present(entry):
        for i in range(1, num_contig_ptes(size)[0]):
            entry |= load(pte + i) & (ACCESSED | DIRTY)
    return entry


def huge_ptep_clear_flush(mm: mm_struct, addr: int, pte: pte_p, size: int) -> int:
    """Empty all entries of the page at `addr` and flush it; the first, young and dirty if any was."""
    entry = xchg(pte, 0)
    for i in range(1, num_contig_ptes(size)[0]):
        entry |= xchg(pte + i, 0) & (ACCESSED | DIRTY)
    flush_tlb_range(mm, addr, addr + size, freed_tables=False)
    return entry
