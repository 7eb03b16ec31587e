# SPDX-License-Identifier: GPL-2.0-only
"""What older releases do with swap, from their sources (6.1, 6.12)."""

from __future__ import annotations

from ..kernel.config import config
from ..kernel.filemap import radix_order
from ..kernel.folio_split import split_folio
from ..kernel.mm_types import address_space, folio, vm_area_struct
from ..kernel.page_alloc import folio_ref_count
from ..kernel.pgtable import SWP_EXCLUSIVE, pmd_p, swp_offset
from ..kernel.shmem import split_entry
from ..kernel.swap_pte import swapin_writable as swapin_writable_today
from ..kernel.swap_table import __swap_count
from ..kernel.vm_fault import vm_fault
from ..kernel.vm_flags import FAULT_FLAG_WRITE
from ..kernel.vmscan import shmem_writeout
from ..machine import spin_lock, spin_unlock, xa_load
from . import patch

SHMEM = ("mm/shmem.c",)


@patch(
    "R-swap-cache-always",
    title="mm, swap: never bypass the swap cache even for SWP_SYNCHRONOUS_IO",
    since="7.0",
    site="swap_pte.swapin_exclusive",
    files=("mm/memory.c",),
)
def swapin_exclusive(f: folio, entry: int) -> bool:
    """The last entry of a slot gets a page that nobody else has seen: it is read in past the swap cache."""
    return entry & SWP_EXCLUSIVE != 0 or (folio_ref_count(f) == 2 and __swap_count(swp_offset(entry)) == 1)


@patch(
    "R-swap-in-writable",
    title="mm: set pte writable while pte_soft_dirty() is enabled in do_swap_page()",
    since="6.11",
    site="swap_pte.swapin_writable",
    files=("mm/memory.c",),
)
def swapin_writable(vmf: vm_fault, new: int) -> bool:
    """Only a write makes the entry writable."""
    return vmf.flags & FAULT_FLAG_WRITE != 0 and swapin_writable_today(vmf, new)


@patch(
    "R-shmem-swap-in-whole",
    title="mm: shmem: skip swapcache for swapin of synchronous swap device",
    since="6.14",
    site="shmem.shmem_swapin_order",
    files=SHMEM,
)
def shmem_swapin_order(vma: vm_area_struct, order: int) -> int:
    """Pages of shmem are read in one by one."""
    return 0


@patch(
    "R-shmem-swap-split-part",
    title="mm/shmem: use xas_try_split() in shmem_split_large_entry()",
    since="6.15",
    site="shmem.shmem_split_large_entry",
    files=SHMEM,
)
def shmem_split_large_entry(mapping: address_space, index: int, value: int) -> None:
    """An entry of several pages becomes entries of one page each."""
    order = radix_order(value)
    spin_lock(mapping.i_pages_lock)
    if xa_load(mapping.i_pages, index) == value:
        split_entry(mapping, index & -(1 << order), 1 << order, 0)
    spin_unlock(mapping.i_pages_lock)


@patch(
    "R-shmem-swap-whole",
    title="mm: shmem: support large folio swap out",
    since="6.12",
    site="vmscan.shmem_must_split",
    files=SHMEM,
)
def shmem_must_split(mapping: address_space, f: folio) -> bool:
    """Large folios of shmem are always split on their way to swap."""
    return True


@patch(
    "R-shmem-swap-whole",
    title="mm: shmem: support large folio swap out",
    since="6.12",
    site="vmscan.shmem_writeout",
    files=SHMEM,
)
def shmem_writepage(mapping: address_space, f: folio) -> bool:
    """They are split even if there is no swap."""
    if f.order and not config.swap:
        split_folio(f)
        return False
    return shmem_writeout(mapping, f)


@patch(
    "R-lazyfree-whole",
    title="mm/vmscan: avoid split lazyfree THP during shrink_folio_list() (not in 6.12; 6.18.44 was seen to split)",
    since="6.19",
    site="rmap_walk.unmap_huge_pmd_locked",
    files=("mm/huge_memory.c", "mm/rmap.c"),
)
def unmap_huge_pmd_locked(vma: vm_area_struct, haddr: int, pmd: pmd_p, f: folio) -> bool:
    """A huge page that was given up is dropped page by page, and its table stays."""
    return False
