# SPDX-License-Identifier: GPL-2.0-only
"""The userfaultfd system call and its ioctls (fs/userfaultfd.c, since 7.x in mm/userfaultfd.c; 7.2).

An ioctl returns (0 or -errno, what the kernel writes into its output field; 0 where it writes nothing).  Waking is
nothing here: see `userfaultfd_fault`.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import WRITE_ONCE, cmpxchg, forget, inc_not_zero, load
from .huge_mm import vma_is_anonymous
from .mm_init import mmput
from .mm_types import mm_struct, userfaultfd_ctx, vm_area_struct
from .mmap_lock import mmap_write_lock, mmap_write_unlock
from .not_modelled import NotModelled
from .userfaultfd import (
    MFILL_ATOMIC_CONTINUE,
    MFILL_ATOMIC_COPY,
    MFILL_ATOMIC_POISON,
    MFILL_ATOMIC_ZEROPAGE,
    mfill_atomic,
    mwriteprotect_range,
    uffd_wp_range,
    vma_is_shmem,
)
from .userfaultfd_events import (
    NO_CTX,
    userfaultfd_ctx_alloc,
    userfaultfd_ctx_put,
    userfaultfd_set_ctx,
)
from .userfaultfd_k import (
    UFFD_FEATURE_EVENT_FORK,
    UFFD_FEATURE_EVENT_REMAP,
    UFFD_FEATURE_EVENT_REMOVE,
    UFFD_FEATURE_EVENT_UNMAP,
    UFFD_FEATURE_EXACT_ADDRESS,
    UFFD_FEATURE_INITIALIZED,
    UFFD_FEATURE_MINOR_HUGETLBFS,
    UFFD_FEATURE_MINOR_SHMEM,
    UFFD_FEATURE_MISSING_HUGETLBFS,
    UFFD_FEATURE_MISSING_SHMEM,
    UFFD_FEATURE_MOVE,
    UFFD_FEATURE_PAGEFAULT_FLAG_WP,
    UFFD_FEATURE_POISON,
    UFFD_FEATURE_SIGBUS,
    UFFD_FEATURE_THREAD_ID,
    UFFD_FEATURE_WP_ASYNC,
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_FEATURE_WP_UNPOPULATED,
    UFFD_USER_MODE_ONLY,
    ctx_has,
    userfaultfd_wp,
    vma_ctx,
)
from .userfaultfd_move import UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES, UFFDIO_MOVE_MODE_DONTWAKE, move_pages
from .vm_flags import (
    EAGAIN,
    EBUSY,
    EINVAL,
    ENOMEM,
    EPERM,
    ESRCH,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_MAYWRITE,
    VM_SPECIAL,
    VM_UFFD_FLAGS,
    VM_UFFD_MINOR,
    VM_UFFD_MISSING,
    VM_UFFD_WP,
)
from .vma import find_vma, vma_modify
from .vma_change import IS_ERR, PTR_ERR

UFFDIO_REGISTER_MODE_MISSING: Final = 1
UFFDIO_REGISTER_MODE_WP: Final = 2
UFFDIO_REGISTER_MODE_MINOR: Final = 4
UFFDIO_COPY_MODE_DONTWAKE: Final = 1
UFFDIO_COPY_MODE_WP: Final = 2
UFFDIO_ZEROPAGE_MODE_DONTWAKE: Final = 1
UFFDIO_WRITEPROTECT_MODE_WP: Final = 1
UFFDIO_WRITEPROTECT_MODE_DONTWAKE: Final = 2
UFFDIO_CONTINUE_MODE_DONTWAKE: Final = 1
UFFDIO_CONTINUE_MODE_WP: Final = 2
UFFDIO_POISON_MODE_DONTWAKE: Final = 1

# numbers of the ioctls, whose bits UFFDIO_REGISTER gives back
IOCTL_WAKE: Final = 1 << 2
IOCTL_COPY: Final = 1 << 3
IOCTL_ZEROPAGE: Final = 1 << 4
IOCTL_MOVE: Final = 1 << 5
IOCTL_WRITEPROTECT: Final = 1 << 6
IOCTL_CONTINUE: Final = 1 << 7
IOCTL_POISON: Final = 1 << 8

NO_MM: Final = mm_struct(0)


# --- what the kernel has ---------------------------------------------------------------------------------


def uffd_has_wp_unpopulated() -> bool:
    """Whether there is UFFD_FEATURE_WP_UNPOPULATED."""
    return True


def uffd_has_poison() -> bool:
    """Whether there is UFFDIO_POISON."""
    return True


def uffd_has_wp_async() -> bool:
    """Whether there is UFFD_FEATURE_WP_ASYNC."""
    return True


def uffd_has_move() -> bool:
    """Whether there is UFFDIO_MOVE."""
    return True


def uffd_api_features() -> int:
    """UFFD_API_FEATURES of x86-64 and arm64: all."""
    features = (
        UFFD_FEATURE_PAGEFAULT_FLAG_WP
        | UFFD_FEATURE_EVENT_FORK
        | UFFD_FEATURE_EVENT_REMAP
        | UFFD_FEATURE_EVENT_REMOVE
        | UFFD_FEATURE_EVENT_UNMAP
        | UFFD_FEATURE_MISSING_HUGETLBFS
        | UFFD_FEATURE_MISSING_SHMEM
        | UFFD_FEATURE_SIGBUS
        | UFFD_FEATURE_THREAD_ID
        | UFFD_FEATURE_MINOR_HUGETLBFS
        | UFFD_FEATURE_MINOR_SHMEM
        | UFFD_FEATURE_EXACT_ADDRESS
        | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    )
    features |= UFFD_FEATURE_WP_UNPOPULATED if uffd_has_wp_unpopulated() else 0
    features |= UFFD_FEATURE_POISON if uffd_has_poison() else 0
    features |= UFFD_FEATURE_WP_ASYNC if uffd_has_wp_async() else 0
    return features | (UFFD_FEATURE_MOVE if uffd_has_move() else 0)


def uffd_range_ioctls() -> int:
    """UFFD_API_RANGE_IOCTLS."""
    ioctls = IOCTL_WAKE | IOCTL_COPY | IOCTL_ZEROPAGE | IOCTL_WRITEPROTECT | IOCTL_CONTINUE
    ioctls |= IOCTL_POISON if uffd_has_poison() else 0
    return ioctls | (IOCTL_MOVE if uffd_has_move() else 0)


# --- contexts --------------------------------------------------------------------------------------------


def sys_userfaultfd(mm: mm_struct, flags: int) -> userfaultfd_ctx:
    """userfaultfd(2) of a privileged task, O_CLOEXEC and O_NONBLOCK left out: the context, or NULL (-EINVAL)."""
    return NO_CTX if flags & ~UFFD_USER_MODE_ONLY else userfaultfd_ctx_alloc(mm, flags, 0)


def uffdio_api(ctx: userfaultfd_ctx, features: int) -> tuple[int, int]:
    """UFFDIO_API: (0, all features that there are), or (-EINVAL, 0)."""
    if features & UFFD_FEATURE_WP_ASYNC:
        features |= UFFD_FEATURE_WP_UNPOPULATED
    known = uffd_api_features()
    if features & ~known or cmpxchg(ctx.features, 0, features | UFFD_FEATURE_INITIALIZED):
        return -EINVAL, 0
    return 0, known


def uffd_alloc(mm: mm_struct, features: int, flags: int = 0) -> userfaultfd_ctx:
    """userfaultfd(2) and UFFDIO_API: the context, or NULL if either refuses."""
    ctx = sys_userfaultfd(mm, flags)
    if ctx and uffdio_api(ctx, features)[0]:
        userfaultfd_ctx_put(ctx)
        return NO_CTX
    return ctx


def uffd_close(ctx: userfaultfd_ctx) -> None:
    """The last close of the file: nothing is registered with it any more (userfaultfd_release)."""
    WRITE_ONCE(ctx, "released", 1)
    mm = ctx.mm
    if inc_not_zero(mm.mm_users):
        mmap_write_lock(mm)
        vma = find_vma(mm, 0)
        while vma:
            if vma.vm_userfaultfd_ctx == ctx.addr:
                vma = userfaultfd_clear_vma(vma, vma.vm_start, vma.vm_end)
            vma = find_vma(mm, vma.vm_end)
            forget((vma,))
        mmap_write_unlock(mm)
        mmput(mm)
    userfaultfd_ctx_put(ctx)


# --- registering -----------------------------------------------------------------------------------------


def validate_range(start: int, length: int) -> int:
    """0, or -EINVAL for a range that is none of a process's."""
    page = arch.page_size - 1
    if start & page or length & page or length == 0 or start >= arch.task_size or length > arch.task_size - start:
        return -EINVAL
    return 0


def vma_can_userfault(vma: vm_area_struct, uffd_flags: int, wp_async: bool) -> bool:
    """Whether the VMA can be registered with these modes: of memory that is neither anonymous nor shared few."""
    if vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    if vma.vm_flags & (VM_DROPPABLE | VM_SPECIAL):
        return False
    if wp_async and uffd_flags & VM_UFFD_FLAGS == VM_UFFD_WP:
        return True
    if vma_is_shmem(vma):
        return True
    return vma_is_anonymous(vma) and uffd_flags & VM_UFFD_MINOR == 0


def uffdio_register(ctx: userfaultfd_ctx, start: int, length: int, mode: int) -> tuple[int, int]:
    """UFFDIO_REGISTER of [start, start + length) bytes with UFFDIO_REGISTER_MODE_*: (0, ioctls) or (-errno, 0)."""
    known = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR
    if not userfaultfd_is_initialized(ctx) or mode == 0 or mode & ~known:
        return -EINVAL, 0
    error = validate_range(start, length)
    if error:
        return error, 0
    uffd_flags = VM_UFFD_MISSING if mode & UFFDIO_REGISTER_MODE_MISSING else 0
    uffd_flags |= VM_UFFD_WP if mode & UFFDIO_REGISTER_MODE_WP else 0
    uffd_flags |= VM_UFFD_MINOR if mode & UFFDIO_REGISTER_MODE_MINOR else 0
    mm = ctx.mm
    if not inc_not_zero(mm.mm_users):
        return -ENOMEM, 0
    mmap_write_lock(mm)
    error = register_check(ctx, start, start + length, uffd_flags)
    if error == 0:
        error = userfaultfd_register_range(ctx, start, start + length, uffd_flags)
    mmap_write_unlock(mm)
    mmput(mm)
    if error:
        return error, 0
    ioctls = uffd_range_ioctls()
    ioctls &= -1 if mode & UFFDIO_REGISTER_MODE_WP else ~IOCTL_WRITEPROTECT
    return 0, ioctls & (-1 if mode & UFFDIO_REGISTER_MODE_MINOR else ~IOCTL_CONTINUE)


def register_check(ctx: userfaultfd_ctx, start: int, end: int, uffd_flags: int) -> int:
    """0 if all VMAs of the range can be registered, and there is one; else -errno."""
    wp_async = ctx_has(ctx, UFFD_FEATURE_WP_ASYNC)
    error = -EINVAL
    vma = find_vma(ctx.mm, start)
    while vma and vma.vm_start < end:
        if not vma_can_userfault(vma, uffd_flags, wp_async):
            return -EINVAL
        if vma.vm_flags & VM_MAYWRITE == 0:
            return -EPERM
        if vma.vm_userfaultfd_ctx not in (0, ctx.addr):
            return -EBUSY
        error = 0
        vma = find_vma(ctx.mm, vma.vm_end)
        forget((vma, error))
    return error


def userfaultfd_register_range(ctx: userfaultfd_ctx, start: int, end: int, uffd_flags: int) -> int:
    """Register all VMAs of the range with exactly these modes: 0, or -errno at the VMA that cannot be split.

    A VMA that has the modes, and perhaps more, is left as it is.
    """
    vma = find_vma(ctx.mm, start)
    while vma and vma.vm_start < end:
        if vma.vm_userfaultfd_ctx != ctx.addr or vma.vm_flags & uffd_flags != uffd_flags:
            start = max(start, vma.vm_start)
            vm_flags = vma.vm_flags & ~VM_UFFD_FLAGS | uffd_flags
            vma = vma_modify(vma, start, min(end, vma.vm_end), vm_flags, uffd_ctx=ctx.addr)
            if IS_ERR(vma):
                return PTR_ERR(vma)
            userfaultfd_set_ctx(vma, ctx, vm_flags)
        start = vma.vm_end
        vma = find_vma(ctx.mm, start)
        forget((vma, start))
    return 0


def userfaultfd_clear_vma(vma: vm_area_struct, start: int, end: int) -> vm_area_struct:
    """Resolve the write protection of a part of the VMA, and register it no longer: its VMA then, or an errno."""
    if userfaultfd_wp(vma):
        uffd_wp_range(vma, start, end - start, False)
    vm_flags = vma.vm_flags & ~VM_UFFD_FLAGS
    vma = vma_modify(vma, start, end, vm_flags, uffd_ctx=0)
    if not IS_ERR(vma):
        userfaultfd_set_ctx(vma, NO_CTX, vm_flags)
    return vma


def uffdio_unregister(ctx: userfaultfd_ctx, start: int, length: int) -> int:
    """UFFDIO_UNREGISTER of [start, start + length) bytes; 0 or -errno."""
    if not userfaultfd_is_initialized(ctx):
        return -EINVAL
    error = validate_range(start, length)
    if error:
        return error
    mm = ctx.mm
    if not inc_not_zero(mm.mm_users):
        return -ENOMEM
    mmap_write_lock(mm)
    error = unregister_check(ctx, start, start + length)
    if error == 0:
        error = unregister_range(ctx, start, start + length)
    mmap_write_unlock(mm)
    mmput(mm)
    return error


def unregister_check(ctx: userfaultfd_ctx, start: int, end: int) -> int:
    """0 if all VMAs of the range could be registered with this context, and there is one; else -EINVAL."""
    wp_async = ctx_has(ctx, UFFD_FEATURE_WP_ASYNC)
    error = -EINVAL
    vma = find_vma(ctx.mm, start)
    while vma and vma.vm_start < end:
        if unregister_forbidden(ctx, vma) or not vma_can_userfault(vma, vma.vm_flags, wp_async):
            return -EINVAL
        error = 0
        vma = find_vma(ctx.mm, vma.vm_end)
        forget((vma, error))
    return error


def unregister_forbidden(ctx: userfaultfd_ctx, vma: vm_area_struct) -> bool:
    """Whether another userfaultfd has the VMA."""
    return vma.vm_userfaultfd_ctx not in (0, ctx.addr)


def unregister_range(ctx: userfaultfd_ctx, start: int, end: int) -> int:
    """Register the VMAs of the range no longer: 0, or -errno at the VMA that cannot be split."""
    vma = find_vma(ctx.mm, start)
    while vma and vma.vm_start < end:
        if vma_ctx(vma):
            start = max(start, vma.vm_start)
            vma = userfaultfd_clear_vma(vma, start, min(end, vma.vm_end))
            if IS_ERR(vma):
                return PTR_ERR(vma)
        start = vma.vm_end
        vma = find_vma(ctx.mm, start)
        forget((vma, start))
    return 0


# --- filling, write protection, moving -------------------------------------------------------------------


def userfaultfd_is_initialized(ctx: userfaultfd_ctx) -> bool:
    """Whether UFFDIO_API has been called."""
    return ctx_has(ctx, UFFD_FEATURE_INITIALIZED)


def ioctl_begins(ctx: userfaultfd_ctx, start: int, length: int, valid: bool) -> tuple[int, int]:
    """(0, 0) with a user of the mm more; or what the ioctl returns: -EAGAIN while an event is not read.

    `valid`: whether its other arguments are.
    """
    if not userfaultfd_is_initialized(ctx):
        return -EINVAL, 0
    if load(ctx.mmap_changing):
        return -EAGAIN, eagain_output()
    if not valid or validate_range(start, length):
        return -EINVAL, 0
    return 0 if inc_not_zero(ctx.mm.mm_users) else -ESRCH, 0


def eagain_output() -> int:
    """What is written into the output field while an event is not read."""
    return -EAGAIN


def ioctl_ends(ctx: userfaultfd_ctx, done: int, length: int) -> tuple[int, int]:
    """What an ioctl returns that did `done` of `length` bytes, or failed with -errno."""
    mmput(ctx.mm)
    if done < 0:
        return done, done
    return 0 if done == length else -EAGAIN, done


def uffdio_copy(
    ctx: userfaultfd_ctx, dst: int, src: int, length: int, mode: int, src_mm: mm_struct = NO_MM
) -> tuple[int, int]:
    """UFFDIO_COPY of `length` bytes with UFFDIO_COPY_MODE_*: (0 or -errno, bytes copied or -errno).

    `src_mm` is the mm of the caller, where `src` is; by default that of the context.
    """
    valid = mode & ~(UFFDIO_COPY_MODE_DONTWAKE | UFFDIO_COPY_MODE_WP) == 0
    valid = valid and src < arch.task_size and length <= arch.task_size - src
    error, out = ioctl_begins(ctx, dst, length, valid)
    if error:
        return error, out
    wp = mode & UFFDIO_COPY_MODE_WP != 0
    return ioctl_ends(ctx, mfill_atomic(ctx, dst, length, MFILL_ATOMIC_COPY, wp, src_mm or ctx.mm, src), length)


def uffdio_zeropage(ctx: userfaultfd_ctx, start: int, length: int, mode: int = 0) -> tuple[int, int]:
    """UFFDIO_ZEROPAGE: (0 or -errno, bytes filled or -errno)."""
    error, out = ioctl_begins(ctx, start, length, mode & ~UFFDIO_ZEROPAGE_MODE_DONTWAKE == 0)
    if error:
        return error, out
    return ioctl_ends(ctx, mfill_atomic(ctx, start, length, MFILL_ATOMIC_ZEROPAGE, False, NO_MM, 0), length)


def uffdio_continue(ctx: userfaultfd_ctx, start: int, length: int, mode: int = 0) -> tuple[int, int]:
    """UFFDIO_CONTINUE with UFFDIO_CONTINUE_MODE_*: (0 or -errno, bytes mapped or -errno)."""
    error, out = ioctl_begins(ctx, start, length, mode & ~continue_modes() == 0)
    if error:
        return error, out
    wp = mode & UFFDIO_CONTINUE_MODE_WP != 0
    return ioctl_ends(ctx, mfill_atomic(ctx, start, length, MFILL_ATOMIC_CONTINUE, wp, NO_MM, 0), length)


def continue_modes() -> int:
    """The modes of UFFDIO_CONTINUE that there are."""
    return UFFDIO_CONTINUE_MODE_DONTWAKE | UFFDIO_CONTINUE_MODE_WP


def uffdio_poison(ctx: userfaultfd_ctx, start: int, length: int, mode: int = 0) -> tuple[int, int]:
    """UFFDIO_POISON: (0 or -errno, bytes poisoned or -errno)."""
    if not uffd_has_poison():
        return -EINVAL, 0
    error, out = ioctl_begins(ctx, start, length, mode & ~UFFDIO_POISON_MODE_DONTWAKE == 0)
    if error:
        return error, out
    return ioctl_ends(ctx, mfill_atomic(ctx, start, length, MFILL_ATOMIC_POISON, False, NO_MM, 0), length)


def uffdio_writeprotect(ctx: userfaultfd_ctx, start: int, length: int, mode: int) -> int:
    """UFFDIO_WRITEPROTECT with UFFDIO_WRITEPROTECT_MODE_*; 0 or -errno."""
    both = UFFDIO_WRITEPROTECT_MODE_WP | UFFDIO_WRITEPROTECT_MODE_DONTWAKE
    error, _ = ioctl_begins(ctx, start, length, mode & ~both == 0 and mode != both)
    if error:
        return error
    error = mwriteprotect_range(ctx, start, length, mode & UFFDIO_WRITEPROTECT_MODE_WP != 0)
    mmput(ctx.mm)
    return error


def uffdio_move(
    ctx: userfaultfd_ctx, dst: int, src: int, length: int, mode: int = 0, caller: mm_struct = NO_MM
) -> tuple[int, int]:
    """UFFDIO_MOVE with UFFDIO_MOVE_MODE_*: (0 or -errno, bytes moved or -errno).

    `caller` is the mm of the caller; by default, and for anything to be moved, that of the context.
    """
    if not uffd_has_move():
        return -EINVAL, 0
    valid = mode & ~(UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES | UFFDIO_MOVE_MODE_DONTWAKE) == 0
    valid = valid and (not caller or caller == ctx.mm) and validate_range(src, length) == 0
    error, out = ioctl_begins(ctx, dst, length, valid)
    if error:
        return error, out
    return ioctl_ends(ctx, move_pages(ctx, dst, src, length, mode), length)


def uffdio_wake(ctx: userfaultfd_ctx, start: int, length: int) -> int:
    """UFFDIO_WAKE: 0 or -EINVAL; nobody sleeps here."""
    return validate_range(start, length) if userfaultfd_is_initialized(ctx) else -EINVAL
