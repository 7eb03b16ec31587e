# SPDX-License-Identifier: GPL-2.0-only
"""loongarch64 with pages of 16 KiB and three levels, as Debian builds it (arch/loongarch; 6.1, 6.12, 7.2).

A TLB miss is an exception: its handler, in assembly, walks the tables without mapping them; newer CPUs do so
themselves.
"""

from __future__ import annotations

from typing import Final

from . import Arch, upper_levels

PAGE_SHIFT: Final = 14
WIDTH: Final = PAGE_SHIFT - 3
VA_BITS: Final = 47
RCU_TABLE_FREE_SINCE: Final = (7, 0)


def loongarch64(release: tuple[int, int]) -> Arch:
    """47 bits for user space."""
    return Arch(
        "loongarch64",
        page_shift=PAGE_SHIFT,
        pte_bits=WIDTH,
        **upper_levels(VA_BITS - PAGE_SHIFT - WIDTH, WIDTH),
        task_size=1 << VA_BITS,
        has_move_pud=False,
        fixed_must_fit=True,
        split_pmd_ptlock=False,
        rcu_table_free=release >= RCU_TABLE_FREE_SINCE,
        pt_reclaim_since=RCU_TABLE_FREE_SINCE,
        per_vma_lock_since=(7, 0),  # not in 6.12, but in 7.2
        tlb_fill="assembly",
    )
