# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs may become one (mm/vma.c; 7.2).  Nothing here changes anything; `vma` merges."""

from __future__ import annotations

from ..arch import arch
from .mm_types import anon_vma, file, vm_area_struct
from .mmap_lock import NO_VMA
from .rmap import NO_ANON_VMA, list_is_singular, vma_pages
from .vm_flags import VM_SPECIAL_MAPPING, VM_STICKY_FLAGS


class vma_merge_struct:
    """A range and what its VMA would be (struct vma_merge_struct), never changed once made.

    `middle` is the VMA that has the range now, NULL for a new one; `copied_from` the VMA that mremap copies.
    """

    __slots__ = (
        "anon_name",
        "anon_vma",
        "copied_from",
        "end",
        "file",
        "middle",
        "pgoff",
        "policy",
        "start",
        "uffd_ctx",
        "vm_flags",
    )

    def __init__(
        self,
        start: int,
        end: int,
        pgoff: int,
        vm_flags: int,
        f: file,
        av: anon_vma = NO_ANON_VMA,
        policy: int = 0,
        uffd_ctx: int = 0,
        anon_name: int = 0,
        middle: vm_area_struct = NO_VMA,
        copied_from: vm_area_struct = NO_VMA,
    ) -> None:
        self.start = start
        self.end = end
        self.pgoff = pgoff
        self.vm_flags = vm_flags
        self.file = f
        self.anon_vma = av
        self.policy = policy
        self.uffd_ctx = uffd_ctx
        self.anon_name = anon_name
        self.middle = middle
        self.copied_from = copied_from

    def __eq__(self, other: object) -> bool:
        return isinstance(other, vma_merge_struct) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, ...]:
        return (
            self.start,
            self.end,
            self.pgoff,
            self.vm_flags,
            self.file.addr,
            self.anon_vma.addr,
            self.policy,
            self.uffd_ctx,
            self.anon_name,
            self.middle.addr,
            self.copied_from.addr,
        )


def vma_is_fork_child(vma: vm_area_struct) -> bool:
    """Whether the VMA hangs on anon_vmas of a parent: then pages of it may be the parent's."""
    return bool(vma) and bool(vma.anon_vma) and not list_is_singular(vma)


def is_mergeable_vma(vmg: vma_merge_struct, vma: vm_area_struct) -> bool:
    """Whether the attributes are those of the neighbour `vma`."""
    return (
        vmg.policy == vma.vm_policy
        and (vmg.vm_flags ^ vma.vm_flags) & ~VM_STICKY_FLAGS == 0
        and vmg.file == vma.vm_file
        and vmg.uffd_ctx == vma.vm_userfaultfd_ctx
        and vmg.anon_name == vma.anon_name
    )


def is_mergeable_anon_vma(vmg: vma_merge_struct, target: vm_area_struct) -> bool:
    """Whether the range and the neighbour `target` can share one anon_vma."""
    if vmg.anon_vma and not target.anon_vma:
        return not vma_is_fork_child(vmg.middle) and not vma_is_fork_child(vmg.copied_from)
    if target.anon_vma and not vmg.anon_vma:
        return not vma_is_fork_child(target)
    return target.anon_vma == vmg.anon_vma


def can_vma_merge_left(vmg: vma_merge_struct, prev: vm_area_struct) -> bool:
    """Whether the range can go on where `prev` (or NULL) ends."""
    return (
        bool(prev)
        and prev.vm_end == vmg.start
        and is_mergeable_vma(vmg, prev)
        and is_mergeable_anon_vma(vmg, prev)
        and prev.vm_pgoff + vma_pages(prev) == vmg.pgoff
    )


def can_vma_merge_right(vmg: vma_merge_struct, prev: vm_area_struct, next_: vm_area_struct, left: bool) -> bool:
    """Whether the range can go on in `next_` (or NULL), and if it also merges with `prev`, then all three."""
    if not next_ or vmg.end != next_.vm_start:
        return False
    if not is_mergeable_vma(vmg, next_) or not is_mergeable_anon_vma(vmg, next_):
        return False
    if next_.vm_pgoff != vmg.pgoff + (vmg.end - vmg.start >> arch.page_shift):
        return False
    if not left:
        return True
    return not prev.anon_vma or not next_.anon_vma or prev.anon_vma == next_.anon_vma


def vma_has_close(vma: vm_area_struct) -> bool:
    """Whether vm_ops->close has to be called when the VMA goes."""
    if vma.vm_file:
        return vma.vm_file.f_close != 0
    return vma.vm_flags & VM_SPECIAL_MAPPING != 0


def can_merge_remove_vma(vma: vm_area_struct) -> bool:
    """Whether a merge may make the VMA disappear."""
    return not vma_has_close(vma)
