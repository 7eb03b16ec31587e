# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs merge and how they split, in the newest kernel and in older ones."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.kernel.bug import BugOn
from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, FIXED, NONE, PAGE, PRIVATE, READ, SHARED, WRITE, M, Process

NORESERVE, STACK, LOCKED = 0x4000, 0x20000, 0x2000


@pytest.fixture
def p(driver: str) -> Process:
    return Process(driver=driver)


def pages(p: Process) -> list[tuple[int, int]]:
    return [(start // PAGE, end // PAGE) for start, end in p.vmas()]


def anon(p: Process, start: int, end: int, prot: int = WRITE, flags: int = 0) -> None:
    p.mmap(BASE + start * PAGE, (end - start) * PAGE, prot, PRIVATE | ANON | FIXED | flags)


def protect(p: Process, start: int, end: int, prot: int) -> None:
    p.mprotect(BASE + start * PAGE, (end - start) * PAGE, prot)


def write(p: Process, page: int) -> None:
    assert p.fault(BASE + page * PAGE) == 0


# --- new mappings ------------------------------------------------------------------------------------------


def test_a_new_mapping_joins_both_neighbours(p: Process) -> None:
    anon(p, 0, 2)
    anon(p, 3, 5)
    assert pages(p) == [(0, 2), (3, 5)]
    anon(p, 2, 3)
    assert pages(p) == [(0, 5)]
    p.exit()


@pytest.mark.parametrize(
    "prot, flags", [(READ, 0), (NONE, 0), (WRITE, NORESERVE), (WRITE, STACK), (WRITE, LOCKED), (WRITE, 0x100)]
)
def test_other_attributes_stay_apart(p: Process, prot: int, flags: int) -> None:
    anon(p, 0, 2)
    anon(p, 2, 4, prot, flags)
    anon(p, 4, 6)
    assert pages(p) == [(0, 2), (2, 4), (4, 6)]
    p.exit()


def test_shared_anonymous_memory_never_merges(p: Process) -> None:
    for i in range(2):
        p.mmap(BASE + i * M, M, WRITE, SHARED | ANON)
    assert p.vmas() == [(0, M), (M, 2 * M)]
    p.exit()


def test_a_file_merges_where_its_pages_go_on(p: Process) -> None:
    f = p.memfd(8 * M)
    p.mmap(BASE, M, WRITE, SHARED, f, 0)
    p.mmap(BASE + M, M, WRITE, SHARED, f, M)
    assert p.vmas() == [(0, 2 * M)]
    p.mmap(BASE + 2 * M, M, WRITE, SHARED, f, 3 * M)
    assert p.vmas() == [(0, 2 * M), (2 * M, 3 * M)]
    p.exit()


def test_two_opens_of_a_file_do_not_merge(p: Process) -> None:
    f = p.file(8 * M)
    again = p.k("filemap").open_file(f.f_mapping, 2)
    p.mmap(BASE, M, READ, PRIVATE, f, 0)
    p.mmap(BASE + M, M, READ, PRIVATE, again, M)
    assert p.vmas() == [(0, M), (M, 2 * M)]
    p.exit()


def test_two_written_neighbours_do_not_merge(p: Process) -> None:
    """Each has an anon_vma of its own: there was a gap when they were written to."""
    anon(p, 0, 2)
    anon(p, 3, 5)
    write(p, 0)
    write(p, 3)
    anon(p, 2, 3)
    assert pages(p) == [(0, 3), (3, 5)]
    p.exit()


# --- one VMA changes ---------------------------------------------------------------------------------------


def test_mprotect_splits_and_merges_again(p: Process) -> None:
    anon(p, 0, 9)
    protect(p, 3, 6, READ)
    assert pages(p) == [(0, 3), (3, 6), (6, 9)]
    protect(p, 4, 6, WRITE)
    assert pages(p) == [(0, 3), (3, 4), (4, 9)]
    protect(p, 3, 4, WRITE)
    assert pages(p) == [(0, 9)]
    p.exit()


def test_what_merges_left_may_not_merge_right(p: Process) -> None:
    """Both ends were written to while the middle, not written to, kept them apart."""
    anon(p, 0, 9)
    protect(p, 3, 6, READ)
    write(p, 0)
    write(p, 8)
    protect(p, 3, 6, WRITE)
    assert pages(p) == [(0, 6), (6, 9)]
    p.exit()


def test_neighbours_share_an_anon_vma(p: Process) -> None:
    """So that mprotect can merge them later."""
    anon(p, 0, 9)
    protect(p, 3, 9, READ)
    write(p, 0)
    protect(p, 3, 9, WRITE | 4)
    write(p, 8)
    protect(p, 3, 9, WRITE)
    assert pages(p) == [(0, 9)]
    p.exit()


@pytest.mark.parametrize("release, merged", [("6.1", False), ("6.12", False), ("6.18", True), ("7.x", True)])
def test_written_memory_merges_into_memory_that_is_not(driver: str, release: str, merged: bool) -> None:
    """VM_ACCOUNT keeps them apart unless both have it."""
    p = Process(KernelConfig(release), driver)
    anon(p, 0, 4)
    protect(p, 2, 4, READ)
    write(p, 0)
    protect(p, 0, 2, READ)
    account = p.has(BASE + 2 * PAGE, "VM_ACCOUNT")
    assert account is (release == "6.1")
    protect(p, 2, 4, WRITE)
    protect(p, 0, 2, WRITE)
    assert pages(p) == ([(0, 4)] if merged else [(0, 2), (2, 4)])
    p.exit()


@pytest.mark.parametrize("release, found", [("6.1", [(0, 2), (2, 5)]), ("6.12", [(0, 5)]), ("7.x", [(0, 5)])])
def test_which_neighbour_comes_first(driver: str, release: str, found: list[tuple[int, int]]) -> None:
    p = Process(KernelConfig(release), driver)
    anon(p, 0, 2)
    anon(p, 3, 5)
    write(p, 3)
    anon(p, 2, 3)
    assert pages(p) == found
    p.exit()


def test_a_forked_vma_does_not_take_others_in(p: Process) -> None:
    anon(p, 0, 2)
    write(p, 0)
    child = p.fork()
    anon(child, 2, 4)
    assert pages(child) == [(0, 2), (2, 4)]
    child.exit()
    anon(p, 2, 4)
    assert pages(p) == [(0, 4)]
    p.exit()


@pytest.mark.parametrize("release, merged", [("6.1.176", False), ("6.1", True), ("6.18", False), ("7.x", True)])
def test_what_dontunmap_leaves_empty(driver: str, release: str, merged: bool) -> None:
    """Pages that were moved before have the page offset of where they were written to."""
    p = Process(KernelConfig(release), driver)
    anon(p, 0, 2)
    write(p, 0)
    assert p.mremap(BASE, 2 * PAGE, 2 * PAGE, 3, BASE + 10 * PAGE) == BASE + 10 * PAGE
    assert p.mremap(BASE + 10 * PAGE, 2 * PAGE, 2 * PAGE, 7, BASE + 20 * PAGE) == BASE + 20 * PAGE
    anon(p, 12, 14)
    assert pages(p) == ([(10, 14), (20, 22)] if merged else [(10, 12), (12, 14), (20, 22)])
    p.exit()


def shmat(p: Process, nr: int) -> None:
    f: Any = p.memfd(nr * PAGE)
    f.f_close = 1
    p.mmap(BASE, nr * PAGE, WRITE, SHARED, f)
    p.k("filemap").fput(f)


@pytest.mark.parametrize("release, partly", [("6.1", False), ("6.12", True), ("7.x", True)])
def test_sysv_memory_merges_only_if_no_vma_goes(driver: str, release: str, partly: bool) -> None:
    p = Process(KernelConfig(release), driver)
    shmat(p, 9)
    protect(p, 3, 9, READ)
    protect(p, 3, 5, WRITE)
    assert pages(p) == ([(0, 5), (5, 9)] if partly else [(0, 3), (3, 5), (5, 9)])
    protect(p, 5, 9, WRITE)
    assert len(pages(p)) == (2 if partly else 3)
    p.exit()


def test_policy_and_madvise_flags_keep_apart(p: Process) -> None:
    anon(p, 0, 6)
    assert p.k("mempolicy").sys_mbind(p.mm, BASE + 2 * PAGE, 2 * PAGE, 1, 0) == 0
    assert pages(p) == [(0, 2), (2, 4), (4, 6)]
    assert p.k("mempolicy").sys_mbind(p.mm, BASE + 2 * PAGE, 2 * PAGE, 2, 0) == 0
    assert p.field(BASE + 2 * PAGE, "vm_policy") == 2
    assert p.k("mempolicy").sys_mbind(p.mm, BASE, 6 * PAGE, 0, 0) == 0
    assert pages(p) == [(0, 6)]
    assert p.madvise(BASE, 2 * PAGE, 14) == 0
    assert pages(p) == [(0, 2), (2, 6)]
    p.exit()


def test_mbind_stops_at_a_hole_before_it_changes_anything(p: Process) -> None:
    anon(p, 0, 2)
    anon(p, 4, 6)
    assert p.k("mempolicy").sys_mbind(p.mm, BASE, 6 * PAGE, 1, 0) == -14
    assert p.field(BASE, "vm_policy") == 0
    assert p.k("mempolicy").sys_mbind(p.mm, BASE, 6 * PAGE, 0, 0) == 0
    p.exit()


# --- the reverse maps follow -------------------------------------------------------------------------------


def test_reverse_maps_follow_the_bounds(p: Process) -> None:
    """After splits and merges a page is found by its file and by its anon_vma exactly where it is mapped."""
    f = p.memfd(64 * PAGE)
    p.mmap(BASE, 64 * PAGE, WRITE, PRIVATE, f)
    write(p, 20)
    protect(p, 10, 30, READ)
    protect(p, 10, 15, WRITE)
    p.munmap(BASE + 40 * PAGE, 8 * PAGE)
    assert pages(p) == [(0, 15), (15, 30), (30, 40), (48, 64)]
    machine = p.model.machine
    lock = p.k("mmap_lock")
    lock.mmap_read_lock(p.mm)
    vmas = {v.vm_pgoff: v for v in p.vma_list()}
    for pgoff, vma in vmas.items():
        machine.down_read(f.f_mapping.i_mmap_rwsem)
        assert machine.interval_tree_overlapping(f.f_mapping.i_mmap, pgoff, pgoff) == [vma.addr]
        machine.up_read(f.f_mapping.i_mmap_rwsem)
        for avc in p.k("rmap").anon_vma_chains(vma):
            machine.down_read(avc.anon_vma.root.rwsem)
            assert avc.addr in machine.interval_tree_overlapping(avc.anon_vma.rb_root, pgoff, pgoff)
            machine.up_read(avc.anon_vma.root.rwsem)
    lock.mmap_read_unlock(p.mm)
    p.exit()


def test_a_huge_page_is_split_where_its_vma_is(p: Process) -> None:
    p.mmap(BASE, 4 * M)
    p.madvise(BASE, 4 * M, 14)
    p.touch(BASE, 4 * M)
    assert p.huge == 2
    p.mprotect(BASE + M, 2 * M, READ)
    assert p.huge == 0
    p.exit()


# --- limits and invariants ---------------------------------------------------------------------------------


def test_too_many_vmas(p: Process) -> None:
    anon(p, 0, 9)
    p.set_mm_field("map_count", 65530)
    assert p.k("mprotect").sys_mprotect(p.mm, BASE + PAGE, PAGE, READ) == -12
    assert p.k("mmap").sys_munmap(p.mm, BASE + PAGE, PAGE) == -12
    assert p.k("mmap").sys_munmap(p.mm, BASE, PAGE) == 0
    assert p.vmas() == [(PAGE, 9 * PAGE)]


def test_vdso_and_vvar_cannot_be_split(p: Process) -> None:
    none = p.k("mm_types").file(0)
    assert p.k("exec").exec_map(p.mm, BASE, 2 * PAGE, 5, 2, none, 0, "vdso") == 0
    assert p.k("mprotect").sys_mprotect(p.mm, BASE, PAGE, READ) == -22
    assert p.k("mmap").sys_munmap(p.mm, BASE, PAGE) == -22
    assert p.vmas() == [(0, 2 * PAGE)]
    assert p.k("exec").exec_map(p.mm, BASE, 2 * PAGE, 5, 2, none, 0, "vvar") == -12
    p.exit()


def test_what_stays_counted_at_exit_is_a_bug() -> None:
    p = Process()
    p.model.machine.add(p.mm.anon_rss, 1)
    with pytest.raises(p.k("bug").BugOn, match="Bad rss-counter state type:MM_ANONPAGES val:1"):
        p.exit()
    q = Process()
    q.model.machine.add(q.mm.nr_ptes, 1)
    with pytest.raises(BugOn, match="non-zero pgtables_bytes on freeing mm: 4096"):
        q.exit()
