# SPDX-License-Identifier: GPL-2.0-only
"""Migration: another page takes the place of one, for all that map it, unless it is in use."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, SHARED, WRITE, M, Process

EACCES, EAGAIN, EFAULT, ENOENT = 13, 11, 14, 2
HUGEPAGE, PAGEOUT = 14, 21


@pytest.fixture
def p(driver: str) -> Process:
    return Process(KernelConfig(options=(("swap", "y"),)), driver)


def entry(p: Process, address: int) -> int:
    """What maps an address, a PTE or a huge pmd."""
    k, load = p.k("pgtable"), p.model.machine.load
    pmdval = load(k.mm_find_pmd(p.mm, address))
    if not k.pmd_is_table(pmdval):
        return int(pmdval)
    return int(load(k.pmd_pgtable(pmdval).entry + k.pte_index(address)))


def folio(p: Process, address: int) -> Any:
    """What is mapped at an address."""
    return p.k("pgtable").page_folio(entry(p, address) >> 12)


def move(p: Process, address: int, move_all: bool = False) -> int:
    (status,) = p.k("migrate").do_pages_move(p.mm, (address,), move_all)
    p.done()
    return int(status)


def references(p: Process, f: Any) -> tuple[int, int]:
    load = p.model.machine.load
    return load(f._refcount), load(f._mapcount) + load(f._entire_mapcount)


def test_an_anonymous_page_moves(p: Process) -> None:
    p.mmap(BASE, 2 * PAGE)
    p.write(BASE, 7)
    before, flags = folio(p, BASE), entry(p, BASE) & 0xFFF
    assert move(p, BASE) == 0
    after = folio(p, BASE)
    assert after != before and entry(p, BASE) & 0xFFF == flags
    assert (p.read(BASE), p.rss, references(p, after)) == (7, 1, (1, 1))


def test_nothing_moves_where_nothing_is(p: Process) -> None:
    p.mmap(BASE, 2 * PAGE)
    assert move(p, BASE) == -ENOENT
    p.read(BASE)
    assert move(p, BASE) == -EFAULT  # the zero page
    assert move(p, BASE + 2 * PAGE) == -EFAULT


def test_a_page_in_use_stays(p: Process) -> None:
    p.mmap(BASE, PAGE)
    p.write(BASE, 7)
    before, what = folio(p, BASE), entry(p, BASE)
    p.k("page_alloc").folio_get(before)
    assert move(p, BASE) == -EAGAIN
    assert (entry(p, BASE), references(p, before), p.read(BASE)) == (what, (2, 1), 7)


def test_a_shared_page_moves_for_all_that_map_it(p: Process) -> None:
    p.mmap(BASE, 512 * PAGE)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    p.write(BASE, 7)
    child = p.fork()
    assert move(p, BASE) == -EACCES
    assert move(p, BASE, move_all=True) == 0
    assert folio(p, BASE) == folio(child, BASE)
    child.write(BASE, 8)
    assert (p.read(BASE), child.read(BASE)) == (7, 8)
    child.exit()


def test_a_huge_page_moves_whole(p: Process) -> None:
    p.mmap(BASE, 4 * M)
    there = -(-BASE // (2 * M)) * 2 * M
    p.madvise(BASE, 4 * M, HUGEPAGE)
    p.write(there + PAGE, 7)
    before, tables = folio(p, there), p.vmpte
    assert before.order == 9
    assert move(p, there) == 0
    after = folio(p, there)
    assert after != before and after.order == 9
    assert (p.read(there + PAGE), p.rss, p.vmpte, references(p, after)) == (7, 512, tables, (1, 1))


def test_a_page_of_shared_memory_moves_in_its_file(p: Process) -> None:
    f = p.k("shmem").shmem_file_setup(2 * PAGE)
    p.mmap(BASE, 2 * PAGE, WRITE, SHARED, f)
    p.write(BASE, 7)
    before = folio(p, BASE)
    assert move(p, BASE) == 0
    after = folio(p, BASE)
    assert after != before and p.model.machine.xa_load(f.f_mapping.i_pages, 0) == after.addr
    assert (p.read(BASE), references(p, after)) == (7, (2, 1))


def test_a_page_of_the_swap_cache_moves_in_it(p: Process) -> None:
    p.mmap(BASE, PAGE)
    p.write(BASE, 7)
    p.madvise(BASE, PAGE, PAGEOUT)
    child = p.fork()
    assert p.read(BASE) == 7  # the child's entry keeps the page in the cache
    before = folio(p, BASE)
    assert before.flags & p.k("page_alloc").PG_SWAPCACHE
    assert move(p, BASE) == 0
    after = folio(p, BASE)
    assert after != before and after.flags & p.k("page_alloc").PG_SWAPCACHE
    assert references(p, after) == (2, 1)
    assert child.read(BASE) == 7 and folio(child, BASE) == after
    child.exit()
