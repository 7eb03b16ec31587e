# SPDX-License-Identifier: GPL-2.0-only
"""sparc64: pages of 8 KiB, four levels of 10 bits (arch/sparc; 6.1, 6.12, 7.2).

A TLB miss looks into a hash table in memory (TSB), then, in assembly, into the page tables.  Flushes are cross calls,
batched.  Tables are freed by RCU, by code of its own; none are reclaimed.
"""

from __future__ import annotations

from typing import Final

from . import Arch

PAGE_SHIFT: Final = 13
TABLE_BITS: Final = PAGE_SHIFT - 3


def sparc64(release: tuple[int, int]) -> Arch:
    """Huge pages are two of 4 MiB; 52 bits for user space, with a hole that is not modelled."""
    return Arch(
        "sparc64",
        page_shift=PAGE_SHIFT,
        pte_bits=TABLE_BITS,
        pmd_bits=TABLE_BITS,
        pud_bits=TABLE_BITS,
        pgd_bits=TABLE_BITS,
        big_endian=True,
        task_size=1 << 52,
        has_move_pud=False,
        split_pmd_ptlock=False,
        own_tlb_remove_table=True,
        tlb_needs_table_invalidate=False,
        gup_fast=False,
        pt_reclaim_since=None,
        per_vma_lock_since=None,
        tlb_fill="assembly",
    )
