# SPDX-License-Identifier: GPL-2.0-only
"""Guard regions: MADV_GUARD_INSTALL and MADV_GUARD_REMOVE (mm/madvise.c, mm/pagewalk.c; 7.2)."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import atomic_or, forget, load, load_range, store
from .huge_mm import vma_is_anonymous
from .huge_pmd import __split_huge_pmd
from .memory_zap import zap_page_range_single
from .mm_types import vm_area_struct
from .pagewalk import ACTION_AGAIN, walk_page_range_vma
from .pgtable import (
    PTE_MARKER_GUARD,
    make_pte_marker,
    pmd_addr_end,
    pmd_is_table,
    pmd_p,
    pmd_trans_huge,
    pte_marker,
    pte_p,
)
from .pgtable_generic import pte_alloc, pte_offset_map_lock, pte_unmap_unlock, walk_to_pmd
from .rmap import anon_vma_prepare
from .vm_flags import EINVAL, VM_HUGETLB, VM_LOCKED, VM_MAYBE_GUARD, VM_SPECIAL

MAX_MADVISE_GUARD_RETRIES: Final = 3
ERESTARTNOINTR: Final = 513


def guard_regions_supported() -> bool:
    """Whether there are guard regions."""
    return True


def is_valid_guard_vma(vma: vm_area_struct, allow_locked: bool) -> bool:
    """Whether the VMA may have guard regions; where they replace pages it must not be locked."""
    disallowed = VM_SPECIAL | VM_HUGETLB if allow_locked else VM_SPECIAL | VM_HUGETLB | VM_LOCKED
    return vma.vm_flags & disallowed == 0


def madvise_guard_install(vma: vm_area_struct, start: int, end: int) -> int:
    """Make every access to [start, end) kill; what is mapped there goes.  0, -EINVAL or, once more, -ERESTARTNOINTR."""
    if not is_valid_guard_vma(vma, False):
        return -EINVAL
    guard_prepare_vma(vma)
    for _ in range(MAX_MADVISE_GUARD_RETRIES):
        if guard_install_range(vma, start, end):
            return 0
        zap_page_range_single(vma, start, end - start, 0)
        forget(())
    return -ERESTARTNOINTR


def guard_prepare_vma(vma: vm_area_struct) -> None:
    """Before the first marker: fork has to copy the tables, and retraction to leave them alone.

    The flag is set atomically under a read lock: every other writer of vm_flags is excluded, and nobody clears it.
    """
    if vma.vm_flags & VM_MAYBE_GUARD == 0:
        atomic_or(vma, "vm_flags", VM_MAYBE_GUARD)
    if vma_is_anonymous(vma):
        anon_vma_prepare(vma)


def guard_install_range(vma: vm_area_struct, start: int, end: int) -> bool:
    """Put markers into all of [start, end), with the tables for them; false if a page is in the way."""
    addr = start
    while addr < end:
        next_ = pmd_addr_end(addr, end)
        if not guard_install_pmd(vma, walk_to_pmd(vma.vm_mm, addr), addr, next_):
            return False
        addr = next_
        forget((addr,))
    return True


def guard_install_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int) -> bool:
    """The same within one table."""
    mm = vma.vm_mm
    while True:
        pte_alloc(mm, pmd, addr)
        if pmd_trans_huge(load(pmd)):
            return False
        __split_huge_pmd(vma, pmd, addr)
        pte, ptl = pte_offset_map_lock(mm, pmd, addr)
        if pte:
            done = guard_install_ptes(pte, end - addr >> arch.page_shift)
            pte_unmap_unlock(pte, ptl)
            return done
        forget(())


def guard_install_ptes(pte: pte_p, nr: int) -> bool:
    """Put markers into none entries, up to one that is neither none nor a guard marker; whether there was none."""
    guard = make_pte_marker(PTE_MARKER_GUARD)
    for i, entry in enumerate(load_range(pte, nr)):
        if entry == 0:
            store(pte + i, guard)
        elif pte_marker(entry) & PTE_MARKER_GUARD == 0:
            return False
    return True


def madvise_guard_remove(vma: vm_area_struct, start: int, end: int) -> int:
    """Drop the guard markers in [start, end).  0 or -EINVAL."""
    if not is_valid_guard_vma(vma, True):
        return -EINVAL
    return walk_page_range_vma(vma, start, end, guard_remove_pmd, 0)


def guard_remove_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """Drop the markers of one table; a huge page has none."""
    pmdval = load(pmd)
    if pmd_trans_huge(pmdval):
        return 0
    if pmdval and not pmd_is_table(pmdval):
        __split_huge_pmd(vma, pmd, addr)
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return ACTION_AGAIN
    for i, entry in enumerate(load_range(pte, end - addr >> arch.page_shift)):
        if pte_marker(entry) & PTE_MARKER_GUARD:
            store(pte + i, 0)
    pte_unmap_unlock(pte, ptl)
    return 0
