# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""A seeded bug: of a hugetlb page that is a run of entries the first alone is set."""

from __future__ import annotations

from tablewalk.explore.scenario import Setup, override, scenario

from ..kernel.pgtable import pte_p
from ..machine import store


@override("hugetlbpage.set_huge_pte_at")
def set_the_first(pte: pte_p, entry: int, size: int) -> None:
    """As for a page with one entry."""
    store(pte, entry)


@scenario(arch="riscv64/2")
def hugetlb_first_entry(s: Setup) -> None:
    """A page moves, all of whose entries are to say so."""
    p, hugetlb, size = s.process(), s.model.kernel("hugetlb"), 2 * s.page
    load = s.model.machine.load
    pte = hugetlb.hugetlb_no_page(p.mm, s.A, size)
    s.thread("migrate", lambda: hugetlb.unmap_and_move_huge_page(p.mm, pte, s.A, size))
    s.thread("look", lambda: hugetlb.smaps_hugetlb_range(p.mm, pte, s.A, size))
    s.finally_(lambda results: None if load(pte + 1) else "half of the page is not mapped")
