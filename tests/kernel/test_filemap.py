# SPDX-License-Identifier: GPL-2.0-only
"""Files: faults and fault-around, the page cache, truncation and holes."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, NONE, PAGE, PRIVATE, READ, SHARED, WRITE, G, K, M, Process

VM_FAULT_SIGBUS = 2
DONTNEED, REMOVE = 4, 9


@pytest.fixture
def p(driver: str) -> Process:
    """A process with a PMD table for the whole test's GiB."""
    process = Process(driver=driver)
    process.mmap(BASE + G - PAGE, PAGE)
    process.touch(BASE + G - PAGE)
    return process


def file_pages(p: Process) -> int:
    return int(p.model.machine.load(p.mm.file_rss))


def anon_pages(p: Process) -> int:
    """Without the one of the fixture."""
    return int(p.model.machine.load(p.mm.anon_rss)) - 1


def flags(p: Process, f: Any, index: int) -> int:
    """folio.flags of a cached page."""
    found = p.k("filemap").filemap_get_folio(f.f_mapping, index)
    assert found
    value = p.model.machine.READ_ONCE(found, "flags")
    p.k("page_alloc").folio_put(found)
    return int(value)


def test_read_fault_maps_sixteen_pages_around(p: Process) -> None:
    p.mmap(BASE, 4 * M, READ, PRIVATE, p.file(4 * M))
    before = p.vmpte
    assert p.fault(BASE + M + 20 * K, write=False) == 0
    assert (p.vmpte - before, file_pages(p)) == (4, 16)


def test_fault_around_never_leaves_the_table(p: Process) -> None:
    p.mmap(BASE + M + PAGE, 2 * M, READ, PRIVATE, p.file(2 * M))
    before = p.vmpte
    assert p.fault(BASE + 2 * M - PAGE, write=False) == 0
    assert (p.vmpte - before, file_pages(p)) == (4, 16)
    assert p.fault(BASE + 2 * M, write=False) == 0
    assert (p.vmpte - before, file_pages(p)) == (8, 32)


@pytest.mark.parametrize(
    ("start", "length", "at", "pages"), [(5, 32, 5, 16), (5, 32, 36, 5), (3, 4, 4, 4), (9, 1, 9, 1)]
)
def test_fault_around_never_leaves_the_vma(p: Process, start: int, length: int, at: int, pages: int) -> None:
    p.mmap(BASE + start * PAGE, length * PAGE, READ, PRIVATE, p.file(64 * M), off=7 * PAGE)
    assert p.fault(BASE + at * PAGE, write=False) == 0
    assert file_pages(p) == pages


def test_fault_around_switched_off(driver: str) -> None:
    p = Process(KernelConfig(options=(("fault_around_bytes", "4096"),)), driver)
    p.mmap(BASE, M, READ, PRIVATE, p.file(M))
    assert p.fault(BASE + 20 * K, write=False) == 0
    assert file_pages(p) == 1


def test_beyond_the_end_of_the_file(p: Process) -> None:
    p.mmap(BASE, 64 * K, WRITE, SHARED, p.file(10 * K))
    assert p.fault(BASE, write=False) == 0
    assert file_pages(p) == 3
    assert p.fault(BASE + 8 * K) == 0
    for write in (False, True):
        assert p.fault(BASE + 12 * K, write) == VM_FAULT_SIGBUS
    assert p.read(BASE + 12 * K) == -1


def test_nothing_is_beyond_a_size_not_known(p: Process) -> None:
    filemap = p.k("filemap")
    p.mmap(BASE, 64 * K, READ, SHARED, filemap.open_file(filemap.file_mapping()), off=1 << 40)
    assert p.fault(BASE + 60 * K, write=False) == 0
    assert file_pages(p) == 16


def test_private_write_copies(p: Process) -> None:
    f = p.file(M)
    p.mmap(BASE, M, WRITE, PRIVATE, f)
    p.mmap(BASE + 2 * M, M, WRITE, SHARED, f)
    p.write(BASE + 2 * M, 7)
    assert p.read(BASE) == 7
    p.write(BASE, 8)
    p.write(BASE + M // 2, 9)
    assert (p.read(BASE), p.read(BASE + 2 * M), anon_pages(p)) == (8, 7, 2)
    assert p.field(BASE, "anon_vma")
    assert not p.field(BASE + 2 * M, "anon_vma")


def test_shared_write_makes_dirty(p: Process) -> None:
    f = p.file(M)
    dirty = p.k("page_alloc").PG_DIRTY
    p.mmap(BASE, M, WRITE, SHARED, f)
    p.write(BASE, 1)
    assert flags(p, f, 0) & dirty
    p.read(BASE + 4 * PAGE)
    assert flags(p, f, 4) & dirty == 0
    p.write(BASE + 4 * PAGE, 2)
    assert flags(p, f, 4) & dirty
    assert (anon_pages(p), flags(p, f, 5) & dirty) == (0, 0)


def test_inaccessible_memory_is_populated_by_nobody(p: Process) -> None:
    p.mmap(BASE, M, NONE, PRIVATE, p.file(M))
    before = p.vmpte
    assert p.fault(BASE, write=False) == 0x40  # VM_FAULT_SIGSEGV
    assert p.vmpte == before


def test_vdso_counts_and_vvar_does_not(p: Process) -> None:
    for i, flag in enumerate(("VM_SPECIAL_MAPPING", "VM_PFNMAP")):
        p.mmap(BASE + i * M, PAGE, READ)
        p.set_flag(BASE + i * M, "VM_SPECIAL_MAPPING")
        p.set_flag(BASE + i * M, flag)
        assert p.fault(BASE + i * M, write=False) == 0
        assert file_pages(p) == 1
    p.exit()


def test_two_tables_for_a_file_that_straddles_them_and_none_for_what_is_only_mapped(p: Process) -> None:
    before = p.vmpte
    p.mmap(BASE + M, 2 * M, READ, SHARED, p.file(2 * M))
    assert p.vmpte == before
    p.fill(BASE + M, 2 * M, write=False)
    assert (p.vmpte - before, file_pages(p)) == (8, 512)
    assert p.madvise(BASE + M, 2 * M, DONTNEED) == 0
    assert (p.vmpte - before, file_pages(p)) == (8, 0)


def test_dontneed_of_a_whole_table(p: Process) -> None:
    p.mmap(BASE, 4 * M, READ, PRIVATE, p.file(4 * M))
    p.fill(BASE, 4 * M, write=False)
    before = p.vmpte
    assert p.madvise(BASE, 4 * M, DONTNEED) == 0
    assert p.vmpte - before == -8


def test_truncate_takes_private_copies_and_a_hole_does_not(p: Process) -> None:
    f = p.file(M)
    p.mmap(BASE, M, WRITE, PRIVATE, f)
    p.write(BASE + 8 * PAGE, 5)
    p.read(BASE)
    before = p.vmpte
    truncate = p.k("truncate")
    assert truncate.shmem_fallocate(f.f_mapping, 0, 256) == 0
    assert (file_pages(p), anon_pages(p), p.vmpte - before) == (0, 1, 0)
    assert p.read(BASE + 8 * PAGE) == 5
    truncate.truncate_setsize(f.f_mapping, 8 * PAGE)
    assert (anon_pages(p), p.vmpte - before) == (0, 0)
    assert p.read(BASE + 8 * PAGE) == -1
    truncate.truncate_setsize(f.f_mapping, 9 * PAGE)
    assert p.read(BASE + 8 * PAGE) == 0


def test_remove_unmaps_and_keeps_the_tables(p: Process) -> None:
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.file(4 * M))
    p.fill(BASE, 4 * M)
    before = p.vmpte
    assert p.madvise(BASE, 4 * M, REMOVE) == 0
    assert (p.vmpte - before, file_pages(p)) == (0, 0)


def test_unused_tables_are_given_back(p: Process) -> None:
    """do_fault_around() brings a table for a slot that is empty; only the one that is installed stays."""
    f = p.file(64 * K)
    p.mmap(BASE, 64 * K, READ, SHARED, f)
    p.k("truncate").truncate_setsize(f.f_mapping, 0)
    before = p.vmpte
    assert p.fault(BASE, write=False) == VM_FAULT_SIGBUS
    assert p.vmpte == before
    assert p.stat("PTE_TABLES_ALLOCATED") - p.stat("PTE_TABLES_FREED") == p.model.machine.load(p.mm.nr_ptes)


def test_nothing_is_left(p: Process) -> None:
    f = p.file(4 * M)
    p.mmap(BASE, 4 * M, WRITE, SHARED, f)
    p.mmap(BASE + 4 * M, 4 * M, WRITE, PRIVATE, f)
    p.fill(BASE, 4 * M)
    p.touch(BASE + 4 * M, 4 * M, step=256 * K)
    child = p.fork()
    p.k("filemap").fput(f)
    p.exit()
    assert child.read(BASE + 4 * M) == 0
    child.exit()
    alive = {name: n for name, n in p.model.machine.objects() if n}
    assert alive == {"system": 1, "ksm_scan": 1, "ksm_mm_slot": 1, "folio": 1}  # the zero page
