# SPDX-License-Identifier: GPL-2.0-only
"""ksmd: passes over all memory that may be merged (mm/ksm.c; 7.2).

How many pages ksmd looks at before it sleeps does not matter here: `ksmd_pass` is a whole pass.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    forget,
    mutex_lock,
    mutex_unlock,
    publish,
    rb_init,
    spin_lock,
    spin_unlock,
    store,
    xa_store,
)
from .ksm import ksm_test_exit, list_del, next_anon_page_pmd
from .ksm_merge import cmp_and_merge_page
from .ksm_tree import NO_ITEM, ksm_state, remove_rmap_item_from_tree
from .mlock_folio import mlock_batch_begin, mlock_batch_end
from .mm_init import mmdrop
from .mm_types import folio, ksm_mm_slot, ksm_rmap_item, ksm_scan, vm_area_struct
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .page_alloc import folio_put, folio_test_ksm
from .pagewalk import find_pmd
from .pgtable import page_folio, page_t
from .vm_flags import VM_MERGEABLE
from .vma import find_vma

U8_MAX: Final = 255


def ksmd_pass() -> int:
    """What ksmd does from the beginning of a pass to its end: how many pages it has looked at."""
    scan = ksm_state()
    mutex_lock(scan.ksm_thread_mutex)
    mlock_batch_begin()
    pages = 0
    while True:
        item, page = scan_get_next_rmap_item(scan)
        if not item:
            break
        page = cmp_and_merge_page(page, item)
        folio_put(page_folio(page))
        pages += 1
        forget((pages,))
    mlock_batch_end()
    mutex_unlock(scan.ksm_thread_mutex)
    return pages


def scan_get_next_rmap_item(scan: ksm_scan) -> tuple[ksm_rmap_item, page_t]:
    """The next page that may be merged, with a reference, and its item; or (NULL, 0) at the end of the pass."""
    head = scan.ksm_mm_head
    slot: ksm_mm_slot = READ_ONCE(scan, "mm_slot")
    if slot == head:
        slot = begin_pass(scan)
        if slot == head:
            return NO_ITEM, 0
    while slot != head:
        item, page = scan_mm(scan, slot)
        if item:
            return item, page
        slot = READ_ONCE(scan, "mm_slot")
        scan.address = 0
        scan.rmap_prev = NO_ITEM
        forget((slot,))
    scan.seqnr += 1
    return NO_ITEM, 0


def begin_pass(scan: ksm_scan) -> ksm_mm_slot:
    """Forget the unstable tree; the first mm of all, or the list's head if there is none."""
    rb_init(scan.root_unstable_tree)
    spin_lock(scan.ksm_mmlist_lock)
    slot: ksm_mm_slot = scan.ksm_mm_head.next
    WRITE_ONCE(scan, "mm_slot", slot)
    spin_unlock(scan.ksm_mmlist_lock)
    scan.address = 0
    scan.rmap_prev = NO_ITEM
    return slot


def scan_mm(scan: ksm_scan, slot: ksm_mm_slot) -> tuple[ksm_rmap_item, page_t]:
    """The next page of an mm; (NULL, 0) if there is no more, and then the cursor is at the next mm."""
    mm = slot.mm
    mmap_read_lock(mm)
    if not ksm_test_exit(mm):
        item, page = scan_vmas(scan, slot)
        if item:
            mmap_read_unlock(mm)
            return item, page
    if ksm_test_exit(mm):
        scan.address = 0
        scan.rmap_prev = NO_ITEM
    remove_trailing_rmap_items(slot, scan.rmap_prev)
    spin_lock(scan.ksm_mmlist_lock)
    WRITE_ONCE(scan, "mm_slot", slot.next)
    if scan.address == 0:
        xa_store(scan.mm_slots_hash, mm.addr, 0)
        list_del(slot)
        spin_unlock(scan.ksm_mmlist_lock)
        slot.free()
        store(mm.ksm_mergeable, 0)
        mmap_read_unlock(mm)
        mmdrop(mm)
    else:
        mmap_read_unlock(mm)
        spin_unlock(scan.ksm_mmlist_lock)
    return NO_ITEM, 0


def scan_vmas(scan: ksm_scan, slot: ksm_mm_slot) -> tuple[ksm_rmap_item, page_t]:
    """The next page of the VMAs from the cursor on; mmap_lock is held."""
    vma = find_vma(slot.mm, scan.address)
    while vma:
        if vma.vm_flags & VM_MERGEABLE:
            scan.address = max(scan.address, vma.vm_start)
            if not vma.anon_vma:
                scan.address = vma.vm_end
            item, page = scan_vma(scan, slot, vma)
            if item:
                return item, page
        vma = find_vma(slot.mm, vma.vm_end)
        forget((vma,))
    return NO_ITEM, 0


def scan_vma(scan: ksm_scan, slot: ksm_mm_slot, vma: vm_area_struct) -> tuple[ksm_rmap_item, page_t]:
    """The next page of a VMA; the cursor goes behind it."""
    while scan.address < vma.vm_end and not ksm_test_exit(slot.mm):
        scan.address, page = ksm_next_page(vma, scan.address)
        if not page:
            break
        item = get_next_rmap_item(scan, slot)
        scan.rmap_prev = item
        scan.address += arch.page_size
        if not should_skip_rmap_item(page_folio(page), item):
            return item, page
        folio_put(page_folio(page))
        forget(())
    return NO_ITEM, 0


def ksm_next_page(vma: vm_area_struct, addr: int) -> tuple[int, page_t]:
    """(address, page) of the VMA's first anonymous page from `addr` on, with a reference; or (its end, 0)."""
    while addr < vma.vm_end:
        pmd, next_ = find_pmd(vma, addr, vma.vm_end)
        at, page = next_anon_page_pmd(vma, pmd, addr, next_) if pmd else (next_, 0)
        if page:
            return at, page
        addr = next_
        forget((addr,))
    return addr, 0


# --- items of an mm, by address --------------------------------------------------------------------------


def next_rmap_item(slot: ksm_mm_slot, before: ksm_rmap_item) -> ksm_rmap_item:
    """The item behind `before` (NULL: the first), or NULL."""
    return before.rmap_list if before else slot.rmap_list


def set_next_rmap_item(slot: ksm_mm_slot, before: ksm_rmap_item, item: ksm_rmap_item) -> None:
    """Let `item` be behind `before` (NULL: the first)."""
    if before:
        before.rmap_list = item
    else:
        WRITE_ONCE(slot, "rmap_list", item)


def get_next_rmap_item(scan: ksm_scan, slot: ksm_mm_slot) -> ksm_rmap_item:
    """The item of the address at the cursor; those of addresses that were passed over without a page go."""
    addr = scan.address
    item = next_rmap_item(slot, scan.rmap_prev)
    while item and item.address <= addr:
        if item.address == addr:
            return item
        item = free_rmap_item(slot, scan.rmap_prev, item)
        forget((item,))
    new: ksm_rmap_item = ksm_rmap_item.alloc()
    new.ksm = scan
    new.mm = slot.mm
    new.address = addr
    new.rmap_list = item
    publish(new.addr)
    set_next_rmap_item(slot, scan.rmap_prev, new)
    return new


def remove_trailing_rmap_items(slot: ksm_mm_slot, before: ksm_rmap_item) -> None:
    """Free all items behind `before` (NULL: all)."""
    item = next_rmap_item(slot, before)
    while item:
        item = free_rmap_item(slot, before, item)
        forget((item,))


def free_rmap_item(slot: ksm_mm_slot, before: ksm_rmap_item, item: ksm_rmap_item) -> ksm_rmap_item:
    """Free an item that is behind `before`; the one that is there now."""
    after = item.rmap_list
    set_next_rmap_item(slot, before, after)
    remove_rmap_item_from_tree(item)
    item.free()
    return after


# --- smart scan ------------------------------------------------------------------------------------------


def skip_age(age: int) -> int:
    """How many passes leave a page out that was not merged in `age` passes."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    return 4 if age <= 8 else 8


def should_skip_rmap_item(f: folio, item: ksm_rmap_item) -> bool:
    """Whether this pass leaves the page out, since earlier ones found nothing to merge it with (smart_scan)."""
    if folio_test_ksm(f):
        return False
    age = item.age
    if age != U8_MAX:
        item.age = age + 1
    if age < 3:
        return False
    if not item.remaining_skips:
        item.remaining_skips = skip_age(age)
        return False
    item.remaining_skips -= 1
    remove_rmap_item_from_tree(item)
    return True
