# SPDX-License-Identifier: GPL-2.0-only
"""Moving page tables within an mm (move_page_tables in mm/mremap.c; 7.2).

mmap_lock is held for writing and both VMAs are write-locked, so no fault and no other writer of tables is about;
rmap walks and the retraction of file tables are, hence the rmap locks and the looks under the locks.  Invariant: a
walk by rmap sees each page at the old or at the new place.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import down_write, forget, load, load_range, spin_lock, spin_lock_nested, spin_unlock, store, up_write
from .huge_memory import move_huge_pmd
from .huge_pmd import __split_huge_pmd
from .mm_types import mm_struct, vm_area_struct
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .pgtable import (
    PRESENT,
    PROTNONE,
    UFFD_WP,
    move_soft_dirty,
    p4d_offset,
    pgd_offset,
    pmd_clear,
    pmd_is_table,
    pmd_offset,
    pmd_p,
    pmd_pgtable,
    pmd_populate,
    pte_p,
    ptep_get_and_clear,
    pud_offset,
)
from .pgtable_generic import (
    p4d_alloc,
    pmd_alloc,
    pmd_lock,
    pmd_lockptr,
    pte_alloc,
    pte_offset_map_lock,
    pte_offset_map_rw_nolock,
    pte_unmap,
    pte_unmap_unlock,
    pud_alloc,
)
from .rmap import anon_vma_lock_write, anon_vma_unlock_write
from .tlb import flush_tlb_range
from .userfaultfd_k import pte_is_uffd_wp_marker, vma_has_uffd_without_event_remap
from .vma import find_vma


def move_page_tables(
    old: vm_area_struct, new: vm_area_struct, old_addr: int, new_addr: int, length: int, need_rmap_locks: bool
) -> None:
    """Move what maps [old_addr, old_addr + length) bytes to new_addr; tables are never short, so all of it."""
    old_end = old_addr + length
    if can_realign_addr(old, new, old_addr, new_addr, length):
        old_addr &= -arch.pmd_size
        new_addr &= -arch.pmd_size
    start = old_addr
    mmu_notifier_invalidate_range_start(old, start, old_end)
    while old_addr < old_end:
        extent = move_extent(old, new, old_addr, new_addr, old_end, need_rmap_locks)
        old_addr += extent
        new_addr += extent
        forget((old_addr, new_addr))
    mmu_notifier_invalidate_range_end(old, start, old_end)


def can_realign_addr(old: vm_area_struct, new: vm_area_struct, old_addr: int, new_addr: int, length: int) -> bool:
    """Whether the move may begin below both VMAs, at a table's boundary, so that the first table moves whole."""
    offset = old_addr & arch.pmd_size - 1
    return (
        length > 0
        and length >= arch.pmd_size - offset
        and offset != 0
        and offset == new_addr & arch.pmd_size - 1
        and can_align_down(old, old_addr)
        and can_align_down(new, new_addr)
    )


def can_align_down(vma: vm_area_struct, addr: int) -> bool:
    """Whether the VMA begins at `addr` and nothing is mapped below it in the same PTE table."""
    if vma.vm_start != addr:
        return False
    below = find_vma(vma.vm_mm, addr & -arch.pmd_size)
    return not below or below.vm_start >= addr


def get_extent(size: int, old_addr: int, new_addr: int, old_end: int) -> int:
    """Bytes to the next boundary of `size` on either side, or to the end."""
    return min(size - (old_addr & size - 1), size - (new_addr & size - 1), old_end - old_addr)


def move_extent(
    old: vm_area_struct, new: vm_area_struct, old_addr: int, new_addr: int, old_end: int, need_rmap_locks: bool
) -> int:
    """Move as much as one entry of some level covers; returns the bytes done.

    The upper tables of the new place are allocated before the old PMD entry is looked at, even for nothing.
    """
    mm = old.vm_mm
    extent = get_extent(arch.pud_size, old_addr, new_addr, old_end)
    old_pud = get_old_pud(mm, old_addr)
    if not old_pud:
        return extent
    new_pud = alloc_new_pud(mm, new_addr)
    if extent == arch.pud_size and move_pud(old, new, old_addr, old_pud, new_pud):
        return extent
    extent = get_extent(arch.pmd_size, old_addr, new_addr, old_end)
    old_pmd = pmd_offset(old_pud, old_addr)
    if load(old_pmd) == 0:
        return extent
    new_pmd = pmd_alloc(mm, new_pud, new_addr)
    while not move_pmd_extent(old, new, old_addr, new_addr, old_pmd, new_pmd, extent, need_rmap_locks):
        forget(())
    return extent


def get_old_pud(mm: mm_struct, addr: int) -> int:
    """Address of a PUD entry that points to a table, or 0."""
    pgd = pgd_offset(mm, addr)
    if load(pgd) == 0:
        return 0
    p4d = p4d_offset(pgd, addr)
    if load(p4d) == 0:
        return 0
    pud = pud_offset(p4d, addr)
    return pud if load(pud) else 0


def alloc_new_pud(mm: mm_struct, addr: int) -> int:
    """Address of the PUD entry, the tables above it allocated."""
    return pud_alloc(mm, p4d_alloc(mm, pgd_offset(mm, addr), addr), addr)


def move_pmd_extent(
    old: vm_area_struct,
    new: vm_area_struct,
    old_addr: int,
    new_addr: int,
    old_pmd: pmd_p,
    new_pmd: pmd_p,
    extent: int,
    need_rmap_locks: bool,
) -> bool:
    """Move a huge page, a whole table, or entries; false to look at the old PMD entry again."""
    pmdval = load(old_pmd)
    if pmdval != 0 and not pmd_is_table(pmdval):
        if extent == arch.pmd_size and move_huge(old, old_addr, new_addr, old_pmd, new_pmd, need_rmap_locks):
            return True
        __split_huge_pmd(old, old_pmd, old_addr)
    elif extent == arch.pmd_size and move_pmd(old, new, old_addr, new_addr, old_pmd, new_pmd):
        return True
    if load(old_pmd) == 0:
        return True
    pte_alloc(new.vm_mm, new_pmd, new_addr)
    if need_rmap_locks:
        take_rmap_locks(old)
    moved = move_ptes(old, old_addr, new_addr, old_pmd, new_pmd, extent)
    if need_rmap_locks:
        drop_rmap_locks(old)
    return moved


def take_rmap_locks(vma: vm_area_struct) -> None:
    """Keep every walk by rmap out of the VMA."""
    if vma.vm_file:
        down_write(vma.vm_file.f_mapping.i_mmap_rwsem)
    if vma.anon_vma:
        anon_vma_lock_write(vma.anon_vma)


def drop_rmap_locks(vma: vm_area_struct) -> None:
    """Release what take_rmap_locks took."""
    if vma.anon_vma:
        anon_vma_unlock_write(vma.anon_vma)
    if vma.vm_file:
        up_write(vma.vm_file.f_mapping.i_mmap_rwsem)


def page_table_move_supported(old: vm_area_struct, new: vm_area_struct) -> bool:
    """Whether whole tables may move: uffd-wp bits that have to go are found only entry by entry.

    HAVE_MOVE_PMD goes with HAVE_MOVE_PUD on every architecture.
    """
    return (
        arch.has_move_pud
        and not vma_has_uffd_without_event_remap(old)
        and not vma_has_uffd_without_event_remap(new)
    )


def move_pud(old: vm_area_struct, new: vm_area_struct, old_addr: int, old_pud: int, new_pud: int) -> bool:
    """Move a PMD table with all below it, under the rmap locks; whether it was done."""
    if arch.pmd_bits == 0 or not page_table_move_supported(old, new):
        return False
    take_rmap_locks(old)
    moved = move_normal_pud(old, old_addr, old_pud, new_pud)
    drop_rmap_locks(old)
    return moved


def move_normal_pud(vma: vm_area_struct, old_addr: int, old_pud: int, new_pud: int) -> bool:
    """Move a PUD entry to an empty slot; whether it was done."""
    if load(new_pud) != 0:
        return False
    mm = vma.vm_mm
    spin_lock(mm.page_table_lock)
    pud = load(old_pud)
    store(old_pud, 0)
    store(new_pud, pud)
    flush_tlb_range(mm, old_addr, old_addr + arch.pud_size)
    spin_unlock(mm.page_table_lock)
    return True


def move_pmd(
    old: vm_area_struct, new: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p
) -> bool:
    """Move a PTE table, under the rmap locks; whether it was done."""
    if not page_table_move_supported(old, new):
        return False
    take_rmap_locks(old)
    moved = move_normal_pmd(old, old_addr, new_addr, old_pmd, new_pmd)
    drop_rmap_locks(old)
    return moved


def move_normal_pmd(vma: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p) -> bool:
    """Move a PMD entry to an empty slot, if under both locks it still is a table; whether it was done."""
    if load(new_pmd) != 0:
        return False
    mm = vma.vm_mm
    old_ptl = pmd_lock(mm, old_pmd, old_addr)
    new_ptl = pmd_lockptr(mm, new_pmd, new_addr)
    if new_ptl != old_ptl:
        spin_lock_nested(new_ptl)
    pmdval = load(old_pmd)
    moved = pmd_is_table(pmdval)
    if moved:
        pmd_clear(old_pmd)
        pmd_populate(new_pmd, pmd_pgtable(pmdval))
        flush_tlb_range(mm, old_addr, old_addr + arch.pmd_size)
    if new_ptl != old_ptl:
        spin_unlock(new_ptl)
    spin_unlock(old_ptl)
    return moved


def move_huge(
    vma: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p, need_rmap_locks: bool
) -> bool:
    """Move a huge page with what is deposited for it; whether it was done."""
    if need_rmap_locks:
        take_rmap_locks(vma)
    moved = move_huge_pmd(vma, old_addr, new_addr, old_pmd, new_pmd)
    if need_rmap_locks:
        drop_rmap_locks(vma)
    return moved


def move_ptes(
    vma: vm_area_struct, old_addr: int, new_addr: int, old_pmd: pmd_p, new_pmd: pmd_p, extent: int
) -> bool:
    """Move the entries of `extent` bytes between two tables; false (-EAGAIN) if one of them is not there.

    The old range is flushed before either lock is dropped: one who unmaps the new place flushes that only.
    """
    mm = vma.vm_mm
    old_pte, old_ptl = pte_offset_map_lock(mm, old_pmd, old_addr)
    if not old_pte:
        return False
    new_pte, _, new_ptl = pte_offset_map_rw_nolock(mm, new_pmd, new_addr)
    if not new_pte:
        pte_unmap_unlock(old_pte, old_ptl)
        return False
    if new_ptl != old_ptl:
        spin_lock_nested(new_ptl)
    if move_entries(vma, old_pte, new_pte, extent >> arch.page_shift):
        flush_tlb_range(mm, old_addr, old_addr + extent)
    if new_ptl != old_ptl:
        spin_unlock(new_ptl)
    pte_unmap(new_pte)
    pte_unmap_unlock(old_pte, old_ptl)
    return True


def move_entries(vma: vm_area_struct, old_pte: pte_p, new_pte: pte_p, nr: int) -> bool:
    """Move `nr` entries, under both locks; whether a present one was among them."""
    present = False
    clear_uffd_wp = vma_has_uffd_without_event_remap(vma)
    for i, seen in enumerate(load_range(old_pte, nr)):
        if seen == 0:
            continue
        if seen & (PRESENT | PROTNONE):
            present = True
        entry = move_soft_dirty(ptep_get_and_clear(old_pte + i))
        if clear_uffd_wp:
            entry = 0 if pte_is_uffd_wp_marker(entry) else entry & ~UFFD_WP
        store(new_pte + i, entry)
    return present
