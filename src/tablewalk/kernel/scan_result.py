# SPDX-License-Identifier: GPL-2.0-only
"""What a scan for a collapse found (enum scan_result in mm/khugepaged.c; 7.2), and what MADV_COLLAPSE makes of it."""

from __future__ import annotations

from typing import Final

from ..machine import load
from .mm_types import mm_struct
from .pgtable import (
    is_pmd_migration_entry,
    mm_find_pmd,
    pmd_is_table,
    pmd_none,
    pmd_p,
    pmd_trans_huge,
    pmdp_get_lockless,
)
from .vm_flags import EAGAIN, EBUSY, EINVAL, ENOMEM

SCAN_FAIL: Final = 0
SCAN_SUCCEED: Final = 1
SCAN_NO_PTE_TABLE: Final = 2
SCAN_PMD_MAPPED: Final = 3
SCAN_EXCEED_NONE_PTE: Final = 4
SCAN_EXCEED_SWAP_PTE: Final = 5
SCAN_EXCEED_SHARED_PTE: Final = 6
SCAN_PTE_NON_PRESENT: Final = 7
SCAN_PTE_UFFD_WP: Final = 8
SCAN_PTE_MAPPED_HUGEPAGE: Final = 9
SCAN_LACK_REFERENCED_PAGE: Final = 10
SCAN_PAGE_NULL: Final = 11
SCAN_PAGE_COUNT: Final = 12
SCAN_PAGE_LOCK: Final = 13
SCAN_PAGE_ANON: Final = 14
SCAN_PAGE_LAZYFREE: Final = 15
SCAN_PAGE_COMPOUND: Final = 16
SCAN_ANY_PROCESS: Final = 17
SCAN_VMA_NULL: Final = 18
SCAN_VMA_CHECK: Final = 19
SCAN_ADDRESS_RANGE: Final = 20
SCAN_ALLOC_HUGE_PAGE_FAIL: Final = 21
SCAN_TRUNCATED: Final = 22
SCAN_PAGE_FILLED: Final = 23
SCAN_PAGE_DIRTY_OR_WRITEBACK: Final = 24
SCAN_PAGE_RO: Final = 25  # before 6.18

TRY_AGAIN: Final = (SCAN_PAGE_COUNT, SCAN_PAGE_LOCK, SCAN_PAGE_FILLED, SCAN_PAGE_DIRTY_OR_WRITEBACK)

# after these MADV_COLLAPSE goes on with the next huge page
GO_ON: Final = (
    SCAN_NO_PTE_TABLE,
    SCAN_PTE_NON_PRESENT,
    SCAN_PTE_UFFD_WP,
    SCAN_LACK_REFERENCED_PAGE,
    SCAN_PAGE_NULL,
    SCAN_PAGE_COUNT,
    SCAN_PAGE_LOCK,
    SCAN_PAGE_COMPOUND,
    SCAN_PAGE_RO,
)


def madvise_collapse_errno(result: int) -> int:
    """The error that MADV_COLLAPSE returns for its last failure."""
    if result == SCAN_ALLOC_HUGE_PAGE_FAIL:
        return -ENOMEM
    if result == SCAN_EXCEED_NONE_PTE:
        return -EBUSY
    return -EAGAIN if result in TRY_AGAIN else -EINVAL


def collapse_test_exit(mm: mm_struct) -> bool:
    """Whether the mm has no user left: its tables may be going away."""
    return load(mm.mm_users) == 0


def check_pmd_state(pmd: pmd_p) -> int:
    """SCAN_SUCCEED if the slot points to a table, or what else it holds; it says nothing of which table."""
    pmdval = pmdp_get_lockless(pmd)
    if pmd_none(pmdval):
        return SCAN_NO_PTE_TABLE
    if is_pmd_migration_entry(pmdval) or pmd_trans_huge(pmdval):
        return SCAN_PMD_MAPPED
    return SCAN_SUCCEED if pmd_is_table(pmdval) else SCAN_NO_PTE_TABLE


def find_pmd_or_thp_or_none(mm: mm_struct, address: int) -> tuple[int, pmd_p]:
    """(check_pmd_state, address of the slot) of `address`; (SCAN_NO_PTE_TABLE, 0) without a PMD table."""
    pmd = mm_find_pmd(mm, address)
    return (check_pmd_state(pmd), pmd) if pmd else (SCAN_NO_PTE_TABLE, 0)
