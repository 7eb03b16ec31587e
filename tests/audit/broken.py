# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""The rules of the audit broken in the model, in the place of what keeps them: a function for each, named as the rule.

In all but `write_...` it is mincore that breaks them, by its way to map and to unmap.
"""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Setup, override, scenario

from ..kernel.mm_types import mm_struct, spinlock_t
from ..kernel.pgtable import pmd_p, pte_p
from ..kernel.pgtable_generic import __pte_offset_map, pte_lockptr
from ..machine import load, might_sleep, rcu_read_unlock, spin_lock, spin_unlock


@override("mincore:pte_unmap_unlock")
def leak(pte: pte_p, ptl: spinlock_t) -> None:
    """The table stays mapped."""
    spin_unlock(ptl)


@override("mincore:pte_unmap_unlock")
def double_unmap(pte: pte_p, ptl: spinlock_t) -> None:
    """Unmapped once more."""
    spin_unlock(ptl)
    rcu_read_unlock()
    rcu_read_unlock()


@override("mincore:pte_offset_map_lock")
def unmap_wrong(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """A map that failed is unmapped."""
    pte, pmdval = __pte_offset_map(pmd, addr)
    if not pte:
        rcu_read_unlock()
        return 0, 0
    ptl = pte_lockptr(mm, pmdval)
    spin_lock(ptl)
    return pte, ptl


@override("mincore:pte_unmap_unlock")
def use_after_unmap(pte: pte_p, ptl: spinlock_t) -> None:
    """The entry is read once more."""
    spin_unlock(ptl)
    rcu_read_unlock()
    load(pte)


@override("mincore:pte_unmap_unlock")
def missing_unlock(pte: pte_p, ptl: spinlock_t) -> None:
    """The lock stays held."""
    rcu_read_unlock()


@override("mincore:pte_unmap_unlock")
def unlock_unheld(pte: pte_p, ptl: spinlock_t) -> None:
    """Unlocked once more."""
    spin_unlock(ptl)
    spin_unlock(ptl)
    rcu_read_unlock()


@override("mincore:pte_unmap_unlock")
def sleep_while_mapped(pte: pte_p, ptl: spinlock_t) -> None:
    """Between the unlock and the unmap."""
    spin_unlock(ptl)
    might_sleep()
    rcu_read_unlock()


@override("userfaultfd:pte_offset_map_lock")
def write_without_lock(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """Mapped for reading, and without the lock."""
    pte, pmdval = __pte_offset_map(pmd, addr)
    return (pte, pte_lockptr(mm, pmdval)) if pte else (0, 0)


@override("userfaultfd:pte_unmap_unlock")
def unmap_only(pte: pte_p, ptl: spinlock_t) -> None:
    """The other end of it."""
    rcu_read_unlock()


@scenario()
def nothing(s: Setup) -> None:
    """A file of overrides has a scenario."""
    p = s.process()
    s.thread("nothing", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
