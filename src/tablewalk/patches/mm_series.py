# SPDX-License-Identifier: GPL-2.0-only
"""mm: allow pte_offset_map[_lock]() to fail (6.5): what each function did while it could rely on *pmd.

Before 6.5 no table went away under a reader of mmap_lock, so kernels of that time lack nothing: each row is a mutant
of a kernel where tables do go away.
"""

from __future__ import annotations

from typing import Final

from ..arch import arch
from ..kernel.mm_types import mm_struct, spinlock_t
from ..kernel.pgtable import PFN_SHIFT, TABLE_ENTRY, pmd_p, pmdp_get_lockless, pte_p
from ..kernel.pgtable_generic import __pte_offset_map, pte_lockptr
from ..machine import rcu_read_lock, spin_lock
from . import Claim, patch

SERIES: Final = "mm: allow pte_offset_map[_lock]() to fail"


@patch(
    "B04",
    commit="0d940a9b270b",
    title="mm/pgtable: allow pte_offset_map[_lock]() to fail",
    series=SERIES,
    since="6.5",
    site="pgtable_generic.__pte_offset_map",
    files=("mm/pgtable-generic.c", "include/linux/mm.h", "include/linux/pgtable.h"),
    mutant=True,
    claim=Claim("race", "fault-and-dontneed", "I1"),
)
def map_without_check(pmd: pmd_p, addr: int) -> tuple[pte_p, int]:
    """Whatever the pmd holds is taken for a table."""
    rcu_read_lock()
    pmdval = pmdp_get_lockless(pmd)
    return (pmdval >> PFN_SHIFT) + TABLE_ENTRY + (addr >> arch.page_shift & arch.ptrs_per_pte - 1), pmdval


@patch(
    "B04",
    commit="0d940a9b270b",
    title="mm/pgtable: allow pte_offset_map[_lock]() to fail",
    series=SERIES,
    since="6.5",
    site="pgtable_generic.pte_offset_map_lock",
    files=("mm/pgtable-generic.c", "include/linux/mm.h", "include/linux/pgtable.h"),
    mutant=True,
)
def lock_without_check(mm: mm_struct, pmd: pmd_p, addr: int) -> tuple[pte_p, spinlock_t]:
    """Once locked, a table is not looked for again in its pmd."""
    pte, pmdval = __pte_offset_map(pmd, addr)
    if not pte:
        return 0, 0
    ptl = pte_lockptr(mm, pmdval)
    spin_lock(ptl)
    return pte, ptl
