# SPDX-License-Identifier: GPL-2.0-only
"""MADV_COLLAPSE and khugepaged (mm/khugepaged.c; 7.2).

`collapse_policy` says what may be collapsed, `collapse_huge_page` does it to anonymous memory, `collapse_file` and
`retract` to files and shared memory.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import down_read_trylock
from .collapse_file import collapse_scan_file
from .collapse_huge_page import collapse_scan_pmd
from .collapse_policy import collapse_possible, collapse_test_exit_or_disable, hugepage_vma_revalidate
from .collapse_policy import khugepaged_enter_vma as khugepaged_enter_vma
from .filemap import fput, get_file
from .huge_mm import vma_is_anonymous
from .mm_types import address_space, mm_struct, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_writeback import filemap_write_and_wait_range
from .retract import try_collapse_pte_mapped_thp
from .rmap import linear_page_index
from .scan_result import (
    GO_ON,
    SCAN_ANY_PROCESS,
    SCAN_FAIL,
    SCAN_PAGE_DIRTY_OR_WRITEBACK,
    SCAN_PMD_MAPPED,
    SCAN_PTE_MAPPED_HUGEPAGE,
    SCAN_SUCCEED,
    madvise_collapse_errno,
)
from .vm_flags import EINVAL
from .vma import find_vma


def collapse_single_pmd(vma: vm_area_struct, address: int, is_khugepaged: bool) -> tuple[int, bool]:
    """Collapse one huge page's worth of memory at the aligned `address`; mmap_lock is held for reading.

    Returns (scan result, whether mmap_lock was let go).
    """
    mm = vma.vm_mm
    if vma_is_anonymous(vma):
        return collapse_scan_pmd(mm, vma, address, is_khugepaged)
    f = vma.vm_file
    get_file(f)
    pgoff = linear_page_index(vma, address)
    mmap_read_unlock(mm)
    result = collapse_scan_file(mm, address, f.f_mapping, pgoff, is_khugepaged)
    if result == SCAN_PAGE_DIRTY_OR_WRITEBACK and not is_khugepaged:
        result = collapse_dirty_file(mm, address, f.f_mapping, pgoff)
    fput(f)
    if result == SCAN_PTE_MAPPED_HUGEPAGE:
        result = collapse_mapped_thp(mm, address, not is_khugepaged)
    return result, True


def collapse_dirty_file(mm: mm_struct, address: int, mapping: address_space, pgoff: int) -> int:
    """MADV_COLLAPSE met a page that is dirty: it writes all of them and looks once more.  Returns a scan result."""
    filemap_write_and_wait_range(mapping, pgoff, pgoff + arch.hpage_pmd_nr - 1)
    return collapse_scan_file(mm, address, mapping, pgoff, False)


def collapse_mapped_thp(mm: mm_struct, address: int, install_pmd: bool) -> int:
    """Let go of the table of a huge page that is in the cache already; no lock is held.  Returns a scan result."""
    mmap_read_lock(mm)
    if collapse_test_exit_or_disable(mm):
        result = SCAN_ANY_PROCESS
    else:
        result = try_collapse_pte_mapped_thp(mm, address, install_pmd)
    mmap_read_unlock(mm)
    return SCAN_SUCCEED if result == SCAN_PMD_MAPPED else result


def madvise_collapse(vma: vm_area_struct, start: int, end: int) -> int:
    """MADV_COLLAPSE of [start, end) in the VMA.  Returns 0 or -errno.

    mmap_lock is held for reading, also on return, but it may have been let go meanwhile: the VMA may be gone then.
    """
    if not collapse_possible(vma, vma.vm_flags, True):
        return -EINVAL
    mm = vma.vm_mm
    hstart = start + arch.pmd_size - 1 & -arch.pmd_size
    hend = end & -arch.pmd_size
    if hstart >= hend:
        return nothing_to_collapse(hstart, hend)
    failed = SCAN_FAIL
    thps = 0
    unlocked = False
    address = hstart
    while address < hend:
        if unlocked:
            mmap_read_lock(mm)
            unlocked = False
            result, vma = hugepage_vma_revalidate(mm, address, False, False)
            if result != SCAN_SUCCEED:
                failed = result
                break
            hend = min(hend, vma.vm_end & -arch.pmd_size)
        result, unlocked = collapse_single_pmd(vma, address, False)
        if result in (SCAN_SUCCEED, SCAN_PMD_MAPPED):
            thps += 1
        else:
            failed = result
            if not goes_on_after(mm, address, result):
                break
        address += arch.pmd_size
    if unlocked:
        mmap_read_lock(mm)
    return 0 if thps == hend - hstart >> arch.pmd_shift else madvise_collapse_errno(failed)


def nothing_to_collapse(hstart: int, hend: int) -> int:
    """What MADV_COLLAPSE returns for a range in which no huge page fits; its ends come rounded inwards."""
    return 0


def goes_on_after(mm: mm_struct, address: int, result: int) -> bool:
    """Whether MADV_COLLAPSE tries the huge pages behind `address` after that failure there."""
    return result in GO_ON


def khugepaged_scan_mm(mm: mm_struct) -> int:
    """One pass of khugepaged over the whole mm.  Returns the huge pages made."""
    collapsed = 0
    address = 0
    while True:
        address, result = khugepaged_scan_step(mm, address)
        if result == SCAN_SUCCEED:
            collapsed += 1
        if address < 0:
            return collapsed


def khugepaged_scan_step(mm: mm_struct, address: int) -> tuple[int, int]:
    """Scan from `address` until mmap_lock is let go: (address to go on at, scan result), or (-1, result) at the end."""
    if not down_read_trylock(mm.mmap_lock):
        return -1, SCAN_FAIL
    result = SCAN_FAIL
    vma = find_vma(mm, address)
    while vma and not collapse_test_exit_or_disable(mm):
        address = max(address, vma.vm_start + arch.pmd_size - 1 & -arch.pmd_size)
        if address + arch.pmd_size > vma.vm_end or not collapse_possible(vma, vma.vm_flags, False):
            address = vma.vm_end
            vma = find_vma(mm, address)
            continue
        result, unlocked = collapse_single_pmd(vma, address, True)
        address += arch.pmd_size
        if unlocked:
            return address, result
    mmap_read_unlock(mm)
    return -1, result
