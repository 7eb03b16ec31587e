# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""A seeded bug: MADV_DONTNEED that could not get the pmd lock at once takes the table away without looking again."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Setup, override, scenario

from ..kernel.mm_types import mm_struct
from ..kernel.pgtable import pmd_clear
from ..kernel.pgtable_generic import pmd_lock, pte_lockptr
from ..machine import load, spin_lock_nested, spin_unlock


@override("memory_zap.zap_pte_table_if_empty")
def zap_pte_table(mm: mm_struct, pmd: int, addr: int) -> int:
    """Without the scan under both locks."""
    pml = pmd_lock(mm, pmd, addr)
    pmdval = load(pmd)
    if pmdval:
        ptl = pte_lockptr(mm, pmdval)
        spin_lock_nested(ptl)
        pmd_clear(pmd)
        spin_unlock(ptl)
    spin_unlock(pml)
    return int(pmdval)


@scenario()
def no_rescan(s: Setup) -> None:
    """As faults-and-dontneed-slow."""
    p = s.process()
    p.mmap(s.A, 2 * s.huge)
    p.write(s.A, 1)
    s.thread("faults", lambda: (p.write(s.A + s.huge * s.page, 3), p.write(s.A, 2)))
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
