# SPDX-License-Identifier: GPL-2.0-only
"""Folios of locked memory, which are not reclaimed (mm/mlock.c, mm/internal.h; 7.2).

The kernel counts on the unevictable list, where a folio arrives later, by batches of a CPU; here it is counted at once.
"""

from __future__ import annotations

from ..machine import WRITE_ONCE, add, add_return, atomic_or, load
from .mm_types import folio, vm_area_struct
from .page_alloc import PG_MLOCKED
from .vm_flags import VM_LOCKED, VM_SPECIAL


def mlock_folio(f: folio) -> None:
    """One more mapping of the folio is locked."""
    atomic_or(f, "flags", PG_MLOCKED)
    add(f.mlock_count, 1)


def munlock_folio(f: folio) -> None:
    """One less; with the last that was counted the folio is locked no more."""
    if load(f.mlock_count) and add_return(f.mlock_count, -1):
        return
    if f.flags & PG_MLOCKED:
        WRITE_ONCE(f, "flags", f.flags & ~PG_MLOCKED)


def mlock_vma_folio(f: folio, vma: vm_area_struct) -> None:
    """The VMA now maps the whole folio."""
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_folio(f)


def munlock_vma_folio(f: folio, vma: vm_area_struct) -> None:
    """The VMA maps the folio, or a page of it, no more."""
    if vma.vm_flags & VM_LOCKED:
        munlock_folio(f)
