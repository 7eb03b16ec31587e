# SPDX-License-Identifier: GPL-2.0-only
"""What may be collapsed: VMAs, limits, and khugepaged's list of processes (mm/khugepaged.c, mm/huge_memory.c; 7.2)."""

from __future__ import annotations

from ..arch import arch
from ..machine import READ_ONCE, mt_find
from .config import config
from .huge_mm import (
    MMF_DISABLE_THP_COMPLETELY,
    hugepage_enabled,
    khugepaged_enter,
    thp_vma_suitable_pmd,
    vma_is_anonymous,
    vma_is_temporary_stack,
    vma_thp_disabled,
)
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import NO_VMA
from .scan_result import (
    SCAN_ADDRESS_RANGE,
    SCAN_ANY_PROCESS,
    SCAN_PAGE_ANON,
    SCAN_SUCCEED,
    SCAN_VMA_CHECK,
    SCAN_VMA_NULL,
    collapse_test_exit,
)
from .shmem import shmem_allowable_huge_pmd
from .userfaultfd_k import userfaultfd_armed
from .vm_flags import VM_HUGETLB, VM_SPECIAL


def file_thp_enabled(vma: vm_area_struct) -> bool:
    """Whether the cache of the VMA's file may hold huge pages; which file systems can is the file's to say."""
    return bool(vma.vm_file) and vma.vm_file.f_mapping.can_collapse != 0


def collapse_possible(vma: vm_area_struct, vm_flags: int, forced: bool) -> bool:
    """Whether the VMA may get huge pages by khugepaged, or by MADV_COLLAPSE (`forced`), which ignores sysfs."""
    if vma_thp_disabled(vma, vm_flags, forced) or vm_flags & (VM_SPECIAL | VM_HUGETLB):
        return False
    if not thp_vma_suitable_pmd(vma, vma.vm_end - arch.pmd_size):
        return False
    if vma.vm_file and vma.vm_file.f_mapping.shmem:
        return shmem_allowable_huge_pmd(vma.vm_file.f_mapping, vma, vma.vm_pgoff, forced)
    if not forced and not hugepage_enabled(vm_flags):
        return False
    if not vma_is_anonymous(vma):
        return file_thp_enabled(vma)
    return not vma_is_temporary_stack(vma) and bool(vma.anon_vma)


def collapse_test_exit_or_disable(mm: mm_struct) -> bool:
    """Whether the process is exiting, or wants no huge pages."""
    flags: int = READ_ONCE(mm, "flags")
    return collapse_test_exit(mm) or flags & MMF_DISABLE_THP_COMPLETELY != 0


def hugepage_vma_revalidate(
    mm: mm_struct, address: int, expect_anon: bool, is_khugepaged: bool
) -> tuple[int, vm_area_struct]:
    """(SCAN_SUCCEED, VMA) if a huge page may be made at `address`, after mmap_lock was let go; else what is wrong."""
    if collapse_test_exit_or_disable(mm):
        return SCAN_ANY_PROCESS, NO_VMA
    vma = vm_area_struct(mt_find(mm.mm_mt, address))
    if not vma:
        return SCAN_VMA_NULL, vma
    if not thp_vma_suitable_pmd(vma, address):
        return SCAN_ADDRESS_RANGE, vma
    if not collapse_possible(vma, vma.vm_flags, not is_khugepaged):
        return SCAN_VMA_CHECK, vma
    if expect_anon and not (vma.anon_vma and vma_is_anonymous(vma)):
        return SCAN_PAGE_ANON, vma
    return SCAN_SUCCEED, vma


def collapse_max_ptes_none(is_khugepaged: bool, vma: vm_area_struct) -> int:
    """Empty entries that a huge page may fill; none where userfaultfd is to be told of each."""
    if vma and userfaultfd_armed(vma):
        return 0
    return config.max_ptes_none if is_khugepaged else arch.hpage_pmd_nr


def collapse_max_ptes_shared(is_khugepaged: bool) -> int:
    """Entries that may map pages of several processes."""
    return config.max_ptes_shared if is_khugepaged else arch.hpage_pmd_nr


def collapse_max_ptes_swap(is_khugepaged: bool) -> int:
    """Entries that may be swapped out."""
    return config.max_ptes_swap if is_khugepaged else arch.hpage_pmd_nr


def khugepaged_enter_vma(vma: vm_area_struct, vm_flags: int) -> None:
    """Let khugepaged know of the process, if the VMA is one that it may collapse."""
    if collapse_possible(vma, vm_flags, False):
        khugepaged_enter(vma.vm_mm)
