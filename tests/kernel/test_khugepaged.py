# SPDX-License-Identifier: GPL-2.0-only
"""MADV_COLLAPSE and khugepaged.  Deltas in kB as measured on Linux 6.18, and on 6.1 to 7.2 where releases are named."""

from __future__ import annotations

from typing import Any

import pytest

from tablewalk.machine.drivers import KernelConfig

from .process import BASE, NONE, PAGE, PRIVATE, READ, SHARED, WRITE, G, K, M, Process

DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, COLLAPSE = 4, 8, 14, 15, 25
EAGAIN, EINVAL = 11, 22
RELEASES = ("6.1", "6.12", "6.18", "7.x")


def process(driver: str, release: str = "7.x", without: tuple[str, ...] = (), **options: str) -> Process:
    """A process with a PMD table for the whole test's GiB."""
    p = Process(KernelConfig(release=release, without=without, options=tuple(options.items())), driver)
    p.mmap(BASE + G - PAGE, PAGE)
    p.touch(BASE + G - PAGE)
    return p


@pytest.fixture
def p(driver: str) -> Process:
    return process(driver)


def file_huge(p: Process) -> int:
    return int(p.model.machine.load(p.mm.file_huge))


def anon_pages(p: Process) -> int:
    """Without the one of the fixture."""
    return int(p.model.machine.load(p.mm.anon_rss)) - 1


def another(p: Process) -> Process:
    """A second process beside the first, with a PMD table as well."""
    other = p.fork()
    other.touch(BASE + G - PAGE)
    return other


def khugepaged(p: Process) -> int:
    """One pass of khugepaged over the process; the huge pages it made."""
    made = int(p.k("khugepaged").khugepaged_scan_mm(p.mm))
    p.done()
    return made


def khugepaged_enter(p: Process, addr: int) -> None:
    """What MADV_HUGEPAGE does for a VMA that khugepaged may collapse."""
    lock = p.k("mmap_lock")
    lock.mmap_read_lock(p.mm)
    vma = p.k("vma").vma_lookup(p.mm, addr)
    p.k("khugepaged").khugepaged_enter_vma(vma, vma.vm_flags)
    lock.mmap_read_unlock(p.mm)


# --- anonymous memory ------------------------------------------------------------------------------------


def test_anonymous_collapse_deposits_the_table(p: Process) -> None:
    """72 -> 72 -> 68."""
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    p.write(BASE + 3 * PAGE, 3)
    before = p.vmpte
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert (p.vmpte - before, p.huge, p.model.machine.load(p.mm.nr_deposited), anon_pages(p)) == (0, 1, 1, 512)
    assert (p.read(BASE + 3 * PAGE), p.read(BASE)) == (3, 0)
    assert p.madvise(BASE, 2 * M, DONTNEED) == 0
    assert (p.vmpte - before, anon_pages(p)) == (-4, 0)


@pytest.mark.parametrize("release", RELEASES)
def test_holes_and_zero_pages_become_memory(driver: str, release: str) -> None:
    p = process(driver, release)
    p.mmap(BASE, 8 * M)
    p.touch(BASE, 8 * M)
    p.touch(BASE + PAGE, 8 * M, write=False, step=64 * K)
    before = p.vmpte
    assert p.madvise(BASE, 8 * M, COLLAPSE) == 0
    assert (p.vmpte - before, p.huge, anon_pages(p)) == (0, 4, 2048)


@pytest.mark.parametrize("release", RELEASES)
def test_untouched_memory_cannot_be_collapsed(driver: str, release: str) -> None:
    p = process(driver, release)
    p.mmap(BASE, 8 * M)
    assert p.madvise(BASE, 8 * M, COLLAPSE) == -EINVAL
    p.touch(BASE + 4 * M)
    assert p.madvise(BASE, 8 * M, COLLAPSE) == -EINVAL
    assert p.huge == (1 if release == "7.x" else 0)


@pytest.mark.parametrize("release", RELEASES)
def test_a_missing_pmd_table_stops_nobody(driver: str, release: str) -> None:
    p = process(driver, release)
    p.mmap(BASE + 2 * G - 4 * M, 8 * M)
    p.touch(BASE + 2 * G)
    assert p.madvise(BASE + 2 * G - 4 * M, 8 * M, COLLAPSE) == -EINVAL
    assert p.huge == 1


@pytest.mark.parametrize(("release", "error"), [("6.1", -EINVAL), ("6.18", -EINVAL), ("7.x", 0)])
def test_a_range_in_which_no_huge_page_fits(driver: str, release: str, error: int) -> None:
    p = process(driver, release)
    p.mmap(BASE, 4 * M)
    p.touch(BASE, 4 * M)
    assert p.madvise(BASE + M, PAGE, COLLAPSE) == error
    assert p.madvise(BASE + M, 2 * M, COLLAPSE) == 0
    assert p.huge == 0


@pytest.mark.parametrize(("release", "error"), [("6.1", -EINVAL), ("6.12", -EINVAL), ("6.18", 0), ("7.x", 0)])
def test_memory_without_a_writable_entry(driver: str, release: str, error: int) -> None:
    """After fork all entries are read-only."""
    p = process(driver, release)
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    p.fork().exit()
    assert p.madvise(BASE, 2 * M, COLLAPSE) == error
    p.write(BASE + M, 1)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0


def test_inaccessible_memory_collapses(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M, write=False)
    p.write(BASE, 5)
    p.mprotect(BASE, 2 * M, NONE)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    p.mprotect(BASE, 2 * M, READ)
    assert (p.huge, p.read(BASE), anon_pages(p)) == (1, 5, 512)


def test_not_where_huge_pages_are_forbidden(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 4 * M, M)
    p.fill(BASE, 2 * M)
    p.fill(BASE + 4 * M, M)
    p.madvise(BASE, 2 * M, NOHUGEPAGE)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == -EINVAL
    assert p.madvise(BASE + 4 * M, M, COLLAPSE) == -EINVAL  # the VMA is too small


def test_a_pinned_page_stops_the_collapse_and_all_is_as_before(p: Process) -> None:
    p.mmap(BASE, 4 * M)
    for page in range(512):
        p.write(BASE + page * PAGE, page)
    p.fill(BASE + 2 * M, 2 * M)
    pgtable, page_alloc = p.k("pgtable"), p.k("page_alloc")
    table = pgtable.pmd_pgtable(p.model.machine.load(pgtable.mm_find_pmd(p.mm, BASE)))
    f = pgtable.page_folio(pgtable.pte_page(p.model.machine.load(table.entry + 300)))
    page_alloc.folio_get(f)
    before = p.vmpte
    assert p.madvise(BASE, 4 * M, COLLAPSE) == -EAGAIN
    assert (p.vmpte - before, p.huge, anon_pages(p)) == (0, 1, 1024)  # it went on with the second
    assert [p.read(BASE + page * PAGE) for page in range(512)] == list(range(512))
    page_alloc.folio_put(f)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert [p.read(BASE + page * PAGE) for page in range(512)] == list(range(512))


def test_pages_shared_with_a_child_are_copied(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    p.write(BASE, 1)
    child = p.fork()
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    p.write(BASE, 2)
    assert (p.huge, child.huge, child.read(BASE), anon_pages(child)) == (1, 0, 1, 512)
    child.exit()
    p.exit()


def test_no_pte_reader_is_left_when_pages_are_isolated(p: Process) -> None:
    """The IPI between clearing the pmd and judging references waits for GUP-fast."""
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    ipis = p.stat("IPIS")
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert p.stat("IPIS") - ipis == 1


# --- files and shared memory -----------------------------------------------------------------------------


def map_four(p: Process) -> tuple[int, ...]:
    """A 2 MiB memfd at A and B shared, at C private and unwritten, at D private with one page written; all touched."""
    f = p.memfd(2 * M)
    places = tuple(BASE + i * 4 * M for i in range(4))
    for i, at in enumerate(places):
        p.mmap(at, 2 * M, WRITE, SHARED if i < 2 else PRIVATE, f)
    for page in range(512):
        p.write(places[0] + page * PAGE, page + 1)
    for at in places[1:]:
        p.fill(at, 2 * M, write=False)
    p.write(places[3] + 7 * PAGE, 1000)
    return places


def test_memfd_mapped_four_times(p: Process) -> None:
    """80 -> 68: three tables go, that of the mapping with a private page stays.  Then 68, 68, 68, 64."""
    a, b, c, d = map_four(p)
    before = p.vmpte
    assert p.madvise(a, 2 * M, COLLAPSE) == 0
    assert (p.vmpte - before, file_huge(p), p.rss - 1) == (-12, 1, 512 + 1)
    for at in (a, b, c, d):
        wanted = [page + 1 for page in range(512)]
        if at == d:
            wanted[7] = 1000
        assert [p.read(at + page * PAGE) for page in range(512)] == wanted
    assert (p.vmpte - before, file_huge(p)) == (-12, 3)
    after = []
    for at in (a, b, c, d):
        assert p.madvise(at, 2 * M, DONTNEED) == 0
        after.append(p.vmpte - before)
    assert after == [-12, -12, -12, -16]


@pytest.mark.parametrize(("release", "kept"), [("6.1", 1), ("6.12", 0), ("6.18", 0), ("7.x", 0)])
def test_memfd_of_64_mib_mapped_twice(release: str, kept: int) -> None:
    """300 -> 172 under 6.1, 308 -> 52 since: before 6.6 MADV_COLLAPSE takes only the table of its own mapping."""
    p = process("sequential", release)
    f = p.memfd(64 * M)
    first, second = BASE, BASE + 64 * M
    start = p.vmpte
    for at in (first, second):
        p.mmap(at, 64 * M, WRITE, SHARED, f)
        p.touch(at, 64 * M, step=M)
    assert p.vmpte - start == 256
    assert p.madvise(first, 64 * M, COLLAPSE) == 0
    assert p.vmpte - start == 128 * kept
    p.touch(first, 64 * M, step=M)
    p.touch(second, 64 * M, step=M)
    assert (p.vmpte - start, file_huge(p)) == (128 * kept, 32 if kept else 64)


@pytest.mark.parametrize("cow", [False, True])
def test_other_process(p: Process, cow: bool) -> None:
    """8 MiB: the caller -16; the other process -16, and 0 if a page of its private mapping is a copy."""
    f = p.memfd(8 * M)
    p.mmap(BASE, 8 * M, WRITE, SHARED, f)
    p.touch(BASE, 8 * M, step=64 * K)
    other = another(p)
    if cow:
        other.munmap(BASE, 8 * M)
        other.mmap(BASE, 8 * M, WRITE, PRIVATE, f)
        other.write(BASE, 5)
    other.touch(BASE, 8 * M, write=False, step=64 * K)
    mine, theirs = p.vmpte, other.vmpte
    assert p.madvise(BASE, 8 * M, COLLAPSE) == 0
    assert (p.vmpte - mine, other.vmpte - theirs) == (-16, 0 if cow else -16)
    assert other.read(BASE) == (5 if cow else 0)
    other.exit()
    p.exit()


def test_after_a_collapse(p: Process) -> None:
    f = p.memfd(8 * M)
    p.mmap(BASE, 8 * M, WRITE, SHARED, f)
    p.touch(BASE, 8 * M, step=64 * K)
    assert p.madvise(BASE, 8 * M, COLLAPSE) == 0
    before = p.vmpte
    p.mmap(BASE + 16 * M, 8 * M, WRITE, SHARED, f)
    p.touch(BASE + 16 * M, 8 * M, write=False, step=64 * K)
    assert (p.vmpte - before, file_huge(p)) == (0, 8)
    assert p.madvise(BASE, M, DONTNEED) == 0
    p.fill(BASE, M, write=False)
    assert (p.vmpte - before, file_huge(p)) == (0, 8)
    p.mprotect(BASE, PAGE, READ)
    p.fill(BASE, PAGE, write=False)
    assert (p.vmpte - before, file_huge(p)) == (4, 7)


@pytest.mark.parametrize("release", RELEASES)
def test_without_a_pmd_table_older_kernels_only_fill_the_cache(driver: str, release: str) -> None:
    p = process(driver, release)
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.touch(BASE)
    at = BASE + 3 * G
    p.mmap(at, 2 * M, WRITE, SHARED, f)
    before = p.vmpte
    old = release in ("6.1", "6.12")
    assert p.madvise(at, 2 * M, COLLAPSE) == (-EINVAL if old else 0)
    table = 0 if release == "6.1" else -4  # of the mapping at BASE
    assert (p.vmpte - before, file_huge(p)) == (table, 0) if old else (table + 4, 1)
    p.touch(at)
    assert (p.vmpte - before, file_huge(p)) == (table + 4, 1)


def test_holes_of_shared_memory_are_filled_with_zeroes(p: Process) -> None:
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.memfd(4 * M))
    p.write(BASE + M, 1)
    p.write(BASE + M + 8 * PAGE, 2)
    before = p.vmpte
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert (p.vmpte - before, file_huge(p), p.rss - 1) == (-4, 1, 512)
    assert [p.read(BASE + M + i * PAGE) for i in (0, 1, 8)] == [1, 0, 2]
    assert p.madvise(BASE + 2 * M, 2 * M, COLLAPSE) == -EINVAL  # nothing there


def test_a_page_that_somebody_holds_stops_it(p: Process) -> None:
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    for page in range(512):
        p.write(BASE + page * PAGE, page + 1)
    held = p.k("filemap").filemap_get_folio(f.f_mapping, 100)
    before = p.vmpte
    assert p.madvise(BASE, 2 * M, COLLAPSE) == -EAGAIN
    assert (p.vmpte - before, file_huge(p)) == (0, 0)
    assert [p.read(BASE + page * PAGE) for page in range(512)] == list(range(1, 513))
    p.k("page_alloc").folio_put(held)
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert [p.read(BASE + page * PAGE) for page in range(512)] == list(range(1, 513))


def test_misaligned_in_the_file(p: Process) -> None:
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.memfd(8 * M), off=PAGE)
    p.fill(BASE, 4 * M)
    assert p.madvise(BASE, 4 * M, COLLAPSE) == -EINVAL


@pytest.mark.parametrize("what", ["uffd-wp", "guard"])
def test_tables_with_markers_stay(p: Process, what: str) -> None:
    f = p.memfd(2 * M)
    for at in (BASE, BASE + 4 * M):
        p.mmap(at, 2 * M, WRITE, SHARED, f)
        p.fill(at, 2 * M)
    p.set_flag(BASE + 4 * M, "VM_UFFD_WP" if what == "uffd-wp" else "VM_MAYBE_GUARD")
    before = p.vmpte
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert (p.vmpte - before, file_huge(p)) == (-4, 1)


def test_only_the_page_cache_is_collapsed_already(p: Process) -> None:
    """A second mapping with a private copy keeps its table; MADV_COLLAPSE there refuses, too."""
    a, _, _, d = map_four(p)
    assert p.madvise(a, 2 * M, COLLAPSE) == 0
    before = p.vmpte
    assert p.madvise(d, 2 * M, COLLAPSE) == -EINVAL
    assert p.madvise(a, 2 * M, COLLAPSE) == 0
    assert p.vmpte == before


def test_entries_of_a_huge_page_become_a_huge_pmd(driver: str) -> None:
    """A mapping whose entries all map the huge page loses its table to its own MADV_COLLAPSE."""
    p = process(driver)
    p.k("config").config.shmem_enabled = "always"
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.touch(BASE)
    p.mmap(BASE + 4 * M, 2 * M, WRITE, SHARED, f)
    p.madvise(BASE + 4 * M, 2 * M, NOHUGEPAGE)
    p.fill(BASE + 4 * M, 2 * M)
    p.madvise(BASE + 4 * M, 2 * M, HUGEPAGE)
    before = p.vmpte
    rss = p.rss
    assert p.madvise(BASE + 4 * M, 2 * M, COLLAPSE) == 0
    assert (p.vmpte - before, file_huge(p), p.rss - rss) == (-4, 2, 0)


@pytest.mark.parametrize(
    ("release", "can", "option", "error"),
    [
        ("7.x", False, "n", -EINVAL),
        ("7.x", True, "n", 0),
        ("6.18", True, "n", -EINVAL),
        ("6.18", True, "y", 0),
        ("6.18", False, "y", -EINVAL),
    ],
)
def test_regular_files(driver: str, release: str, can: bool, option: str, error: int) -> None:
    p = process(driver, release, read_only_thp_for_fs=option)
    filemap = p.k("filemap")
    mapping = filemap.file_mapping(4 * M, can_collapse=can)
    p.mmap(BASE, 4 * M, READ, PRIVATE, filemap.open_file(mapping))
    p.fill(BASE, 4 * M, write=False)
    before = p.vmpte
    assert p.madvise(BASE, 4 * M, COLLAPSE) == error
    assert (p.vmpte - before, file_huge(p)) == ((-8, 2) if error == 0 else (0, 0))


# --- khugepaged ------------------------------------------------------------------------------------------


def test_khugepaged_collapses_what_is_wanted_and_used(driver: str) -> None:
    p = process(driver, transparent_hugepage="madvise")
    p.mmap(BASE, 8 * M)
    p.fill(BASE, 6 * M)
    assert khugepaged(p) == 0
    assert p.madvise(BASE, 8 * M, HUGEPAGE) == 0
    assert khugepaged(p) == 3
    assert (p.huge, anon_pages(p)) == (3, 1536)
    assert khugepaged(p) == 0


@pytest.mark.parametrize(("none", "made"), [(511, 1), (256, 1), (255, 0), (0, 0)])
def test_max_ptes_none(driver: str, none: int, made: int) -> None:
    p = process(driver, transparent_hugepage="always", max_ptes_none=str(none))
    p.mmap(BASE, 2 * M)
    p.madvise(BASE, 2 * M, NOHUGEPAGE)
    p.fill(BASE, M)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    assert khugepaged(p) == made


@pytest.mark.parametrize(("shared", "made"), [(256, 1), (255, 0)])
def test_max_ptes_shared(driver: str, shared: int, made: int) -> None:
    p = process(driver, transparent_hugepage="madvise", max_ptes_shared=str(shared))
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    child = p.fork()
    p.fill(BASE, M)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    assert (khugepaged(p), child.huge) == (made, 0)


def test_memory_that_may_be_dropped_is_left_alone(driver: str) -> None:
    p = process(driver)
    p.mmap(BASE, 2 * M)
    p.fill(BASE, 2 * M)
    p.madvise(BASE, 2 * M, HUGEPAGE)
    p.madvise(BASE + M, PAGE, FREE)
    assert khugepaged(p) == 0
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0


def test_khugepaged_and_shared_memory(driver: str) -> None:
    """It asks shmem_enabled, which MADV_COLLAPSE does not, and maps nothing."""
    p = process(driver)
    p.mmap(BASE, 4 * M, WRITE, SHARED, p.memfd(4 * M))
    p.fill(BASE, 4 * M)
    assert khugepaged(p) == 0
    p.k("config").config.shmem_enabled = "always"
    before = p.vmpte
    assert khugepaged(p) == 2
    assert (p.vmpte - before, file_huge(p), p.rss - 1) == (-8, 0, 0)
    p.fill(BASE, 4 * M)
    assert (p.vmpte - before, file_huge(p)) == (-8, 2)


@pytest.mark.parametrize("known", [False, True])
def test_before_6_6_khugepaged_tries_again(driver: str, known: bool) -> None:
    """What MADV_COLLAPSE left of other mappings goes to a list, of the processes that khugepaged knows of."""
    p = process(driver, "6.1")
    f = p.memfd(20 * M)
    p.mmap(BASE, 20 * M, WRITE, SHARED, f)
    p.touch(BASE, 20 * M)
    other = another(p)
    other.touch(BASE, 20 * M, write=False)
    if known:
        p.k("config").config.shmem_enabled = "always"
        khugepaged_enter(other, BASE)
        p.k("config").config.shmem_enabled = "never"
    mine, theirs = p.vmpte, other.vmpte
    assert p.madvise(BASE, 20 * M, COLLAPSE) == 0
    assert (p.vmpte - mine, other.vmpte - theirs) == (-40, 0)
    khugepaged(other)
    assert other.vmpte - theirs == (-32 if known else 0)  # eight of ten: the list is no longer
    khugepaged(other)
    assert other.vmpte - theirs == (-32 if known else 0)
    other.exit()
    p.exit()


def test_before_6_6_khugepaged_takes_tables_from_all_whose_mmap_lock_is_free(driver: str) -> None:
    p = process(driver, "6.1")
    p.k("config").config.shmem_enabled = "always"
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.k("config").config.shmem_enabled = "never"
    p.fill(BASE, 2 * M)
    other = another(p)
    other.fill(BASE, 2 * M, write=False)
    mine, theirs = p.vmpte, other.vmpte
    p.k("config").config.shmem_enabled = "always"
    assert khugepaged(p) == 1
    assert (p.vmpte - mine, other.vmpte - theirs) == (-4, -4)


@pytest.mark.parametrize("release", RELEASES)
def test_tables_are_freed_at_once_or_by_rcu(driver: str, release: str) -> None:
    p = process(driver, release)
    f = p.memfd(2 * M)
    p.mmap(BASE, 2 * M, WRITE, SHARED, f)
    p.touch(BASE, 2 * M, step=64 * K)
    callbacks, writes = p.stat("RCU_CALLBACKS"), p.locked("address_space.i_mmap_rwsem")
    assert p.madvise(BASE, 2 * M, COLLAPSE) == 0
    assert p.stat("RCU_CALLBACKS") - callbacks == (0 if release == "6.1" else 1)
    assert p.stat("RETRACTED") == 1
    assert p.locked("address_space.i_mmap_rwsem") > writes


@pytest.mark.parametrize(("without", "result"), [((), "SCAN_NO_PTE_TABLE"), (("D01",), "SCAN_SUCCEED")])
def test_the_slot_is_looked_at_again_under_the_pmd_lock(driver: str, without: tuple[str, ...], result: str) -> None:
    p = process(driver, without=without)
    slot: Any = p.k("pgtable").mm_find_pmd(p.mm, BASE)
    assert p.model.machine.load(slot) == 0
    assert p.k("retract").recheck_pmd_state(slot) == getattr(p.k("scan_result"), result)


@pytest.mark.parametrize("release", RELEASES)
def test_nothing_is_left(driver: str, release: str) -> None:
    p = process(driver, release)
    f = p.memfd(4 * M)
    p.mmap(BASE, 4 * M, WRITE, SHARED, f)
    p.mmap(BASE + 8 * M, 4 * M, WRITE, PRIVATE, f)
    p.mmap(BASE + 16 * M, 4 * M)
    for at in (BASE, BASE + 16 * M):
        p.touch(at, 4 * M, step=16 * K)
    p.touch(BASE + 8 * M, 4 * M, step=256 * K)
    child = p.fork()
    child.touch(BASE, 4 * M, write=False, step=64 * K)
    for at in (BASE, BASE + 8 * M, BASE + 16 * M):
        p.madvise(at, 4 * M, COLLAPSE)
    p.k("filemap").fput(f)
    child.exit()
    p.exit()
    alive = {name: n for name, n in p.model.machine.objects() if n}
    assert alive == {"system": 1, "ksm_scan": 1, "ksm_mm_slot": 1, "folio": 1}  # the zero page
    assert p.stat("PTE_TABLES_ALLOCATED") == p.stat("PTE_TABLES_FREED")
