# SPDX-License-Identifier: GPL-2.0-only
"""riscv64: Sv39, Sv48 and Sv57, of which the kernel takes the largest that the CPU has (arch/riscv; 6.1, 6.12, 7.2)."""

from __future__ import annotations

from typing import Final

from . import Arch, upper_levels

PAGE_SHIFT: Final = 12
WIDTH: Final = 9
RCU_TABLE_FREE_SINCE: Final = (6, 9)  # 69be3fb111e7


def riscv64(name: str, va_bits: int, release: tuple[int, int]) -> Arch:
    """`va_bits` of virtual address, half of it user space's; a remote flush is a call of the firmware (an IPI)."""
    return Arch(
        name,
        **upper_levels(va_bits - PAGE_SHIFT - WIDTH, WIDTH),
        task_size=1 << va_bits - 1,
        rcu_table_free=release >= RCU_TABLE_FREE_SINCE,
        gup_fast=release >= RCU_TABLE_FREE_SINCE,
        merge_vmas=False,
        pt_reclaim_since=(7, 0),
        per_vma_lock_since=(6, 5),
    )
