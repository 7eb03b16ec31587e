# SPDX-License-Identifier: GPL-2.0-only
"""ia64 with pages of 16 KiB and three levels (arch/ia64; 6.1).  It was removed in 6.7: newer is as if it had stayed.

Addresses are those of one region of user space; the PGD has a part for each of the eight regions.
"""

from __future__ import annotations

from typing import Final

from . import Arch

PAGE_SHIFT: Final = 14
TABLE_BITS: Final = PAGE_SHIFT - 3  # PTRS_PER_PTD_SHIFT
RGN_MAP_SHIFT: Final = PAGE_SHIFT + 3 * TABLE_BITS - 3


def ia64(release: tuple[int, int]) -> Arch:
    """A walker (VHPT) that reads PTE tables where they are mapped in a line; the rest is done by exceptions."""
    return Arch(
        "ia64",
        page_shift=PAGE_SHIFT,
        pte_bits=TABLE_BITS,
        pmd_bits=TABLE_BITS,
        pud_bits=0,
        pgd_bits=TABLE_BITS - 3,
        task_size=(1 << RGN_MAP_SHIFT) - (1 << PAGE_SHIFT),
        has_thp=False,
        thp_advice=False,
        has_move_pud=False,
        split_pmd_ptlock=False,
        rcu_table_free=False,
        merge_vmas=False,
        pt_reclaim_since=None,
        per_vma_lock_since=None,
        broadcast_flush=True,
        gup_fast=False,
        tlb_fill="assembly",
    )
