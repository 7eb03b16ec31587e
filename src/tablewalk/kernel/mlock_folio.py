# SPDX-License-Identifier: GPL-2.0-only
"""Folios of locked memory, which are not reclaimed (mm/mlock.c, mm/internal.h; 7.2).

The kernel counts on the unevictable list, where a folio arrives later, by a batch of the CPU's; here it is counted at
once.  The batch's references are taken only while ksmd scans, which leaves a page alone that has one.
"""

from __future__ import annotations

from ..machine import WRITE_ONCE, add, add_return, atomic_or, load, store, vec_push, vec_take
from .mm_types import folio, vm_area_struct
from .page_alloc import PG_MLOCKED, SYSTEM, folio_get, folio_put
from .vm_flags import VM_LOCKED, VM_SPECIAL


def folio_batch_size() -> int:
    """How many folios are in a full batch (include/linux/folio_batch.h)."""
    return 31


def mlock_folio(f: folio) -> None:
    """One more mapping of the folio is locked."""
    atomic_or(f, "flags", PG_MLOCKED)
    add(f.mlock_count, 1)
    mlock_batch_add(f)


def munlock_folio(f: folio) -> None:
    """One less; with the last that was counted the folio is locked no more."""
    mlock_batch_add(f)
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


# --- the batch -------------------------------------------------------------------------------------------


def mlock_batch_begin() -> None:
    """From now on the batch has references.  It is empty: whoever scans has had all batches drained."""
    store(SYSTEM.mlock_batched, 1)


def mlock_batch_end() -> None:
    """From now on not."""
    mlock_drain_local()
    store(SYSTEM.mlock_batched, 0)


def mlock_batch_add(f: folio) -> None:
    """Let the batch have a reference; it is drained when it is full, and at once for a large folio."""
    if load(SYSTEM.mlock_batched):
        folio_get(f)
        if vec_push(SYSTEM.mlock_fbatch, f.addr) == folio_batch_size() or f.order:
            mlock_drain_local()


def mlock_drain_local() -> None:
    """Drop the references of this CPU's batch."""
    if load(SYSTEM.mlock_batched):
        for held in vec_take(SYSTEM.mlock_fbatch):
            folio_put(folio(held))
