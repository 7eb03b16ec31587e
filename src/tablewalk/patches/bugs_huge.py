# SPDX-License-Identifier: GPL-2.0-only
"""Published bugs of those who find a huge page under migration, or being split: each row undoes a fix.

In the model the entry of a huge page under migration has the page where a present one has it.  What `pmd_page()` makes
of it in a kernel is no page; here it is taken to be page 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..kernel.huge_pmd import __split_huge_pmd, split_anon_pmd
from ..kernel.mm_types import folio, vm_area_struct
from ..kernel.page_alloc import (
    PAGE_ANON_EXCLUSIVE,
    folio_get,
    folio_nr_pages,
    folio_page,
    folio_put,
    page_flags,
    page_mapcount,
)
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
from ..kernel.pgtable_generic import pmd_lockptr
from ..kernel.scan_result import SCAN_NO_PTE_TABLE, SCAN_PMD_MAPPED, SCAN_SUCCEED
from ..machine import load, mutex_lock, mutex_trylock, mutex_unlock, spin_lock, spin_unlock
from . import Claim, patch

F = TypeVar("F", bound=Callable[..., object])

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


# --- mapcounts of a huge page, by which it was decided before 5.18 whether a write needs a copy of it ----------------


def by_mapcount(site: str) -> Callable[[F], F]:
    """What two patches of 5.18 changed, of which one made the other possible."""
    return patch(
        "thp-cow-mapcount",
        commit="3bff7e3f1f16",
        title="mm/huge_memory: streamline COW logic in do_huge_pmd_wp_page(); remove stale locking logic from "
        "__split_huge_pmd()",
        since="5.18",
        site=site,
        files=("mm/huge_memory.c",),
        mutant=True,
        claim=Claim("cleanup", "huge-split-and-parents-fault"),
    )


@by_mapcount("huge_memory:folio_ref_count")
def page_trans_huge_mapcount(f: folio) -> int:
    """How often the page of the folio is mapped that is mapped most: by entries, and by huge pmds; under its lock."""
    by_entries = max([load(page_mapcount(folio_page(f, i))) for i in range(folio_nr_pages(f))])
    return by_entries + load(f._entire_mapcount)


@by_mapcount("huge_pmd.split_anon_pmd")
def split_under_the_folios_lock(vma: vm_area_struct, pmd: pmd_p, haddr: int, freeze: bool) -> None:
    """Who counts has the folio's lock, and so has who splits, since 5.8.  With `freeze` the caller has it."""
    if freeze:
        split_anon_pmd(vma, pmd, haddr, freeze)
        return
    pmdval = pmdp_get_lockless(pmd)
    f = page_folio(pmd_page(pmdval))
    if not mutex_trylock(f.lock):
        pml = pmd_lockptr(vma.vm_mm, pmd, haddr)
        folio_get(f)
        spin_unlock(pml)
        mutex_lock(f.lock)
        spin_lock(pml)
        same = pmdp_get_lockless(pmd) == pmdval
        if not same:
            mutex_unlock(f.lock)
        folio_put(f)
        if not same:
            spin_unlock(pml)
            __split_huge_pmd(vma, pmd, haddr, freeze)
            spin_lock(pml)
            return
    split_anon_pmd(vma, pmd, haddr, freeze)
    mutex_unlock(f.lock)


@patch(
    "K41",
    commit="c444eb564fb1",
    title="mm: thp: make the THP mapcount atomic against split (CVE-2020-29368)",
    since="5.8",
    site="huge_pmd.split_anon_pmd",
    files=("mm/huge_memory.c",),
    mutant=True,
    claim=Claim("race", "huge-split-and-parents-fault", "RESULT", without=("thp-cow-mapcount",)),
)
def split_while_others_count(vma: vm_area_struct, pmd: pmd_p, haddr: int, freeze: bool) -> None:
    """Mappings move from the whole to its pages one by one: who has counted the pages before, and the whole after,
    has missed one."""
    split_anon_pmd(vma, pmd, haddr, freeze)
