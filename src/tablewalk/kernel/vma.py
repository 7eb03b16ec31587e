# SPDX-License-Identifier: GPL-2.0-only
"""Finding, merging, modifying and unmapping VMAs (mm/vma.c; 7.2).

All that changes VMAs runs under mmap_lock held for writing.  `vma_merge` has the conditions, `vma_change` the
mechanics.  A VMA that is returned may be an errno instead where it says so: test by `IS_ERR`.
"""

from __future__ import annotations

from ..arch import arch
from ..machine import WRITE_ONCE, mt_erase, mt_find, mt_prev, mt_range, mtree_load
from .collapse_policy import khugepaged_enter_vma
from .memory_zap import free_pgtables, unmap_vmas
from .mm_types import mm_struct, vm_area_struct
from .mmap_lock import (
    NO_VMA,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_unlock,
    vma_mark_attached,
    vma_mark_detached,
    vma_start_write,
)
from .mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from .rmap import anon_vma_clone, vma_pages
from .vm_flags import EINVAL, ENOMEM, EPERM, VM_LOCKED, VM_SEALED, VM_SPECIAL, VM_STICKY_FLAGS
from .vma_change import ERR_PTR, IS_ERR, MAX_MAP_COUNT, PTR_ERR, __split_vma, commit_merge, remove_vma
from .vma_merge import can_merge_remove_vma, can_vma_merge_left, can_vma_merge_right, vma_merge_struct

# --- finding -----------------------------------------------------------------------------------------------


def find_vma(mm: mm_struct, addr: int) -> vm_area_struct:
    """The first VMA that ends above `addr`; NULL if there is none."""
    return vm_area_struct(mt_find(mm.mm_mt, addr))


def vma_lookup(mm: mm_struct, addr: int) -> vm_area_struct:
    """The VMA that contains `addr`, or NULL."""
    return vm_area_struct(mtree_load(mm.mm_mt, addr))


def vma_prev(mm: mm_struct, addr: int) -> vm_area_struct:
    """The last VMA that begins below `addr`, or NULL."""
    return vm_area_struct(mt_prev(mm.mm_mt, addr))


def vma_next(vma: vm_area_struct) -> vm_area_struct:
    """The VMA after this one, or NULL."""
    return vm_area_struct(mt_find(vma.vm_mm.mm_mt, vma.vm_end))


def find_vma_intersection(mm: mm_struct, start: int, end: int) -> vm_area_struct:
    """The first VMA that overlaps [start, end), or NULL."""
    vma = find_vma(mm, start)
    return vma if vma and vma.vm_start < end else NO_VMA


def vma_is_sealed(vma: vm_area_struct) -> bool:
    """Whether mseal has made the VMA one that stays as it is."""
    return vma.vm_flags & VM_SEALED != 0


# --- merging -----------------------------------------------------------------------------------------------


def dup_anon_vma(dst: vm_area_struct, src: vm_area_struct) -> None:
    """Let `dst`, about to swallow memory of `src`, hang on src's anon_vmas if it has none itself."""
    if src.anon_vma and not dst.anon_vma:
        WRITE_ONCE(dst, "anon_vma", src.anon_vma)
        anon_vma_clone(dst, src)


def add_sticky_flags(vma: vm_area_struct, vm_flags: int) -> None:
    """Merged memory keeps the sticky flags of all that it was made of."""
    WRITE_ONCE(vma, "vm_flags", vma.vm_flags | vm_flags & VM_STICKY_FLAGS)


def vma_merge_existing_range(vmg: vma_merge_struct) -> vm_area_struct:
    """Merge vmg's range, at a side of `vmg.middle` or all of it, with neighbours; the VMA that has it now, or NULL."""
    middle = vmg.middle
    left_side = vmg.start == middle.vm_start
    right_side = vmg.end == middle.vm_end
    if vmg.vm_flags & VM_SPECIAL or not (left_side or right_side):
        return NO_VMA
    prev = vma_prev(middle.vm_mm, middle.vm_start) if left_side else NO_VMA
    next_ = vma_next(middle) if right_side else NO_VMA
    merge_left = can_vma_merge_left(vmg, prev)
    merge_right = can_vma_merge_right(vmg, prev, next_, merge_left)
    if not merge_left and not merge_right:
        return NO_VMA
    if left_side and right_side and not can_merge_remove_vma(middle):
        return NO_VMA
    if merge_left and merge_right and can_merge_remove_vma(next_):
        merged = merge_both(prev, middle, next_, vmg.vm_flags)
    elif merge_left:
        merged = merge_with_prev(prev, middle, vmg)
    else:
        merged = merge_with_next(middle, next_, vmg)
    khugepaged_enter_vma(merged, vmg.vm_flags)
    return merged


def merge_both(
    prev: vm_area_struct, middle: vm_area_struct, next_: vm_area_struct, vm_flags: int
) -> vm_area_struct:
    """`prev` swallows the other two."""
    vma_start_write(middle)
    vma_start_write(next_)
    vma_start_write(prev)
    sticky = vm_flags | next_.vm_flags
    dup_anon_vma(prev, next_ if next_.anon_vma else middle)
    commit_merge(prev, prev.vm_start, next_.vm_end, prev.vm_pgoff, prev, NO_VMA, middle, next_)
    add_sticky_flags(prev, sticky)
    return prev


def merge_with_prev(prev: vm_area_struct, middle: vm_area_struct, vmg: vma_merge_struct) -> vm_area_struct:
    """`prev` grows over the range, at the cost of `middle`, which may go."""
    vma_start_write(middle)
    vma_start_write(prev)
    dup_anon_vma(prev, middle)
    whole = vmg.end == middle.vm_end
    commit_merge(
        prev,
        prev.vm_start,
        vmg.end,
        prev.vm_pgoff,
        prev,
        NO_VMA if whole else middle,
        middle if whole else NO_VMA,
    )
    add_sticky_flags(prev, vmg.vm_flags)
    return prev


def merge_with_next(middle: vm_area_struct, next_: vm_area_struct, vmg: vma_merge_struct) -> vm_area_struct:
    """`next_` grows down over the range, at the cost of `middle`, which may go."""
    vma_start_write(middle)
    vma_start_write(next_)
    dup_anon_vma(next_, middle)
    if vmg.start == middle.vm_start:
        pgoff = next_.vm_pgoff - vma_pages(middle)
        commit_merge(next_, vmg.start, next_.vm_end, pgoff, next_, NO_VMA, middle)
    else:
        commit_merge(middle, middle.vm_start, vmg.start, middle.vm_pgoff, next_, next_)
    add_sticky_flags(next_, vmg.vm_flags)
    return next_


def vma_merge_new_range(
    vmg: vma_merge_struct, prev: vm_area_struct, next_: vm_area_struct, just_expand: bool = False
) -> vm_area_struct:
    """Let a neighbour (or NULL) grow over the empty range; the VMA that has it now, or NULL.

    `just_expand`: only `prev` may grow, and only up to the range's end (brk).
    """
    if vmg.vm_flags & VM_SPECIAL:
        return NO_VMA
    left = can_vma_merge_left(vmg, prev)
    right = not just_expand and can_vma_merge_right(vmg, prev, next_, left)
    if left:
        target = prev
        swallow = next_ if right and can_merge_remove_vma(next_) else NO_VMA
        vma_expand(prev, swallow, prev.vm_start, swallow.vm_end if swallow else vmg.end, prev.vm_pgoff, vmg)
    elif right:
        target = next_
        vma_expand(next_, NO_VMA, vmg.start, next_.vm_end, vmg.pgoff, vmg)
    else:
        return NO_VMA
    khugepaged_enter_vma(target, vmg.vm_flags)
    return target


def vma_expand(
    target: vm_area_struct, swallow: vm_area_struct, start: int, end: int, pgoff: int, vmg: vma_merge_struct
) -> None:
    """Let `target` grow to [start, end), over `swallow` (or NULL) too."""
    vma_start_write(target)
    sticky = vmg.vm_flags
    if swallow:
        dup_anon_vma(target, swallow)
    if vmg.copied_from:
        dup_anon_vma(target, vmg.copied_from)
    if swallow:
        vma_start_write(swallow)
        sticky |= swallow.vm_flags
    commit_merge(target, start, end, pgoff, target, NO_VMA, swallow)
    add_sticky_flags(target, sticky)


def vma_merge_extend(vma: vm_area_struct, delta: int) -> vm_area_struct:
    """Let the VMA grow by `delta` bytes over an empty range, into the next one if they fit; the VMA, or NULL."""
    vmg = vma_merge_struct(
        vma.vm_end,
        vma.vm_end + delta,
        vma.vm_pgoff + vma_pages(vma),
        vma.vm_flags,
        vma.vm_file,
        vma.anon_vma,
        vma.vm_policy,
        vma.vm_userfaultfd_ctx,
        vma.anon_name,
    )
    return vma_merge_new_range(vmg, vma, vma_next(vma))


def split_vma(vma: vm_area_struct, addr: int, new_below: bool) -> vm_area_struct:
    """Split at `addr`: the new VMA, below or above; -ENOMEM for too many VMAs, -EINVAL for vdso and vvar."""
    if vma.vm_mm.map_count >= MAX_MAP_COUNT:
        return ERR_PTR(-ENOMEM)
    return __split_vma(vma, addr, new_below)


def vma_modify(
    vma: vm_area_struct,
    start: int,
    end: int,
    vm_flags: int = -1,
    policy: int = -1,
    uffd_ctx: int = -1,
    anon_name: int = -1,
) -> vm_area_struct:
    """Split or merge so that [start, end), part of `vma`, has a VMA for other attributes (-1: as they are).

    Returns the VMA, which has to be given the attributes (`vm_flags_reset`), or an errno: -ENOMEM for too many VMAs,
    -EINVAL if it cannot be split.
    """
    vmg = vma_merge_struct(
        start,
        end,
        vma.vm_pgoff + (start - vma.vm_start >> arch.page_shift),
        vma.vm_flags if vm_flags < 0 else vm_flags,
        vma.vm_file,
        vma.anon_vma,
        vma.vm_policy if policy < 0 else policy,
        vma.vm_userfaultfd_ctx if uffd_ctx < 0 else uffd_ctx,
        vma.anon_name if anon_name < 0 else anon_name,
        vma,
    )
    merged = vma_merge_existing_range(vmg)
    if merged:
        return merged
    if vma.vm_start < start:
        new = split_vma(vma, start, True)
        if IS_ERR(new):
            return new
    if vma.vm_end > end:
        new = split_vma(vma, end, False)
        if IS_ERR(new):
            return new
    return vma


# --- unmapping ---------------------------------------------------------------------------------------------


def vms_gather_munmap_vmas(mm: mm_struct, start: int, end: int) -> tuple[int, tuple[vm_area_struct, ...]]:
    """Split at both ends and detach the VMAs of [start, end).  Returns (0, they), or (-errno, ()) with all attached."""
    first = find_vma(mm, start)
    if first.vm_start < start:
        if end < first.vm_end and mm.map_count >= MAX_MAP_COUNT:
            return -ENOMEM, ()
        if vma_is_sealed(first):
            return -EPERM, ()
        new = __split_vma(first, start, True)
        if IS_ERR(new):
            return PTR_ERR(new), ()
    vmas = tuple([vm_area_struct(found) for found in mt_range(mm.mm_mt, start, end)])
    for i, vma in enumerate(vmas):
        error = detach_vma(vma, end)
        if error:
            for other in vmas[:i]:
                vma_mark_attached(other)
            return error, ()
    return 0, vmas


def detach_vma(vma: vm_area_struct, end: int) -> int:
    """Cut the VMA at `end`, and let no reader in any more; 0 or -errno."""
    if vma_is_sealed(vma):
        return -EPERM
    if vma.vm_end > end:
        new = __split_vma(vma, end, False)
        if IS_ERR(new):
            return PTR_ERR(new)
    vma_start_write(vma)
    vma_mark_detached(vma)
    return 0


def unmap_region(
    mm: mm_struct, vmas: tuple[vm_area_struct, ...], start: int, end: int, floor: int, ceiling: int
) -> None:
    """Unmap [start, end) of these VMAs, and free the tables that nothing between `floor` and `ceiling` needs."""
    tlb = tlb_gather_mmu(mm)
    unmap_vmas(tlb, vmas, start, end)
    free_pgtables(tlb, vmas, floor, ceiling)
    tlb_finish_mmu(tlb)


def neighbours(mm: mm_struct, start: int, end: int) -> tuple[int, int]:
    """Floor and ceiling for the tables of [start, end): end of the VMA below, start of the one above, or the limits."""
    prev = vma_prev(mm, start)
    next_ = find_vma(mm, end)
    floor = prev.vm_end if prev else arch.first_user_address
    return floor, next_.vm_start if next_ else arch.user_pgtables_ceiling


def vms_account(mm: mm_struct, vmas: tuple[vm_area_struct, ...]) -> None:
    """The VMAs no longer count in the mm's statistics."""
    mm.map_count -= len(vmas)
    mm.total_vm -= sum([vma_pages(vma) for vma in vmas])
    mm.locked_vm -= sum([vma_pages(vma) for vma in vmas if vma.vm_flags & VM_LOCKED])


def do_vmi_align_munmap(mm: mm_struct, start: int, end: int, unlock: bool) -> int:
    """Unmap [start, end), which some VMA overlaps; 0 or -errno.  `unlock`: mmap_lock is released on success."""
    error, vmas = vms_gather_munmap_vmas(mm, start, end)
    if error:
        return error
    mt_erase(mm.mm_mt, start, end)
    vms_account(mm, vmas)
    floor, ceiling = neighbours(mm, start, end)
    if unlock:
        mmap_write_downgrade(mm)
    unmap_region(mm, vmas, start, end, floor, ceiling)
    for vma in vmas:
        remove_vma(vma)
    if unlock:
        mmap_read_unlock(mm)
    return 0


def do_vmi_munmap(mm: mm_struct, start: int, end: int, unlock: bool = False) -> int:
    """Unmap [start, end) bytes; 0 or -errno.  mmap_lock is held for writing; `unlock`: it is released on success."""
    if start & arch.page_size - 1 or end > arch.task_size or start >= end:
        return -EINVAL
    if not find_vma_intersection(mm, start, end):
        if unlock:
            mmap_write_unlock(mm)
        return 0
    return do_vmi_align_munmap(mm, start, end, unlock)
