# SPDX-License-Identifier: GPL-2.0-only
"""What mincore says of mapped pages, of the file's cache behind those that are not, and of swap."""

from __future__ import annotations

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, PRIVATE, SHARED, M, Process

EINVAL, ENOMEM = 22, 12
DONTNEED, PAGEOUT, COLLAPSE, GUARD_INSTALL = 4, 21, 25, 102


def mincore(p: Process, addr: int, pages: int) -> tuple[int, list[int]]:
    """(what it returns, a 1 or 0 for each page)."""
    ret, vec = p.k("mincore").sys_mincore(p.mm, addr, pages * PAGE)
    p.done()
    return ret, list(vec)


def test_anonymous_memory_is_in_core_where_it_is_mapped(driver: str) -> None:
    p = Process(driver=driver)
    p.mmap(BASE, 4 * M)
    p.touch(BASE + PAGE, 2 * PAGE, step=PAGE)
    p.touch(BASE + 2 * M - PAGE)
    ret, vec = mincore(p, BASE, 1024)
    assert ret == 0 and [i for i, core in enumerate(vec) if core] == [1, 2, 511]


def test_holes_and_bad_addresses(driver: str) -> None:
    p = Process(driver=driver)
    p.mmap(BASE, 3 * PAGE)
    p.mmap(BASE + 4 * PAGE, PAGE)
    p.touch(BASE)
    assert mincore(p, BASE, 5) == (-ENOMEM, [1, 0, 0])
    assert mincore(p, BASE + 1, 1) == (-EINVAL, [])
    assert mincore(p, BASE, 1 << 40)[0] == -ENOMEM


def test_a_private_mapping_shows_what_its_file_has_cached(driver: str) -> None:
    p = Process(driver=driver)
    f = p.memfd(4 * PAGE)
    p.mmap(BASE, 4 * PAGE, flags=SHARED, f=f)
    p.write(BASE + 2 * PAGE, 1)
    p.mmap(BASE + M, 4 * PAGE, flags=PRIVATE, f=f)
    p.write(BASE + M, 1)
    assert mincore(p, BASE + M, 4) == (0, [1, 0, 1, 0])
    assert p.madvise(BASE + M, 4 * PAGE, DONTNEED) == 0
    assert mincore(p, BASE + M, 4) == (0, [1, 0, 1, 0])  # the copy's original is cached since
    p.mmap(BASE + 2 * M, 4 * PAGE, flags=SHARED, f=p.file(2 * PAGE))
    assert mincore(p, BASE + 2 * M, 4) == (0, [1, 1, 0, 0])


def test_guard_regions_show_the_cache_and_swap_what_is_still_cached(driver: str) -> None:
    p = Process(KernelConfig(options=(("swap", "y"),)), driver)
    f = p.memfd(4 * PAGE)
    p.mmap(BASE, 4 * PAGE, flags=SHARED, f=f)
    p.write(BASE, 1)
    assert p.madvise(BASE, 2 * PAGE, GUARD_INSTALL) == 0
    assert mincore(p, BASE, 4) == (0, [1, 0, 0, 0])
    p.mmap(BASE + M, 2 * PAGE)
    p.write(BASE + M, 1)
    child = p.fork()
    assert p.madvise(BASE + M, PAGE, PAGEOUT) == 0
    assert mincore(p, BASE + M, 2) == (0, [1, 0])  # it is shared, and so stays
    child.exit()
    assert p.madvise(BASE + M, PAGE, PAGEOUT) == 0
    assert mincore(p, BASE + M, 2) == (0, [0, 0])
    assert p.read(BASE + M) == 1


def test_clean_pages_of_a_file_are_reclaimed_and_come_back(driver: str) -> None:
    p = Process(driver=driver)
    f = p.file(4 * PAGE)
    p.mmap(BASE, 4 * PAGE, flags=SHARED, f=f)
    p.write(BASE, 7)
    p.read(BASE + PAGE)  # and what is around it
    assert p.rss == 4 and p.madvise(BASE, 4 * PAGE, PAGEOUT) == 0
    assert p.rss == 0 and mincore(p, BASE, 4) == (0, [1, 0, 0, 0])  # what is dirty stays
    assert p.read(BASE + 2 * PAGE) == 0
    assert p.rss == 1 and mincore(p, BASE, 4) == (0, [1, 0, 1, 0])
    assert p.read(BASE) == 7
    p.k("truncate").truncate_setsize(f.f_mapping, PAGE)
    p.k("truncate").truncate_setsize(f.f_mapping, 4 * PAGE)
    assert mincore(p, BASE, 4) == (0, [1, 1, 1, 1])  # nothing is known of the new ones
    assert p.madvise(BASE, 2 * PAGE, PAGEOUT) == 0


def test_a_huge_page_is_in_core_as_a_whole(driver: str) -> None:
    p = Process(driver=driver)
    p.mmap(BASE, 4 * M)
    p.touch(BASE)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert mincore(p, BASE, 513) == (0, [1] * 512 + [0])
