# SPDX-License-Identifier: GPL-2.0-only
"""smaps and pagemap as older releases have them (fs/proc/task_mmu.c of 6.1 and 6.12)."""

from __future__ import annotations

from ..arch import arch
from ..kernel.config import config
from ..kernel.mm_types import folio, mm_struct, vm_area_struct
from ..kernel.page_alloc import PAGE_CELLS, folio_precise_page_mapcount
from ..kernel.pgtable import PROTNONE
from ..kernel.task_mmu import (
    NO_STATS,
    PM_GUARD_REGION,
    PM_MMAP_EXCLUSIVE,
    Pagemap,
    mem_size_stats,
    pagemap_marker,
    pagemap_runs,
    show_smap_vma_flags,
    smap,
    smaps_pmd_entry,
    smaps_under_mmap_lock,
    thp_mapped_exclusively,
)
from . import patch

FILES = ("fs/proc/task_mmu.c",)


@patch(
    "R-smaps-vma-lock",
    title="smaps under the VMAs' locks (seen in 7.2; not in 6.18)",
    since="6.19",
    site="task_mmu.smaps_under_vma_locks",
    files=FILES,
)
def all_under_mmap_lock(mm: mm_struct) -> tuple[smap, ...]:
    """mmap_lock is held for all of them."""
    return smaps_under_mmap_lock(mm)


@patch(
    "R-pagemap-guard",
    title="fs/proc/task_mmu: add guard region bit to pagemap",
    since="6.15",
    site="task_mmu.pagemap_marker",
    files=FILES,
)
def marker_without_guard(marker: int) -> int:
    """A guard region looks like something in swap."""
    return pagemap_marker(marker) & ~PM_GUARD_REGION


@patch(
    "R-pagemap-thp-head",
    title="pagemap looks only at the first page of a huge one (new in 6.15)",
    since="6.15",
    site="task_mmu.thp_mapped_exclusively",
    files=FILES,
)
def each_mapped_exclusively(f: folio, addr: int, nr: int, flags: int) -> Pagemap:
    """Each page of a huge one is looked at."""
    first = addr >> arch.page_shift & arch.hpage_pmd_nr - 1
    pages = [f.page + i * PAGE_CELLS for i in range(first, first + nr)]
    entries = [flags | PM_MMAP_EXCLUSIVE if folio_precise_page_mapcount(f, page) == 1 else flags for page in pages]
    return pagemap_runs(addr, bytes(entries))


@patch(
    "R-pagemap-thp-page",
    title="pagemap looks at each page of a huge one",
    since="6.11",
    site="task_mmu.thp_mapped_exclusively",
    files=FILES,
)
def first_mapped_exclusively(f: folio, addr: int, nr: int, flags: int) -> Pagemap:
    """Only its first page is looked at, as since 6.15."""
    return thp_mapped_exclusively(f, addr, nr, flags)


@patch(
    "R-smaps-ksm",
    title="smaps tells how much KSM has merged",
    since="6.8",
    site="task_mmu.__show_smap",
    files=FILES,
)
def without_ksm(mss: mem_size_stats) -> mem_size_stats:
    """There is no line of pages that KSM has merged."""
    return mss._replace(ksm=0)


@patch(
    "R-smaps-protnone",
    title="smaps: use vm_normal_page_pmd() instead of follow_trans_huge_pmd()",
    since="6.6",
    site="task_mmu.smaps_pmd_entry",
    files=FILES,
)
def smaps_pmd_entry_followed(vma: vm_area_struct, pmdval: int) -> mem_size_stats:
    """A huge page without any permission is taken for one that NUMA balancing waits for (with NUMA_BALANCING)."""
    return NO_STATS if config.numa and pmdval & PROTNONE else smaps_pmd_entry(vma, pmdval)


@patch(
    "R-smaps-lockonfault",
    title="smaps tells of VM_LOCKONFAULT (between 6.2 and 6.12)",
    since="6.12",
    site="task_mmu.show_smap_vma_flags",
    files=FILES,
)
def without_lockonfault(vm_flags: int) -> str:
    """VM_LOCKONFAULT has no mnemonic."""
    return show_smap_vma_flags(vm_flags).replace("lf", "??")
