# SPDX-License-Identifier: GPL-2.0-only
"""Memory that may be merged: advice, fork and exit, and taking merged pages apart (mm/ksm.c; 7.2).

`ksm_scan` is ksmd's passes, `ksm_merge` what it does with a page, `ksm_tree` what it knows.  Not modelled:
PR_SET_MEMORY_MERGE.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    add,
    forget,
    load,
    spin_lock,
    spin_unlock,
    store,
    xa_load,
    xa_store,
)
from .ksm_tree import ksm_state
from .memory import handle_mm_fault
from .mm_types import ksm_mm_slot, ksm_rmap_item, mm_struct, vm_area_struct
from .mmap_lock import (
    NO_VMA,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from .page_alloc import PAGE_CELLS, folio_get, folio_test_anon, folio_test_ksm
from .pagewalk import find_pmd
from .pgtable import (
    PRESENT,
    PROTNONE,
    SPECIAL,
    SWP_MIGRATION,
    mm_find_pmd,
    page_folio,
    page_t,
    pmd_p,
    pmd_page,
    pmd_trans_huge,
    pmdp_get_lockless,
    pte_index,
    pte_page,
    ptep_get,
    swp_type,
)
from .pgtable_generic import pmd_lock, pte_offset_map_lock, pte_unmap_unlock
from .rmap import NO_ANON_VMA, put_anon_vma
from .vm_flags import (
    FAULT_FLAG_REMOTE,
    FAULT_FLAG_UNSHARE,
    VM_DROPPABLE,
    VM_FAULT_ERROR,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_SHARED,
    VM_SPECIAL,
)
from .vma import vma_lookup


def ksm_test_exit(mm: mm_struct) -> bool:
    """Whether the process is going: its page tables may be gone."""
    return load(mm.mm_users) == 0


# --- advice ----------------------------------------------------------------------------------------------


def vma_ksm_compatible(vma: vm_area_struct) -> bool:
    """Whether pages of the VMA may be merged at all."""
    return vma.vm_flags & (VM_SHARED | VM_MAYSHARE | VM_DROPPABLE | VM_SPECIAL) == 0


def ksm_mergeable(vma: vm_area_struct) -> int:
    """MADV_MERGEABLE: the VMA's new flags, and ksmd knows of the mm."""
    if vma.vm_flags & VM_MERGEABLE or not vma_ksm_compatible(vma):
        return vma.vm_flags
    if not load(vma.vm_mm.ksm_mergeable):
        __ksm_enter(vma.vm_mm)
    return vma.vm_flags | VM_MERGEABLE


def ksm_unmergeable(vma: vm_area_struct, start: int, end: int) -> int:
    """MADV_UNMERGEABLE: no page of [start, end) is merged any more; the new flags."""
    if vma.vm_flags & VM_MERGEABLE and vma.anon_vma:
        break_ksm(vma, start, end, True)
    return vma.vm_flags & ~VM_MERGEABLE


# --- merged pages ----------------------------------------------------------------------------------------


def break_ksm(vma: vm_area_struct, addr: int, end: int, lock_vma: bool) -> None:
    """Give the VMA copies of its own of the merged pages in [addr, end); mmap_lock is held."""
    if lock_vma:
        vma_start_write(vma)
    addr = next_ksm_page(vma, addr, end)
    while addr < end:
        if handle_mm_fault(vma, addr, break_ksm_flags()) & VM_FAULT_ERROR:
            return
        addr = next_ksm_page(vma, addr, end)
        forget((addr,))


def break_ksm_flags() -> int:
    """What fault takes a merged page apart."""
    return FAULT_FLAG_UNSHARE | FAULT_FLAG_REMOTE


def next_ksm_page(vma: vm_area_struct, addr: int, end: int) -> int:
    """Address of the first merged page in [addr, end), or `end`."""
    while addr < end:
        pmd, next_ = find_pmd(vma, addr, end)
        found = break_ksm_pmd_entry(vma, pmd, addr, next_) if pmd else next_
        if found < next_:
            return found
        addr = next_
        forget((addr,))
    return end


def break_ksm_pmd_entry(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int) -> int:
    """The same in one table."""
    if ksm_test_exit(vma.vm_mm):
        return end
    start_pte, ptl = pte_offset_map_lock(vma.vm_mm, pmd, addr)
    if not start_pte:
        return end
    pte = start_pte
    while addr < end and not maps_ksm_page(ptep_get(pte)):
        pte += 1
        addr += arch.page_size
    pte_unmap_unlock(start_pte, ptl)
    return addr


def maps_ksm_page(entry: int) -> bool:
    """Whether an entry maps a merged page, or has one under migration."""
    if entry & (PRESENT | PROTNONE):
        return entry & SPECIAL == 0 and folio_test_ksm(page_folio(pte_page(entry)))
    return entry != 0 and swp_type(entry) == SWP_MIGRATION and folio_test_ksm(page_folio(pte_page(entry)))


def find_mergeable_vma(mm: mm_struct, addr: int) -> vm_area_struct:
    """The VMA at `addr` if its pages may be merged and it has any; mmap_lock is held."""
    if ksm_test_exit(mm):
        return NO_VMA
    vma = vma_lookup(mm, addr)
    return vma if vma and vma.vm_flags & VM_MERGEABLE and vma.anon_vma else NO_VMA


def break_cow(item: ksm_rmap_item) -> None:
    """Take apart what was merged a moment ago."""
    put_item_anon_vma(item)
    mm = item.mm
    mmap_read_lock(mm)
    vma = find_mergeable_vma(mm, item.address)
    if vma:
        break_ksm(vma, item.address, item.address + arch.page_size, False)
    mmap_read_unlock(mm)


def put_item_anon_vma(item: ksm_rmap_item) -> None:
    """The item maps no page of KSM after all."""
    put_anon_vma(item.anon_vma)
    item.anon_vma = NO_ANON_VMA


def get_mergeable_page(item: ksm_rmap_item) -> page_t:
    """The anonymous page at the item's address, with a reference; 0 if there is none, or it may not be merged."""
    mm = item.mm
    mmap_read_lock(mm)
    vma = find_mergeable_vma(mm, item.address)
    page = anon_page_at(vma, item.address) if vma else 0
    mmap_read_unlock(mm)
    return page


def anon_page_at(vma: vm_area_struct, addr: int) -> page_t:
    """The anonymous page that is mapped at `addr`, with a reference, or 0 (folio_walk_start)."""
    pmd = mm_find_pmd(vma.vm_mm, addr)
    if not pmd:
        return 0
    _, page = next_anon_page_pmd(vma, pmd, addr, addr + arch.page_size)
    return page


def next_anon_page_pmd(vma: vm_area_struct, pmd: pmd_p, addr: int, end: int) -> tuple[int, page_t]:
    """(address, page) of the first anonymous page in [addr, end) of one table, with a reference; or (end, 0)."""
    mm = vma.vm_mm
    if pmd_trans_huge(pmdp_get_lockless(pmd)):
        pml = pmd_lock(mm, pmd, addr)
        pmdval = pmdp_get_lockless(pmd)
        huge = pmd_trans_huge(pmdval)
        page = 0
        if huge and pmdval & SPECIAL == 0 and folio_test_anon(page_folio(pmd_page(pmdval))):
            page = pmd_page(pmdval) + PAGE_CELLS * pte_index(addr)
            folio_get(page_folio(page))
        spin_unlock(pml)
        if huge:
            return (addr, page) if page else (end, 0)
    start_pte, ptl = pte_offset_map_lock(mm, pmd, addr)
    if not start_pte:
        return end, 0
    pte = start_pte
    page = 0
    while addr < end:
        page = anon_page_of(ptep_get(pte))
        if page:
            folio_get(page_folio(page))
            break
        pte += 1
        addr += arch.page_size
    pte_unmap_unlock(start_pte, ptl)
    return addr, page


def anon_page_of(entry: int) -> page_t:
    """The anonymous page that an entry maps, or 0."""
    if entry & (PRESENT | PROTNONE) == 0 or entry & SPECIAL:
        return 0
    page = pte_page(entry)
    return page if folio_test_anon(page_folio(page)) else 0


# --- mms that ksmd scans ---------------------------------------------------------------------------------


def __ksm_enter(mm: mm_struct) -> None:
    """Let ksmd scan the mm, as the last before its cursor."""
    scan = ksm_state()
    slot: ksm_mm_slot = ksm_mm_slot.alloc()
    slot.ksm = scan
    slot.mm = mm
    add(mm.mm_count, 1)
    spin_lock(scan.ksm_mmlist_lock)
    xa_store(scan.mm_slots_hash, mm.addr, slot.addr)
    list_insert(slot, scan.mm_slot)
    spin_unlock(scan.ksm_mmlist_lock)
    store(mm.ksm_mergeable, 1)


def list_insert(slot: ksm_mm_slot, after: ksm_mm_slot) -> None:
    """Put a slot before `after`."""
    before = after.prev
    slot.prev = before
    slot.next = after
    after.prev = slot
    WRITE_ONCE(before, "next", slot)


def list_del(slot: ksm_mm_slot) -> None:
    """Take a slot out."""
    after = slot.next
    after.prev = slot.prev
    WRITE_ONCE(slot.prev, "next", after)


def ksm_fork(mm: mm_struct, oldmm: mm_struct) -> None:
    """A child of an mm that ksmd scans is scanned too."""
    if load(oldmm.ksm_mergeable):
        __ksm_enter(mm)


def ksm_exit(mm: mm_struct) -> None:
    """The mm goes.  If ksmd has items of it, or is at it, it is left to ksmd, which must not be taking pages apart."""
    if not load(mm.ksm_mergeable):
        return
    scan = ksm_state()
    spin_lock(scan.ksm_mmlist_lock)
    slot = ksm_mm_slot(xa_load(scan.mm_slots_hash, mm.addr))
    easy_to_free = False
    if slot and scan.mm_slot != slot:
        list_del(slot)
        if READ_ONCE(slot, "rmap_list"):
            list_insert(slot, READ_ONCE(scan.mm_slot, "next"))
        else:
            xa_store(scan.mm_slots_hash, mm.addr, 0)
            easy_to_free = True
    spin_unlock(scan.ksm_mmlist_lock)
    if easy_to_free:
        slot.free()
        store(mm.ksm_mergeable, 0)
        add(mm.mm_count, -1)
    elif slot:
        mmap_write_lock(mm)
        mmap_write_unlock(mm)
