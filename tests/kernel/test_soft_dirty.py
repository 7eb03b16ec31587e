# SPDX-License-Identifier: GPL-2.0-only
"""Which pages count as written since clear_refs, by system call and release."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, READ, SHARED, WRITE, M, Process

DONTNEED, HUGEPAGE, PAGEOUT = 4, 14, 21
MOVE = 1 | 2  # MREMAP_MAYMOVE | MREMAP_FIXED
EINVAL = 22
RELEASES = ["6.1", "6.12", "7.x"]


def kernel(driver: str, release: str = "7.x", built: str = "y") -> Process:
    return Process(KernelConfig(release, options=(("soft_dirty", built), ("swap", "y"))), driver)


def first_of_four_written(driver: str) -> Process:
    """A process with four pages, of which one was written since clear_refs."""
    p = kernel(driver)
    p.mmap(BASE, 4 * PAGE)
    p.fill(BASE, 4 * PAGE)
    clear_refs(p)
    p.write(BASE, 1)
    return p


def with_huge_page(driver: str, release: str) -> Process:
    """A process that has written to a huge page."""
    p = kernel(driver, release)
    p.mmap(BASE, 2 * M)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    p.write(BASE, 1)
    return p


def clear_refs(p: Process, kind: int = 4) -> int:
    ret: int = p.k("soft_dirty").clear_refs_write(p.mm, kind)
    p.done()
    return ret


def dirty(p: Process, addr: int, pages: int) -> list[int]:
    """Which pages of `pages` from `addr` on are mapped or swapped and soft-dirty."""
    task_mmu = p.k("task_mmu")
    found = task_mmu.pagemap_read(p.mm, addr, addr + pages * PAGE)
    p.done()
    soft = [(at, nr) for at, nr, entry in found if entry & task_mmu.PM_SOFT_DIRTY]
    return [(at - addr) // PAGE + i for at, nr in soft for i in range(nr)]


def told(p: Process, addr: int) -> bool:
    """Whether VmFlags has `sd`."""
    return "sd" in p.k("task_mmu").show_smap_vma_flags(p.field(addr, "vm_flags")).split()


def test_a_kernel_without_it_says_nothing(driver: str) -> None:
    p = kernel(driver, built="n")
    p.mmap(BASE, 4 * PAGE)
    p.fill(BASE, 4 * PAGE)
    assert clear_refs(p) == 0
    p.write(BASE, 1)
    assert dirty(p, BASE, 4) == [] and not told(p, BASE)


def test_writes_count_and_reads_do_not(driver: str) -> None:
    p = kernel(driver)
    p.mmap(BASE, 8 * PAGE)
    p.fill(BASE, 4 * PAGE)
    assert told(p, BASE) and dirty(p, BASE, 8) == [0, 1, 2, 3]
    assert clear_refs(p) == 0
    assert not told(p, BASE) and dirty(p, BASE, 8) == []
    p.read(BASE)
    p.read(BASE + 5 * PAGE)
    p.write(BASE + PAGE, 1)
    p.write(BASE + 6 * PAGE, 1)
    assert dirty(p, BASE, 8) == [1, 6]


@pytest.mark.parametrize("kind", [-1, 0, 6, 99])
def test_a_kind_that_clear_refs_does_not_know(kind: int, driver: str) -> None:
    p = kernel(driver)
    p.mmap(BASE, PAGE)
    assert clear_refs(p, kind) == -EINVAL and told(p, BASE)


def test_clear_refs_of_referenced_pages_is_not_modelled(driver: str) -> None:
    p = kernel(driver)
    with pytest.raises(p.k("not_modelled").NotModelled, match="referenced"):
        clear_refs(p, 1)


def test_mprotect_keeps_pages_read_only_that_are_not_soft_dirty(driver: str) -> None:
    p = first_of_four_written(driver)
    p.mprotect(BASE, 4 * PAGE, READ)
    p.mprotect(BASE, 4 * PAGE, WRITE)
    p.write(BASE + 2 * PAGE, 1)
    assert dirty(p, BASE, 4) == [0, 2]


def test_shared_memory_of_a_file_too(driver: str) -> None:
    p = kernel(driver)
    p.mmap(BASE, 4 * PAGE, flags=SHARED, f=p.memfd(4 * PAGE))
    p.fill(BASE, 4 * PAGE)
    clear_refs(p)
    p.madvise(BASE, 2 * PAGE, DONTNEED)
    p.read(BASE)
    p.write(BASE + PAGE, 1)
    assert dirty(p, BASE, 4) == [1]
    p.write(BASE, 1)
    p.write(BASE + 3 * PAGE, 1)
    assert dirty(p, BASE, 4) == [0, 1, 3]


def test_swapped_pages_keep_what_they_were(driver: str) -> None:
    p = first_of_four_written(driver)
    assert p.madvise(BASE, 4 * PAGE, PAGEOUT) == 0
    assert dirty(p, BASE, 4) == [0]
    p.read(BASE)
    p.read(BASE + PAGE)
    p.write(BASE + 2 * PAGE, 1)
    assert dirty(p, BASE, 4) == [0, 2]
    p.madvise(BASE, 4 * PAGE, PAGEOUT)
    clear_refs(p)
    assert dirty(p, BASE, 4) == []


def test_what_moves_counts_as_written(driver: str) -> None:
    p = kernel(driver)
    p.mmap(BASE, 4 * PAGE)
    p.fill(BASE, 2 * PAGE)
    clear_refs(p)
    assert p.mremap(BASE, 4 * PAGE, 4 * PAGE, MOVE, BASE + M) == BASE + M
    assert dirty(p, BASE + M, 4) == [0, 1] and not told(p, BASE + M)


def test_a_child_has_what_its_parent_had(driver: str) -> None:
    p = first_of_four_written(driver)
    child = p.fork()
    assert dirty(child, BASE, 4) == [0] and not told(child, BASE)
    child.write(BASE + PAGE, 1)
    p.write(BASE + 2 * PAGE, 1)
    assert (dirty(p, BASE, 4), dirty(child, BASE, 4)) == ([0, 2], [0, 1])


@pytest.mark.parametrize("release", RELEASES)
def test_memory_that_merges_is_soft_dirty_if_any_of_it_was(release: str, driver: str) -> None:
    p = kernel(driver, release)
    p.mmap(BASE, 4 * PAGE)
    clear_refs(p)
    p.mmap(BASE + 4 * PAGE, 4 * PAGE)
    assert p.vmas() == [(0, 8 * PAGE)] and told(p, BASE)


@pytest.mark.parametrize("release", RELEASES)
def test_a_huge_page_is_written_as_a_whole(release: str, driver: str) -> None:
    p = with_huge_page(driver, release)
    assert p.huge == 1
    clear_refs(p)
    assert dirty(p, BASE, 512) == []
    p.read(BASE + PAGE)
    assert dirty(p, BASE, 512) == []
    p.write(BASE + PAGE, 1)
    assert dirty(p, BASE, 512) == list(range(512)) and p.huge == 1


@pytest.mark.parametrize("release", RELEASES)
def test_a_huge_page_that_is_split_is_dirty_and_so_becomes_soft_dirty(release: str, driver: str) -> None:
    p = with_huge_page(driver, release)
    clear_refs(p)
    p.madvise(BASE, PAGE, DONTNEED)
    assert p.huge == 0
    assert len(dirty(p, BASE, 512)) == (0 if release == "6.1" else 511)


@pytest.mark.parametrize("release", RELEASES)
def test_a_folio_that_is_split_leaves_its_pages_as_they_were(release: str, driver: str) -> None:
    p = kernel(driver, release)
    p.mmap(BASE, 2 * M)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    p.write(BASE, 1)
    clear_refs(p)
    assert p.madvise(BASE + PAGE, PAGE, PAGEOUT) == 0
    assert p.huge == 0
    assert len(dirty(p, BASE, 512)) == (512 if release == "6.1" else 0)  # 6.1: what is dirty, after the migration


@pytest.mark.parametrize("release", ["6.12", "7.x"])
def test_mprotect_of_entries_at_once_makes_them_soft_dirty(release: str, driver: str) -> None:
    p = with_huge_page(driver, release)
    p.madvise(BASE, PAGE, DONTNEED)
    clear_refs(p)
    p.write(BASE + 5 * PAGE, 1)
    p.mprotect(BASE + PAGE, 6 * PAGE, READ)
    batched = [1, 2, 3, 4, 5]  # 6 is alone between what is written and what keeps its permissions
    assert dirty(p, BASE, 16) == (batched if release == "7.x" else [5])
