# SPDX-License-Identifier: GPL-2.0-only
"""MADV_WILLNEED: what is in swap is read into the swap cache (mm/madvise.c; 7.2).

Pages of regular files are all cached: of reading them ahead there is only that mmap_lock is dropped meanwhile.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import xa_range
from .filemap import fput, get_file, radix_order, radix_to_swp_entry, xa_is_value
from .mm_types import vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .pagewalk import walk_page_range_vma
from .pgtable import SWP_SWAP, is_swap_pte, pmd_p, ptep_get, swp_offset, swp_type
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import linear_page_index
from .swap_state import read_swap_cache


def madvise_willneed(vma: vm_area_struct, start: int, end: int) -> int:
    """Read what will be needed of [start, end).  Returns 0."""
    f = vma.vm_file
    if not f:
        return walk_page_range_vma(vma, start, end, swapin_walk_pmd_entry, 0)
    if f.f_mapping.shmem:
        shmem_swapin_range(vma, start, end)
        return 0
    mm = vma.vm_mm
    get_file(f)
    mmap_read_unlock(mm)
    fput(f)
    mmap_read_lock(mm)
    return 0


def swapin_walk_pmd_entry(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """Cache what the entries of one table refer to."""
    for address in range(addr, end, arch.page_size):
        pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, address)
        if not pte:
            break
        entry = ptep_get(pte)
        pte_unmap_unlock(pte, ptl)
        if is_swap_pte(entry) and swp_type(entry) == SWP_SWAP:
            read_swap_cache(swp_offset(entry))
    return 0


def shmem_swapin_range(vma: vm_area_struct, start: int, end: int) -> None:
    """Cache what the file has in swap: of an entry of several pages only the first."""
    first, last = linear_page_index(vma, start), linear_page_index(vma, end) - 1
    done = -1
    for index, value in xa_range(vma.vm_file.f_mapping.i_pages, first, last):
        if xa_is_value(value) and index > done:
            nr = 1 << radix_order(value)
            done = index | nr - 1
            read_swap_cache(radix_to_swp_entry(value) & -nr)
