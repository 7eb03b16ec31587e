# SPDX-License-Identifier: GPL-2.0-only
"""Looking up the kernel's own tables (mm/vmalloc.c; 7.2)."""

from __future__ import annotations

from ..machine import load
from .page_alloc import PAGE_CELLS
from .pgtable import (
    page_t,
    pmd_p,
    pmd_page,
    pmd_trans_huge,
    pte_index,
    pte_offset_kernel,
    pte_page,
    pte_present,
    ptep_get,
)


def vmalloc_to_page(pmd: pmd_p, addr: int) -> page_t:
    """The page that the kernel's table maps at `addr`, or 0; nobody unmaps it meanwhile."""
    pmdval = load(pmd)
    if pmdval == 0:
        return 0
    if pmd_trans_huge(pmdval):
        return pmd_page(pmdval) + PAGE_CELLS * pte_index(addr)
    entry = ptep_get(pte_offset_kernel(pmd, addr))
    return pte_page(entry) if pte_present(entry) else 0
