# SPDX-License-Identifier: GPL-2.0-only
"""madvise: what each advice costs or gives back in tables, to the kB, and how far a failing call gets.

The deltas were measured on Linux 6.18, those of other releases follow from their source.
"""

from __future__ import annotations

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig

from .process import ANON, BASE, NONE, PAGE, PRIVATE, READ, SHARED, G, M, Process

NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED = range(5)
FREE, REMOVE, DONTFORK, DOFORK, MERGEABLE, UNMERGEABLE, HUGEPAGE, NOHUGEPAGE = range(8, 16)
DONTDUMP, DODUMP, WIPEONFORK, KEEPONFORK, COLD, PAGEOUT = range(16, 22)
POPULATE_READ, POPULATE_WRITE, DONTNEED_LOCKED, COLLAPSE = range(22, 26)
HWPOISON, GUARD_INSTALL, GUARD_REMOVE = 100, 102, 103
EBADF, EAGAIN, ENOMEM, EACCES, EINVAL = 9, 11, 12, 13, 22


def keeper(p: Process) -> Process:
    """With a PMD table for the whole test's GiB."""
    p.mmap(BASE + G - PAGE, PAGE)
    p.touch(BASE + G - PAGE)
    return p


@pytest.fixture
def p(driver: str) -> Process:
    return keeper(Process(driver=driver))


def cost(p: Process, addr: int, length: int, advice: int, error: int = 0) -> int:
    """kB that the advice adds to VmPTE."""
    before = p.vmpte
    assert p.madvise(addr, length, advice) == -error
    return p.vmpte - before


def mapped(p: Process, kind: str) -> None:
    """8 MiB of some kind of memory at BASE, every table there and populated."""
    if kind in ("private file", "shared file", "private memfd", "memfd"):
        f = p.memfd(8 * M) if "memfd" in kind else p.file(8 * M)
        flags = PRIVATE if "private" in kind else SHARED
        p.mmap(BASE, 8 * M, f=f, flags=flags)
    else:
        p.mmap(BASE, 8 * M, flags=SHARED | ANON if kind == "shared anon" else PRIVATE | ANON)
    if kind == "thp":
        assert p.madvise(BASE, 8 * M, HUGEPAGE) == 0
    before = p.vmpte
    p.touch(BASE, 8 * M, write=kind not in ("zero page", "private file"))
    assert p.vmpte - before == 16


# --- what gives tables back --------------------------------------------------------------------------------

KINDS = ["anon", "zero page", "private file", "shared file", "private memfd", "memfd", "shared anon", "thp"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("advice", [DONTNEED, DONTNEED_LOCKED])
def test_whole_tables(p: Process, kind: str, advice: int) -> None:
    mapped(p, kind)
    assert cost(p, BASE, 8 * M, advice) == -16
    assert p.rss == 1
    p.touch(BASE, 8 * M, write=False)
    p.exit()


@pytest.mark.parametrize("release", ["6.1", "6.12"])
@pytest.mark.parametrize(("kind", "delta"), [("anon", 0), ("memfd", 0), ("thp", -16)])
def test_whole_tables_without_pt_reclaim(release: str, kind: str, delta: int) -> None:
    p = keeper(Process(KernelConfig(release)))
    mapped(p, kind)
    assert cost(p, BASE, 8 * M, DONTNEED) == delta
    p.exit()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "length"), [(0, M), (M, 2 * M), (0, 2 * M - PAGE), (4 * M, PAGE), (PAGE, 3 * M)])
def test_parts_of_tables(p: Process, kind: str, start: int, length: int) -> None:
    mapped(p, kind)
    assert cost(p, BASE + start, length, DONTNEED) == 0
    p.exit()


def test_all_that_is_populated_but_not_all_of_the_table(p: Process) -> None:
    mapped(p, "anon")
    for i in range(4):
        assert cost(p, BASE + i * 2 * M, PAGE, DONTNEED) == 0
    assert p.rss == 1 and p.vmpte == 28
    p.exit()


def test_tables_shared_by_two_vmas(p: Process) -> None:
    p.mmap(BASE, M)
    p.mmap(BASE + M, M, READ)
    p.touch(BASE)
    assert cost(p, BASE, 2 * M, DONTNEED) == 0
    p.exit()


def test_a_vma_smaller_than_its_table(p: Process) -> None:
    p.mmap(BASE, M)
    p.touch(BASE)
    assert cost(p, BASE, M, DONTNEED) == 0
    p.exit()


def test_locked_memory(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    p.mlock(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, DONTNEED, EINVAL) == 0
    assert cost(p, BASE, 8 * M, FREE, EINVAL) == 0
    assert cost(p, BASE, 8 * M, COLD, EINVAL) == 0
    assert cost(p, BASE, 8 * M, PAGEOUT, EINVAL) == 0
    assert cost(p, BASE, 8 * M, DONTNEED_LOCKED) == -16
    p.exit()


def test_pmd_tables_stay(p: Process) -> None:
    p.mmap(BASE + G, 4 * G)
    p.touch(BASE + G, 4 * G, step=G)
    before = p.vmpte
    assert cost(p, BASE + G, 4 * G, DONTNEED) == -16
    p.munmap(BASE + G, 4 * G)
    assert p.vmpte - before == -32
    p.exit()


def test_headline(p: Process) -> None:
    """Touch 2 MiB and discard it, over and over: the PMD tables are all that stays."""
    p.mmap(BASE + G, 4 * G)
    before = p.vmpte
    for at in range(BASE + G, BASE + 5 * G, 64 * M):
        p.touch(at)
        assert p.madvise(at, 2 * M, DONTNEED) == 0
    assert p.vmpte - before == 16
    p.exit()


def test_one_call_over_sparse_tables(p: Process) -> None:
    p.mmap(BASE + G, 4 * G)
    p.touch(BASE + G, 4 * G, step=64 * M)
    assert cost(p, BASE + G, 4 * G, DONTNEED) == -256
    assert p.stat("RECLAIMED_FAST") == 64
    p.exit()


def test_process_madvise(p: Process) -> None:
    mapped(p, "anon")
    call = p.k("madvise").sys_process_madvise
    before = p.vmpte
    assert call(p.mm, ((BASE, 2 * M), (BASE + 4 * M, 2 * M)), DONTNEED, False) == 4 * M
    assert p.vmpte - before == -8
    assert call(p.mm, ((BASE, 8 * M),), DONTNEED, True) == -EINVAL
    assert call(p.mm, ((BASE, 8 * M),), COLD, True) == 8 * M
    assert call(p.mm, ((BASE + 1, 8 * M),), COLD, True) == -EINVAL
    assert call(p.mm, ((BASE, 2 * M), (BASE + 16 * M, 2 * M), (BASE, M)), COLD, False) == 2 * M
    p.done()
    p.exit()


def test_process_madvise_of_old() -> None:
    p = keeper(Process(KernelConfig("6.12")))
    mapped(p, "anon")
    assert p.k("madvise").sys_process_madvise(p.mm, ((BASE, 2 * M),), DONTNEED, False) == -EINVAL
    assert p.k("madvise").sys_process_madvise(p.mm, ((BASE, 2 * M),), COLD, False) == 2 * M
    p.exit()


# --- what keeps tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["anon", "zero page", "thp"])
def test_free_keeps_the_tables(p: Process, kind: str) -> None:
    mapped(p, kind)
    rss = p.rss
    assert cost(p, BASE, 8 * M, FREE) == 0
    assert p.rss == rss
    assert cost(p, BASE, 8 * M, DONTNEED) == -16
    p.exit()


def test_free_of_half_a_huge_page_splits_it(p: Process) -> None:
    mapped(p, "thp")
    assert cost(p, BASE, M, FREE) == 0
    assert p.huge == 3 and p.rss == 2049
    p.exit()


@pytest.mark.parametrize("kind", ["private file", "memfd", "shared anon"])
def test_free_is_for_anonymous_memory(p: Process, kind: str) -> None:
    mapped(p, kind)
    assert cost(p, BASE, 8 * M, FREE, EINVAL) == 0
    p.exit()


@pytest.mark.parametrize("kind", ["memfd", "shared anon"])
def test_remove(p: Process, kind: str) -> None:
    mapped(p, kind)
    p.write(BASE, 5)
    assert cost(p, BASE, 8 * M, REMOVE) == 0
    assert p.rss == 1 and p.read(BASE) == 0
    p.exit()


def test_remove_refused(p: Process) -> None:
    mapped(p, "anon")
    assert cost(p, BASE, 8 * M, REMOVE, EINVAL) == 0
    p.munmap(BASE, 8 * M)
    mapped(p, "private memfd")
    assert cost(p, BASE, 8 * M, REMOVE, EACCES) == 0
    p.munmap(BASE, 8 * M)
    mapped(p, "memfd")
    p.mlock(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, REMOVE, EINVAL) == 0
    p.exit()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("advice", [NOHUGEPAGE, WILLNEED, COLD, PAGEOUT, MERGEABLE, UNMERGEABLE, RANDOM, DONTDUMP])
def test_no_effect_on_tables(p: Process, kind: str, advice: int) -> None:
    mapped(p, kind)
    assert cost(p, BASE, 8 * M, advice) == 0
    assert cost(p, BASE + 2 * M, M, advice) == 0
    p.exit()


def test_pageout_without_swap(p: Process) -> None:
    for kind, stays in (("anon", 4), ("shared file", 0), ("memfd", 0), ("thp", 2048)):
        mapped(p, kind)
        assert p.madvise(BASE, 8 * M, PAGEOUT) == 0
        assert (kind, p.rss) == (kind, stays + 1)
        assert p.huge == 0
        p.munmap(BASE, 8 * M)
    p.exit()


def test_pageout_drops_what_was_given_up(p: Process) -> None:
    mapped(p, "anon")
    assert p.madvise(BASE, 4 * M, FREE) == 0
    p.touch(BASE)
    assert cost(p, BASE, 8 * M, PAGEOUT) == 0
    assert p.rss == 1 + 2 + 1  # the keeper's, the half not given up, and the page written again
    p.exit()


def test_cold_and_pageout_of_half_a_huge_page_split_it(p: Process) -> None:
    mapped(p, "thp")
    assert cost(p, BASE, M, COLD) == 0 and p.huge == 3
    assert cost(p, BASE + 2 * M, M, PAGEOUT) == 0 and p.huge == 2
    assert p.rss == 2049
    p.exit()


def test_pages_that_others_map_are_left_alone(p: Process) -> None:
    mapped(p, "memfd")
    child = p.fork()
    child.touch(BASE, 8 * M, write=False)
    assert p.madvise(BASE, 8 * M, PAGEOUT) == 0
    assert p.rss == 5
    child.exit()
    p.exit()


# --- populate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("advice", [POPULATE_READ, POPULATE_WRITE])
@pytest.mark.parametrize("kind", ["anon", "memfd", "file"])
def test_populate(p: Process, advice: int, kind: str) -> None:
    f = None if kind == "anon" else p.memfd(8 * M) if kind == "memfd" else p.file(8 * M)
    p.mmap(BASE, 8 * M, f=f, flags=PRIVATE | ANON if f is None else SHARED)
    assert cost(p, BASE, 8 * M, advice) == 16
    assert p.rss == (1 if kind == "anon" and advice == POPULATE_READ else 2049)
    p.exit()


@pytest.mark.parametrize("advice", [POPULATE_READ, POPULATE_WRITE])
def test_populate_without_rights(p: Process, advice: int) -> None:
    p.mmap(BASE, 8 * M, NONE)
    assert cost(p, BASE, 8 * M, advice, EINVAL) == 0
    p.exit()


def test_populate_stops_at_the_first_hole_or_refusal(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.mmap(BASE + 6 * M, 2 * M)
    assert cost(p, BASE, 8 * M, POPULATE_READ, ENOMEM) == 8
    assert cost(p, BASE + 6 * M, 4 * M, POPULATE_READ, ENOMEM) == 4
    p.exit()


def test_populate_for_writing_stops_at_read_only_memory(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.mmap(BASE + 4 * M, 2 * M)
    assert cost(p, BASE, 6 * M, POPULATE_WRITE, EINVAL) == 4
    p.exit()


@pytest.mark.parametrize(("release", "delta"), [("6.1", 12), ("6.12", 8)])
def test_populate_over_holes_by_release(release: str, delta: int) -> None:
    p = keeper(Process(KernelConfig(release)))
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 2 * M, 2 * M, READ)
    p.mmap(BASE + 6 * M, 2 * M)
    assert cost(p, BASE, 8 * M, POPULATE_READ, ENOMEM) == delta
    p.exit()


# --- collapse ----------------------------------------------------------------------------------------------


def test_collapse_anonymous_memory(p: Process) -> None:
    mapped(p, "anon")
    p.write(BASE + 5 * PAGE, 55)
    assert cost(p, BASE, 8 * M, COLLAPSE) == 0
    assert p.huge == 4 and p.rss == 2049 and p.read(BASE + 5 * PAGE) == 55
    assert cost(p, BASE, 8 * M, DONTNEED) == -16
    p.exit()


def test_collapse_of_nothing(p: Process) -> None:
    p.mmap(BASE, 8 * M)
    assert cost(p, BASE, 8 * M, COLLAPSE, EINVAL) == 0
    p.exit()


@pytest.mark.parametrize(("kind", "delta"), [("shared", -16), ("private with a page of its own", 0)])
def test_collapse_of_a_memfd(p: Process, kind: str, delta: int) -> None:
    mapped(p, "memfd")
    f = p.field(BASE, "vm_file")
    other = Process.__new__(Process)
    other.model = p.model
    other.mm = p.k("mm_init").mm_alloc()
    keeper(other)
    other.mmap(BASE, 8 * M, f=f, flags=SHARED if kind == "shared" else PRIVATE)
    other.touch(BASE, 8 * M, write=False)
    if kind != "shared":
        for i in range(4):
            other.write(BASE + i * 2 * M + 7 * PAGE, 1)
    before = other.vmpte
    assert cost(p, BASE, 8 * M, COLLAPSE) == -16
    assert other.vmpte - before == delta
    assert cost(p, BASE, M, DONTNEED) == 0
    p.touch(BASE, write=False)
    assert p.vmpte == 12
    other.exit()
    p.exit()


# --- what is kept in the VMA -------------------------------------------------------------------------------

ON_OFF = [
    (RANDOM, NORMAL, "VM_RAND_READ"),
    (SEQUENTIAL, NORMAL, "VM_SEQ_READ"),
    (DONTFORK, DOFORK, "VM_DONTCOPY"),
    (WIPEONFORK, KEEPONFORK, "VM_WIPEONFORK"),
    (DONTDUMP, DODUMP, "VM_DONTDUMP"),
    (MERGEABLE, UNMERGEABLE, "VM_MERGEABLE"),
    (HUGEPAGE, NOHUGEPAGE, "VM_HUGEPAGE"),
]


@pytest.mark.parametrize(("on", "off", "flag"), ON_OFF)
def test_flags_split_and_merge(p: Process, on: int, off: int, flag: str) -> None:
    p.mmap(BASE, 6 * M)
    assert p.madvise(BASE + 2 * M, 2 * M, on) == 0
    assert p.vmas()[:-1] == [(0, 2 * M), (2 * M, 4 * M), (4 * M, 6 * M)]
    assert [p.has(BASE + i * 2 * M, flag) for i in range(3)] == [False, True, False]
    assert p.madvise(BASE, 6 * M, on) == 0
    assert p.vmas()[:-1] == [(0, 6 * M)]
    assert p.madvise(BASE, 6 * M, off) == 0
    assert p.vmas()[:-1] == [(0, 6 * M)] and not p.has(BASE, flag)
    p.exit()


def test_a_flag_that_is_set_already_neither_splits_nor_merges(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    assert p.madvise(BASE + 2 * M, 2 * M, NORMAL) == 0
    assert p.madvise(BASE + 2 * M, 2 * M, UNMERGEABLE) == 0
    assert p.vmas()[:-1] == [(0, 6 * M)]
    p.exit()


def test_advice_for_other_memory_is_refused_or_ignored(p: Process) -> None:
    mapped(p, "memfd")
    assert p.madvise(BASE, 8 * M, WIPEONFORK) == -EINVAL
    assert p.madvise(BASE, 8 * M, MERGEABLE) == 0 and not p.has(BASE, "VM_MERGEABLE")
    p.set_flag(BASE, "VM_DONTEXPAND")
    assert p.madvise(BASE, 8 * M, DODUMP) == -EINVAL
    assert p.madvise(BASE, 8 * M, DOFORK) == -EINVAL
    p.exit()


@pytest.mark.parametrize(("release", "error"), [("6.18", 0), ("7.x", EINVAL)])
def test_dofork_of_the_vdso_by_release(release: str, error: int) -> None:
    p = Process(KernelConfig(release))
    p.mmap(BASE, 2 * M, READ)
    p.set_flag(BASE, "VM_DONTEXPAND")
    assert p.madvise(BASE, 2 * M, DOFORK) == -error


def test_too_many_vmas(p: Process) -> None:
    p.mmap(BASE, 6 * M)
    p.set_mm_field("map_count", 65530)
    assert p.madvise(BASE + 2 * M, 2 * M, RANDOM) == -EAGAIN


def test_names(p: Process) -> None:
    name = p.k("madvise").sys_set_anon_vma_name
    p.mmap(BASE, 4 * M)
    assert name(p.mm, BASE + 2 * M, 2 * M, 7) == 0
    assert p.vmas()[:-1] == [(0, 2 * M), (2 * M, 4 * M)]
    assert name(p.mm, BASE, 2 * M, 7) == 0
    assert p.vmas()[:-1] == [(0, 4 * M)] and p.field(BASE, "anon_name") == 7
    assert name(p.mm, BASE, 4 * M, 0) == 0 and p.field(BASE, "anon_name") == 0
    assert name(p.mm, BASE + 1, 4 * M, 0) == -EINVAL
    assert name(p.mm, BASE, 0, 1) == 0
    p.mmap(BASE + 4 * M, 2 * M, flags=SHARED | ANON)
    assert name(p.mm, BASE + 4 * M, 2 * M, 7) == 0
    p.mmap(BASE + 6 * M, 2 * M, f=p.memfd(2 * M), flags=SHARED)
    assert name(p.mm, BASE + 6 * M, 2 * M, 7) == -EBADF
    p.exit()


# --- how far a failing call gets ---------------------------------------------------------------------------


def test_holes_are_told_but_do_not_stop_it(p: Process) -> None:
    p.mmap(BASE, 2 * M)
    p.mmap(BASE + 4 * M, 2 * M)
    p.touch(BASE, 6 * M, step=4 * M)
    assert cost(p, BASE, 8 * M, DONTNEED, ENOMEM) == -8
    assert p.madvise(BASE, 6 * M, RANDOM) == -ENOMEM
    assert p.has(BASE, "VM_RAND_READ") and p.has(BASE + 4 * M, "VM_RAND_READ")
    assert p.madvise(BASE - 2 * M, M, RANDOM) == -ENOMEM
    assert p.madvise(BASE + 2 * G, M, RANDOM) == -ENOMEM
    p.exit()


def test_the_first_vma_that_refuses_stops_it(p: Process) -> None:
    for i in range(3):
        p.mmap(BASE + i * 2 * M, 2 * M)
        p.touch(BASE + i * 2 * M)
    p.mlock(BASE + 2 * M, 2 * M)
    assert cost(p, BASE, 6 * M, DONTNEED, EINVAL) == -4
    p.mmap(BASE + 8 * M, 2 * M, f=p.memfd(2 * M), flags=SHARED)
    assert p.madvise(BASE + 4 * M, 8 * M, WIPEONFORK) == -EINVAL
    assert p.has(BASE + 4 * M, "VM_WIPEONFORK") and not p.has(BASE + 8 * M, "VM_WIPEONFORK")
    p.exit()


@pytest.mark.parametrize(
    ("start", "length", "advice", "error"),
    [
        (BASE + 1, 2 * M, DONTNEED, EINVAL),
        (BASE, 2 * M, 5, EINVAL),
        (BASE, 2 * M, -1, EINVAL),
        (BASE, 2 * M, 26, EINVAL),
        (BASE, (1 << 64) - 1, DONTNEED, EINVAL),
        (BASE, (1 << 64) - BASE, DONTNEED, EINVAL),
        (BASE, 0, DONTNEED, 0),
        (BASE + G, 0, DONTNEED, 0),
        (BASE, 0, 5, EINVAL),
    ],
)
def test_arguments(p: Process, start: int, length: int, advice: int, error: int) -> None:
    mapped(p, "anon")
    assert cost(p, start, length, advice, error) == 0
    p.exit()


def test_what_is_not_modelled_says_so(p: Process) -> None:
    mapped(p, "anon")
    with pytest.raises(TablewalkError, match="not modelled: injection of memory failures"):
        p.madvise(BASE, PAGE, HWPOISON)


def test_huge_page_advice_where_there_are_none() -> None:
    p = Process()
    p.mmap(BASE, 2 * M)
    p.model.arch.has_thp = False
    assert p.madvise(BASE, 2 * M, HUGEPAGE) == 0
    assert p.has(BASE, "VM_HUGEPAGE")
    p.touch(BASE)
    assert p.huge == 0
    assert p.madvise(BASE, 2 * M, COLLAPSE) == -EINVAL
    assert p.madvise(BASE + 2 * M, 2 * M, COLLAPSE) == -ENOMEM
    p.exit()


@pytest.mark.parametrize("arch", ["arm", "mips32", "m68k", "sh"])
def test_kernels_without_huge_pages_know_no_such_advice(arch: str) -> None:
    p = Process(KernelConfig(arch=arch))
    start = 0x1000_0000
    p.mmap(start, 2 * M)
    for advice in (HUGEPAGE, NOHUGEPAGE, COLLAPSE):
        assert p.madvise(start, 2 * M, advice) == -EINVAL
    p.exit()


# --- locks and flushes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("advice", [DONTNEED, DONTNEED_LOCKED, FREE, GUARD_REMOVE])
def test_within_one_vma_mmap_lock_is_not_taken(p: Process, advice: int) -> None:
    mapped(p, "anon")
    before = p.locked("mm_struct.mmap_lock")
    p.madvise(BASE, 2 * M, advice)
    assert p.locked("mm_struct.mmap_lock") == before
    p.exit()


@pytest.mark.parametrize(
    ("release", "advice", "taken"),
    [
        ("6.12", DONTNEED, 1),
        ("6.18", DONTNEED, 0),
        ("6.18", FREE, 0),
        ("6.18", GUARD_REMOVE, 1),
        ("7.x", GUARD_REMOVE, 0),
    ],
)
def test_mmap_lock_by_release(release: str, advice: int, taken: int) -> None:
    p = keeper(Process(KernelConfig(release)))
    mapped(p, "anon")
    before = p.locked("mm_struct.mmap_lock")
    assert p.madvise(BASE, 2 * M, advice) == 0
    assert p.locked("mm_struct.mmap_lock") - before == taken
    p.exit()


def test_over_two_vmas_mmap_lock_is_taken(p: Process) -> None:
    mapped(p, "anon")
    p.mprotect(BASE, 2 * M, READ)
    before = p.locked("mm_struct.mmap_lock")
    p.madvise(BASE, 8 * M, DONTNEED)
    assert p.locked("mm_struct.mmap_lock") == before + 1
    p.exit()


@pytest.mark.parametrize(("release", "flushes"), [("6.12", 2), ("7.x", 1)])
def test_one_flush_a_call(release: str, flushes: int) -> None:
    p = keeper(Process(KernelConfig(release)))
    mapped(p, "anon")
    p.mprotect(BASE, 2 * M, READ)
    before = p.stat("TLB_FLUSHES")
    p.madvise(BASE, 8 * M, DONTNEED)
    assert p.stat("TLB_FLUSHES") - before == flushes
    p.exit()
