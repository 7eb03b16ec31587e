# SPDX-License-Identifier: GPL-2.0-only
"""What else older releases do with huge pages and collapses, from their sources (6.1, 6.12) and a running 6.18."""

from __future__ import annotations

from ..arch import arch
from ..kernel.collapse_huge_page import scan_ptes as scan_ptes_today
from ..kernel.config import config
from ..kernel.filemap import folio_next_index
from ..kernel.folio_split import split_folio
from ..kernel.huge_pmd import __split_huge_pmd
from ..kernel.mm_types import address_space, folio, mm_struct, vm_area_struct
from ..kernel.mmap_lock import NO_VMA
from ..kernel.pgtable import ACCESSED, PRESENT, RW, mm_find_pmd, page_t, pmd_p, pte_p, ptep_get
from ..kernel.scan_result import (
    GO_ON,
    SCAN_EXCEED_NONE_PTE,
    SCAN_FAIL,
    SCAN_NO_PTE_TABLE,
    SCAN_PAGE_RO,
    SCAN_SUCCEED,
    madvise_collapse_errno,
)
from ..kernel.shmem import shmem_suitable_pmd as shmem_suitable_pmd_today
from ..kernel.sys import prctl_set_thp_disable as prctl_set_thp_disable_today
from ..kernel.vm_fault import vm_fault
from ..kernel.vm_flags import EINVAL, VM_FAULT_FALLBACK
from . import patch

KHUGEPAGED = ("mm/khugepaged.c",)


@patch(
    "R-thp-map-whole",
    title="memory: extend finish_fault() to support large folio",
    since="6.11",
    site="memory_file.map_whole_folio",
    files=("mm/memory.c",),
)
def map_whole_folio(vmf: vm_fault, f: folio, page: page_t, nr_pages: int) -> tuple[int, bool]:
    """A fault maps one page of a large folio."""
    return 0, False


@patch(
    "R-thp-shmem-inherited",
    title="mm: shmem: allow fallback to smaller large orders for tmpfs mmap() access (not in 6.18.44; seen in 7.2)",
    since="7.0",
    site="shmem.shmem_orders_inherited",
    files=("mm/shmem.c",),
)
def shmem_orders_inherited() -> int:
    """huge=within_size asks of all files that the huge page lies within."""
    return arch.hpage_pmd_nr


@patch(
    "R-thp-shmem-fits",
    title="mm: shmem: huge pages only where the faulting VMA has room for them",
    since="6.11",
    site="shmem.shmem_suitable_pmd",
    files=("mm/shmem.c",),
)
def shmem_suitable_pmd(mapping: address_space, index: int, vma: vm_area_struct, address: int) -> bool:
    """Whether nothing is cached in the way of a huge page; the VMA need not have room for it."""
    return shmem_suitable_pmd_today(mapping, index, NO_VMA, address)


@patch(
    "R-thp-set-pmd",
    title="mm: don't install PMD mappings when THPs are disabled by the hw/process/vma",
    since="6.12",
    site="huge_pmd.pmd_mapping_disabled",
    files=("mm/memory.c",),
)
def pmd_mapping_disabled(vma: vm_area_struct) -> bool:
    """A huge page of a file is mapped by a huge pmd even after MADV_NOHUGEPAGE."""
    return not arch.has_thp


@patch(
    "R-thp-zero-write",
    title="mm: allocate THP on hugezeropage wp-fault",
    since="6.13",
    site="huge_memory.do_huge_zero_wp_pmd",
    files=("mm/huge_memory.c",),
)
def do_huge_zero_wp_pmd(vmf: vm_fault, pmdval: int) -> int:
    """The first write to the huge zero page splits it, and copies one page."""
    __split_huge_pmd(vmf.vma, vmf.pmd, vmf.address)
    return VM_FAULT_FALLBACK


@patch(
    "R-thp-around-whole",
    title="mm/filemap: map entire large folio faultaround",
    since="6.18",
    site="filemap.pages_to_map",
    files=("mm/filemap.c",),
)
def pages_to_map(vma: vm_area_struct, f: folio, first: int, last: int) -> tuple[int, int]:
    """Fault-around maps no page outside its window."""
    return first, min(folio_next_index(f) - 1, last)


@patch(
    "R-map-dirty",
    title="mm: entries of shared memory that is dirty are dirty (not in 6.12; seen in 7.2)",
    since="7.0",
    site="filemap.file_pte_flags",
    files=("mm/memory.c",),
)
def file_pte_flags(vma: vm_area_struct, f: folio) -> int:
    """Only a write makes an entry dirty."""
    return vma.vm_page_prot | ACCESSED


@patch(
    "R-collapse-awaited",
    title="mm/khugepaged: skip shmem with userfaultfd",
    since="6.4",
    site="collapse_file.holes_are_awaited",
    files=KHUGEPAGED,
)
def nobody_is_asked(mapping: address_space, first: int, last: int) -> bool:
    """Holes are filled, whoever waits for them."""
    return False


@patch(
    "R-collapse-busy",
    title="MADV_COLLAPSE says EBUSY where pages that are missing must stay so (between 6.2 and 6.12)",
    since="6.12",
    site="scan_result.madvise_collapse_errno",
    files=KHUGEPAGED,
)
def never_busy(result: int) -> int:
    """That is EINVAL."""
    return -EINVAL if result == SCAN_EXCEED_NONE_PTE else madvise_collapse_errno(result)


@patch(
    "R-collapse-writable",
    title="mm: enable khugepaged anonymous collapse on non-writable regions",
    since="6.18",
    site="collapse_huge_page.scan_ptes",
    files=KHUGEPAGED,
)
def scan_ptes(vma: vm_area_struct, pte: pte_p, is_khugepaged: bool) -> tuple[int, int]:
    """Of the entries of a table at least one must be writable: after fork, or mprotect, none is."""
    result, swapped = scan_ptes_today(vma, pte, is_khugepaged)
    if result == SCAN_SUCCEED and not any_writable(pte):
        result = SCAN_PAGE_RO
    return result, swapped


def any_writable(pte: pte_p) -> bool:
    """Whether an entry of the table is writable; under ptl."""
    return any([ptep_get(pte + i) & (PRESENT | RW) == PRESENT | RW for i in range(arch.hpage_pmd_nr)])


@patch(
    "R-collapse-pmd-table",
    title="mm/khugepaged: MADV_COLLAPSE of a file allocates the PMD table that is missing",
    since="6.18",
    site="retract.no_table_to_remove",
    files=KHUGEPAGED,
)
def no_table_to_remove(pmd: pmd_p) -> int:
    """Without a PMD table the huge page is not mapped: it stays in the page cache, and the call fails."""
    return SCAN_SUCCEED if pmd else SCAN_NO_PTE_TABLE


@patch(
    "R-collapse-nothing",
    title="mm/khugepaged: MADV_COLLAPSE of a range in which no huge page fits",
    since="7.0",
    site="khugepaged.nothing_to_collapse",
    files=KHUGEPAGED,
)
def nothing_to_collapse(hstart: int, hend: int) -> int:
    """The range shrinks to less than nothing, which counts as a failure."""
    return 0 if hstart == hend else -EINVAL


@patch(
    "R-collapse-no-table",
    title="mm/khugepaged: unify SCAN_PMD_NONE and SCAN_PMD_NULL into SCAN_NO_PTE_TABLE",
    since="7.0",
    site="khugepaged.goes_on_after",
    files=KHUGEPAGED,
)
def goes_on_after(mm: mm_struct, address: int, result: int) -> bool:
    """An empty slot in a PMD table ends MADV_COLLAPSE; where the PMD table itself is missing it goes on."""
    if result == SCAN_NO_PTE_TABLE and mm_find_pmd(mm, address):
        return False
    return result in GO_ON


@patch(
    "R-collapse-file",
    title="mm/khugepaged: collapse of files wherever their cache can have huge pages",
    since="7.0",
    site="collapse_policy.file_thp_enabled",
    files=("mm/huge_memory.c",),
)
def file_thp_enabled(vma: vm_area_struct) -> bool:
    """Only with READ_ONLY_THP_FOR_FS."""
    return config.read_only_thp_for_fs and bool(vma.vm_file) and vma.vm_file.f_mapping.can_collapse != 0


@patch(
    "R-collapse-dirty",
    title="mm/khugepaged: MADV_COLLAPSE writes dirty pages of a file and tries again (seen in 7.2; not in 6.12)",
    since="7.0",
    site="khugepaged.collapse_dirty_file",
    files=KHUGEPAGED,
)
def dirty_is_a_failure(mm: mm_struct, address: int, mapping: address_space, pgoff: int) -> int:
    """A dirty page is a failure like others."""
    return SCAN_FAIL


@patch(
    "R-thp-split-truncate",
    title="mm/truncate: use folio_split() in truncate operation",
    since="6.15",
    site="truncate.truncate_split",
    files=("mm/truncate.c",),
)
def truncate_split(f: folio, at: int) -> int:
    """All of the folio becomes single pages."""
    return split_folio(f)


@patch(
    "R-thp-split-zero-page",
    title="mm: remap unused subpages to shared zeropage when splitting isolated thp",
    since="6.12",
    site="rmap_walk.may_map_zero_page",
    files=("mm/migrate.c",),
)
def may_map_zero_page(vma: vm_area_struct, page: page_t) -> bool:
    """Pages of zeroes stay."""
    return False


@patch(
    "R-thp-disable-flags",
    title="prctl: extend PR_SET_THP_DISABLE to optionally exclude VM_HUGEPAGE",
    since="6.18",
    site="sys.prctl_set_thp_disable",
    files=("kernel/sys.c",),
)
def prctl_set_thp_disable(mm: mm_struct, disable: int, flags: int) -> int:
    """There are no flags."""
    return -EINVAL if flags else prctl_set_thp_disable_today(mm, disable, 0)
