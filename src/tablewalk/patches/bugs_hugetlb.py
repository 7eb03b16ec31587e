# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of hugetlb, most of them of PMD tables that it shares: each row undoes a fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..kernel.huge_pmd_share import huge_pmd_unshare, hugetlb_unshare_pmds, hugetlb_vma, pmd_table
from ..kernel.hugetlb import smaps_hugetlb_entry
from ..kernel.hugetlbpage import huge_ptep_get
from ..kernel.mm_types import mm_struct
from ..kernel.pgtable import pte_p
from ..kernel.tlb import tlb_remove_table_sync_one
from ..machine import add_return, down_write, load, store, up_write
from . import Claim, patch

F = TypeVar("F", bound=Callable[..., object])

FILES: Final = ("mm/hugetlb.c",)


@patch(
    "K34",
    commit="1013af4f585f",
    title="mm/hugetlb: fix huge_pmd_unshare() vs GUP-fast race (CVE-2025-38085)",
    since="6.16",
    site="huge_pmd_share:tlb_remove_table_sync_one",
    files=FILES,
    mutant=True,
    claim=Claim("race", "hugetlb-unshare-and-gup-fast", "RESULT"),
)
def nobody_is_interrupted() -> None:
    """Who walks with interrupts off is in a table that another process uses as it likes."""


@patch(
    "K35",
    commit="081056dc00a2",
    title="mm/hugetlb: unshare page tables during VMA split, not before (CVE-2025-38084)",
    since="6.16",
    site="huge_pmd_share.hugetlb_split",
    files=(*FILES, "mm/vma.c"),
    mutant=True,
    claim=Claim("race", "hugetlb-split-and-fault", "RESULT"),
)
def unshare_before_split(vma: hugetlb_vma) -> None:
    """Another process can share the table again until the mapping is split."""
    down_write(vma.i_mmap_rwsem)
    hugetlb_unshare_pmds(vma)
    up_write(vma.i_mmap_rwsem)
    down_write(vma.i_mmap_rwsem)
    store(vma.shareable, 0)
    up_write(vma.i_mmap_rwsem)


def k36(site: str) -> Callable[[F], F]:
    """A site of K36."""
    return patch(
        "K36",
        commit="59d9094df3d7",
        title="mm: hugetlb: independent PMD page table shared count (CVE-2024-57883)",
        since="6.13",
        site=f"huge_pmd_share.{site}",
        files=(*FILES, "include/linux/mm_types.h"),
        mutant=True,
        claim=Claim("race", "hugetlb-unmap-twice", "RESULT"),
    )


@k36("ptdesc_pmd_pts_add")
def count_references(table: pmd_table, n: int) -> int:
    """Sharers are counted as references to the page."""
    return add_return(table._refcount, n) - 1


@k36("ptdesc_pmd_is_shared")
def has_references(table: pmd_table) -> bool:
    """Who looks at the page for a moment counts as a sharer, and the last process leaves the table behind."""
    return load(table._refcount) > 1


@patch(
    "K58",
    title="hugetlb: one interrupt for all PMD tables that are unshared at exit and fork",
    since="7.0",
    site="huge_pmd_share.huge_pmd_unshare",
    files=(*FILES, "include/asm-generic/tlb.h"),
    mutant=True,
    claim=Claim("count", measure="interrupts-of-unsharing-four-tables", before=4, after=1),
)
def interrupt_for_each(vma: hugetlb_vma) -> tuple[bool, bool]:
    """As K34 was mended first: each table has an interrupt of its own."""
    shared, _ = huge_pmd_unshare(vma)
    if shared:
        tlb_remove_table_sync_one()
    return shared, False


@patch(
    "K62",
    commit="",
    title="fs/proc: smaps reads migration entries of hugetlb under their lock (CVE-2025-39754)",
    since="6.17",
    site="hugetlb.smaps_hugetlb_range",
    files=("fs/proc/task_mmu.c",),
    mutant=True,
    claim=Claim("race", "hugetlb-migrate-and-smaps", "BUG"),
)
def smaps_without_lock(mm: mm_struct, pte: pte_p, addr: int, size: int) -> tuple[int, int]:
    """The page has moved by the time that its migration entry is looked at."""
    return smaps_hugetlb_entry(huge_ptep_get(pte, size), size)
