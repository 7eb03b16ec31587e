# SPDX-License-Identifier: GPL-2.0-only
"""Pages of equal content are merged by ksmd and taken apart by writes, advice, and moves (mm/ksm.c)."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, M, Process

MERGEABLE, UNMERGEABLE, HUGEPAGE = 12, 13, 14
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


@pytest.mark.parametrize("driver", DRIVERS)
def test_advice_and_moves_take_pages_apart(driver: str) -> None:
    p = process(driver)
    filled(p, BASE, [7] * 8)
    passes(p)
    assert groups(p, BASE, 8) == [0] * 8
    assert p.madvise(BASE, 2 * PAGE, UNMERGEABLE) == 0
    assert groups(p, BASE, 8) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert p.mremap(BASE + 2 * PAGE, 2 * PAGE, 2 * PAGE, 3, BASE + M) == BASE + M
    assert groups(p, BASE + M, 2) == [0, 1]
    assert groups(p, BASE + 4 * PAGE, 4) == [0] * 4
    assert p.has(BASE + M, "VM_MERGEABLE")
    passes(p)
    assert mapped(p, BASE + M) == mapped(p, BASE + 4 * PAGE)
    p.exit()
    passes(p, 1)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_child_is_scanned_too_and_what_it_shared_is_merged(driver: str) -> None:
    p = process(driver)
    filled(p, BASE, [7, 7, 8])
    child = p.fork()
    passes(p)
    assert {mapped(q, BASE + i * PAGE) for q in (p, child) for i in (0, 1)} == {mapped(p, BASE)}
    assert mapped(p, BASE + 2 * PAGE) == mapped(child, BASE + 2 * PAGE)
    later = child.fork()
    passes(p, 1)
    child.exit()
    later.write(BASE, 9)
    assert [q.read(BASE) for q in (p, later)] == [7, 9]
    p.exit()
    later.exit()
    passes(p, 1)
    objects = dict(p.model.machine.objects())
    assert objects["ksm_rmap_item"] == objects["anon_vma"] == objects["mm_struct"] == 0
    assert objects["ksm_mm_slot"] == 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_huge_page_is_split_and_merged(driver: str) -> None:
    p = process(driver)
    p.mmap(BASE, 2 * M)
    assert p.madvise(BASE, 2 * M, HUGEPAGE) == p.madvise(BASE, 2 * M, MERGEABLE) == 0
    p.write(BASE, 5)
    p.write(BASE + 9 * PAGE, 5)
    assert p.huge == 1
    passes(p, 4)
    assert p.huge == 0
    assert mapped(p, BASE) == mapped(p, BASE + 9 * PAGE)
    assert p.rss == 2, "pages of zeroes became the zero page when the huge page was split"
    p.exit()


def test_a_page_is_shared_so_often_and_then_there_is_a_second_one() -> None:
    p = process(max_page_sharing="4")
    filled(p, BASE, [7] * 11)
    passes(p, 6)
    pages = groups(p, BASE, 11)
    assert len(set(pages)) > 2
    assert max(pages.count(page) for page in pages) == 4


def test_before_6_11_a_page_that_has_just_changed_joins_one_that_is_merged_already() -> None:
    for release, joined in (("6.1", True), ("6.12", False)):
        p = process(release=release)
        filled(p, BASE, [7, 7, 8])
        passes(p)
        p.write(BASE + 2 * PAGE, 7)
        passes(p, 1)
        assert (mapped(p, BASE) == mapped(p, BASE + 2 * PAGE)) == joined, release


def test_smart_scan_leaves_out_pages_that_were_tried_in_vain() -> None:
    for release, skipped in (("6.1", 0), ("7.x", 3)):
        p = process(release=release)
        filled(p, BASE, [1, 2, 3])
        seen = [p.k("ksm_scan").ksmd_pass() for _ in range(8)]
        assert seen[:4] == [3, 3, 3, 3]
        assert min(seen) == 3 - skipped, release


def test_without_ksm_the_advice_is_unknown() -> None:
    p = process(ksm="n")
    p.mmap(BASE, PAGE)
    assert p.madvise(BASE, PAGE, MERGEABLE) == -22
