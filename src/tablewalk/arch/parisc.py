# SPDX-License-Identifier: GPL-2.0-only
"""parisc, 64 bit (arch/parisc; 6.1, 6.12, 7.2): entries of the PMD and the PGD have 4 bytes, of PTE tables 8.

TLBs are filled by exceptions, in assembly that maps no table; a purge is broadcast.
"""

from __future__ import annotations

from typing import Final

from . import Arch

RCU_TABLE_FREE_SINCE: Final = (7, 0)
MAX_ADDRESS: Final = 1 << 42


def parisc64(release: tuple[int, int]) -> Arch:
    """Three levels of 9, 11 and 10 bits; a PMD table has two pages."""
    return Arch(
        "parisc64",
        pte_bits=9,
        pmd_bits=11,
        pud_bits=0,
        pgd_bits=10,
        upper_entry_bytes=4,
        big_endian=True,
        task_size=MAX_ADDRESS - 0xF000000,
        has_thp=False,
        thp_advice=False,
        has_move_pud=False,
        fixed_must_fit=True,
        split_pmd_ptlock=False,
        rcu_table_free=release >= RCU_TABLE_FREE_SINCE,
        merge_vmas=False,
        pt_reclaim_since=RCU_TABLE_FREE_SINCE,
        per_vma_lock_since=None,
        broadcast_flush=True,
        gup_fast=False,
        tlb_fill="assembly",
    )
