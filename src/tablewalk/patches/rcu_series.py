# SPDX-License-Identifier: GPL-2.0-only
"""mm: free retracted page table by RCU (6.6): readers, freeing, and what only other architectures or options have.

What khugepaged did before (C09 to C11) is in `khugepaged.py`: releases lack that.  These are mutants: before 6.6
nobody freed a table under those who had it mapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..arch import arch
from ..kernel.mm_types import mm_struct, ptdesc, spinlock_t
from ..kernel.pgtable import LEAF, PFN_SHIFT, PRESENT, TABLE_ENTRY, pmd_p, pmdp_get_lockless, pte_p
from ..kernel.pgtable_generic import pte_free, pte_lockptr
from ..machine import forget, spin_lock, spin_unlock
from . import Claim, patch, without_code

F = TypeVar("F", bound=Callable[..., object])

SERIES: Final = "mm: free retracted page table by RCU"


def c01(site: str) -> Callable[[F], F]:
    """A site of C01."""
    return patch(
        "C01",
        commit="a349d72fd9ef",
        title="mm/pgtable: add rcu_read_lock() and rcu_read_unlock()s",
        series=SERIES,
        since="6.6",
        site=site,
        files=("mm/pgtable-generic.c", "include/linux/pgtable.h"),
        mutant=True,
        claim=Claim("race", "shmem-collapse-fault", "I1"),
    )


@c01("pgtable_generic.__pte_offset_map")
def map_outside_rcu(pmd: pmd_p, addr: int) -> tuple[pte_p, int]:
    """Nothing keeps the table from being freed."""
    pmdval = pmdp_get_lockless(pmd)
    if pmdval & (PRESENT | LEAF) != PRESENT:
        return 0, pmdval
    return (pmdval >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.page_shift & arch.ptrs_per_pte - 1), pmdval


@c01("pgtable_generic.pte_offset_map_lock")
def lock_outside_rcu(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """The lock that is waited for may be freed meanwhile."""
    while True:
        pte, pmdval = map_outside_rcu(pmd, addr)
        if not pte:
            return 0, 0
        ptl = pte_lockptr(mm, pmdval)
        spin_lock(ptl)
        if pmdval == pmdp_get_lockless(pmd):
            return pte, ptl
        spin_unlock(ptl)
        forget(())


@c01("pgtable_generic.pte_unmap")
def unmap_outside_rcu(pte: pte_p) -> None:
    """There is nothing to end."""


@c01("pgtable_generic.pte_unmap_unlock")
def unlock_outside_rcu(pte: pte_p, ptl: spinlock_t) -> None:
    """Only the lock."""
    spin_unlock(ptl)


@patch(
    "C08",
    commit="13cf577e6b66",
    title="mm/pgtable: add pte_free_defer() for pgtable as page",
    series=SERIES,
    since="6.6",
    site="pgtable_generic.pte_free_defer",
    files=("mm/pgtable-generic.c",),
    mutant=True,
    claim=Claim("race", "shmem-collapse-fault", "I1"),
)
def free_at_once(mm: mm_struct, pgtable: ptdesc) -> None:
    """A table that was taken is freed while others have it mapped."""
    pte_free(mm, pgtable)


# --- nothing to leave out --------------------------------------------------------------------------------


def nothing(kind: str, id: str, commit: str, title: str, note: str, *files: str) -> None:
    """A patch of this series that the model has no function for."""
    claim = Claim(kind, note=note)
    without_code(__name__, id, commit=commit, title=title, series=SERIES, since="6.6", files=files, claim=claim)


nothing("not modelled", "C03", "de2e4626c706", "arm: adjust_pte() use pte_offset_map_nolock()",
        "adjust_pte, which makes aliases in virtually indexed caches uncached", "arch/arm/mm/fault-armv.c")  # fmt: skip
nothing("not modelled", "C04", "3d140215a6ae", "powerpc: assert_pte_locked() use pte_offset_map_nolock()",
        "powerpc's own assertion that a table is locked", "arch/powerpc/mm/pgtable.c")  # fmt: skip
nothing("cleanup", "C12", "cf95e337cb63", "mm: delete mmap_write_trylock() and vma_try_start_write()",
        "what C09 replaced was their last caller", "include/linux/mmap_lock.h", "include/linux/mm.h")  # fmt: skip
nothing("cleanup", "C13", "610d06576737", "mm/pgtable: notes on pte_offset_map[_lock]()",
        "a comment", "mm/pgtable-generic.c")  # fmt: skip
