# SPDX-License-Identifier: GPL-2.0-only
"""m68k: Motorola's MMU and that of ColdFire (arch/m68k; 6.1, 6.12, 7.2).  One CPU.

Motorola's tables are smaller than pages: 16 PTE tables, or 8 PMD tables, share one (mm/motorola.c), of a list of pages
that all processes draw from.
"""

from __future__ import annotations

from . import Arch, variant


def m68k(release: tuple[int, int]) -> Arch:
    """Three levels of 6, 7 and 7 bits, walked by the hardware."""
    return Arch(
        "m68k",
        page_shift=12,
        pte_bits=6,
        pmd_bits=7,
        pud_bits=0,
        pgd_bits=7,
        entry_bytes=4,
        big_endian=True,
        task_size=0xF0000000,
        has_thp=False,
        thp_advice=False,
        has_move_pud=False,
        split_pmd_ptlock=False,
        rcu_table_free=False,
        no_range=True,
        pt_reclaim_since=None,
        per_vma_lock_since=None,
        tables_per_page=16,
        smp=False,
        gup_fast=False,
    )


def m68k_coldfire(release: tuple[int, int]) -> Arch:
    """Two levels, pages of 8 KiB, and a TLB that is filled by exceptions."""
    return variant(
        m68k(release),
        name="m68k-coldfire",
        page_shift=13,
        pte_bits=9,
        pmd_bits=0,
        pgd_bits=10,
        task_size=0xC0000000,
        tables_per_page=1,
        tlb_fill="C that maps",
    )
