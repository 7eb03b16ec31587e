# SPDX-License-Identifier: GPL-2.0-only
"""fork: which VMAs and tables a child gets, to the kB.  What decides it was measured on Linux 6.18."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, PAGE, PRIVATE, READ, SHARED, G, M, Process

DONTNEED, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, WIPEONFORK, KEEPONFORK, GUARD_INSTALL = 4, 10, 11, 14, 15, 18, 19, 102


@pytest.fixture
def p(driver: str) -> Process:
    return Process(driver=driver)


def child_kb(p: Process) -> int:
    """VmPTE of a child, which exits again."""
    child = p.fork()
    kb = child.vmpte
    child.exit()
    return kb


# --- tables ------------------------------------------------------------------------------------------------


def test_written_memory(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    assert p.vmpte == 24
    assert child_kb(p) == 24
    p.exit()


def test_an_empty_table_is_copied_too(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    for i in range(4):
        p.madvise(BASE + i * 2 * M, PAGE, DONTNEED)
    assert p.rss == 0
    assert child_kb(p) == 24
    p.exit()


def test_memory_only_read(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M, write=False)
    assert p.vmpte == 24
    assert child_kb(p) == 0
    p.exit()


def test_reads_beside_a_write_in_one_vma(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M, write=False)
    p.touch(BASE)
    assert child_kb(p) == 24
    p.exit()


def test_a_pmd_table_without_tables_is_copied_too(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    p.madvise(BASE, 2 * M, DONTNEED)
    assert p.vmpte == 8
    assert child_kb(p) == 8
    p.exit()


@pytest.mark.parametrize("kind", ["shared", "file read", "private file written"])
def test_files(p: Process, kind: str) -> None:
    f = p.memfd(8 * M)
    p.mmap(BASE, 8 * M, f=f, flags=SHARED if kind == "shared" else PRIVATE)
    p.touch(BASE, 8 * M, write=kind == "shared")
    if kind == "private file written":
        p.touch(BASE)
    assert p.vmpte == 24
    assert child_kb(p) == (24 if kind == "private file written" else 0)
    p.exit()


def test_special_pages(p: Process) -> None:
    p.mmap(BASE, 4 * PAGE, READ)
    p.touch(BASE, write=False)
    p.set_flag(BASE, "VM_PFNMAP")
    assert child_kb(p) == 12
    p.exit()


def test_huge_pages(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.madvise(BASE, 8 * M, HUGEPAGE)
    p.write(BASE + 3 * PAGE, 33)
    p.touch(BASE, 8 * M)
    child = p.fork()
    assert child.vmpte == p.vmpte == 24
    assert child.huge == p.huge == 4
    assert child.read(BASE + 3 * PAGE) == 33
    child.write(BASE + 3 * PAGE, 34)
    assert (child.huge, p.huge) == (3, 4)
    assert (child.read(BASE + 3 * PAGE), p.read(BASE + 3 * PAGE)) == (34, 33)
    child.exit()
    p.exit()


def test_huge_zero_page(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.madvise(BASE, 8 * M, HUGEPAGE)
    p.touch(BASE, 8 * M, write=False)
    assert p.vmpte == 24 and p.rss == 0
    assert child_kb(p) == 24
    p.exit()


@pytest.mark.parametrize("release", ["6.18", "7.x"])
@pytest.mark.parametrize("file", [False, True])
def test_guard_regions(release: str, file: bool) -> None:
    p = Process(KernelConfig(release))
    if file:
        p.mmap(BASE, 8 * M, f=p.memfd(8 * M), flags=SHARED)
    else:
        p.mmap(BASE, 8 * M)
    assert p.madvise(BASE, 8 * M, GUARD_INSTALL) == 0
    assert p.vmpte == 24
    child = p.fork()
    assert child.vmpte == 24
    assert child.read(BASE) == -1
    child.exit()
    p.exit()


# --- pages -------------------------------------------------------------------------------------------------


def test_pages_are_shared_until_written(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.write(BASE, 1)
    child = p.fork()
    assert child.rss == 1
    assert p.read(BASE) == child.read(BASE) == 1
    p.write(BASE, 2)
    assert (p.read(BASE), child.read(BASE)) == (2, 1)
    child.write(BASE, 3)
    assert (p.read(BASE), child.read(BASE)) == (2, 3)
    child.exit()
    assert p.read(BASE) == 2
    p.exit()


def test_grandchildren(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.write(BASE, 1)
    child = p.fork()
    child.write(BASE, 2)
    grandchild = child.fork()
    child.exit()
    grandchild.write(BASE + PAGE, 4)
    assert (p.read(BASE), grandchild.read(BASE), grandchild.read(BASE + PAGE)) == (1, 2, 4)
    p.exit()
    assert grandchild.read(BASE) == 2
    grandchild.exit()


def test_shared_memory_stays_shared(p: Process) -> None:
    p.mmap(BASE, 2 * M, flags=SHARED | 0x20)
    p.write(BASE, 1)
    child = p.fork()
    child.write(BASE, 2)
    assert p.read(BASE) == 2
    child.exit()
    p.exit()


def test_both_sides_lose_write_permission_and_the_parent_is_flushed(p: Process) -> None:
    pgtable, machine = p.k("pgtable"), p.model.machine
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    flushes = p.stat("TLB_FLUSHES")
    child = p.fork()
    assert p.stat("TLB_FLUSHES") == flushes + 1
    for mm in (p.mm, child.mm):
        pte = p.k("pgtable_generic").pte_offset_map(pgtable.mm_find_pmd(mm, BASE), BASE)
        entry = machine.load(pte)
        p.k("pgtable_generic").pte_unmap(pte)
        assert entry & pgtable.RW == 0
    page = pgtable.pte_page(entry)
    assert machine.load(p.k("page_alloc").page_flags(page)) & p.k("page_alloc").PAGE_ANON_EXCLUSIVE == 0
    child.exit()
    p.exit()


def test_a_pinned_page_is_copied_at_once(p: Process) -> None:
    page_alloc = p.k("page_alloc")
    p.mmap(BASE, 2 * M)
    p.write(BASE, 7)
    p.write(BASE + PAGE, 8)
    (page,) = p.k("gup").get_user_pages(p.mm, BASE, 1, True)
    f = p.k("pgtable").page_folio(page)
    p.model.machine.add(f._refcount, page_alloc.GUP_PIN_COUNTING_BIAS - 1)
    p.set_mm_field("flags", page_alloc.MMF_HAS_PINNED)
    child = p.fork()
    assert child.rss == 2 and child.read(BASE) == 7 and child.read(BASE + PAGE) == 8
    machine = p.model.machine
    pte = p.k("pgtable_generic").pte_offset_map(p.k("pgtable").mm_find_pmd(child.mm, BASE), BASE)
    first, second = machine.load(pte), machine.load(pte + 1)
    p.k("pgtable_generic").pte_unmap(pte)
    assert p.k("pgtable").pte_page(first) != page and first & p.k("pgtable").RW
    assert second & p.k("pgtable").RW == 0
    p.write(BASE, 9)
    assert machine.load(page_alloc.page_content(page)) == 9  # the parent still writes the pinned page
    child.exit()
    p.k("page_alloc").folio_put_refs(f, page_alloc.GUP_PIN_COUNTING_BIAS)
    p.exit()


# --- VMAs --------------------------------------------------------------------------------------------------


def test_dontfork(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    p.madvise(BASE, 4 * M, DONTFORK)
    child = p.fork()
    assert child.vmas() == [(4 * M, 8 * M)] and child.vmpte == 16
    assert child.mm_field("total_vm") == 1024 and child.mm_field("map_count") == 1
    child.exit()
    p.madvise(BASE, 4 * M, DOFORK)
    assert p.vmas() == [(0, 8 * M)]
    assert child_kb(p) == 24
    p.exit()


def test_wipeonfork(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    p.write(BASE, 5)
    p.madvise(BASE, 8 * M, WIPEONFORK)
    child = p.fork()
    assert child.vmas() == [(0, 8 * M)] and child.vmpte == 0
    assert child.read(BASE) == 0 and child.has(BASE, "VM_WIPEONFORK")
    assert child_kb(child) == 0
    child.exit()
    p.madvise(BASE, 8 * M, KEEPONFORK)
    assert child_kb(p) == 24
    p.exit()


def test_locks_are_not_inherited(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mlock(BASE, 2 * M)
    child = p.fork()
    assert not child.has(BASE, "VM_LOCKED") and p.has(BASE, "VM_LOCKED")
    assert child.mm_field("locked_vm") == 0
    child.exit()
    p.exit()


def test_what_a_process_forbids_and_khugepaged_knows_is_inherited(p: Process) -> None:
    p.set_mm_field("flags", p.k("huge_mm").MMF_DISABLE_THP_COMPLETELY | p.k("page_alloc").MMF_HAS_PINNED)
    p.mmap(BASE, 4 * M)
    p.madvise(BASE, 4 * M, HUGEPAGE)
    child = p.fork()
    assert child.mm_field("flags") == p.k("huge_mm").MMF_DISABLE_THP_COMPLETELY
    child.touch(BASE)
    assert child.huge == 0
    child.exit()
    p.set_mm_field("flags", 0)
    p.touch(BASE)
    p.madvise(BASE, 2 * M, NOHUGEPAGE)
    p.madvise(BASE, 4 * M, HUGEPAGE)
    child = p.fork()
    load = p.model.machine.load
    assert load(p.mm.khugepaged) == load(child.mm.khugepaged) == 1
    child.exit()
    p.exit()


def test_a_child_does_not_merge_what_a_parent_would(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.touch(BASE)
    child = p.fork()
    for q, merged in ((p, True), (child, False)):
        q.mmap(BASE + 2 * M, 2 * M)
        assert (q.vmas() == [(0, 4 * M)]) == merged
    child.exit()
    p.exit()


def test_files_are_referred_to_by_both(p: Process) -> None:
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, f=f, flags=SHARED)
    child = p.fork()
    load = p.model.machine.load
    assert load(f.f_count) == 3
    child.exit()
    assert load(f.f_count) == 2
    p.exit()


def test_upper_levels(p: Process) -> None:
    for i in range(3):
        p.mmap(BASE + (i << 39), 2 * M)
        p.touch(BASE + (i << 39))
    p.mmap(BASE + 5 * G, 2 * M)
    p.touch(BASE + 5 * G, write=False)
    assert p.vmpte == 3 * 12 + 8
    assert child_kb(p) == 3 * 12
    p.exit()


@pytest.mark.parametrize("arch", ["x86_64", "arm64", "riscv64", "s390x"])
def test_other_geometries(arch: str) -> None:
    p = Process(KernelConfig(arch=arch))
    step = p.model.arch.pmd_size
    p.mmap(BASE, 4 * step)
    p.touch(BASE, 4 * step, step=step)
    assert child_kb(p) == p.vmpte
    p.exit()
