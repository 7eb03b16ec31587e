# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""PT_RECLAIM where a pmd is read in two halves: 7.x does not interrupt readers before the slot is filled again."""

from __future__ import annotations

from tablewalk.explore.scenario import MADV_DONTNEED, Setup, override, scenario

from ..scenarios.halves import looking, map_in_halves

override("pgtable_generic.__pte_offset_map")(map_in_halves)


@scenario(arch="x86-pae/1")
def reclaim_and_map_in_halves(s: Setup) -> None:
    """MADV_DONTNEED takes a table away, a fault brings another into its place, and a reader maps one of them."""
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    s.thread("dontneed", lambda: p.madvise(s.A, s.huge, MADV_DONTNEED))
    s.thread("fault", lambda: p.write(s.A, 2))
    s.thread("look", looking(s, p))
