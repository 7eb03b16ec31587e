# SPDX-License-Identifier: GPL-2.0-only
"""Pages of equal content are merged by ksmd and taken apart by writes, advice, and moves (mm/ksm.c)."""

from __future__ import annotations

import pytest
from .process import BASE, PAGE, M, Process

from tablewalk.machine.drivers import KernelConfig

MERGEABLE, UNMERGEABLE, HUGEPAGE, COLLAPSE = 12, 13, 14, 25
DRIVERS = ("sequential", "checked")


def process(driver: str = "sequential", release: str = "7.x", **options: str) -> Process:
    options.setdefault("known_contents", "y")
    return Process(KernelConfig(release, "x86_64", tuple(sorted(options.items()))), driver)


def passes(p: Process, nr: int = 3) -> None:
    for _ in range(nr):
        p.k("ksm_scan").ksmd_pass()
        p.done()


def filled(p: Process, addr: int, values: list[int], advice: int = MERGEABLE) -> None:
    p.mmap(addr, len(values) * PAGE)
    if advice:
        assert p.madvise(addr, len(values) * PAGE, advice) == 0
    for i, value in enumerate(values):
        p.write(addr + i * PAGE, value)


def mapped(p: Process, addr: int) -> int:
    """struct page that is mapped at an address."""
    pgtable = p.k("pgtable")
    table = pgtable.pmd_pgtable(p.model.machine.load(pgtable.mm_find_pmd(p.mm, addr)))
    return int(pgtable.pte_page(p.model.machine.load(table.entry + pgtable.pte_index(addr))))


def groups(p: Process, addr: int, nr: int) -> list[int]:
    """Pages of one range by number: the same number for the same page."""
    pages = [mapped(p, addr + i * PAGE) for i in range(nr)]
    return [pages.index(page) for page in pages]


@pytest.mark.parametrize("driver", DRIVERS)
def test_equal_pages_become_one_after_they_did_not_change_for_a_pass(driver: str) -> None:
    p = process(driver)
    filled(p, BASE, [7, 8, 7, 9, 8, 7])
    passes(p, 1)
    assert groups(p, BASE, 6) == [0, 1, 2, 3, 4, 5]
    passes(p, 1)
    assert groups(p, BASE, 6) == [0, 1, 0, 3, 1, 0]
    assert [p.read(BASE + i * PAGE) for i in range(6)] == [7, 8, 7, 9, 8, 7]
    assert p.rss == 6
    p.write(BASE, 10)
    assert groups(p, BASE, 6) == [0, 1, 2, 3, 1, 2]
    assert [p.read(BASE + i * PAGE) for i in range(6)] == [10, 8, 7, 9, 8, 7]
    p.exit()
    passes(p, 1)
