# SPDX-License-Identifier: GPL-2.0-only
"""Swap: who refers to a slot, and when the swap cache keeps a page."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, SHARED, M, Process

WILLNEED, DONTNEED, FREE, HUGEPAGE, PAGEOUT = 3, 4, 8, 14, 21


@pytest.fixture
def p(driver: str) -> Process:
    return Process(KernelConfig(options=(("swap", "y"),)), driver)


def swapped(p: Process) -> int:
    """Pages of VmSwap."""
    return int(p.model.machine.load(p.mm.swapents))


def slots(p: Process) -> int:
    """Slots in use."""
    machine, k = p.model.machine, p.k("swap_table")
    info = k.SYSTEM.swap_info
    used = 0
    for _, address in machine.xa_range(info.cluster_info, 0, k.MAX_CLUSTERS):
        ci = p.k("mm_types").swap_cluster_info(address)
        used += sum(k.swap_slot_in_use(k.swap_slot(ci, i)) for i in range(512))
    return used


def pageout(p: Process, nr: int = 4) -> None:
    """`nr` pages with contents, swapped out."""
    p.mmap(BASE, nr * PAGE)
    for i in range(nr):
        p.write(BASE + i * PAGE, i + 1)
    assert p.madvise(BASE, nr * PAGE, PAGEOUT) == 0


def test_contents_come_back(p: Process) -> None:
    pageout(p)
    assert (p.rss, swapped(p), slots(p)) == (0, 4, 4)
    assert [p.read(BASE + i * PAGE) for i in range(4)] == [1, 2, 3, 4]
    assert (p.rss, swapped(p), slots(p)) == (4, 0, 0)


def test_a_child_shares_slots(p: Process) -> None:
    pageout(p)
    child = p.fork()
    assert (swapped(child), slots(p)) == (4, 4)
    child.write(BASE, 9)
    assert p.read(BASE) == 1 and slots(p) == 3
    p.munmap(BASE, 4 * PAGE)
    assert [child.read(BASE + i * PAGE) for i in range(4)] == [9, 2, 3, 4]
    assert slots(p) == 0
    child.exit()
    p.exit()


def test_a_page_read_for_one_is_cached_for_the_other(p: Process) -> None:
    pageout(p, 1)
    child = p.fork()
    assert child.read(BASE) == 1
    before = child.rss
    child.munmap(BASE, PAGE)
    assert before == 1 and slots(p) == 1  # the cache keeps it for the parent
    assert p.read(BASE) == 1 and slots(p) == 0


@pytest.mark.parametrize("advice", [DONTNEED, FREE])
def test_advice_that_drops_slots(p: Process, advice: int) -> None:
    pageout(p)
    assert p.madvise(BASE, 2 * PAGE, advice) == 0
    assert (swapped(p), slots(p)) == (2, 2)
    assert p.read(BASE) == 0 and p.read(BASE + 2 * PAGE) == 3


def test_willneed_fills_the_cache_alone(p: Process) -> None:
    pageout(p)
    assert p.madvise(BASE, 4 * PAGE, WILLNEED) == 0
    assert (p.rss, swapped(p), slots(p)) == (0, 4, 4)
    p.munmap(BASE, 4 * PAGE)
    assert slots(p) == 0


def test_huge_page_goes_whole_and_leaves_its_table(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    assert p.madvise(BASE, 2 * M, HUGEPAGE) == 0
    p.write(BASE, 5)
    before = p.vmpte
    assert p.madvise(BASE, 2 * M, PAGEOUT) == 0
    assert (p.huge, p.rss, swapped(p), p.vmpte) == (0, 0, 512, before)
    assert p.read(BASE) == 5 and p.rss == 1


def test_shared_memory_is_swapped_by_the_file(p: Process) -> None:
    p.mmap(BASE, 4 * PAGE, flags=SHARED, f=p.memfd(4 * PAGE))
    p.write(BASE, 6)
    assert p.read(BASE + PAGE) == 0  # never written: dropped, not swapped
    assert p.madvise(BASE, 4 * PAGE, PAGEOUT) == 0
    assert (p.rss, swapped(p), slots(p)) == (0, 0, 1)
    assert p.read(BASE) == 6 and slots(p) == 0


def test_without_swap_pages_stay(driver: str) -> None:
    p = Process(driver=driver)
    pageout(p)
    assert (p.rss, swapped(p)) == (4, 0)
