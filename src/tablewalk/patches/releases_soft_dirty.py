# SPDX-License-Identifier: GPL-2.0-only
"""Soft-dirty bits as older releases keep them, from their sources (6.1, 6.12)."""

from __future__ import annotations

from ..kernel.mm_types import vm_area_struct
from ..kernel.mmap_lock import vma_start_write
from ..kernel.pgtable import ACCESSED, DIRTY, MKDIRTY, RW, SOFT_DIRTY, UFFD_WP
from ..machine import WRITE_ONCE
from . import patch


@patch(
    "R-softdirty-sticky",
    title="mm: set the VM_MAYBE_GUARD flag on guard region install (sticky VMA flags; seen in 6.18.44 too)",
    since="6.18",
    site="vma.add_sticky_flags",
    files=("mm/vma.c",),
)
def add_no_flags(vma: vm_area_struct, vm_flags: int) -> None:
    """Merged memory is as soft-dirty as the VMA that grew."""


@patch(
    "R-softdirty-reset",
    title="mm: update vma_modify_flags() to handle residual flags, document (seen in 6.18.44 too)",
    since="6.18",
    site="vma_change.vm_flags_reset",
    files=("mm/vma.c",),
)
def vm_flags_reset(vma: vm_area_struct, vm_flags: int) -> None:
    """The VMA is afterwards as soft-dirty as the one that the flags were made from."""
    vma_start_write(vma)
    WRITE_ONCE(vma, "vm_flags", vm_flags)


@patch(
    "R-softdirty-split",
    title="mm/huge_memory: conditionally call maybe_mkwrite() and pte_mkdirty() when splitting a pmd",
    since="6.4",
    site="huge_pmd.split_pte_flags",
    files=("mm/huge_memory.c",),
)
def split_pte_flags(pmdval: int) -> int:
    """A split huge page's entries are clean: only its pages are dirty."""
    return pmdval & (RW | ACCESSED | SOFT_DIRTY | UFFD_WP)


@patch(
    "R-softdirty-migration",
    title="mm/migrate: what was not soft-dirty is not so after a migration either",
    since="6.12",
    site="rmap_walk.migration_pte_flags",
    files=("mm/migrate.c",),
)
def migration_pte_flags(entry: int) -> int:
    """Dirty pages become soft-dirty, too."""
    return entry & (RW | ACCESSED | SOFT_DIRTY | UFFD_WP) | (MKDIRTY if entry & DIRTY else 0)


@patch(
    "R-softdirty-move-zero",
    title="mm/huge_memory: the huge zero page stays what it is when userfaultfd moves it",
    since="7.0",
    site="userfaultfd_move.moved_huge_zero_pmd",
    files=("mm/huge_memory.c",),
)
def moved_huge_zero_pmd(pmdval: int) -> int:
    """It is not soft-dirty where it comes to be."""
    return pmdval & ~(SOFT_DIRTY | UFFD_WP)


@patch(
    "R-mprotect-batch",
    title="mm: optimize mprotect() by PTE batching",
    since="6.17",
    site="mprotect.mprotect_folio_pte_batch",
    files=("mm/mprotect.c",),
)
def mprotect_folio_pte_batch(entries: list[int], i: int) -> int:
    """Each entry is changed by itself, and none becomes dirty as others are."""
    return 1
