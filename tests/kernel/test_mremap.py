# SPDX-License-Identifier: GPL-2.0-only
"""mremap: what it costs in tables, to the kB, and what it does to VMAs.  The deltas were measured on Linux 6.18."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, NONE, PAGE, PRIVATE, READ, SHARED, G, K, M, Process

MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
HUGEPAGE = 14
MOVE = MAYMOVE | FIXED
TO = BASE + 512 * M
EFAULT, EINVAL, ENOMEM, EAGAIN = 14, 22, 12, 11


@pytest.fixture
def p(driver: str) -> Process:
    """A process with a PMD table for the whole test's GiB."""
    process = Process(driver=driver)
    process.mmap(BASE + G - PAGE, PAGE)
    process.touch(BASE + G - PAGE)
    return process


def cost(p: Process, *args: int) -> int:
    """kB that an mremap adds to VmPTE."""
    before = p.vmpte
    assert p.mremap(*args) == args[4]
    return p.vmpte - before


# --- moving ------------------------------------------------------------------------------------------------


def test_aligned_move_takes_the_tables_along(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    for i in range(4):
        p.write(BASE + i * 2 * M + 5 * PAGE, 100 + i)
    allocated = p.stat("PTE_TABLES_ALLOCATED")
    assert cost(p, BASE, 8 * M, 8 * M, MOVE, TO) == 0
    assert p.stat("PTE_TABLES_ALLOCATED") == allocated
    assert [p.read(TO + i * 2 * M + 5 * PAGE) for i in range(4)] == [100, 101, 102, 103]
    assert p.read(BASE) == -1
    assert (0, 8 * M) not in p.vmas() and (512 * M, 520 * M) in p.vmas()
    p.exit()


def test_move_at_another_offset_allocates(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, 8 * M, MOVE, TO + M) == 4
    p.exit()


def test_move_of_empty_tables_at_another_offset_allocates_too(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    for i in range(4):
        assert p.madvise(BASE + i * 2 * M, PAGE, 4) == 0
    assert p.rss == 1
    assert cost(p, BASE, 8 * M, 8 * M, MOVE, TO + M) == 4
    p.exit()


def test_same_offset_within_the_table(p: Process) -> None:
    p.mmap(BASE + M, 8 * M)
    p.touch(BASE + M, 8 * M, step=M)
    allocated = p.stat("PTE_TABLES_ALLOCATED")
    assert cost(p, BASE + M, 8 * M, 8 * M, MOVE, TO + M) == 0
    assert p.stat("PTE_TABLES_ALLOCATED") == allocated + 1  # the last one, of which only a half is moved
    p.exit()


def test_same_offset_before_realignment() -> None:
    p = Process(KernelConfig("6.1"))
    p.mmap(BASE + M, 8 * M)
    p.touch(BASE + M, 8 * M, step=M)
    allocated = p.stat("PTE_TABLES_ALLOCATED")
    assert cost(p, BASE + M, 8 * M, 8 * M, MOVE, TO + M) == 0
    assert p.stat("PTE_TABLES_ALLOCATED") == allocated + 2
    p.exit()


def test_same_offset_with_a_neighbour_below(p: Process) -> None:
    p.mmap(BASE, 4 * K, READ)
    p.mmap(BASE + M, 7 * M)
    p.touch(BASE + M, 7 * M, step=M)
    assert cost(p, BASE + M, 7 * M, 7 * M, MOVE, TO + M) == 4
    p.exit()


@pytest.mark.parametrize(("offset", "delta"), [(0, 0), (M, 20)])
def test_dontunmap(p: Process, offset: int, delta: int) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, 8 * M, MAYMOVE | DONTUNMAP, TO + offset) == delta
    assert (0, 8 * M) in p.vmas()
    assert p.rss == 5
    p.exit()


def test_huge_pages_move_whole(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.madvise(BASE, 8 * M, HUGEPAGE)
    p.touch(BASE, 8 * M)
    p.write(BASE + 2 * M + 7 * PAGE, 77)
    assert p.huge == 4
    assert cost(p, BASE, 8 * M, 8 * M, MOVE, TO) == 0
    assert p.huge == 4 and p.read(TO + 2 * M + 7 * PAGE) == 77
    p.exit()


def test_huge_pages_are_split_to_move_elsewhere(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.madvise(BASE, 8 * M, HUGEPAGE)
    p.touch(BASE, 8 * M)
    p.write(BASE + 2 * M + 7 * PAGE, 77)
    assert cost(p, BASE, 8 * M, 8 * M, MOVE, TO + M) == 4
    assert p.huge == 0 and p.rss == 4 * 512 + 1 and p.read(TO + 3 * M + 7 * PAGE) == 77
    p.exit()


def test_gib_moves_by_its_pmd_table(p: Process) -> None:
    p.mmap(BASE + 2 * G, G)
    p.touch(BASE + 2 * G, G, step=64 * M)
    flushes = p.stat("TLB_FLUSH_PAGES")
    allocated = p.stat("PMD_TABLES_ALLOCATED")
    assert cost(p, BASE + 2 * G, G, G, MOVE, BASE + 4 * G) == 0
    assert p.stat("PMD_TABLES_ALLOCATED") == allocated
    assert p.stat("TLB_FLUSH_PAGES") - flushes >= 1 << 18
    assert p.read(BASE + 4 * G + 64 * M) == 0 and p.read(BASE + 2 * G) == -1
    p.exit()


def test_upper_table_of_the_destination_comes_before_the_look_at_the_source(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    fresh = BASE + (1 << 39)
    assert cost(p, BASE, 2 * M, 2 * M, MOVE, fresh) == 4
    p.exit()


def test_nothing_is_allocated_where_the_source_has_no_pmd_table(p: Process) -> None:
    p.mmap(BASE + 2 * G, 2 * M)
    assert cost(p, BASE + 2 * G, 2 * M, 2 * M, MOVE, BASE + (1 << 39)) == 0
    p.exit()


def test_arch_without_table_moves_goes_by_entries() -> None:
    p = Process(KernelConfig(arch="s390x"))
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M, step=M)
    allocated = p.stat("PTE_TABLES_ALLOCATED")
    assert p.mremap(BASE, 8 * M, 8 * M, MOVE, TO) == TO
    assert p.stat("PTE_TABLES_ALLOCATED") == allocated + 8
    p.exit()


def test_destination_is_unmapped_first(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.write(BASE, 1)
    p.mmap(TO - 2 * M, 6 * M)
    p.touch(TO - 2 * M, 6 * M)
    assert cost(p, BASE, 2 * M, 2 * M, MOVE, TO) == -4
    assert p.read(TO) == 1
    p.exit()


def test_file_pages_stay_found_by_their_file(p: Process) -> None:
    f = p.memfd(8 * M)
    p.mmap(BASE, 4 * M, f=f, flags=SHARED)
    p.fill(BASE, 4 * M)
    p.mremap(BASE, 4 * M, 4 * M, MOVE, TO)
    p.k("truncate").truncate_pagecache(f.f_mapping, 0)
    p.done()
    assert p.rss == 1
    p.exit()


# --- VMAs --------------------------------------------------------------------------------------------------


def test_unfaulted_copy_merges_with_its_neighbour(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(TO, 2 * M)
    p.mremap(BASE, 2 * M, 2 * M, MOVE, TO + 2 * M)
    assert (512 * M, 516 * M) in p.vmas()
    p.exit()


def test_faulted_copy_keeps_its_offset(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.mmap(TO, 2 * M)
    p.mremap(BASE, 2 * M, 2 * M, MOVE, TO + 2 * M)
    assert (512 * M, 514 * M) in p.vmas() and (514 * M, 516 * M) in p.vmas()
    assert p.field(TO + 2 * M, "vm_pgoff") == BASE // PAGE
    p.exit()


def test_moved_away_and_back_merges_again(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.touch(BASE, 6 * M)
    p.mremap(BASE + 2 * M, 2 * M, 2 * M, MOVE, TO)
    p.mremap(TO, 2 * M, 2 * M, MOVE, BASE + 2 * M)
    assert p.vmas()[0] == (0, 6 * M)
    p.exit()


def test_dontunmap_does_not_split_the_source(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.touch(BASE, 6 * M)
    p.mremap(BASE + 2 * M, 2 * M, 2 * M, MAYMOVE | DONTUNMAP, TO)
    assert p.vmas()[0] == (0, 6 * M)
    assert p.field(BASE, "anon_vma")
    p.exit()


def test_dontunmap_of_all_leaves_no_anon_vma(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.touch(BASE, 6 * M)
    p.mremap(BASE, 6 * M, 6 * M, MAYMOVE | DONTUNMAP, TO)
    assert not p.field(BASE, "anon_vma") and p.field(TO, "anon_vma")
    p.exit()


@pytest.mark.parametrize(("release", "merges"), [("7.x", True), ("6.1", True), ("6.1.176", False)])
def test_what_dontunmap_leaves_merges_as_new_memory_does(release: str, merges: bool) -> None:
    p = Process(KernelConfig(release))
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.mremap(BASE, 2 * M, 2 * M, MOVE, BASE + 8 * M)
    p.mremap(BASE + 8 * M, 2 * M, 2 * M, MAYMOVE | DONTUNMAP, TO)
    p.mmap(BASE + 10 * M, 2 * M)
    assert ((8 * M, 12 * M) in p.vmas()) == merges
    p.exit()


@pytest.mark.parametrize(
    ("release", "splits"), [("7.x", True), ("6.18", False), ("6.12", True), ("6.1", True), ("6.1.176", False)]
)
def test_dontunmap_of_locked_memory(release: str, splits: bool) -> None:
    p = Process(KernelConfig(release))
    p.mmap(BASE, 16 * K)
    p.mlock(BASE, 16 * K, onfault=True)
    assert p.mremap(BASE + 4 * K, 8 * K, 8 * K, MAYMOVE | DONTUNMAP, TO) == TO
    split = [(0, 4 * K), (4 * K, 12 * K), (12 * K, 16 * K)]
    assert p.vmas()[:-1] == (split if splits else [(0, 16 * K)])
    assert not p.has(BASE + 4 * K, "VM_LOCKED") and p.has(TO, "VM_LOCKED")
    assert p.has(BASE, "VM_LOCKED") == splits
    p.exit()


def test_dontunmap_next_to_itself() -> None:
    apart, together = (0, 2 * M), (0, 4 * M)
    for release, first in (("7.x", apart), ("6.18", together), ("6.1", apart), ("6.1.176", together)):
        p = Process(KernelConfig(release))
        p.mmap(BASE, 2 * M)
        assert p.mremap(BASE, 2 * M, 2 * M, MAYMOVE | DONTUNMAP | FIXED, BASE + 2 * M) == BASE + 2 * M
        assert p.vmas()[0] == first
        p.exit()


def test_duplicate_of_shared_memory(p: Process) -> None:
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, f=f, flags=SHARED)
    p.write(BASE, 42)
    assert cost(p, BASE, 0, 2 * M, MAYMOVE, TO) == 0
    assert p.read(TO) == 42 and p.read(BASE) == 42
    p.exit()


def test_duplicate_of_private_memory_is_refused(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    assert p.mremap(BASE, 0, 2 * M, MAYMOVE, TO) == -EINVAL
    p.exit()


# --- sizes -------------------------------------------------------------------------------------------------


def test_shrink(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, 4 * M, 0, BASE) == -8
    assert p.vmas()[0] == (0, 4 * M)
    p.exit()


def test_shrink_may_cross_vmas(p: Process) -> None:
    p.mmap(BASE, 4 * M)
    p.mmap(BASE + 4 * M, 4 * M, READ)
    assert p.mremap(BASE, 8 * M, 2 * M) == BASE
    assert p.vmas()[0] == (0, 2 * M) and p.vmas()[1][0] == G - PAGE
    p.exit()


def test_shrink_and_move(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, 4 * M, MOVE, TO) == -8
    assert p.rss == 3
    p.exit()


def test_growth_in_place_merges_with_what_follows(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 4 * M, 2 * M)
    assert cost(p, BASE, 2 * M, 4 * M, 0, BASE) == 0
    assert p.vmas()[0] == (0, 6 * M)
    p.exit()


def test_growth_into_a_neighbour_moves_or_fails(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    assert p.mremap(BASE, 2 * M, 4 * M) == -ENOMEM
    assert p.mremap(BASE, 2 * M, 4 * M, MAYMOVE, 0) == -ENOMEM
    assert cost(p, BASE, 2 * M, 4 * M, MAYMOVE, TO) == 0
    assert (512 * M, 516 * M) in p.vmas()
    p.exit()


def test_growth_of_a_part_moves_only_that(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.touch(BASE, 6 * M)
    assert p.mremap(BASE, 2 * M, 4 * M, MAYMOVE, TO) == TO
    assert p.vmas()[0] == (2 * M, 6 * M)
    p.exit()


@pytest.mark.parametrize("move", [False, True])
def test_growth_of_locked_memory_populates(p: Process, move: bool) -> None:
    p.mmap(BASE, 2 * M)
    p.mlock(BASE, 2 * M)
    if move:
        p.mmap(BASE + 2 * M, PAGE, READ)
    assert cost(p, BASE, 2 * M, 8 * M, MAYMOVE, TO if move else BASE) == 12
    assert p.rss == 4 * 512 + 1
    assert p.mm_field("locked_vm") == 2048
    p.exit()


def test_growth_beyond_the_limit_on_locked_memory(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mlock(BASE, 2 * M)
    p.mm.rlimit_memlock = 4 * M
    assert p.mremap(BASE, 2 * M, 8 * M, MAYMOVE, TO) == -EAGAIN
    p.exit()


# --- several VMAs ------------------------------------------------------------------------------------------


def three(p: Process) -> None:
    """Three VMAs with a hole of 2 MiB before the last, and something at the destination."""
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.mmap(BASE + 6 * M, 2 * M)
    p.touch(BASE, 1)
    p.touch(BASE + 6 * M, 1)
    p.mmap(TO, 8 * M, NONE)


def test_many_vmas_move_and_holes_leave_the_destination_alone(p: Process) -> None:
    three(p)
    assert cost(p, BASE, 8 * M, 8 * M, MOVE, TO) == 0
    at = 512 * M
    moved = [(at, at + 2 * M), (at + 2 * M, at + 4 * M), (at + 4 * M, at + 6 * M), (at + 6 * M, at + 8 * M)]
    assert p.vmas()[:-1] == moved
    assert p.has(TO + 2 * M, "VM_READ") and not p.has(TO + 4 * M, "VM_READ")
    p.exit()


def test_many_vmas_before_6_17() -> None:
    p = Process(KernelConfig("6.12"))
    three(p)
    assert p.mremap(BASE, 8 * M, 8 * M, MOVE, TO) == -EFAULT
    assert [start for start, _ in p.vmas()] == [0, 2 * M, 6 * M]  # the destination is gone all the same
    p.exit()


def test_a_hole_at_the_start_is_refused(p: Process) -> None:
    p.mmap(BASE + 2 * M, 2 * M)
    p.mmap(TO, 4 * M)
    assert p.mremap(BASE, 4 * M, 4 * M, MOVE, TO) == -EFAULT
    assert (512 * M, 516 * M) in p.vmas()
    p.exit()


def test_those_before_the_first_that_refuses_are_moved(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.set_flag(BASE + 2 * M, "VM_PFNMAP")
    assert p.mremap(BASE, 4 * M, 4 * M, MOVE | DONTUNMAP, TO) == -EINVAL
    assert (512 * M, 514 * M) in p.vmas() and (2 * M, 4 * M) in p.vmas()
    p.exit()


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((BASE + 1, 2 * M, 2 * M, 0, 0), EINVAL),
        ((BASE, 2 * M, 0, 0, 0), EINVAL),
        ((BASE, 2 * M, 2 * M, 8, 0), EINVAL),
        ((BASE, 2 * M, 2 * M, FIXED, TO), EINVAL),
        ((BASE, 2 * M, 2 * M, MOVE, TO + 1), EINVAL),
        ((BASE, 2 * M, 2 * M, MOVE, BASE + M), EINVAL),
        ((BASE, 2 * M, 4 * M, MAYMOVE | DONTUNMAP, TO), EINVAL),
        ((BASE, 2 * M, 2 * M, MOVE, (1 << 47) - M), EINVAL),
        ((BASE - 2 * M, 2 * M, 4 * M, MAYMOVE, TO), EFAULT),
        ((BASE, 4 * M, 6 * M, MAYMOVE, TO), EFAULT),
    ],
)
def test_refused(p: Process, args: tuple[int, ...], error: int) -> None:
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    before = p.vmas(), p.vmpte
    assert p.mremap(*args) == -error
    assert (p.vmas(), p.vmpte) == before
    p.exit()


def test_vdso_moves_only_whole(p: Process) -> None:
    p.mmap(BASE, 2 * M, READ, PRIVATE | ANON)
    p.set_flag(BASE, "VM_SPECIAL_MAPPING")
    assert p.mremap(BASE, M, M, MOVE, TO) == -EINVAL
    assert p.mremap(BASE, 2 * M, 2 * M, MOVE, TO) == TO
    p.exit()


def test_too_many_vmas(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.set_mm_field("map_count", 65530 - 3)
    before = p.vmas()
    assert p.mremap(BASE + 2 * M, 2 * M, 2 * M, MOVE, TO) == -ENOMEM
    assert p.vmas() == before
    p.set_mm_field("map_count", 65530 - 4)
    assert p.mremap(BASE + 2 * M, 2 * M, 2 * M, MOVE, TO) == TO


# --- userfaultfd -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follows", [False, True])
def test_userfaultfd_and_its_bits_follow_if_it_hears_of_moves(p: Process, follows: bool) -> None:
    uffd, pgtable, features = p.k("fs_userfaultfd"), p.k("pgtable"), p.k("userfaultfd_k")
    asked = features.UFFD_FEATURE_WP_UNPOPULATED | (features.UFFD_FEATURE_EVENT_REMAP if follows else 0)
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 8 * K)
    ctx = uffd.uffd_alloc(p.mm, asked)
    assert uffd.uffdio_register(ctx, BASE, 2 * M, 2)[0] == 0
    assert uffd.uffdio_writeprotect(ctx, BASE, PAGE, 1) == 0
    assert uffd.uffdio_writeprotect(ctx, BASE + 8 * K, PAGE, 1) == 0
    assert cost(p, BASE, 2 * M, 2 * M, MOVE, TO) == 0
    pte = p.k("pgtable_generic").pte_offset_map(pgtable.mm_find_pmd(p.mm, TO), TO)
    entries = [p.model.machine.load(pte + i) for i in range(3)]
    p.k("pgtable_generic").pte_unmap(pte)
    assert bool(entries[0] & pgtable.UFFD_WP) == follows and entries[0] and entries[1]
    assert entries[2] == (pgtable.make_pte_marker(pgtable.PTE_MARKER_UFFD_WP) if follows else 0)
    assert bool(p.field(TO, "vm_userfaultfd_ctx")) == p.has(TO, "VM_UFFD_WP") == follows
    uffd.uffd_close(ctx)
    assert p.field(TO, "vm_userfaultfd_ctx") == 0 and not p.has(TO, "VM_UFFD_WP")
    p.exit()


# --- races, one step of them -------------------------------------------------------------------------------


@pytest.mark.parametrize(("without", "moved"), [((), False), (("R-mremap-recheck",), True)])
def test_a_table_that_was_retracted_meanwhile(without: tuple[str, ...], moved: bool) -> None:
    p = Process(KernelConfig(without=without))
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.mmap(TO, 4 * M)
    p.touch(TO + 2 * M)
    walk = p.k("pgtable_generic").walk_to_pmd
    old, new = walk(p.mm, TO), walk(p.mm, BASE + 64 * M)
    machine = p.model.machine
    vma = p.k("vma").vma_lookup(p.mm, TO)
    assert p.k("move_page_tables").move_normal_pmd(vma, TO, BASE + 64 * M, old, new) == moved
    assert (machine.load(new) != 0) == moved  # without the second look the slot points to nowhere


@pytest.mark.parametrize("which", ["pte_offset_map_lock", "pte_offset_map_rw_nolock"])
def test_a_map_that_fails_is_tried_again(p: Process, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    module = p.k("move_page_tables")
    real = getattr(module, which)
    failures = [1, 1]

    def flaky(*args: object) -> object:
        return (0, 0, 0)[: 2 if which == "pte_offset_map_lock" else 3] if failures and failures.pop() else real(*args)

    monkeypatch.setattr(module, which, flaky)
    p.mmap(BASE, 2 * M)
    p.write(BASE, 3)
    assert cost(p, BASE, 2 * M, 2 * M, MOVE, TO + M) == 4
    assert failures == [] and p.read(TO + M) == 3
    p.exit()
