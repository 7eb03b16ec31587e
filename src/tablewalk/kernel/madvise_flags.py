# SPDX-License-Identifier: GPL-2.0-only
"""The advice of madvise, and what of it is kept in a VMA: flags and names (mm/madvise.c; 7.2)."""

from __future__ import annotations

from typing import Final

from .collapse_policy import khugepaged_enter_vma
from .mm_types import vm_area_struct
from .mmap_lock import vma_start_write
from .vm_flags import (
    EAGAIN,
    EBADF,
    EINVAL,
    ENOMEM,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DROPPABLE,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
)
from .vma import vma_modify
from .vma_change import IS_ERR, PTR_ERR, vm_flags_reset

MADV_NORMAL: Final = 0
MADV_RANDOM: Final = 1
MADV_SEQUENTIAL: Final = 2
MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MADV_REMOVE: Final = 9
MADV_DONTFORK: Final = 10
MADV_DOFORK: Final = 11
MADV_MERGEABLE: Final = 12
MADV_UNMERGEABLE: Final = 13
MADV_HUGEPAGE: Final = 14
MADV_NOHUGEPAGE: Final = 15
MADV_DONTDUMP: Final = 16
MADV_DODUMP: Final = 17
MADV_WIPEONFORK: Final = 18
MADV_KEEPONFORK: Final = 19
MADV_COLD: Final = 20
MADV_PAGEOUT: Final = 21
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23
MADV_DONTNEED_LOCKED: Final = 24
MADV_COLLAPSE: Final = 25
MADV_HWPOISON: Final = 100
MADV_SOFT_OFFLINE: Final = 101
MADV_GUARD_INSTALL: Final = 102
MADV_GUARD_REMOVE: Final = 103
SET_ANON_VMA_NAME: Final = -1  # __MADV_SET_ANON_VMA_NAME: prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)


def madvise_new_flags(vma: vm_area_struct, behavior: int) -> int:
    """vm_flags as the advice wants them, or -EINVAL for a VMA that it is not for."""
    flags = vma.vm_flags
    if behavior == MADV_NORMAL:
        return flags & ~(VM_RAND_READ | VM_SEQ_READ)
    if behavior == MADV_SEQUENTIAL:
        return flags & ~VM_RAND_READ | VM_SEQ_READ
    if behavior == MADV_RANDOM:
        return flags & ~VM_SEQ_READ | VM_RAND_READ
    if behavior == MADV_DONTFORK:
        return flags | VM_DONTCOPY
    if behavior == MADV_DOFORK:
        return -EINVAL if refuses_dofork(flags) else flags & ~VM_DONTCOPY
    if behavior == MADV_WIPEONFORK:
        return -EINVAL if vma.vm_file or flags & VM_SHARED else flags | VM_WIPEONFORK
    if behavior == MADV_KEEPONFORK:
        return -EINVAL if flags & VM_DROPPABLE else flags & ~VM_WIPEONFORK
    if behavior == MADV_DONTDUMP:
        return flags | VM_DONTDUMP
    if behavior == MADV_DODUMP:
        return -EINVAL if flags & (VM_SPECIAL | VM_DROPPABLE) else flags & ~VM_DONTDUMP
    if behavior == MADV_HUGEPAGE:
        return flags & ~VM_NOHUGEPAGE | VM_HUGEPAGE
    return flags & ~VM_HUGEPAGE | VM_NOHUGEPAGE


def refuses_dofork(vm_flags: int) -> bool:
    """Whether memory with these flags stays with MADV_DONTFORK."""
    return vm_flags & VM_SPECIAL != 0


def madvise_update_vma(vma: vm_area_struct, start: int, end: int, new_flags: int) -> tuple[int, int]:
    """Give [start, end) these flags, splitting or merging only if they are new; (0 or -errno, end of the VMA)."""
    if new_flags == vma.vm_flags:
        return 0, vma.vm_end
    changed = vma_modify(vma, start, end, vm_flags=new_flags)
    if IS_ERR(changed):
        return modify_error(PTR_ERR(changed)), 0
    vm_flags_reset(changed, new_flags)
    if new_flags & VM_HUGEPAGE:
        khugepaged_enter_vma(changed, new_flags)
    return 0, changed.vm_end


def modify_error(error: int) -> int:
    """Too many VMAs are told as -EAGAIN."""
    return -EAGAIN if error == -ENOMEM else error


def vma_is_anon_shmem(vma: vm_area_struct) -> bool:
    """Shared anonymous memory: a file of shmem that nobody has opened, so nobody has given an identity."""
    return vma.vm_file.f_mapping.shmem != 0 and vma.vm_file.f_ident == 0


def madvise_set_name(vma: vm_area_struct, start: int, end: int, name: int) -> tuple[int, int]:
    """Give [start, end) a name; -EBADF for a file's memory that is not shared anonymous memory."""
    if vma.vm_file and not vma_is_anon_shmem(vma):
        return -EBADF, 0
    if vma.anon_name == name:
        return 0, vma.vm_end
    changed = vma_modify(vma, start, end, anon_name=name)
    if IS_ERR(changed):
        return modify_error(PTR_ERR(changed)), 0
    vma_start_write(changed)
    changed.anon_name = name
    return 0, changed.vm_end
