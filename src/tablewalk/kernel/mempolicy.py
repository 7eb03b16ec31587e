# SPDX-License-Identifier: GPL-2.0-only
"""Memory policies as far as they decide about VMAs (mm/mempolicy.c; 7.2).

A policy is a number that the caller gives it, 0 the default; equal policies are equal numbers.  Where pages are
allocated, and their migration, is not modelled: no table depends on it.  set_mempolicy() touches no VMA.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget
from .mm_types import mm_struct
from .mmap import page_align
from .mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from .vm_flags import EFAULT, EINVAL
from .vma import find_vma, vma_modify
from .vma_change import IS_ERR, PTR_ERR

MPOL_MF_VALID: Final = 7  # MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL


def queue_pages_range(mm: mm_struct, start: int, end: int, holes_ok: bool) -> int:
    """Write-lock the VMAs of [start, end) in order; -EFAULT at a hole, or if there is nothing else, else 0."""
    addr = start
    while addr < end:
        vma = find_vma(mm, addr)
        if not vma or vma.vm_start >= end:
            return -EFAULT if addr == start or not holes_ok else 0
        if vma.vm_start > addr and not holes_ok:
            return -EFAULT
        vma_start_write(vma)
        addr = vma.vm_end
        forget((addr,))
    return 0


def mbind_ranges(mm: mm_struct, start: int, end: int, policy: int) -> int:
    """Give every VMA in [start, end) the policy; 0, or the -errno at which it stopped."""
    while start < end:
        vma = find_vma(mm, start)
        if not vma or vma.vm_start >= end:
            return 0
        if vma.vm_policy != policy:
            vma = vma_modify(vma, max(start, vma.vm_start), min(end, vma.vm_end), policy=policy)
            if IS_ERR(vma):
                return PTR_ERR(vma)
            vma_start_write(vma)
            vma.vm_policy = policy
        start = vma.vm_end
        forget((start,))
    return 0


def sys_mbind(mm: mm_struct, start: int, length: int, policy: int, flags: int) -> int:
    """mbind(2) of the policy with this number; 0 or -errno."""
    if flags & ~MPOL_MF_VALID or start & arch.page_size - 1:
        return -EINVAL
    end = start + page_align(length)
    if end == start:
        return 0
    mmap_write_lock(mm)
    error = queue_pages_range(mm, start, end, policy == 0)
    if error == 0:
        error = mbind_ranges(mm, start, end, policy)
    mmap_write_unlock(mm)
    return error
