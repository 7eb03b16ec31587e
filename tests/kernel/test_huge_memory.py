# SPDX-License-Identifier: GPL-2.0-only
"""Anonymous huge pages and their deposited tables.  Deltas in kB as measured on Linux 6.18."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, NONE, PAGE, PRIVATE, READ, WRITE, G, K, M, Process

DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE = 4, 8, 14, 15
MAYMOVE, FIXED = 1, 2


def process(driver: str, release: str = "7.x", **options: str) -> Process:
    """A process with a PUD table, and in it a PMD table for the first GiB."""
    p = Process(KernelConfig(release=release, options=tuple(options.items())), driver)
    p.mmap(BASE + G - PAGE, PAGE)
    p.touch(BASE + G - PAGE)
    return p


@pytest.fixture
def p(driver: str) -> Process:
    """A process with 8 MiB at BASE for which huge pages are wanted."""
    process_ = process(driver)
    process_.mmap(BASE, 8 * M)
    assert process_.madvise(BASE, 8 * M, HUGEPAGE) == 0
    return process_


def deposited(p: Process) -> int:
    return int(p.model.machine.load(p.mm.nr_deposited))


def anon_pages(p: Process) -> int:
    """Without the one of the fixture."""
    return int(p.model.machine.load(p.mm.anon_rss)) - 1


def test_fault_partial_zap_whole_zap(driver: str) -> None:
    """64 -> 72 -> 72 -> 68: a PMD table and a deposited table, which becomes the table, and is freed."""
    p = process(driver)
    p.mmap(BASE + G, 2 * M)
    assert p.madvise(BASE + G, 2 * M, HUGEPAGE) == 0
    start = p.vmpte
    p.touch(BASE + G)
    assert (p.vmpte - start, p.huge, deposited(p), anon_pages(p)) == (8, 1, 1, 512)
    assert p.madvise(BASE + G, PAGE, DONTNEED) == 0
    assert (p.vmpte - start, p.huge, deposited(p), anon_pages(p)) == (8, 0, 0, 511)
    assert p.madvise(BASE + G, 2 * M, DONTNEED) == 0
    assert (p.vmpte - start, anon_pages(p)) == (4, 0)


@pytest.mark.parametrize("release", ["6.1", "6.12", "6.18", "7.x"])
def test_zap_of_whole_huge_pages_frees_the_deposit_everywhere(driver: str, release: str) -> None:
    p = process(driver, release)
    p.mmap(BASE, 8 * M)
    p.madvise(BASE, 8 * M, HUGEPAGE)
    before = p.vmpte
    p.touch(BASE, 8 * M)
    assert p.vmpte - before == 16
    assert p.madvise(BASE, 8 * M, DONTNEED) == 0
    assert (p.vmpte - before, deposited(p)) == (0, 0)


@pytest.mark.parametrize("what", ["dontneed half", "mprotect part", "free part", "munmap part"])
def test_the_deposit_becomes_the_table(p: Process, what: str) -> None:
    p.touch(BASE, 2 * M)
    p.write(BASE + M + PAGE, 9)
    before = p.vmpte
    if what == "dontneed half":
        assert p.madvise(BASE, M, DONTNEED) == 0
    elif what == "mprotect part":
        p.mprotect(BASE, M, READ)
    elif what == "free part":
        assert p.madvise(BASE, M, FREE) == 0
    else:
        p.munmap(BASE, M)
    assert (p.vmpte - before, p.huge, deposited(p)) == (0, 0, 0)
    assert p.read(BASE + M + PAGE) == 9


@pytest.mark.parametrize("what", ["mprotect", "free"])
def test_whole_huge_pages_stay_whole(p: Process, what: str) -> None:
    p.touch(BASE, 8 * M)
    before = p.vmpte
    if what == "mprotect":
        p.mprotect(BASE, 4 * M, READ)
        p.mprotect(BASE, 4 * M, WRITE)
    else:
        assert p.madvise(BASE, 8 * M, FREE) == 0
    p.write(BASE + 5 * PAGE, 1)
    assert (p.vmpte - before, p.huge, anon_pages(p)) == (0, 4, 2048)


def test_read_fault_maps_the_huge_zero_page(p: Process) -> None:
    before = p.vmpte
    assert p.read(BASE + 17 * PAGE) == 0
    assert (p.vmpte - before, p.huge, anon_pages(p), deposited(p)) == (4, 0, 0, 1)
    assert p.field(BASE, "anon_vma")
    p.write(BASE + 17 * PAGE, 5)
    assert (p.vmpte - before, p.huge, anon_pages(p), deposited(p)) == (4, 1, 512, 1)
    assert (p.read(BASE + 17 * PAGE), p.read(BASE)) == (5, 0)


@pytest.mark.parametrize(("release", "huge"), [("6.1", 0), ("6.12", 0), ("6.18", 1), ("7.x", 1)])
def test_first_write_to_the_huge_zero_page(driver: str, release: str, huge: int) -> None:
    p = process(driver, release, transparent_hugepage="always")
    p.mmap(BASE, 2 * M)
    p.read(BASE)
    before = p.vmpte
    p.write(BASE + PAGE, 3)
    assert (p.vmpte - before, p.huge, anon_pages(p)) == (0, huge, 512 if huge else 1)
    assert (p.read(BASE + PAGE), p.read(BASE)) == (3, 0)


def test_split_of_the_huge_zero_page(p: Process) -> None:
    p.read(BASE)
    before = p.vmpte
    p.mprotect(BASE, 64 * K, NONE)
    assert (p.vmpte - before, deposited(p), anon_pages(p)) == (0, 0, 0)
    p.write(BASE + M, 5)
    assert (p.read(BASE + M), p.read(BASE + M + PAGE), anon_pages(p)) == (5, 0, 1)
    p.madvise(BASE + 2 * M, 2 * M, DONTNEED)
    assert p.madvise(BASE, 2 * M, DONTNEED) == 0
    assert p.vmpte - before == 0  # two VMAs share the table


def test_no_zero_page_where_it_is_switched_off(driver: str) -> None:
    p = process(driver, use_zero_page="n", transparent_hugepage="always")
    p.mmap(BASE, 2 * M)
    assert p.read(BASE) == 0
    assert (p.huge, anon_pages(p)) == (1, 512)


@pytest.mark.parametrize(
    ("enabled", "advice", "huge"),
    [
        ("always", 0, 1),
        ("always", NOHUGEPAGE, 0),
        ("madvise", 0, 0),
        ("madvise", HUGEPAGE, 1),
        ("never", HUGEPAGE, 0),
    ],
)
def test_who_gets_huge_pages(driver: str, enabled: str, advice: int, huge: int) -> None:
    p = process(driver, transparent_hugepage=enabled)
    p.mmap(BASE, 2 * M)
    if advice:
        assert p.madvise(BASE, 2 * M, advice) == 0
    p.touch(BASE + M)
    assert (p.huge, anon_pages(p)) == ((1, 512) if huge else (0, 1))


def test_a_huge_page_must_fit_the_vma(driver: str) -> None:
    p = process(driver, transparent_hugepage="always")
    p.mmap(BASE + M, 4 * M)
    p.touch(BASE + M)
    p.touch(BASE + 4 * M + PAGE)
    assert (p.huge, anon_pages(p)) == (0, 2)
    p.touch(BASE + 2 * M)
    assert (p.huge, anon_pages(p)) == (1, 514)


def test_neither_files_nor_the_stack_in_the_making(driver: str) -> None:
    p = process(driver, transparent_hugepage="always")
    p.mmap(BASE, 2 * M, WRITE, PRIVATE, p.file(2 * M))
    p.mmap(BASE + 4 * M, 2 * M)
    for flag in ("VM_GROWSDOWN", "VM_SEQ_READ", "VM_RAND_READ"):
        p.set_flag(BASE + 4 * M, flag)
    p.touch(BASE)
    p.touch(BASE + 4 * M)
    assert (p.huge, anon_pages(p)) == (0, 2)


def test_a_slot_with_a_table_gets_no_huge_page(p: Process) -> None:
    p.madvise(BASE, 2 * M, NOHUGEPAGE)
    p.touch(BASE)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    p.touch(BASE + M)
    assert (p.huge, anon_pages(p)) == (0, 2)


def test_fork_shares_and_deposits(p: Process) -> None:
    p.touch(BASE, 4 * M)
    p.write(BASE, 1)
    child = p.fork()
    assert (child.vmpte, child.huge, deposited(child)) == (p.vmpte, 2, 2)
    before = child.vmpte
    child.write(BASE, 2)
    assert (child.huge, deposited(child), child.vmpte - before) == (1, 1, 0)
    assert (p.read(BASE), child.read(BASE), child.read(BASE + PAGE)) == (1, 2, 0)
    child.exit()
    p.write(BASE + 2 * M, 3)
    p.write(BASE, 4)
    assert (p.huge, p.read(BASE), p.read(BASE + 2 * M)) == (2, 4, 3)


def test_write_while_shared_splits_and_copies_one_page(p: Process) -> None:
    p.write(BASE, 1)
    child = p.fork()
    p.write(BASE + PAGE, 2)
    assert (p.huge, anon_pages(p), child.huge) == (0, 512, 1)
    assert (child.read(BASE + PAGE), child.read(BASE), p.read(BASE)) == (0, 1, 1)


def test_fork_of_the_huge_zero_page(p: Process) -> None:
    p.read(BASE)
    child = p.fork()
    assert (child.vmpte, deposited(child), child.huge) == (p.vmpte, 1, 0)
    child.write(BASE, 1)
    assert (child.huge, p.read(BASE)) == (1, 0)


def test_a_pinned_huge_page_is_split_and_copied_by_fork(p: Process) -> None:
    p.write(BASE, 1)
    page_alloc, pgtable = p.k("page_alloc"), p.k("pgtable")
    f = pgtable.page_folio(pgtable.pmd_page(p.model.machine.load(pgtable.mm_find_pmd(p.mm, BASE))))
    p.model.machine.add(f._refcount, page_alloc.GUP_PIN_COUNTING_BIAS)
    p.set_mm_field("flags", page_alloc.MMF_HAS_PINNED)
    child = p.fork()
    assert (p.huge, child.huge, child.read(BASE)) == (0, 0, 1)
    p.write(BASE, 2)  # still the pinned page
    assert p.model.machine.load(page_alloc.page_content(f.page)) == 2
    assert child.read(BASE) == 1
    child.exit()
    page_alloc.folio_put_refs(f, page_alloc.GUP_PIN_COUNTING_BIAS)
    p.exit()


@pytest.mark.parametrize("to", [BASE + 16 * M, BASE + 3 * G])
def test_mremap_takes_page_and_deposit_along(p: Process, to: int) -> None:
    p.touch(BASE, 8 * M)
    p.write(BASE + M, 7)
    p.mmap(to - PAGE, PAGE)
    p.touch(to - PAGE)
    p.mmap(to + 8 * M, PAGE)
    p.touch(to + 8 * M)
    before = p.vmpte
    assert p.mremap(BASE, 8 * M, 8 * M, MAYMOVE | FIXED, to) == to
    assert (p.vmpte - before, p.huge, deposited(p), p.read(to + M)) == (0, 4, 4, 7)
    assert p.madvise(to, 8 * M, DONTNEED) == 0
    assert (p.vmpte - before, deposited(p)) == (-16, 0)


def test_mremap_to_where_no_huge_page_fits_splits(p: Process) -> None:
    p.touch(BASE, 8 * M)
    p.write(BASE + M, 7)
    to = BASE + 17 * M
    before = p.vmpte
    assert p.mremap(BASE, 8 * M, 8 * M, MAYMOVE | FIXED, to) == to
    assert (p.vmpte - before, p.huge, deposited(p), p.read(to + M)) == (4, 0, 0, 7)


def test_split_keeps_content_dirtiness_and_rss(p: Process) -> None:
    for i in range(0, 512, 37):
        p.write(BASE + i * PAGE, i + 1)
    p.mprotect(BASE, PAGE, READ)
    assert (p.huge, anon_pages(p)) == (0, 512)
    assert [p.read(BASE + i * PAGE) for i in range(0, 512, 37)] == [i + 1 for i in range(0, 512, 37)]
    assert p.stat("THP_SPLIT_PMD") == 1
    faults = p.stat("PAGE_FAULTS")
    p.write(BASE + 37 * PAGE, 5)
    assert p.stat("PAGE_FAULTS") == faults  # still writable


def test_tables_and_huge_pages_are_all_given_back(p: Process) -> None:
    p.touch(BASE, 4 * M)
    p.read(BASE + 4 * M)
    child = p.fork()
    child.touch(BASE + M, 4 * M)
    child.munmap(BASE + 3 * M, M)
    p.madvise(BASE + M, 64 * K, FREE)
    child.exit()
    p.exit()
    alive = {name: n for name, n in p.model.machine.objects() if n}
    assert alive == {"system": 1, "ksm_scan": 1, "ksm_mm_slot": 1, "folio": 2}  # the zero page, and the huge one
    assert p.stat("PTE_TABLES_ALLOCATED") == p.stat("PTE_TABLES_FREED")


def test_one_lock_for_all_tables(driver: str) -> None:
    """Without split page-table locks pmd lock and table lock are the same lock."""
    p = process(driver, split_ptlocks="n", transparent_hugepage="always")
    p.mmap(BASE, 4 * M)
    p.touch(BASE, 4 * M)
    child = p.fork()
    child.write(BASE, 1)
    p.mprotect(BASE, M, READ)
    assert p.mremap(BASE + 2 * M, 2 * M, 2 * M, MAYMOVE | FIXED, BASE + 2 * G) == BASE + 2 * G
    assert p.madvise(BASE + 2 * G, 2 * M, DONTNEED) == 0
    child.exit()
    p.exit()
