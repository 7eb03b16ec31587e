# SPDX-License-Identifier: GPL-2.0-only
"""parisc's own users of page tables (arch/parisc/kernel/cache.c, pci-dma.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import load, store
from .mm_types import mm_struct
from .pgtable import ACCESSED, PRESENT, mm_find_pmd, pmd_p, pte_offset_kernel, pte_p, ptep_get
from .pgtable_generic import pte_offset_map, pte_unmap


def get_ptep(mm: mm_struct, addr: int) -> pte_p:
    """The entry of `addr`, mapped; 0 if there is none."""
    pmd = mm_find_pmd(mm, addr)
    return pte_offset_map(pmd, addr) if pmd and load(pmd) else 0


def flush_cache_page_if_present(mm: mm_struct, addr: int) -> bool:
    """Whether the page at `addr` is to be flushed from the caches, which are virtually indexed."""
    pte = get_ptep(mm, addr)
    if not pte:
        return False
    entry = ptep_get(pte)
    pte_unmap(pte)
    return entry & (PRESENT | ACCESSED) == PRESENT | ACCESSED


def unmap_uncached_pte(pmd: pmd_p, addr: int, size: int) -> None:
    """Take memory for DMA out of the kernel's page table; `size` in bytes, up to the end of the table."""
    pte = pte_offset_kernel(pmd, addr)
    end = min(addr + size, (addr | arch.pmd_size - 1) + 1)
    for i in range((end - addr) // arch.page_size):
        store(pte + i, 0)
