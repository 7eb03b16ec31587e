# SPDX-License-Identifier: GPL-2.0-only
"""Shared memory: memfd, shared anonymous, huge pages of its own, holes.  Deltas in kB as measured on Linux 6.18."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, PAGE, PRIVATE, READ, SHARED, WRITE, G, K, M, Process

DONTNEED, REMOVE, HUGEPAGE, NOHUGEPAGE, COLLAPSE = 4, 9, 14, 15, 25
VM_FAULT_SIGBUS = 2


def process(driver: str, shmem_enabled: str = "never", release: str = "7.x") -> Process:
    """A process with a PMD table for the whole test's GiB, under a kernel with that knob."""
    p = Process(KernelConfig(release=release), driver)
    p.k("config").config.shmem_enabled = shmem_enabled
    p.mmap(BASE + G - PAGE, PAGE)
    p.touch(BASE + G - PAGE)
    return p


@pytest.fixture
def p(driver: str) -> Process:
    return process(driver)


def shmem_pages(p: Process) -> int:
    return int(p.model.machine.load(p.mm.shmem_rss))


def file_huge(p: Process) -> int:
    return int(p.model.machine.load(p.mm.file_huge))


def test_two_processes_see_each_others_writes(p: Process) -> None:
    f = p.memfd(4 * M)
    p.mmap(BASE, 4 * M, WRITE, SHARED, f)
    child = p.fork()
    p.write(BASE, 3)
    child.write(BASE + 2 * M, 4)
    assert (child.read(BASE), p.read(BASE + 2 * M)) == (3, 4)
    assert (shmem_pages(p), shmem_pages(child)) == (2, 2)


def test_fork_copies_no_table_of_a_shared_mapping(p: Process) -> None:
    p.mmap(BASE, 8 * M, WRITE, SHARED, p.memfd(8 * M))
    p.fill(BASE, 8 * M)
    child = p.fork()
    assert child.vmpte == p.vmpte - 16


def test_shared_anonymous_memory_ends_where_it_was_mapped(p: Process) -> None:
    p.mmap(BASE, 2 * M, WRITE, SHARED | ANON)
    p.fill(BASE, 2 * M)
    before = p.vmpte
    assert p.mremap(BASE, 2 * M, 4 * M) == BASE
    assert p.fault(BASE + 2 * M) == VM_FAULT_SIGBUS
    assert (p.vmpte - before, shmem_pages(p)) == (0, 512)


def test_only_cached_pages_are_faulted_around(p: Process) -> None:
    f = p.memfd(M)
    p.mmap(BASE, M, WRITE, SHARED, f)
    p.mmap(BASE + 2 * M, M, WRITE, SHARED, f)
    for page in (0, 2, 3, 20):
        p.touch(BASE + page * PAGE)
    assert shmem_pages(p) == 4
    assert p.fault(BASE + 2 * M + 2 * PAGE, write=False) == 0
    assert shmem_pages(p) == 7


def test_a_read_of_a_hole_allocates(p: Process) -> None:
    f = p.memfd(M)
    p.mmap(BASE, M, READ, SHARED, f)
    assert p.read(BASE) == 0
    assert shmem_pages(p) == 1


def test_holes_keep_the_tables(p: Process) -> None:
    f = p.memfd(8 * M)
    p.mmap(BASE, 8 * M, WRITE, SHARED, f)
    p.fill(BASE, 8 * M)
    before = p.vmpte
    assert p.madvise(BASE, 4 * M, REMOVE) == 0
    assert (p.vmpte - before, shmem_pages(p)) == (0, 1024)
    p.k("truncate").truncate_setsize(f.f_mapping, 6 * M)
    assert (p.vmpte - before, shmem_pages(p)) == (0, 512)
    assert p.fault(BASE + 6 * M) == VM_FAULT_SIGBUS
    assert p.madvise(BASE, 8 * M, DONTNEED) == 0
    assert p.vmpte - before == -16


@pytest.mark.parametrize(
    ("knob", "advised", "size", "huge"),
    [
        ("never", True, 4 * M, 0),
        ("advise", False, 4 * M, 0),
        ("advise", True, 4 * M, 1),
        ("always", False, 4 * M, 1),
        ("always", False, M + 64 * K, 1),
        ("within_size", False, 4 * M, 1),
        ("within_size", False, M + 64 * K, 1),
        ("within_size", False, 4 * K, 0),
        ("within_size", True, M + 64 * K, 1),
        ("deny", True, 4 * M, 0),
        ("force", False, 4 * M, 1),
    ],
)
def test_who_gets_huge_pages(driver: str, knob: str, advised: bool, size: int, huge: int) -> None:
    p = process(driver, knob)
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.memfd(size))
    if advised:
        assert p.madvise(BASE, 4 * M, HUGEPAGE) == 0
    before = p.vmpte
    p.touch(BASE)
    assert (file_huge(p), shmem_pages(p), p.vmpte - before) == ((1, 512, 0) if huge else (0, 1, 4))


@pytest.mark.parametrize(("release", "huge"), [("6.18", 0), ("7.x", 1)])
def test_a_huge_page_beyond_the_end_of_an_unlinked_file(driver: str, release: str, huge: int) -> None:
    p = process(driver, "within_size", release)
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.memfd(M + 64 * K))
    p.touch(BASE)
    assert file_huge(p) == huge


def test_a_misaligned_mapping_has_the_huge_page_by_entries(driver: str) -> None:
    p = process(driver, "always")
    f = p.memfd(4 * M)
    p.mmap(BASE, 4 * M, WRITE, SHARED, f)
    p.touch(BASE, 4 * M)
    before = p.vmpte
    p.mmap(BASE + 8 * M + PAGE, 2 * M, READ, SHARED, f)
    p.touch(BASE + 8 * M + PAGE, write=False)
    assert (file_huge(p), p.vmpte - before) == (2, 4)
    assert shmem_pages(p) == 1024 + 16  # fault-around, from the start of the VMA


@pytest.mark.parametrize(("release", "pages"), [("6.1", 1), ("6.12", 512), ("7.x", 512)])
def test_a_large_folio_is_mapped_whole_by_a_write(driver: str, release: str, pages: int) -> None:
    """The huge page comes from one mapping; another one that must not use huge pages maps it by entries."""
    p = process(driver, "always", release)
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.touch(BASE)
    p.mmap(BASE + 4 * M, 2 * M, WRITE, SHARED, f)
    assert p.madvise(BASE + 4 * M, 2 * M, NOHUGEPAGE) == 0
    p.touch(BASE + 4 * M)
    if release == "6.1":
        assert file_huge(p) == 2  # there MADV_NOHUGEPAGE does not keep a huge page of a file out
    else:
        assert (file_huge(p), shmem_pages(p)) == (1, 512 + pages)


def test_cow_of_a_private_mapping_leaves_the_huge_page(driver: str) -> None:
    p = process(driver, "always")
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.write(BASE + 5 * PAGE, 6)
    p.mmap(BASE + 4 * M, 2 * M, WRITE, PRIVATE, f)
    before = p.vmpte
    assert p.read(BASE + 4 * M + 5 * PAGE) == 6
    assert (file_huge(p), p.vmpte - before) == (2, 0)
    p.write(BASE + 4 * M + 5 * PAGE, 7)
    assert (file_huge(p), p.vmpte - before) == (1, 4)
    assert (p.read(BASE + 5 * PAGE), p.read(BASE + 4 * M + 5 * PAGE), p.read(BASE + 4 * M)) == (6, 7, 0)


def test_a_hole_in_a_huge_page_splits_it(driver: str) -> None:
    p = process(driver, "always")
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.write(BASE, 1)
    p.write(BASE + M + PAGE, 2)
    before = p.vmpte
    assert p.madvise(BASE, M, REMOVE) == 0
    assert (file_huge(p), shmem_pages(p), p.vmpte - before) == (0, 0, 0)
    assert (p.read(BASE), p.read(BASE + M + PAGE)) == (0, 2)
    assert p.vmpte - before == 4


def test_a_pinned_huge_page_cannot_be_split(driver: str) -> None:
    p = process(driver, "always")
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.write(BASE, 1)
    p.write(BASE + M, 2)
    pinned = p.k("filemap").filemap_get_folio(f.f_mapping, 0)
    assert p.madvise(BASE, M, REMOVE) == 0
    p.k("page_alloc").folio_put(pinned)
    assert (p.read(BASE), p.read(BASE + M)) == (0, 2)
    assert file_huge(p) == 1


def test_nothing_is_left(driver: str) -> None:
    p = process(driver, "advise")
    f = p.memfd(8 * M)
    p.mmap(BASE, 8 * M, WRITE, SHARED, f)
    p.madvise(BASE, 4 * M, HUGEPAGE)
    p.fill(BASE, 8 * M)
    child = p.fork()
    child.fill(BASE, 8 * M, write=False)
    p.madvise(BASE + M, 2 * M, REMOVE)
    p.k("filemap").fput(f)
    child.exit()
    p.exit()
    alive = {name: n for name, n in p.model.machine.objects() if n}
    assert alive == {"system": 1, "ksm_scan": 1, "ksm_mm_slot": 1, "folio": 1}  # the zero page


def test_where_file_huge_pages_have_deposited_tables_too(driver: str) -> None:
    """The hash MMU of powerpc: a table for each huge pmd of a file, freed by zap and split."""
    p = Process(KernelConfig(arch="ppc64le-hash-64k"), driver)
    p.k("config").config.shmem_enabled = "always"
    size = int(p.model.arch.pmd_size)
    table = int(p.model.arch.pte_bytes) >> 10
    base = BASE & -size
    f = p.memfd(4 * size)
    p.mmap(base + 8 * size, p.page_size)
    p.touch(base + 8 * size)
    p.mmap(base, 4 * size, WRITE, SHARED, f)
    before = p.vmpte
    p.touch(base, 4 * size, step=size)
    assert (file_huge(p), p.vmpte - before, p.model.machine.load(p.mm.nr_deposited)) == (4, 4 * table, 4)
    assert p.madvise(base, size, DONTNEED) == 0
    assert p.vmpte - before == 3 * table
    p.mprotect(base + size, p.page_size, READ)
    assert (file_huge(p), p.vmpte - before) == (2, 2 * table)
    assert p.mremap(base + 2 * size, 2 * size, 2 * size, 3, base + 16 * size) == base + 16 * size
    assert (file_huge(p), p.model.machine.load(p.mm.nr_deposited)) == (2, 2)
    p.k("filemap").fput(f)
    p.exit()
    assert p.stat("PTE_TABLES_ALLOCATED") == p.stat("PTE_TABLES_FREED")
