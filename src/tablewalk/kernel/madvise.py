# SPDX-License-Identifier: GPL-2.0-only
"""The madvise and process_madvise system calls, and naming of anonymous memory (mm/madvise.c; 7.2).

`madvise_lru` has the advice that goes by pages, `guard` the guard regions.  Not modelled: memory failure.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import forget
from .config import config
from .filemap import fput, get_file
from .guard import ERESTARTNOINTR, guard_regions_supported, madvise_guard_install, madvise_guard_remove
from .gup import FOLL_WRITE, check_vma_flags, faultin_page_range
from .huge_mm import vma_is_anonymous
from .khugepaged import madvise_collapse
from .ksm import ksm_mergeable, ksm_unmergeable
from .madvise_flags import (
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_GUARD_INSTALL,
    MADV_GUARD_REMOVE,
    MADV_HUGEPAGE,
    MADV_HWPOISON,
    MADV_MERGEABLE,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_REMOVE,
    MADV_SOFT_OFFLINE,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    SET_ANON_VMA_NAME,
    madvise_new_flags,
    madvise_set_name,
    madvise_update_vma,
)
from .madvise_lru import madvise_cold, madvise_free_single_vma, madvise_pageout
from .madvise_willneed import madvise_willneed
from .memory_zap import ZAP_RECLAIM_PT, zap_page_range_single_batched
from .mm_types import mm_struct, vm_area_struct
from .mmap import page_align
from .mmap_lock import (
    NO_VMA,
    lock_vma_under_rcu,
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_end_read,
)
from .mmu_gather import mmu_gather, tlb_finish_mmu, tlb_gather_mmu
from .not_modelled import NotModelled
from .rmap import linear_page_index
from .truncate import shmem_fallocate
from .userfaultfd_events import userfaultfd_remove
from .userfaultfd_k import userfaultfd_armed
from .vm_flags import (
    EACCES,
    EFAULT,
    EHWPOISON,
    EINTR,
    EINVAL,
    ENOMEM,
    EPERM,
    EUSERFAULT,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
)
from .vma import find_vma, vma_is_sealed, vma_lookup

# enum madvise_lock_mode
MADVISE_MMAP_READ_LOCK: Final = 1
MADVISE_MMAP_WRITE_LOCK: Final = 2
MADVISE_VMA_READ_LOCK: Final = 3

DISCARDS: Final = (
    MADV_FREE,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_REMOVE,
    MADV_DONTFORK,
    MADV_WIPEONFORK,
    MADV_GUARD_INSTALL,
)

NO_GATHER: Final = mmu_gather(0)


def sys_madvise(mm: mm_struct, start: int, len_in: int, behavior: int) -> int:
    """madvise(2) on `len_in` bytes from `start`; 0 or -errno, after which part of the work may have been done."""
    while True:
        ret = do_madvise(mm, start, len_in, behavior)
        if ret != -ERESTARTNOINTR:
            return ret
        forget(())


def do_madvise(mm: mm_struct, start: int, len_in: int, behavior: int) -> int:
    """One try; -ERESTARTNOINTR to have another."""
    if not madvise_behavior_valid(behavior):
        return -EINVAL
    length, error = check_input_range(start, len_in)
    if error or len_in == 0:
        return error
    mode = madvise_lock(mm, behavior)
    tlb = madvise_init_tlb(mm, behavior)
    error, mode = madvise_do_behavior(mm, start, start + length, behavior, mode, tlb, False)
    madvise_finish_tlb(tlb)
    madvise_unlock(mm, mode)
    return error


def sys_process_madvise(mm: mm_struct, ranges: tuple[tuple[int, int], ...], behavior: int, remote: bool) -> int:
    """process_madvise(2) on (start, length) ranges of an mm that is the caller's or another's (`remote`).

    Returns the bytes of the ranges done, or -errno if the first could not be.
    """
    if not madvise_behavior_valid(behavior) or not process_madvise_valid(behavior, remote):
        return -EINVAL
    mode = madvise_lock(mm, behavior)
    tlb = madvise_init_tlb(mm, behavior)
    done = i = ret = 0
    while i < len(ranges):
        start, len_in = ranges[i]
        length, ret = check_input_range(start, len_in)
        if ret == 0 and len_in:
            ret, mode = madvise_do_behavior(mm, start, start + length, behavior, mode, tlb, remote)
        if ret == -ERESTARTNOINTR:
            madvise_finish_tlb(tlb)
            madvise_unlock(mm, mode)
            mode = madvise_lock(mm, behavior)
            tlb = madvise_init_tlb(mm, behavior)
        elif ret < 0:
            break
        else:
            done += len_in
            i += 1
        forget((done, i, ret, mode, tlb))
    madvise_finish_tlb(tlb)
    madvise_unlock(mm, mode)
    return done or ret


def sys_set_anon_vma_name(mm: mm_struct, start: int, len_in: int, name: int) -> int:
    """Name anonymous memory; `name` is an identity, 0 for none.  0 or -errno."""
    length, error = check_input_range(start, len_in)
    if error or length == 0:
        return error
    mmap_write_lock(mm)
    error, _ = madvise_walk_vmas(
        mm, start, start + length, SET_ANON_VMA_NAME, MADVISE_MMAP_WRITE_LOCK, NO_GATHER, False, name
    )
    mmap_write_unlock(mm)
    return error


# --- arguments and locks ---------------------------------------------------------------------------------


def madvise_behavior_valid(behavior: int) -> bool:
    """Whether there is such advice."""
    if behavior in (MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLLAPSE):
        return arch.thp_advice  # also where only the CPU has no huge pages
    if behavior in (MADV_MERGEABLE, MADV_UNMERGEABLE):
        return config.ksm
    if behavior in (MADV_HWPOISON, MADV_SOFT_OFFLINE):
        raise NotModelled("injection of memory failures")
    if behavior in (MADV_GUARD_INSTALL, MADV_GUARD_REMOVE):
        return guard_regions_supported()
    return MADV_NORMAL <= behavior <= MADV_DONTNEED or MADV_FREE <= behavior <= MADV_DONTNEED_LOCKED


def process_madvise_valid(behavior: int, remote: bool) -> bool:
    """Whether process_madvise gives this advice; another process gets only some."""
    return not remote or behavior in (MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE)


def check_input_range(start: int, len_in: int) -> tuple[int, int]:
    """(length in whole pages, 0), or (0, -EINVAL) for a range that is none."""
    length = page_align(len_in)
    if start & arch.page_size - 1 or start + length >= 1 << 64:
        return 0, -EINVAL
    return length, 0


def get_lock_mode(behavior: int) -> int:
    """The lock that the advice needs: changes of flags write, most others read, some only the VMA's."""
    if behavior in (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE):
        return MADVISE_VMA_READ_LOCK
    if behavior in (
        MADV_REMOVE,
        MADV_WILLNEED,
        MADV_COLD,
        MADV_PAGEOUT,
        MADV_POPULATE_READ,
        MADV_POPULATE_WRITE,
        MADV_COLLAPSE,
    ):
        return MADVISE_MMAP_READ_LOCK
    return MADVISE_MMAP_WRITE_LOCK


def madvise_lock(mm: mm_struct, behavior: int) -> int:
    """Take mmap_lock as needed; a VMA's lock is taken later.  Returns the mode."""
    mode = get_lock_mode(behavior)
    if mode == MADVISE_MMAP_WRITE_LOCK:
        mmap_write_lock(mm)
    elif mode == MADVISE_MMAP_READ_LOCK:
        mmap_read_lock(mm)
    return mode


def madvise_unlock(mm: mm_struct, mode: int) -> None:
    """Release what is held in this mode."""
    if mode == MADVISE_MMAP_WRITE_LOCK:
        mmap_write_unlock(mm)
    elif mode == MADVISE_MMAP_READ_LOCK:
        mmap_read_unlock(mm)


def madvise_batch_tlb_flush(behavior: int) -> bool:
    """Whether one gather serves the whole call."""
    return behavior in (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE)


def madvise_init_tlb(mm: mm_struct, behavior: int) -> mmu_gather:
    """The gather of the call, or NULL."""
    return tlb_gather_mmu(mm) if madvise_batch_tlb_flush(behavior) else NO_GATHER


def madvise_finish_tlb(tlb: mmu_gather) -> None:
    """Flush and free what the call has gathered."""
    if tlb:
        tlb_finish_mmu(tlb)


def is_vma_lock_sufficient(vma: vm_area_struct, end: int, behavior: int, remote: bool) -> bool:
    """Whether the VMA's lock protects all that is needed; anon_vma_prepare() asks for mmap_lock."""
    if end > vma.vm_end or remote or userfaultfd_armed(vma):
        return False
    return behavior != MADV_GUARD_INSTALL or bool(vma.anon_vma) or not vma_is_anonymous(vma)


def try_vma_read_lock(mm: mm_struct, start: int, end: int, behavior: int, remote: bool) -> vm_area_struct:
    """The VMA read-locked, if that is enough; else NULL with mmap_lock held for reading."""
    vma = lock_vma_under_rcu(mm, start) if config.per_vma_lock else NO_VMA
    if vma:
        if is_vma_lock_sufficient(vma, end, behavior, remote):
            return vma
        vma_end_read(vma)
    mmap_read_lock(mm)
    return NO_VMA


# --- going through the VMAs ------------------------------------------------------------------------------


def madvise_do_behavior(
    mm: mm_struct, start: int, end: int, behavior: int, mode: int, tlb: mmu_gather, remote: bool
) -> tuple[int, int]:
    """Apply the advice to [start, end); (0 or -errno, lock mode in which it ended)."""
    if behavior in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
        return madvise_populate(mm, start, end, behavior == MADV_POPULATE_WRITE), mode
    return madvise_walk_vmas(mm, start, end, behavior, mode, tlb, remote)


def madvise_walk_vmas(
    mm: mm_struct, start: int, end: int, behavior: int, mode: int, tlb: mmu_gather, remote: bool, name: int = 0
) -> tuple[int, int]:
    """Apply the advice to one VMA after the other, up to the first that refuses; holes make it -ENOMEM in the end."""
    if mode == MADVISE_VMA_READ_LOCK:
        vma = try_vma_read_lock(mm, start, end, behavior, remote)
        if vma:
            error, _ = madvise_vma_behavior(vma, start, end, behavior, tlb, name)
            vma_end_read(vma)
            return error, mode
        mode = MADVISE_MMAP_READ_LOCK
    return madvise_walk_locked(mm, start, end, behavior, tlb, name), mode


def madvise_walk_locked(mm: mm_struct, start: int, end: int, behavior: int, tlb: mmu_gather, name: int) -> int:
    """The same with mmap_lock held, which a behavior may drop and take again."""
    unmapped_error = 0
    while start < end:
        vma = find_vma(mm, start)
        if not vma:
            return -ENOMEM
        if start < vma.vm_start:
            unmapped_error = -ENOMEM
            start = vma.vm_start
            if start >= end:
                break
        stop = min(vma.vm_end, end)
        error, covered = madvise_vma_behavior(vma, start, stop, behavior, tlb, name)
        if error:
            return error
        start = max(stop, covered)
        forget((start, unmapped_error))
    return unmapped_error


def madvise_vma_behavior(
    vma: vm_area_struct, start: int, end: int, behavior: int, tlb: mmu_gather, name: int
) -> tuple[int, int]:
    """Apply the advice to [start, end) of one VMA; (0 or -errno, where the VMA that has it now ends, or 0)."""
    if vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    if not can_madvise_modify(vma, behavior):
        return -EPERM, 0
    if behavior == MADV_REMOVE:
        return madvise_remove(vma, start, end), 0
    if behavior == MADV_WILLNEED:
        return madvise_willneed(vma, start, end), 0
    if behavior == MADV_COLD:
        return madvise_cold(vma, start, end), 0
    if behavior == MADV_PAGEOUT:
        return madvise_pageout(vma, start, end), 0
    if behavior in (MADV_FREE, MADV_DONTNEED, MADV_DONTNEED_LOCKED):
        return madvise_dontneed_free(tlb, vma, start, end, behavior), 0
    if behavior == MADV_COLLAPSE:
        return madvise_collapse(vma, start, end), 0
    if behavior == MADV_GUARD_INSTALL:
        return madvise_guard_install(vma, start, end), 0
    if behavior == MADV_GUARD_REMOVE:
        return madvise_guard_remove(vma, start, end), 0
    if behavior == SET_ANON_VMA_NAME:
        return madvise_set_name(vma, start, end, name)
    if behavior == MADV_MERGEABLE:
        new_flags = ksm_mergeable(vma)
    elif behavior == MADV_UNMERGEABLE:
        new_flags = ksm_unmergeable(vma, start, end)
    else:
        new_flags = madvise_new_flags(vma, behavior)
    if new_flags < 0:
        return new_flags, 0
    return madvise_update_vma(vma, start, end, new_flags)


def can_madvise_modify(vma: vm_area_struct, behavior: int) -> bool:
    """Whether a sealed VMA allows it: what is anonymous and not writable keeps its contents."""
    if not vma_is_sealed(vma) or not is_discard(behavior):
        return True
    return not vma_is_anonymous(vma) or vma.vm_flags & VM_WRITE != 0


def is_discard(behavior: int) -> bool:
    """Whether the advice takes contents away, here or from a child."""
    return behavior in DISCARDS


# --- advice that is carried out --------------------------------------------------------------------------


def madvise_dontneed_free(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int, behavior: int) -> int:
    """MADV_DONTNEED and its like, which unmap and free whole tables on the way, and MADV_FREE."""
    forbidden = VM_PFNMAP if behavior == MADV_DONTNEED_LOCKED else VM_PFNMAP | VM_LOCKED
    if vma.vm_flags & forbidden:
        return -EINVAL
    mm = vma.vm_mm
    if not userfaultfd_remove(vma):
        mmap_read_lock(mm)
        vma = vma_lookup(mm, start)
        if not vma:
            return -ENOMEM
        if vma.vm_flags & forbidden:
            return -EINVAL
        end = min(end, vma.vm_end)
    if behavior == MADV_FREE:
        return madvise_free_single_vma(tlb, vma, start, end)
    madvise_dontneed_single_vma(tlb, vma, start, end)
    return 0


def madvise_dontneed_single_vma(tlb: mmu_gather, vma: vm_area_struct, start: int, end: int) -> None:
    """Unmap, and give empty tables back."""
    zap_page_range_single_batched(tlb, vma, start, end - start, ZAP_RECLAIM_PT)


def madvise_populate(mm: mm_struct, start: int, end: int, write: bool) -> int:
    """Fault in [start, end) up to the first page that cannot be: -ENOMEM for a hole, -EINVAL for missing rights."""
    while start < end:
        vma = vma_lookup(mm, start)
        if not vma:
            return -ENOMEM
        if check_vma_flags(vma, FOLL_WRITE if write else 0):
            return -EINVAL
        pages = faultin_page_range(mm, start, min(end, vma.vm_end), write)
        if pages < 0:
            return pages if pages in (-EINTR, -EINVAL, -EHWPOISON, -EFAULT, -EUSERFAULT) else -ENOMEM
        start += pages << arch.page_shift
        forget((start,))
    return 0


def madvise_remove(vma: vm_area_struct, start: int, end: int) -> int:
    """Punch a hole into the file, without mmap_lock meanwhile."""
    if vma.vm_flags & VM_LOCKED or not vma.vm_file:
        return -EINVAL
    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
        return -EACCES
    mm = vma.vm_mm
    f = vma.vm_file
    first = linear_page_index(vma, start)
    get_file(f)
    if userfaultfd_remove(vma):
        mmap_read_unlock(mm)
    error = shmem_fallocate(f.f_mapping, first, end - start >> arch.page_shift)
    fput(f)
    mmap_read_lock(mm)
    return error
