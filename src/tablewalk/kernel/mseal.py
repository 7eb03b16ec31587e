# SPDX-License-Identifier: GPL-2.0-only
"""The mseal system call (mm/mseal.c; 7.2): VMAs that nothing unmaps, moves or protects otherwise any more."""

from __future__ import annotations

from ..arch import arch
from ..machine import forget
from .mm_types import mm_struct
from .mmap import page_align
from .mmap_lock import mmap_write_lock, mmap_write_unlock
from .vm_flags import EINVAL, ENOMEM, ENOSYS, VM_SEALED
from .vma import find_vma_intersection, vma_is_sealed, vma_lookup, vma_modify
from .vma_change import IS_ERR, PTR_ERR, vm_flags_reset


def sys_mseal(mm: mm_struct, start: int, len_in: int, flags: int) -> int:
    """mseal(2) of `len_in` bytes from `start`; 0 or -errno, which leaves all as it was."""
    if arch.task_size <= 1 << 32:  # there is no room for the flag
        return -ENOSYS
    length = page_align(len_in)
    if flags or start & arch.page_size - 1 or start + length >= 1 << 64:
        return -EINVAL
    if length == 0:
        return 0
    mmap_write_lock(mm)
    error = -ENOMEM if range_contains_unmapped(mm, start, start + length) else mseal_apply(mm, start, start + length)
    mmap_write_unlock(mm)
    return error


def range_contains_unmapped(mm: mm_struct, start: int, end: int) -> bool:
    """Whether a page of the range is in no VMA."""
    at = start
    while at < end:
        vma = find_vma_intersection(mm, at, end)
        if not vma or vma.vm_start > at:
            return True
        at = vma.vm_end
        forget((at,))
    return False


def mseal_apply(mm: mm_struct, start: int, end: int) -> int:
    """Seal [start, end), which has no holes; 0, or -errno at the VMA that cannot be split."""
    while start < end:
        vma = vma_lookup(mm, start)
        if not vma_is_sealed(vma):
            vma = vma_modify(vma, start, min(vma.vm_end, end), vma.vm_flags | VM_SEALED)
            if IS_ERR(vma):
                return PTR_ERR(vma)
            vm_flags_reset(vma, vma.vm_flags | VM_SEALED)
        start = vma.vm_end
        forget((start,))
    return 0
