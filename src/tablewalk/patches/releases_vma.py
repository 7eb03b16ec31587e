# SPDX-License-Identifier: GPL-2.0-only
"""VMAs as older releases have them (mm/mmap.c, mm/mprotect.c, kernel/fork.c of 6.1; mm/vma.c of 6.12)."""

from __future__ import annotations

from ..kernel.config import config
from ..kernel.mm_types import mm_struct, vm_area_struct
from ..kernel.mmap_lock import NO_VMA
from ..kernel.rmap import list_is_singular
from ..kernel.vm_flags import (
    ENOSYS,
    VM_ACCOUNT,
    VM_HUGETLB,
    VM_NORESERVE,
    VM_SHARED,
    VM_STICKY_FLAGS,
    VM_WRITE,
)
from ..kernel.vma import vma_merge_new_range
from ..kernel.vma_merge import can_vma_merge_left, can_vma_merge_right, vma_has_close, vma_merge_struct
from ..machine import call_rcu
from . import patch


@patch(
    "R-vma-anon-merge",
    commit="879bca0a2c4f",
    title="mm/vma: fix incorrectly disallowed anonymous VMA merges",
    since="6.16",
    site="vma_merge.is_mergeable_anon_vma",
    files=("mm/vma.c",),
)
def is_mergeable_anon_vma(vmg: vma_merge_struct, target: vm_area_struct) -> bool:
    """What was written to does not merge into a neighbour that was not: that has no list, so none with one entry."""
    if (not vmg.anon_vma or not target.anon_vma) and list_is_singular(target):
        return True
    return bool(vmg.anon_vma == target.anon_vma)


@patch(
    "R-vma-new-range",
    commit="cacded5e42b9",
    title="mm: avoid using vma_merge() for new VMAs",
    since="6.12",
    site="mmap.mmap_merge",
    files=("mm/mmap.c",),
)
def mmap_merge(vmg: vma_merge_struct, prev: vm_area_struct, next_: vm_area_struct) -> vm_area_struct:
    """The next VMA comes first: the previous one joins only if it also fits that one's anon_vma."""
    if can_vma_merge_right(vmg, NO_VMA, next_, False):
        as_next = vma_merge_struct(vmg.start, vmg.end, vmg.pgoff, vmg.vm_flags, vmg.file, next_.anon_vma)
        if not can_vma_merge_left(as_next, prev):
            return vma_merge_new_range(vmg, NO_VMA, next_)
    return vma_merge_new_range(vmg, prev, next_)


@patch(
    "R-vma-close",
    commit="714965ca8252",
    title="mm/mmap: start distinguishing if vma can be removed in mergeability test",
    since="6.3",
    site="vma_merge.is_mergeable_vma",
    files=("mm/mmap.c",),
)
def is_mergeable_vma(vmg: vma_merge_struct, vma: vm_area_struct) -> bool:
    """A VMA with vm_ops->close never merges, even if it is the one that grows."""
    return (
        not vma_has_close(vma)
        and vmg.policy == vma.vm_policy
        and (vmg.vm_flags ^ vma.vm_flags) & ~VM_STICKY_FLAGS == 0
        and vmg.file == vma.vm_file
        and vmg.uffd_ctx == vma.vm_userfaultfd_ctx
        and vmg.anon_name == vma.anon_name
    )


@patch(
    "R-mseal",
    commit="8be7258aad44",
    title="mseal: add mseal syscall",
    since="6.10",
    site="mseal.sys_mseal",
    files=("mm/mseal.c",),
)
def no_mseal(mm: mm_struct, start: int, len_in: int, flags: int) -> int:
    """There is none."""
    return -ENOSYS


@patch(
    "R-vma-unaccount",
    title="mm/mprotect: allow unfaulted VMAs to be unaccounted on mprotect()",
    since="6.7",
    site="mprotect.mprotect_account",
    files=("mm/mprotect.c",),
)
def mprotect_account(vma: vm_area_struct, new: int) -> int:
    """Private memory that was writable once counts for ever."""
    if new & VM_WRITE and vma.vm_flags & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE) == 0:
        return new | VM_ACCOUNT
    return new


@patch(
    "R-vma-map-stack",
    commit="c4608d1bf7c6",
    title="mm: mmap: map MAP_STACK to VM_NOHUGEPAGE",
    since="6.7",
    site="mmap.map_stack_flags",
    files=("include/linux/mman.h",),
)
def map_stack_flags() -> int:
    """MAP_STACK asks for nothing."""
    return 0


@patch(
    "R-vma-typesafe",
    commit="3104138517fc",
    title="mm: make vma cache SLAB_TYPESAFE_BY_RCU",
    since="6.15",
    site="vma_change.vm_area_free",
    files=("kernel/fork.c",),
)
def vm_area_free(vma: vm_area_struct) -> None:
    """Where VMAs are locked one by one (6.4), each is freed after a grace period."""
    if config.per_vma_lock:
        call_rcu(vm_area_free_rcu_cb, vma.addr)
    else:
        vma.free()


def vm_area_free_rcu_cb(vma: int) -> None:
    """RCU callback."""
    vm_area_struct(vma).free()
