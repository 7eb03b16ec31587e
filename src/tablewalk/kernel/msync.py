# SPDX-License-Identifier: GPL-2.0-only
"""msync() (mm/msync.c; 7.2).  Shared memory has nothing to write back; the pages of regular files are not modelled."""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget
from .mm_types import mm_struct
from .mmap import page_align
from .mmap_lock import mmap_read_lock, mmap_read_unlock
from .not_modelled import NotModelled
from .vm_flags import EBUSY, EINVAL, ENOMEM, VM_LOCKED, VM_SHARED
from .vma import find_vma

MS_ASYNC: Final = 1
MS_INVALIDATE: Final = 2
MS_SYNC: Final = 4


def sys_msync(mm: mm_struct, start: int, length: int, flags: int) -> int:
    """msync(2); 0 or -errno.  Raises NotModelled for what would write back a regular file."""
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or start & arch.page_size - 1:
        return -EINVAL
    if flags & MS_ASYNC and flags & MS_SYNC:
        return -EINVAL
    end = start + page_align(length)
    if end >= 1 << 64:
        return -ENOMEM
    mmap_read_lock(mm)
    error = sync_vmas(mm, start, end, flags)
    mmap_read_unlock(mm)
    return error


def sync_vmas(mm: mm_struct, start: int, end: int, flags: int) -> int:
    """Visit the VMAs of [start, end): -ENOMEM if there is a hole, at once if nothing is asked for; -EBUSY if locked."""
    error = 0
    while start < end:
        vma = find_vma(mm, start)
        if not vma:
            return -ENOMEM
        if start < vma.vm_start:
            if flags == MS_ASYNC or vma.vm_start >= end:
                return -ENOMEM
            error = -ENOMEM
        if flags & MS_INVALIDATE and vma.vm_flags & VM_LOCKED:
            return -EBUSY
        if flags & MS_SYNC and vma.vm_flags & VM_SHARED and not vma.vm_file.f_mapping.shmem:
            raise NotModelled("msync of a regular file")
        start = vma.vm_end
        forget((start, error))
    return error
