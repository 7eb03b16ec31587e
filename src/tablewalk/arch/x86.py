# SPDX-License-Identifier: GPL-2.0-only
"""x86: 64 bit with 4 and 5 levels, and 32 bit with and without PAE (arch/x86; 6.1, 6.12, 7.2).

The 32-bit kernels split the address space at 3 GiB, as Debian's do, and run without page-table isolation.
"""

from __future__ import annotations

from typing import Final

from . import Arch, upper_levels, variant

PAGE_SHIFT: Final = 12
WIDTH: Final = 9
PAGE_OFFSET: Final = 0xC0000000  # __PAGE_OFFSET of VMSPLIT_3G
GIB: Final = 1 << 30

ALL_PMDS_SINCE: Final = (6, 16)  # 454e65b4fb38: PAE allocates the kernel's PMD table for each process too


def x86_64(release: tuple[int, int]) -> Arch:
    """Four levels, 47 bits for user space."""
    return Arch("x86_64", **upper_levels(48 - PAGE_SHIFT - WIDTH, WIDTH), task_size=(1 << 47) - 4096, pv_ops=True)


def x86_64_5level(release: tuple[int, int]) -> Arch:
    """Five levels (LA57), 56 bits for user space; only a mapping asked for above 47 bits makes a second P4D entry."""
    levels = upper_levels(57 - PAGE_SHIFT - WIDTH, WIDTH)
    return Arch("x86_64-5level", **levels, task_size=(1 << 56) - 4096, pv_ops=True)


def x86_pae(release: tuple[int, int]) -> Arch:
    """Three levels; every process has its PMD tables from the beginning, and they count."""
    pmds = 4 if release >= ALL_PMDS_SINCE else 3
    return Arch(
        "x86-pae",
        **upper_levels(32 - PAGE_SHIFT - WIDTH, WIDTH),
        task_size=PAGE_OFFSET,
        preallocated_pmds=tuple(i * GIB for i in range(pmds)),
        split_pmd_reads=True,
        pgd_is_loaded=True,
        pv_ops=True,
        highpte=True,
        pt_reclaim_since=(7, 0),
        per_vma_lock_since=None,
    )


def x86_2level(release: tuple[int, int]) -> Arch:
    """Two levels with entries of 32 bits; huge pages of 4 MiB."""
    return variant(
        x86_pae(release),
        name="x86-2level",
        **upper_levels(32 - PAGE_SHIFT - WIDTH - 1, WIDTH + 1),
        pte_bits=WIDTH + 1,
        entry_bytes=4,
        split_pmd_ptlock=False,
        preallocated_pmds=(),
        split_pmd_reads=False,
        pgd_is_loaded=False,
    )
