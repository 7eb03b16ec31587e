# SPDX-License-Identifier: GPL-2.0-only
"""mips: 64 bit with pages of 4 KiB, and 32 bit (arch/mips; 6.1, 6.12, 7.2).

A TLB miss is served by a handler that is generated at boot, which walks the tables without mapping them.
"""

from __future__ import annotations

from typing import Final

from . import Arch, upper_levels, variant

PAGE_SHIFT: Final = 12
RCU_TABLE_FREE_SINCE: Final = (7, 0)
KEEPS_SPECIAL_SINCE: Final = (6, 12)  # at the latest; not in 6.1
TASK_SIZE64: Final = 1 << 40


def mips64(release: tuple[int, int]) -> Arch:
    """Three levels, 40 bits for user space, which the PGD of two pages covers."""
    return Arch(
        "mips64",
        pte_bits=9,
        pmd_bits=9,
        pud_bits=0,
        pgd_bits=10,
        task_size=TASK_SIZE64,
        has_move_pud=False,
        fixed_must_fit=True,
        modify_keeps_special=release >= KEEPS_SPECIAL_SINCE,
        split_pmd_ptlock=False,
        rcu_table_free=release >= RCU_TABLE_FREE_SINCE,
        merge_vmas=False,
        pt_reclaim_since=RCU_TABLE_FREE_SINCE,
        per_vma_lock_since=None,
        tlb_fill="assembly",
    )


def mips32(release: tuple[int, int]) -> Arch:
    """Two levels with entries of 32 bits, 2 GiB for user space; no huge pages."""
    return variant(
        mips64(release),
        name="mips32",
        **upper_levels(32 - PAGE_SHIFT - 10, 10),
        pte_bits=10,
        entry_bytes=4,
        task_size=1 << 31,
        has_thp=False,
        thp_advice=False,
    )
