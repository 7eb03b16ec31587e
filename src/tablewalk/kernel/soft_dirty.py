# SPDX-License-Identifier: GPL-2.0-only
"""Which pages were written since a program last asked (mm/internal.h, mm/mremap.c, clear_refs_write; 7.2).

Software sets SOFT_DIRTY wherever it makes an entry dirty; new VMAs have VM_SOFTDIRTY, which says it of all their pages.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import WRITE_ONCE, add, load, load_range, mt_values, spin_unlock, store
from .config import config
from .huge_pmd import pmd_trans_huge_lock
from .memory_copy import is_cow_mapping
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from .mmu_notifier import (
    __mmu_notifier_invalidate_range_end,
    __mmu_notifier_invalidate_range_start,
    mm_has_notifiers,
)
from .not_modelled import NotModelled
from .page_alloc import folio_maybe_dma_pinned
from .pagewalk import ACTION_AGAIN, walk_page_range_vma
from .pgtable import (
    PRESENT,
    PROTNONE,
    RW,
    SOFT_DIRTY,
    SPECIAL,
    page_folio,
    pmd_p,
    pmd_present,
    pmdp_invalidate,
    pte_p,
    pte_page,
    ptep_get_and_clear,
    vma_set_page_prot,
)
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .tlb import flush_tlb_mm
from .vm_flags import EINVAL, VM_PFNMAP, VM_SOFTDIRTY

CLEAR_REFS_ALL: Final = 1
CLEAR_REFS_SOFT_DIRTY: Final = 4
CLEAR_REFS_LAST: Final = 6


def clear_refs_write(mm: mm_struct, kind: int) -> int:
    """Writing a number to /proc/PID/clear_refs: 4 begins to track writes anew; 0 or -errno."""
    if kind < CLEAR_REFS_ALL or kind >= CLEAR_REFS_LAST:
        return -EINVAL
    if kind != CLEAR_REFS_SOFT_DIRTY:
        raise NotModelled("clear_refs of referenced pages")
    mmap_write_lock(mm)
    vmas = tuple([vm_area_struct(found) for found in mt_values(mm.mm_mt)])
    for vma in vmas:
        if vma.vm_flags & VM_SOFTDIRTY:
            vma_start_write(vma)
            WRITE_ONCE(vma, "vm_flags", vma.vm_flags & ~VM_SOFTDIRTY)
            vma_set_page_prot(vma)
    add(mm.tlb_flush_pending, 1)
    if mm_has_notifiers(mm):
        __mmu_notifier_invalidate_range_start(mm, 0, arch.task_size)
    for vma in vmas:
        if vma.vm_flags & VM_PFNMAP == 0:
            vma_start_write(vma)
            walk_page_range_vma(vma, vma.vm_start, vma.vm_end, clear_refs_pte_range, 0)
    if mm_has_notifiers(mm):
        __mmu_notifier_invalidate_range_end(mm, 0, arch.task_size)
    flush_tlb_mm(mm)
    add(mm.tlb_flush_pending, -1)
    mmap_write_unlock(mm)
    return 0


def clear_refs_pte_range(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, private: int) -> int:
    """A huge page, or the entries of a table."""
    if not config.soft_dirty:
        return 0
    pml = pmd_trans_huge_lock(vma.vm_mm, pmd, addr)
    if pml:
        clear_soft_dirty_pmd(pmd)
        spin_unlock(pml)
        return 0
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return ACTION_AGAIN
    for i, entry in enumerate(load_range(pte, end - addr >> arch.page_shift)):
        if entry:
            clear_soft_dirty(vma, pte + i, entry)
    pte_unmap_unlock(pte, ptl)
    return 0


def clear_soft_dirty(vma: vm_area_struct, pte: pte_p, entry: int) -> None:
    """Take the bit, and the right to write, from an entry: the next write faults.  Under ptl."""
    if entry & (PRESENT | PROTNONE) == 0:
        store(pte, entry & ~SOFT_DIRTY)
    elif not pte_is_pinned(vma, entry):
        store(pte, ptep_get_and_clear(pte) & ~(RW | SOFT_DIRTY))


def pte_is_pinned(vma: vm_area_struct, entry: int) -> bool:
    """Whether a page may be pinned, so that a write must not copy it."""
    return (
        is_cow_mapping(vma.vm_flags) and entry & SPECIAL == 0 and folio_maybe_dma_pinned(page_folio(pte_page(entry)))
    )


def clear_soft_dirty_pmd(pmd: pmd_p) -> None:
    """The same of a huge page.  Under pml."""
    pmdval = load(pmd)
    if pmd_present(pmdval):
        pmdval = pmdp_invalidate(pmd) & ~RW
    store(pmd, pmdval & ~SOFT_DIRTY)
