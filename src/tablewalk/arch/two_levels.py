# SPDX-License-Identifier: GPL-2.0-only
"""microblaze, sh and xtensa: 32 bit, two levels, TLBs filled by exceptions (6.1, 6.12, 7.2).

Their page tables are alike: 1,024 entries of 4 bytes in a page, a page for each table, none shared, none freed by RCU.
"""

from __future__ import annotations

from . import Arch, upper_levels, variant


def microblaze(release: tuple[int, int]) -> Arch:
    """One CPU."""
    return variant(
        _two_levels("microblaze", 0xC0000000, gup_fast=False),
        smp=False,
        merge_vmas=True,
        no_range=True,
    )


def sh(release: tuple[int, int]) -> Arch:
    """SH-4."""
    return variant(_two_levels("sh", 0x7C000000), tlb_fill="C")


def sh_x2tlb(release: tuple[int, int]) -> Arch:
    """SH-X2 with extended TLB entries of 64 bits, which are read in halves: three levels."""
    return variant(
        sh(release),
        name="sh-x2tlb",
        pte_bits=9,
        pmd_bits=9,
        pgd_bits=2,
        entry_bytes=8,
        split_pmd_reads=True,
    )


def xtensa(release: tuple[int, int]) -> Arch:
    """The hardware reads PTE tables where they are mapped in a line; if that misses too, there is an exception."""
    return _two_levels("xtensa", 0x40000000, gup_fast=False)


def _two_levels(name: str, task_size: int, gup_fast: bool = True) -> Arch:
    return Arch(
        name,
        **upper_levels(10, 10),
        pte_bits=10,
        entry_bytes=4,
        task_size=task_size,
        has_thp=False,
        thp_advice=False,
        has_move_pud=False,
        split_pmd_ptlock=False,
        rcu_table_free=False,
        merge_vmas=False,
        pt_reclaim_since=None,
        per_vma_lock_since=None,
        tlb_fill="assembly",
        gup_fast=gup_fast,
    )
