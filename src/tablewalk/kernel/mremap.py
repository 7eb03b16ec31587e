# SPDX-License-Identifier: GPL-2.0-only
"""The mremap system call (mm/mremap.c, copy_vma in mm/vma.c; 7.2).

Placement is not modelled: the caller says where a mapping goes that has to move.  Nor are RLIMIT_AS and overcommit,
by which a call may fail that succeeds here.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..machine import MREMAP_VMAS, count
from .filemap import get_file
from .gup import mm_populate
from .huge_mm import vma_is_anonymous
from .ksm import ksm_unmergeable
from .mm_types import mm_struct, userfaultfd_ctx, vm_area_struct
from .mmap import mlock_future_ok, page_align
from .mmap_lock import NO_VMA, mmap_write_lock, mmap_write_unlock, vma_start_write
from .move_page_tables import move_page_tables
from .not_modelled import NotModelled
from .rmap import anon_vma_clone, linear_page_index, unlink_anon_vmas
from .userfaultfd_events import NO_CTX, event_begins, userfaultfd_event_wait_completion
from .userfaultfd_k import UFFD_FEATURE_EVENT_REMAP, ctx_has, userfaultfd_armed, vma_ctx
from .vm_flags import (
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOMEM,
    EPERM,
    VM_DONTEXPAND,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SHARED,
    VM_SPECIAL_MAPPING,
    VM_UFFD_FLAGS,
)
from .vma import (
    do_vmi_munmap,
    find_vma,
    find_vma_intersection,
    split_vma,
    vma_is_sealed,
    vma_lookup,
    vma_merge_extend,
    vma_merge_new_range,
    vma_prev,
)
from .vma_change import IS_ERR, MAX_MAP_COUNT, PTR_ERR, vm_area_dup, vm_flags_reset, vma_link, vma_set_range
from .vma_merge import vma_merge_struct

U64_MAX: Final = (1 << 64) - 1

MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4


def sys_mremap(mm: mm_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """mremap(2), lengths in bytes; `new_addr` is where the mapping goes if it moves, with or without MREMAP_FIXED.

    Returns the address, or -errno; -ENOMEM also if it has to move and new_addr is 0.
    """
    old_len = page_align(old_len) & U64_MAX
    new_len = page_align(new_len) & U64_MAX
    error = check_mremap_params(addr, old_len, new_len, flags, new_addr)
    if error:
        return error
    mmap_write_lock(mm)
    res, locked, populate = do_mremap(mm, addr, old_len, new_len, flags, new_addr)
    ctx = mremap_event(mm, res) if res >= 0 and res != addr else NO_CTX
    if locked:
        mmap_write_unlock(mm)
    if populate and res >= 0:
        mm_populate(mm, res + old_len, new_len - old_len)
    if ctx:
        userfaultfd_event_wait_completion(ctx)
    return res


def mremap_event(mm: mm_struct, addr: int) -> userfaultfd_ctx:
    """Who has to be told of what moved to `addr` (the other half of mremap_userfaultfd_prep), or NULL.

    The event comes when the growth of locked memory is populated: a monitor can resolve no fault of that.
    """
    ctx = vma_ctx(vma_lookup(mm, addr))
    if ctx:
        event_begins(ctx)
    return ctx


def implies_new_addr(flags: int) -> bool:
    """Whether the call always moves."""
    return flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0


def check_mremap_params(addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """0, or -EINVAL for arguments that are wrong whatever is mapped."""
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or addr & arch.page_size - 1:
        return -EINVAL
    if new_len == 0 or new_len > arch.task_size:
        return -EINVAL
    if not implies_new_addr(flags):
        return 0
    if new_addr > arch.task_size - new_len or new_addr & arch.page_size - 1 or flags & MREMAP_MAYMOVE == 0:
        return -EINVAL
    if flags & MREMAP_DONTUNMAP and old_len != new_len:
        return -EINVAL
    if addr + old_len > new_addr and new_addr + new_len > addr:
        return -EINVAL
    return 0


def do_mremap(
    mm: mm_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
) -> tuple[int, bool, bool]:
    """Under mmap_lock.  Returns (address or -errno, mmap_lock is still held, the growth is to be populated)."""
    splits = 5 if flags & MREMAP_DONTUNMAP else 4
    if mm.map_count + splits > MAX_MAP_COUNT:
        return -ENOMEM, True, False
    if flags & MREMAP_FIXED and old_len == new_len:
        return remap_move(mm, addr, old_len, flags, new_addr), True, False
    vma = vma_lookup(mm, addr)
    error = check_prep_vma(mm, vma, addr, old_len, new_len, flags)
    if error:
        return error, True, False
    populate = new_len > old_len and vma.vm_flags & VM_LOCKED != 0
    if implies_new_addr(flags):
        return mremap_to(mm, addr, old_len, new_len, flags, new_addr), True, populate
    if new_len > old_len:
        return expand_vma(mm, vma, addr, old_len, new_len, flags, new_addr), True, populate
    if new_len == old_len:
        return addr, True, False
    error = do_vmi_munmap(mm, addr + new_len, addr + old_len, True)
    return (error, True, False) if error else (addr, False, False)


def check_prep_vma(
    mm: mm_struct, vma: vm_area_struct, addr: int, old_len: int, new_len: int, flags: int
) -> int:
    """0, or -errno if `vma` (or NULL), which has `addr`, cannot be resized or moved like that."""
    if not vma:
        return -EFAULT
    if vma_is_sealed(vma):
        return -EPERM
    if vma.vm_flags & VM_HUGETLB:
        raise NotModelled("hugetlb")
    if new_len <= old_len and not implies_new_addr(flags):
        return 0
    if old_len == 0 and vma.vm_flags & (VM_SHARED | VM_MAYSHARE) == 0:
        return -EINVAL
    if flags & MREMAP_DONTUNMAP and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EINVAL
    if min(old_len, new_len) > vma.vm_end - addr:
        return -EFAULT
    if new_len <= old_len:
        return 0
    if linear_page_index(vma, addr) + (new_len >> arch.page_shift) >= 1 << 64:
        return -EINVAL
    if vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EFAULT
    return 0 if mlock_future_ok(mm, vma.vm_flags, new_len - old_len) else -EAGAIN


# --- moving several VMAs ---------------------------------------------------------------------------------


def remap_move(mm: mm_struct, start: int, length: int, flags: int, new_addr: int) -> int:
    """Move every VMA in the range, one by one, holes staying holes: what the destination has there survives.

    Returns the new address of the first, or -errno, with those before it moved.
    """
    end = start + length
    at = start
    res = -EFAULT
    last_end = target = 0
    while at < end:
        vma = find_vma_intersection(mm, at, end)
        if not vma or (at == start and start < vma.vm_start):
            break
        addr = max(vma.vm_start, start)
        size = min(vma.vm_end, end) - addr
        target = target + addr - last_end if last_end else new_addr
        if not vma_multi_allowed(vma) and (last_end or vma.vm_end < end):
            return -EFAULT
        last_end = vma.vm_end
        moved = check_prep_vma(mm, vma, addr, size, size, flags)
        if moved == 0:
            moved = mremap_to(mm, addr, size, size, flags, target)
        if moved < 0:
            return moved
        if at == start:
            res = moved
        else:
            count(MREMAP_VMAS)
        target = moved + size
        at = addr + size
    return res


def vma_multi_allowed(vma: vm_area_struct) -> bool:
    """Whether the VMA may be moved with others: nobody wants to be told, and its file has no say in where it goes."""
    return not userfaultfd_armed(vma) and not (vma.vm_file and vma.vm_file.f_close)


# --- moving one ------------------------------------------------------------------------------------------


def mremap_to(mm: mm_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
    """Make room at new_addr, cut what is too long, and move; the new address or -errno."""
    if flags & MREMAP_FIXED:
        error = do_vmi_munmap(mm, new_addr, new_addr + new_len)
        if error:
            return error
    if new_len < old_len:
        error = do_vmi_munmap(mm, addr + new_len, addr + old_len)
        if error:
            return error
        old_len = new_len
    vma = vma_lookup(mm, addr)
    if not vma:
        return -EFAULT
    return move_vma(mm, vma, addr, old_len, new_len, flags, new_addr)


def move_vma(
    mm: mm_struct, vma: vm_area_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
) -> int:
    """Copy the VMA and move what it maps; the source goes, unless MREMAP_DONTUNMAP.  The new address or -errno."""
    error = prep_move_vma(mm, vma, addr, old_len, flags)
    if error:
        return error
    vma_start_write(vma)
    vma, new_vma, need_rmap_locks = copy_vma(
        vma, new_addr, new_len, linear_page_index(vma, addr), flags & MREMAP_DONTUNMAP != 0
    )
    move_page_tables(vma, new_vma, addr, new_addr, old_len, need_rmap_locks)
    mremap_userfaultfd_prep(new_vma)
    if flags & MREMAP_DONTUNMAP:
        keep_source(vma, addr, addr + old_len, new_len)
    else:
        account_move(vma, new_len)
        do_vmi_munmap(mm, addr, addr + old_len)
    return new_addr


def account_move(vma: vm_area_struct, new_len: int) -> None:
    """Count the copy as what the source is (vrm_stat_account)."""
    mm = vma.vm_mm
    pages = new_len >> arch.page_shift
    mm.total_vm += pages
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += pages


def keep_source(vma: vm_area_struct, start: int, end: int, new_len: int) -> None:
    """MREMAP_DONTUNMAP: the copy is locked instead of the source, so that no more is locked than before."""
    dontunmap_complete(vma, start, end)
    account_move(vma, new_len)


def prep_move_vma(mm: mm_struct, vma: vm_area_struct, addr: int, old_len: int, flags: int) -> int:
    """0, or -errno if the VMA cannot be moved."""
    if mm.map_count + (3 if needs_pre_split(vma, flags) else 2) > MAX_MAP_COUNT:
        return -ENOMEM
    if vma.vm_flags & VM_SPECIAL_MAPPING and (vma.vm_start != addr or vma.vm_end != addr + old_len):
        return -EINVAL
    ksm_unmergeable(vma, addr, addr + old_len)
    return pre_split(vma, addr, old_len, flags)


def needs_pre_split(vma: vm_area_struct, flags: int) -> bool:
    """Whether a part of the VMA may stay behind that is no longer locked."""
    return flags & MREMAP_DONTUNMAP != 0 and vma.vm_flags & VM_LOCKED != 0


def pre_split(vma: vm_area_struct, addr: int, old_len: int, flags: int) -> int:
    """Split a locked VMA of which MREMAP_DONTUNMAP moves a part: only that part is unlocked.  0 or -errno."""
    if not needs_pre_split(vma, flags):
        return 0
    if vma.vm_start != addr:
        new = split_vma(vma, addr, True)
        if IS_ERR(new):
            return PTR_ERR(new)
    if vma.vm_end != addr + old_len:
        new = split_vma(vma, addr + old_len, False)
        if IS_ERR(new):
            return PTR_ERR(new)
    return 0


def copy_vma(
    vma: vm_area_struct, addr: int, length: int, pgoff: int, keep_source: bool
) -> tuple[vm_area_struct, vm_area_struct, bool]:
    """Let [addr, addr + length), which is empty, be mapped as `vma` is, from page `pgoff` on.

    Returns (source, destination, rmap locks are needed to move what is mapped).  A neighbour of the destination may
    grow over it; that may even be the source, as long as it never had an anon_vma.
    """
    mm = vma.vm_mm
    prev = vma_prev(mm, addr)
    next_ = find_vma(mm, addr)
    if vma_is_anonymous(vma) and not vma.anon_vma:
        pgoff = addr >> arch.page_shift
        if keep_source:
            prev, next_ = without_self(vma, prev, next_, addr, addr + length)
    vma_start = vma.vm_start
    vmg = vma_merge_struct(
        addr,
        addr + length,
        pgoff,
        vma.vm_flags,
        vma.vm_file,
        vma.anon_vma,
        vma.vm_policy,
        vma.vm_userfaultfd_ctx,
        vma.anon_name,
        copied_from=vma,
    )
    merged = vma_merge_new_range(vmg, prev, next_)
    if merged:
        if merged.vm_start <= vma_start < merged.vm_end:
            vma = merged
        return vma, merged, merged.vm_pgoff <= vma.vm_pgoff
    new = vm_area_dup(vma, mm)
    vma_set_range(new, addr, addr + length, pgoff)
    anon_vma_clone(new, vma)
    if new.vm_file:
        get_file(new.vm_file)
    vma_link(mm, new)
    return vma, new, False


def without_self(
    vma: vm_area_struct, prev: vm_area_struct, next_: vm_area_struct, addr: int, end: int
) -> tuple[vm_area_struct, vm_area_struct]:
    """The neighbours (or NULL) that a copy of `vma` to [addr, end) may merge with if the source is to stay."""
    return NO_VMA if prev == vma else prev, NO_VMA if next_ == vma else next_


def mremap_userfaultfd_prep(vma: vm_area_struct) -> None:
    """The new VMA of a move keeps its userfaultfd only if that wants to hear of it."""
    if vma.vm_userfaultfd_ctx and not ctx_has(vma_ctx(vma), UFFD_FEATURE_EVENT_REMAP):
        vma_start_write(vma)
        vma.vm_userfaultfd_ctx = 0
        vm_flags_reset(vma, vma.vm_flags & ~VM_UFFD_FLAGS)


def dontunmap_complete(vma: vm_area_struct, start: int, end: int) -> None:
    """What stays behind is unlocked; if the whole VMA was moved it has no anonymous page left, and no anon_vma."""
    vm_flags_reset(vma, vma.vm_flags & ~VM_LOCKED_MASK)
    if vma.vm_start == start and vma.vm_end == end:
        unlink_anon_vmas(vma)
        if vma_is_anonymous(vma):
            vma.vm_pgoff = vma.vm_start >> arch.page_shift


# --- growing ---------------------------------------------------------------------------------------------


def expand_vma(
    mm: mm_struct, vma: vm_area_struct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
) -> int:
    """Let the VMA grow where it is if nothing is behind it, else move it; the address or -errno."""
    if vma.vm_end - addr == old_len and vma_expandable(vma, new_len - old_len):
        return expand_vma_in_place(mm, vma, addr, new_len - old_len)
    if flags & MREMAP_MAYMOVE == 0 or new_addr == 0:
        return -ENOMEM
    return move_vma(mm, vma, addr, old_len, new_len, flags, new_addr)


def vma_expandable(vma: vm_area_struct, delta: int) -> bool:
    """Whether `delta` bytes behind the VMA are free."""
    end = vma.vm_end + delta
    return end <= arch.task_size and not find_vma_intersection(vma.vm_mm, vma.vm_end, end)


def expand_vma_in_place(mm: mm_struct, vma: vm_area_struct, addr: int, delta: int) -> int:
    """Grow by `delta` bytes, merging with what then follows; `addr` or -ENOMEM if the VMA cannot grow."""
    grown = vma_merge_extend(vma, delta)
    if not grown:
        return -ENOMEM
    pages = delta >> arch.page_shift
    mm.total_vm += pages
    if grown.vm_flags & VM_LOCKED:
        mm.locked_vm += pages
    return addr
