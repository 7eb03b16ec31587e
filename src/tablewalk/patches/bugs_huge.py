# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of those who find a huge page under migration: each row undoes a fix.

In the model the entry of a huge page under migration has the page where a present one has it.  What `pmd_page()` makes
of it in a kernel is no page; here it is taken to be page 0.
"""

from __future__ import annotations

from typing import Final

from ..kernel.mm_types import folio
from ..kernel.page_alloc import PAGE_ANON_EXCLUSIVE, page_flags
from ..kernel.pgtable import (
    SPECIAL,
    page_folio,
    page_t,
    pmd_is_huge,
    pmd_none,
    pmd_p,
    pmd_page,
    pmd_present,
    pmd_trans_huge,
    pmdp_get_lockless,
)
from ..kernel.scan_result import SCAN_NO_PTE_TABLE, SCAN_PMD_MAPPED, SCAN_SUCCEED
from ..machine import load
from . import Claim, patch

NO_PAGE: Final[page_t] = 0


@patch(
    "K7",
    commit="edb5d0cf5525",
    title="mm/MADV_COLLAPSE: catch !none !huge !bad pmd lookups",
    since="6.2",
    site="scan_result.check_pmd_state",
    files=("mm/khugepaged.c",),
    mutant=True,
    claim=Claim("race", "huge-migrate-and-collapse", "I28", without=("B27",)),
)
def neither_none_nor_huge(pmd: pmd_p) -> int:
    """What is left is taken for a table, which khugepaged then looked into without asking again (B27)."""
    pmdval = pmdp_get_lockless(pmd)
    if pmd_none(pmdval):
        return SCAN_NO_PTE_TABLE
    return SCAN_PMD_MAPPED if pmd_trans_huge(pmdval) else SCAN_SUCCEED


@patch(
    "K26",
    title="userfaultfd: look at the folio of a pmd only if it is present",
    since="6.17",
    site="userfaultfd_move.huge_pmd_exclusive",
    files=("mm/userfaultfd.c",),
    mutant=True,
    claim=Claim("race", "huge-migrate-and-uffd-move", "I1"),
)
def exclusive_though_not_present(pmdval: int) -> bool:
    """Whether the page is its mapper's own is asked of what is no page."""
    page = pmd_page(pmdval) if pmd_present(pmdval) else NO_PAGE
    return pmdval & SPECIAL != 0 or load(page_flags(page)) & PAGE_ANON_EXCLUSIVE != 0


@patch(
    "K46",
    commit="be6e843fc51a",
    title="mm/huge_memory: fix dereferencing invalid pmd migration entry",
    since="6.15",
    site="rmap_walk:pmd_maps_folio",
    files=("mm/huge_memory.c",),
    mutant=True,
    claim=Claim("race", "huge-migrate-and-split-elsewhere", "I1"),
)
def compared_before_it_is_present(pmdval: int, f: folio) -> bool:
    """The folio of any huge entry is compared with the one that is to be split."""
    page = pmd_page(pmdval) if pmd_present(pmdval) else NO_PAGE
    return pmd_is_huge(pmdval) and page_folio(page) == f
