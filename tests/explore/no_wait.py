# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""A seeded bug: who locks a VMA exclusively does not wait for its readers."""

from __future__ import annotations

from tablewalk.explore.scenario import PROT_READ, Setup, override, scenario

from ..kernel.mm_types import vm_area_struct
from ..machine import WRITE_ONCE, load, lock_map_acquire, lock_map_tryacquire


@override("mmap_lock.vma_start_write")
def vma_start_write_at_once(vma: vm_area_struct) -> None:
    """Readers that come later see it; those who are there stay."""
    if load(vma.vm_refcnt):
        lock_map_acquire(vma.vm_lock)
    else:
        lock_map_tryacquire(vma.vm_lock)
    WRITE_ONCE(vma, "vm_lock_seq", vma.vm_mm.mm_lock_seq)


@scenario()
def no_wait(s: Setup) -> None:
    """A fault that has the VMA's lock, and mprotect."""
    p = s.process()
    p.mmap(s.A, 2 * s.huge)
    p.write(s.A, 1)
    s.thread("fault", lambda: p.write(s.A + s.page, 2))
    s.thread("mprotect", lambda: p.mprotect(s.A, s.huge, PROT_READ))
