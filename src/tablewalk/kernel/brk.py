# SPDX-License-Identifier: GPL-2.0-only
"""brk (mm/mmap.c, mm/vma.c; 7.2).  `mm.start_brk` and `mm.brk` are the caller's to set after exec."""

from __future__ import annotations

from ..arch import arch
from .gup import mm_populate
from .mm_types import mm_struct, vm_area_struct
from .mmap import NO_FILE, STACK_GUARD_GAP, mlock_future_ok, page_align
from .mmap_lock import NO_VMA, mmap_write_lock, mmap_write_unlock
from .pgtable import vma_set_soft_dirty
from .vm_flags import (
    EAGAIN,
    ENOMEM,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_MTE_ALLOWED,
    VM_READ,
    VM_WRITE,
)
from .vma import do_vmi_align_munmap, do_vmi_munmap, find_vma, find_vma_intersection, vma_merge_new_range, vma_prev
from .vma_change import MAX_MAP_COUNT, vm_area_alloc, vma_link
from .vma_merge import vma_merge_struct

DATA_DEFAULT_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC


def sys_brk(mm: mm_struct, brk: int) -> int:
    """Move the end of the heap to `brk`; where it is afterwards, which is where it was if that cannot be."""
    mmap_write_lock(mm)
    origbrk = mm.brk
    oldbrk = page_align(origbrk)
    newbrk = page_align(brk)
    unlocked = populate = False
    if brk < mm.start_brk:
        brk = origbrk
    elif newbrk < oldbrk:
        unlocked = shrink_brk(mm, brk, newbrk, oldbrk)
        brk = brk if unlocked else origbrk
    elif newbrk > oldbrk and expand_brk(mm, oldbrk, newbrk):
        brk = origbrk
    else:
        populate = newbrk > oldbrk and mm.def_flags & VM_LOCKED != 0
        mm.brk = brk
    if not unlocked:
        mmap_write_unlock(mm)
    if populate:
        mm_populate(mm, oldbrk, newbrk - oldbrk)
    return brk


def shrink_brk(mm: mm_struct, brk: int, newbrk: int, oldbrk: int) -> bool:
    """Unmap [newbrk, oldbrk) and release mmap_lock; false, with the lock held, if that cannot be."""
    vma = find_vma_intersection(mm, newbrk, oldbrk)
    if not vma:
        return False
    origbrk = mm.brk
    mm.brk = brk
    if do_vmi_align_munmap(mm, newbrk, oldbrk, unlock=True):
        mm.brk = origbrk
        return False
    return True


def expand_brk(mm: mm_struct, oldbrk: int, newbrk: int) -> int:
    """Map [oldbrk, newbrk); 0 or -errno."""
    if newbrk > arch.task_size or not mlock_future_ok(mm, mm.def_flags, newbrk - oldbrk):
        return -EAGAIN
    next_ = find_vma(mm, oldbrk)
    if next_ and newbrk + arch.page_size > vm_start_gap(next_):
        return -ENOMEM
    prev = vma_prev(mm, oldbrk)
    if prev and prev.vm_end <= mm.start_brk:
        prev = NO_VMA
    return do_brk_flags(mm, prev, oldbrk, newbrk - oldbrk, 0)


def vm_start_gap(vma: vm_area_struct) -> int:
    """Where the VMA begins with the gap that a stack needs."""
    if vma.vm_flags & VM_GROWSDOWN:
        return max(vma.vm_start - (STACK_GUARD_GAP << arch.page_shift), 0)
    return vma.vm_start


def do_brk_flags(mm: mm_struct, prev: vm_area_struct, addr: int, length: int, vm_flags: int) -> int:
    """Map anonymous data, at the end of `prev` (or NULL) if it can be its continuation; 0 or -errno."""
    vm_flags |= DATA_DEFAULT_FLAGS | VM_ACCOUNT | mm.def_flags
    if arch.tagged_data:  # and so do not merge with what is mapped
        vm_flags |= VM_MTE_ALLOWED
    if mm.map_count > MAX_MAP_COUNT:
        return -ENOMEM
    pgoff = addr >> arch.page_shift
    vmg = vma_merge_struct(addr, addr + length, pgoff, vm_flags, NO_FILE)
    vma = vma_merge_new_range(vmg, prev, NO_VMA, just_expand=True)
    if not vma:
        vma = vm_area_alloc(mm, addr, addr + length, pgoff, vm_flags)
        vma_link(mm, vma)
    vma_set_soft_dirty(vma)
    pages = length >> arch.page_shift
    mm.total_vm += pages
    if vm_flags & VM_LOCKED:
        mm.locked_vm += pages
    return 0


def vm_brk_flags(mm: mm_struct, addr: int, request: int, vm_flags: int) -> int:
    """Map zeroed data for exec (a program's bss), in place of what is there; 0 or -errno."""
    length = page_align(request)
    if length == 0:
        return 0
    mmap_write_lock(mm)
    ret = do_vmi_munmap(mm, addr, addr + length)
    if ret == 0:
        ret = do_brk_flags(mm, vma_prev(mm, addr), addr, length, vm_flags)
    populate = ret == 0 and mm.def_flags & VM_LOCKED != 0
    mmap_write_unlock(mm)
    if populate:
        mm_populate(mm, addr, length)
    return ret
