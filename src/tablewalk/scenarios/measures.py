# SPDX-License-Identifier: GPL-2.0-only
"""Figures that patches change: programs of one thread (`explore/measure.py`)."""

from __future__ import annotations

from tablewalk.explore.measure import measure
from tablewalk.explore.scenario import MADV_DONTNEED, Setup


@measure("page tables in kB that MADV_DONTNEED of a whole table's range leaves")
def tables_left_by_dontneed(s: Setup) -> int:
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    before = p.vmpte()
    p.madvise(s.A, s.huge, MADV_DONTNEED)
    return 4 + p.vmpte() - before
