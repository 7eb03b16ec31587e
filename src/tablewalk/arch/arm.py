# SPDX-License-Identifier: GPL-2.0-only
"""32-bit arm (arch/arm; 6.1, 6.12, 7.2), with LPAE: three levels with 64-bit entries; and without: two levels.

Without LPAE a table has 512 entries of 32 bits for Linux, which VmPTE counts, and in the same page as many for the
hardware.  With it the kernel's modules lie in the user's last GiB, below PAGE_OFFSET: pgd_alloc() makes that GiB's PMD
table for them, it counts as the process's own, and free_pgtables() stops before it.  Tables that hold the first two
pages stay too, and are freed with the PGD (pgd_free).
"""

from __future__ import annotations

from typing import Final

from . import Arch, upper_levels

PAGE_SHIFT: Final = 12
WIDTH: Final = 9
MODULES_VADDR: Final = 0xC0000000 - (16 << 20)  # PAGE_OFFSET of VMSPLIT_3G less SZ_16M; TASK_SIZE is the same


def arm_lpae(release: tuple[int, int]) -> Arch:
    """As Debian's armmp-lpae: 3 GiB less 16 MiB for user space."""
    return Arch(
        "arm-lpae",
        **upper_levels(32 - PAGE_SHIFT - WIDTH, WIDTH),
        task_size=MODULES_VADDR,
        has_move_pud=False,
        protnone_pmd_present=False,  # set_pmd_at() takes L_PMD_SECT_VALID from it
        split_pmd_ptlock=False,
        preallocated_pmds=(MODULES_VADDR,),
        first_user_address=2 << PAGE_SHIFT,
        user_pgtables_ceiling=MODULES_VADDR,
        merge_vmas=False,
        pt_reclaim_since=(7, 0),
        per_vma_lock_since=(6, 8),
        broadcast_flush=True,
        highpte=True,
    )


def arm(release: tuple[int, int]) -> Arch:
    """Two levels, as Debian's armmp; no huge pages."""
    return Arch(
        "arm",
        **upper_levels(32 - PAGE_SHIFT - WIDTH, WIDTH + 2),
        entry_bytes=4,
        task_size=MODULES_VADDR,
        has_thp=False,
        thp_advice=False,
        has_move_pud=False,
        split_pmd_ptlock=False,
        first_user_address=2 << PAGE_SHIFT,
        rcu_table_free=False,
        merge_vmas=False,
        pt_reclaim_since=None,
        per_vma_lock_since=(6, 8),
        broadcast_flush=True,
        gup_fast=False,
        highpte=True,
    )
