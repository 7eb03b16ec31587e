# SPDX-License-Identifier: GPL-2.0-only
"""mmap_lock and the per-VMA locks (include/linux/mmap_lock.h, mm/mmap_lock.c; 7.2).

A VMA is write-locked while its vm_lock_seq equals its mm's mm_lock_seq, which moves on when mmap_lock is released
for writing.  vm_refcnt is 0 for a detached VMA, 1 when attached, and one more for each reader.
"""

from __future__ import annotations

from typing import Final

from ..machine import (
    READ_ONCE,
    WRITE_ONCE,
    add,
    down_read,
    down_write,
    down_write_nested,
    down_write_trylock,
    downgrade_write,
    inc_not_zero_limited,
    load,
    lock_map_acquire,
    lock_map_acquire_read,
    lock_map_release,
    lock_map_release_writes,
    lock_map_tryacquire,
    mt_find,
    mtree_load,
    rcu_read_lock,
    rcu_read_unlock,
    store,
    up_read,
    up_write,
    wait_until,
)
from .mm_types import mm_struct, vm_area_struct

VM_REFCNT_EXCLUDE_READERS: Final = 1 << 30
NO_VMA: Final = vm_area_struct(0)


def mmap_read_lock(mm: mm_struct) -> None:
    """Take mmap_lock shared."""
    down_read(mm.mmap_lock)


def mmap_read_unlock(mm: mm_struct) -> None:
    """Release it."""
    up_read(mm.mmap_lock)


def mmap_write_lock(mm: mm_struct) -> None:
    """Take mmap_lock exclusively: mm_lock_seq goes odd."""
    down_write(mm.mmap_lock)
    WRITE_ONCE(mm, "mm_lock_seq", mm.mm_lock_seq + 1)


def mmap_write_lock_nested(mm: mm_struct) -> None:
    """The same for a child's mm inside its parent's."""
    down_write_nested(mm.mmap_lock)
    WRITE_ONCE(mm, "mm_lock_seq", mm.mm_lock_seq + 1)


def mmap_write_trylock(mm: mm_struct) -> bool:
    """Take mmap_lock exclusively if it is free; whether it was."""
    if not down_write_trylock(mm.mmap_lock):
        return False
    WRITE_ONCE(mm, "mm_lock_seq", mm.mm_lock_seq + 1)
    return True


def vma_end_write_all(mm: mm_struct) -> None:
    """End every VMA write lock of this mm."""
    lock_map_release_writes()
    WRITE_ONCE(mm, "mm_lock_seq", mm.mm_lock_seq + 1)


def mmap_write_unlock(mm: mm_struct) -> None:
    """Release mmap_lock, and with it all VMA write locks."""
    vma_end_write_all(mm)
    up_write(mm.mmap_lock)


def mmap_write_downgrade(mm: mm_struct) -> None:
    """From exclusive to shared; VMA write locks end."""
    vma_end_write_all(mm)
    downgrade_write(mm.mmap_lock)


def vma_mark_attached(vma: vm_area_struct) -> None:
    """The VMA is in the maple tree: readers may lock it."""
    store(vma.vm_refcnt, 1)


def vma_mark_detached(vma: vm_area_struct) -> None:
    """The VMA left the maple tree: no new readers, and those inside are waited for."""
    add(vma.vm_refcnt, VM_REFCNT_EXCLUDE_READERS - 1)
    wait_until(vma.vm_refcnt, VM_REFCNT_EXCLUDE_READERS)
    store(vma.vm_refcnt, 0)


def vma_start_read(mm: mm_struct, vma: vm_area_struct) -> bool:
    """Try to lock the VMA shared, under RCU; false if it is write-locked, detached or of another mm.

    It counts as locked once it is certain; the kernel tells lockdep before it looks again.
    """
    if READ_ONCE(vma, "vm_lock_seq") == READ_ONCE(mm, "mm_lock_seq"):
        return False
    if not inc_not_zero_limited(vma.vm_refcnt, VM_REFCNT_EXCLUDE_READERS):
        return False
    if vma.vm_mm != mm or READ_ONCE(vma, "vm_lock_seq") == READ_ONCE(mm, "mm_lock_seq"):
        add(vma.vm_refcnt, -1)
        return False
    lock_map_acquire_read(vma.vm_lock)
    return True


def vma_start_read_locked(vma: vm_area_struct) -> bool:
    """Lock the VMA shared while mmap_lock is held for reading, so no writer is there; false for too many readers."""
    if not inc_not_zero_limited(vma.vm_refcnt, VM_REFCNT_EXCLUDE_READERS):
        return False
    lock_map_acquire_read(vma.vm_lock)
    return True


def vma_end_read(vma: vm_area_struct) -> None:
    """Release the VMA locked shared."""
    lock_map_release(vma.vm_lock)
    add(vma.vm_refcnt, -1)


def vma_start_write(vma: vm_area_struct) -> None:
    """Lock the VMA exclusively until mmap_lock is released; waits for readers.  mmap_lock must be held for writing."""
    seq = vma.vm_mm.mm_lock_seq
    if vma.vm_lock_seq == seq:
        return
    if load(vma.vm_refcnt) == 0:  # detached: there are no readers, and no new ones can come
        lock_map_tryacquire(vma.vm_lock)
        WRITE_ONCE(vma, "vm_lock_seq", seq)
        return
    add(vma.vm_refcnt, VM_REFCNT_EXCLUDE_READERS)
    lock_map_acquire(vma.vm_lock)
    wait_until(vma.vm_refcnt, VM_REFCNT_EXCLUDE_READERS + 1)
    WRITE_ONCE(vma, "vm_lock_seq", seq)
    add(vma.vm_refcnt, -VM_REFCNT_EXCLUDE_READERS)


def lock_vma_under_rcu(mm: mm_struct, address: int) -> vm_area_struct:
    """The VMA that contains `address`, locked shared without mmap_lock; NULL if there is none to be had."""
    rcu_read_lock()
    vma = vm_area_struct(mtree_load(mm.mm_mt, address))
    if not vma or not vma_start_read(mm, vma):
        rcu_read_unlock()
        return NO_VMA
    rcu_read_unlock()
    if address < vma.vm_start or address >= vma.vm_end:
        vma_end_read(vma)
        return NO_VMA
    return vma


def lock_next_vma(mm: mm_struct, from_addr: int) -> vm_area_struct:
    """The first VMA that ends above `from_addr`, locked shared; NULL if there is none.  Under RCU.

    The kernel looks for a gap's VMA again only if the address space has changed.
    """
    vma = vm_area_struct(mt_find(mm.mm_mt, from_addr))
    if not vma:
        return NO_VMA
    if not vma_start_read(mm, vma):
        return lock_next_vma_under_mmap_lock(mm, from_addr)
    if from_addr < vma.vm_end and (from_addr >= vma.vm_start or mt_find(mm.mm_mt, from_addr) == vma.addr):
        return vma
    vma_end_read(vma)
    return lock_next_vma_under_mmap_lock(mm, from_addr)


def lock_next_vma_under_mmap_lock(mm: mm_struct, from_addr: int) -> vm_area_struct:
    """The same where a writer is at it: wait for mmap_lock, outside of the RCU section."""
    rcu_read_unlock()
    mmap_read_lock(mm)
    vma = vm_area_struct(mt_find(mm.mm_mt, from_addr))
    if vma:
        vma_start_read_locked(vma)
    mmap_read_unlock(mm)
    rcu_read_lock()
    return vma
