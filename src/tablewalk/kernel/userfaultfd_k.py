# SPDX-License-Identifier: GPL-2.0-only
"""What all of the kernel asks about userfaultfd (include/linux/userfaultfd_k.h, linux/leafops.h; 7.2)."""

from __future__ import annotations

from typing import Final

from ..machine import load
from .huge_mm import vma_is_anonymous
from .mm_types import userfaultfd_ctx, vm_area_struct
from .pgtable import PTE_MARKER_POISONED, PTE_MARKER_UFFD_WP, RW, UFFD_WP, pte_marker
from .vm_flags import VM_UFFD_FLAGS, VM_UFFD_MINOR, VM_UFFD_MISSING, VM_UFFD_WP

UFFD_FEATURE_PAGEFAULT_FLAG_WP: Final = 1 << 0
UFFD_FEATURE_EVENT_FORK: Final = 1 << 1
UFFD_FEATURE_EVENT_REMAP: Final = 1 << 2
UFFD_FEATURE_EVENT_REMOVE: Final = 1 << 3
UFFD_FEATURE_MISSING_HUGETLBFS: Final = 1 << 4
UFFD_FEATURE_MISSING_SHMEM: Final = 1 << 5
UFFD_FEATURE_EVENT_UNMAP: Final = 1 << 6
UFFD_FEATURE_SIGBUS: Final = 1 << 7
UFFD_FEATURE_THREAD_ID: Final = 1 << 8
UFFD_FEATURE_MINOR_HUGETLBFS: Final = 1 << 9
UFFD_FEATURE_MINOR_SHMEM: Final = 1 << 10
UFFD_FEATURE_EXACT_ADDRESS: Final = 1 << 11
UFFD_FEATURE_WP_HUGETLBFS_SHMEM: Final = 1 << 12
UFFD_FEATURE_WP_UNPOPULATED: Final = 1 << 13
UFFD_FEATURE_POISON: Final = 1 << 14
UFFD_FEATURE_WP_ASYNC: Final = 1 << 15
UFFD_FEATURE_MOVE: Final = 1 << 16
UFFD_FEATURE_INITIALIZED: Final = 1 << 31  # of the context alone: UFFDIO_API has been called

UFFD_USER_MODE_ONLY: Final = 1  # flag of the system call


# --- contexts --------------------------------------------------------------------------------------------


def vma_ctx(vma: vm_area_struct) -> userfaultfd_ctx:
    """The userfaultfd that the VMA is registered with, or NULL; the VMA or its mm is locked."""
    return userfaultfd_ctx(vma.vm_userfaultfd_ctx)


def ctx_has(ctx: userfaultfd_ctx, feature: int) -> bool:
    """Whether there is a userfaultfd, and UFFDIO_API asked it for the feature."""
    return bool(ctx) and load(ctx.features) & feature != 0


def userfaultfd_wp_unpopulated(vma: vm_area_struct) -> bool:
    """Whether write protection of anonymous memory reaches what is not populated."""
    return ctx_has(vma_ctx(vma), UFFD_FEATURE_WP_UNPOPULATED)


def userfaultfd_wp_async(vma: vm_area_struct) -> bool:
    """Whether the kernel itself resolves write-protect faults."""
    return ctx_has(vma_ctx(vma), UFFD_FEATURE_WP_ASYNC)


def vma_has_uffd_without_event_remap(vma: vm_area_struct) -> bool:
    """Whether a userfaultfd is registered that mremap leaves behind."""
    ctx = vma_ctx(vma)
    return bool(ctx) and not ctx_has(ctx, UFFD_FEATURE_EVENT_REMAP)


# --- modes of a VMA --------------------------------------------------------------------------------------


def userfaultfd_missing(vma: vm_area_struct) -> bool:
    """Whether faults on missing pages are delivered."""
    return vma.vm_flags & VM_UFFD_MISSING != 0


def userfaultfd_wp(vma: vm_area_struct) -> bool:
    """Whether write-protect faults are delivered."""
    return vma.vm_flags & VM_UFFD_WP != 0


def userfaultfd_minor(vma: vm_area_struct) -> bool:
    """Whether faults on pages that the cache has are delivered."""
    return vma.vm_flags & VM_UFFD_MINOR != 0


def userfaultfd_armed(vma: vm_area_struct) -> bool:
    """Whether any are."""
    return vma.vm_flags & VM_UFFD_FLAGS != 0


def uffd_disable_fault_around(vma: vm_area_struct) -> bool:
    """Whether entries may only come one by one, each by its own fault."""
    return vma.vm_flags & (VM_UFFD_WP | VM_UFFD_MINOR) != 0


def userfaultfd_wp_use_markers(vma: vm_area_struct) -> bool:
    """Whether write protection fills none entries with markers, allocating the tables for them."""
    return userfaultfd_wp(vma) and (not vma_is_anonymous(vma) or userfaultfd_wp_unpopulated(vma))


# --- entries ---------------------------------------------------------------------------------------------


def userfaultfd_pte_wp(vma: vm_area_struct, entry: int) -> bool:
    """Whether a present entry (or huge pmd) is write-protected by userfaultfd."""
    return entry & UFFD_WP != 0 and vma.vm_flags & VM_UFFD_WP != 0


def pte_mkuffd_wp(entry: int) -> int:
    """A present entry or huge pmd write-protected by userfaultfd."""
    return (entry | UFFD_WP) & ~RW


def pte_is_uffd_wp_marker(entry: int) -> bool:
    """Whether the entry is a marker that write-protects an unpopulated page."""
    return pte_marker(entry) & PTE_MARKER_UFFD_WP != 0


def pte_is_uffd_marker(entry: int) -> bool:
    """Whether the entry is a marker of userfaultfd's: write protection or poison."""
    return pte_marker(entry) & (PTE_MARKER_UFFD_WP | PTE_MARKER_POISONED) != 0
