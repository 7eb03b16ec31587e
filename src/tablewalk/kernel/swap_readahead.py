# SPDX-License-Identifier: GPL-2.0-only
"""Reading ahead from swap what entries around a fault refer to (swap_vma_readahead in mm/swap_state.c; 7.2).

The window is 2^vm.page-cluster pages, aligned; the kernel makes it as large as was of use before.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import forget
from .config import config
from .mm_types import folio
from .pgtable import SWP_SWAP, is_swap_pte, ptep_get_lockless, swp_offset, swp_type
from .pgtable_generic import pte_offset_map, pte_unmap
from .swap_state import read_swap_cache, swapin_sync
from .vm_fault import vm_fault


def swapin_readahead(vmf: vm_fault, offset: int) -> folio:
    """The folio of the slot that is faulted for, as swapin_sync has it; its neighbours may be cached too."""
    if config.page_cluster:
        swap_vma_readahead(vmf)
    return swapin_sync(offset)


def swap_vma_readahead(vmf: vm_fault) -> None:
    """Cache what the entries around the fault refer to; the table is not mapped while a page is read."""
    size = min(arch.page_size << config.page_cluster, arch.pmd_size)
    first = vmf.address & -size
    addr, end = max(first, vmf.vma.vm_start), min(first + size, vmf.vma.vm_end)
    while addr < end:
        pte = pte_offset_map(vmf.pmd, addr)
        if not pte:
            break
        entry = ptep_get_lockless(pte)
        pte_unmap(pte)
        if is_swap_pte(entry) and swp_type(entry) == SWP_SWAP:
            read_swap_cache(swp_offset(entry))
        addr += arch.page_size
        forget((addr,))
