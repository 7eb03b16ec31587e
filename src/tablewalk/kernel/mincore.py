# SPDX-License-Identifier: GPL-2.0-only
"""The mincore() system call (mm/mincore.c; 7.2).

The files are assumed to be the caller's own, who may learn what of them is cached.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget, load, load_range, spin_lock, spin_unlock, xa_range
from .filemap import (
    XA_RETRY_ENTRY,
    XA_SHADOW,
    folio_test_uptodate,
    i_size_pages,
    radix_order,
    radix_to_swp_entry,
    xa_is_value,
)
from .huge_mm import vma_is_anonymous
from .huge_pmd import pmd_trans_huge_lock
from .mm_types import address_space, mm_struct, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_alloc import FOLIO_FLAGS, PG_UPTODATE, folio_put
from .pagewalk import gather_page_range, runs_of_equal
from .pgtable import (
    PRESENT,
    PROTNONE,
    SWP_MARKER,
    SWP_SWAP,
    pmd_is_huge,
    pmd_p,
    swp_offset,
    swp_type,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import linear_page_index
from .swap_state import swap_cache_get_folio
from .vm_flags import EINVAL, ENOMEM
from .vma import vma_lookup

UNMAPPED: Final = 2  # what is cached decides


def sys_mincore(mm: mm_struct, start: int, length: int) -> tuple[int, bytes]:
    """mincore(2): (0 or -errno, a byte for each page up to the error: 1 if it is in core)."""
    vec = b""
    if start & arch.page_size - 1:
        return -EINVAL, vec
    if start + length > arch.task_size:
        return -ENOMEM, vec
    pages = length + arch.page_size - 1 >> arch.page_shift
    while pages > 0:
        mmap_read_lock(mm)
        found = do_mincore(mm, start, min(pages, arch.page_size))
        mmap_read_unlock(mm)
        if not found:
            return -ENOMEM, vec
        vec += found
        pages -= len(found)
        start += len(found) << arch.page_shift
        forget((start, pages, vec))
    return 0, vec


def do_mincore(mm: mm_struct, addr: int, pages: int) -> bytes:
    """The pages of one VMA from `addr` on, at most `pages`; none if there is no VMA."""
    vma = vma_lookup(mm, addr)
    if not vma:
        return b""
    end = min(vma.vm_end, addr + (pages << arch.page_shift))
    if not can_do_mincore(vma):
        return b"\1" * (end - addr >> arch.page_shift)
    return gather_page_range(vma, addr, end, mincore_pte_range, mincore_unmapped_range, b"")


def can_do_mincore(vma: vm_area_struct) -> bool:
    """Whether the caller may know; vdso and the like are said to be in core."""
    return vma_is_anonymous(vma) or bool(vma.vm_file)


# --- walking -----------------------------------------------------------------------------------------------


def mincore_unmapped_range(vma: vm_area_struct, addr: int, end: int, vec: bytes) -> bytes:
    """Where no table is."""
    return vec + __mincore_unmapped_range(vma, addr, end - addr >> arch.page_shift)


def mincore_pte_range(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, vec: bytes) -> bytes | None:
    """A huge page, or the entries of a table."""
    nr = end - addr >> arch.page_shift
    if pmd_is_huge(load(pmd)):
        pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
        if pml:
            spin_unlock(pml)
            return vec + b"\1" * nr
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return None  # ACTION_AGAIN
    found = mincore_ptes(vma, addr, load_range(pte, nr))
    pte_unmap_unlock(pte, ptl)
    return vec + found


def mincore_ptes(vma: vm_area_struct, addr: int, entries: list[int]) -> bytes:
    """What entries say, or the cache where they are none or markers."""
    if entries.count(0) == len(entries):
        return __mincore_unmapped_range(vma, addr, len(entries))
    present = PRESENT | PROTNONE
    said = bytes([1 if e & present else mincore_nonpresent(e) if e else UNMAPPED for e in entries])
    if UNMAPPED not in said:
        return said
    vec = b""
    for first, nr, value in runs_of_equal(said):
        if value == UNMAPPED:
            vec += __mincore_unmapped_range(vma, addr + (first << arch.page_shift), nr)
        else:
            vec += said[first : first + nr]
    return vec


def __mincore_unmapped_range(vma: vm_area_struct, addr: int, nr: int) -> bytes:
    """What is cached of the file, of pages that are not mapped."""
    if not vma.vm_file:
        return bytes(nr)
    mapping = vma.vm_file.f_mapping
    first = linear_page_index(vma, addr)
    return bytes(mincore_pages(mapping, first, nr))


def mincore_pages(mapping: address_space, first: int, nr: int) -> list[int]:
    """Of `nr` pages of a file, 1 for those in its cache, or in the swap cache, whose content is valid.

    Of a regular file all count as cached that were not reclaimed (filemap.py).  The kernel looks up one page at a time,
    without a lock (mincore_page); here they are seen at one moment.
    """
    assumed = 0 if mapping.shmem else min(max(i_size_pages(mapping) - first, 0), nr)
    vec = [1] * assumed + [0] * (nr - assumed)
    spin_lock(mapping.i_pages_lock)
    for index, value in xa_range(mapping.i_pages, first, first + nr - 1):
        if value > XA_RETRY_ENTRY:
            vec[index - first] = load(value + FOLIO_FLAGS) & PG_UPTODATE
        elif value == XA_SHADOW:
            vec[index - first] = 0
        elif xa_is_value(value):
            vec[index - first] = mincore_swap(radix_to_swp_entry(value) & -(1 << radix_order(value)))
    spin_unlock(mapping.i_pages_lock)
    return vec


# --- one page ----------------------------------------------------------------------------------------------


def mincore_nonpresent(entry: int) -> int:
    """What an entry that is not present says; pages under migration and poisoned ones are in core."""
    kind = swp_type(entry)
    if kind == SWP_MARKER:
        return UNMAPPED
    return mincore_swap(swp_offset(entry)) if kind == SWP_SWAP else 1


def mincore_swap(offset: int) -> int:
    """1 if the page is in the swap cache, and its content valid."""
    f = swap_cache_get_folio(offset)
    if not f:
        return 0
    present = folio_test_uptodate(f)
    folio_put(f)
    return int(present)
