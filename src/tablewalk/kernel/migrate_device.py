# SPDX-License-Identifier: GPL-2.0-only
"""Migration that a driver asks for, to the memory of its device or from there (mm/migrate_device.c; 7.2).

Small anonymous pages only.  The device's memory is like any other here: its pages are mapped.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import mutex_lock, mutex_trylock, mutex_unlock, up_read
from .migrate import move_to_new_folio
from .mm_types import folio, vm_area_struct
from .mmu_notifier import mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start
from .page_alloc import folio_alloc, folio_get, folio_mapcount, folio_page, folio_put, folio_test_anon, folio_test_ksm
from .pagewalk import gather_page_range
from .pgtable import PRESENT, SPECIAL, page_folio, pmd_is_table, pmd_p, pmdp_get_lockless, pte_p, pte_page, ptep_get
from .pgtable_generic import pte_offset_map_lock, pte_unmap_unlock
from .rmap import folio_remove_rmap_pte
from .rmap_walk import remove_migration_ptes, rmap_lock_read, try_to_migrate, unmap_page
from .tlb import flush_tlb_range


def migrate_vma(vma: vm_area_struct, start: int, end: int) -> int:
    """Move the pages of [start, end) that nobody else has locked; how many were moved.

    migrate_vma_setup(), _pages() and _finalize().  mmap_lock is held for reading.
    """
    return sum([migrate_device_folio(f) for f in migrate_vma_collect(vma, start, end)])


def migrate_vma_collect(vma: vm_area_struct, start: int, end: int) -> tuple[folio, ...]:
    """Lock the folios of the range, with a reference, and let migration entries take their place."""
    found: tuple[folio, ...] = ()
    mmu_notifier_invalidate_range_start(vma, start, end)
    found = gather_page_range(vma, start, end, migrate_vma_collect_pmd, migrate_vma_collect_hole, found)
    mmu_notifier_invalidate_range_end(vma, start, end)
    return found


def migrate_vma_collect_hole(vma: vm_area_struct, addr: int, end: int, found: tuple[folio, ...]) -> tuple[folio, ...]:
    """Where there is nothing, nothing is added."""
    return found


def migrate_vma_collect_pmd(
    vma: vm_area_struct, pmd: pmd_p, addr: int, end: int, found: tuple[folio, ...]
) -> tuple[folio, ...] | None:
    """What one table adds: nothing if there is a huge page.  None to look again, since the table went away."""
    if not pmd_is_table(pmdp_get_lockless(pmd)):
        return found
    pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not pte:
        return None
    added = migrate_vma_collect_ptes(vma, pte, end - addr >> arch.page_shift)
    if added:
        flush_tlb_range(vma.vm_mm, addr, end, freed_tables=False)
    pte_unmap_unlock(pte, ptl)
    return found + added


def migrate_vma_collect_ptes(vma: vm_area_struct, pte: pte_p, nr: int) -> tuple[folio, ...]:
    """The same of `nr` entries, under ptl."""
    found: tuple[folio, ...] = ()
    for i in range(nr):
        entry = ptep_get(pte + i)
        if entry & PRESENT == 0 or entry & SPECIAL:
            continue
        f = page_folio(pte_page(entry))
        if f.order or not folio_test_anon(f) or folio_test_ksm(f) or not mutex_trylock(f.lock):
            continue
        folio_get(f)
        if unmap_page(f, vma, pte + i, migrate=True):
            folio_remove_rmap_pte(f, pte_page(entry), vma)
            folio_put(f)
            found += (f,)
        else:
            mutex_unlock(f.lock)
            folio_put(f)
    return found


def migrate_device_folio(src: folio) -> bool:
    """Let a new folio take the place of one that was collected, or map it again; whether it has moved."""
    dst = folio_alloc(0)
    mutex_lock(dst.lock)
    moved = (folio_mapcount(src) == 0 or try_to_migrate(src)) and move_to_new_folio(dst, src)
    sem = rmap_lock_read(src)
    remove_migration_ptes(src, (folio_page(dst if moved else src, 0),))
    up_read(sem)
    mutex_unlock(dst.lock)
    folio_put(dst)
    mutex_unlock(src.lock)
    folio_put(src)
    return moved
