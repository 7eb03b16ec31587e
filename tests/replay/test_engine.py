# SPDX-License-Identifier: GPL-2.0-only
"""What rows do to VmPTE; the figures are those of a running Linux 6.18 unless a release is named."""

from __future__ import annotations

import errno

import pytest

from tablewalk.record.recording import NEVER_RETURNED
from tablewalk.record.rows import Kind

from .conftest import Replay, only, values
from .story import (
    ANON,
    ANONYMOUS,
    EXECUTED_KB,
    HEAP,
    PMD,
    POPULATE,
    PRIVATE,
    SHARED,
    STACK,
    TABLE,
    Story,
)

FIRST = EXECUTED_KB + 12  # with the first table at ANON: a PMD and a PUD page with it
GONE = {"6.1": 0, "6.12": 0, "6.18": 4, "7.x": 4}  # kB that MADV_DONTNEED of a whole table gives back


def test_exec_has_the_stack_s_table(story: Story, run: Replay) -> None:
    p = only(run(story))
    assert (p.name, p.pid, p.final_kb) == ("prog", 100, EXECUTED_KB)
    assert (p.at_end.pte, p.at_end.pmd, p.at_end.pud, p.at_end.rss_anon_kb) == (1, 1, 1, 4)


def test_mapping_costs_nothing_touching_does(story: Story, run: Replay) -> None:
    story.mmap(ANON, 8 * TABLE)
    story.touch(ANON, 4)
    p = only(run(story))
    assert values(p)[-4:] == [FIRST, FIRST + 4, FIRST + 8, FIRST + 12]
    assert (p.peak_kb, p.final_kb, p.faults) == (FIRST + 12, FIRST + 12, 4)
    assert p.at_peak.rss_anon_kb == 4 + 16


@pytest.mark.parametrize("release", GONE)
def test_dontneed_of_a_whole_table(story: Story, run: Replay, release: str) -> None:
    story.mmap(ANON, 8 * TABLE)
    story.touch(ANON, 2)
    story.madvise(ANON, TABLE, 4)
    p = only(run(story, release))
    assert p.peak_kb == FIRST + 4
    assert p.final_kb == FIRST + 4 - GONE[release]
    assert p.at_end.empty == (0 if GONE[release] else 1)


def test_munmap_gives_all_back(story: Story, run: Replay) -> None:
    story.mmap(ANON, PMD)
    story.touch(ANON, 3)
    story.munmap(ANON, PMD)
    p = only(run(story))
    assert (p.peak_kb, p.final_kb) == (FIRST + 8, EXECUTED_KB)
    (site,) = [s for s in p.sites if s.call == "munmap"]
    assert (site.calls, site.freed_kb, site.allocated_kb) == (1, FIRST + 8 - EXECUTED_KB, 0)
    assert site.flushes > 0 and site.locks > 0


def test_populate(story: Story, run: Replay) -> None:
    story.mmap(ANON, 4 * TABLE, flags=PRIVATE | ANONYMOUS | POPULATE)
    assert only(run(story)).final_kb == FIRST + 12


def test_the_first_brk_tells_where_the_heap_is(story: Story, run: Replay) -> None:
    story.call(12, 0, ret=HEAP)
    story.call(12, HEAP + TABLE, ret=HEAP + TABLE, inside=[story.mapping(HEAP, TABLE)])
    story.touch(HEAP)
    result = run(story)
    p = only(result)
    assert p.final_kb == FIRST
    assert p.holders and [h.what for h in p.holders.mappings] == ["[heap]", "[stack]"]
    assert (result.accuracy.vma_extents, result.accuracy.vma_mismatches) == (1, 0)


def test_the_mmap_row_tells_the_file(story: Story, run: Replay) -> None:
    library = (8 << 20 | 1, 4711, "/lib/x.so")
    for at, pgoff in ((ANON, 0), (ANON + TABLE, 512)):
        # The second merges with the first: the same file, continued.
        row = story.mapping(ANON, at + TABLE - ANON, prot=1, file=library)
        story.mmap(at, TABLE, prot=1, flags=PRIVATE, fd=3, pgoff=pgoff, inside=[row])
    story.fault(ANON, write=False)
    result = run(story)
    p = only(result)
    assert (result.accuracy.vma_extents, result.accuracy.vma_mismatches) == (2, 0)
    assert p.at_end.rss_file_kb == 64  # fault-around
    assert p.holders and p.holders.mappings[0].what == "/lib/x.so"


def test_an_extent_that_differs_is_counted(story: Story, run: Replay) -> None:
    story.mmap(ANON, TABLE, inside=[story.mapping(ANON, 2 * TABLE)])
    result = run(story)
    assert result.accuracy.vma_mismatches == 1
    assert "recorded 0x7f0000000000-0x7f0000400000, model 0x7f0000000000-0x7f0000200000" in result.accuracy.vma_first[0]


def test_fork_copies_written_memory_and_exec_drops_it(story: Story, run: Replay) -> None:
    story.mmap(ANON, 2 * TABLE)
    story.touch(ANON, 2)
    story.fork(200)
    child = Story(200)
    child.t = story.t
    child.fault(ANON + 4096)
    child.exec("other")
    child.exit()
    story.rows += child.rows
    result = run(story)
    parent, other = sorted(result.processes, key=lambda p: p.pid)
    assert parent.final_kb == FIRST + 4
    assert (other.name, other.peak_kb, other.final_kb) == ("other", FIRST + 4, EXECUTED_KB)


def test_vfork_shares_the_memory_until_exec(story: Story, run: Replay) -> None:
    story.mmap(ANON, 2 * TABLE)
    story.fork(200, flags=0x4111)
    child = Story(200)
    child.t = story.t
    child.touch(ANON)
    end = child.row(Kind.EXIT).t
    story.rows += child.rows
    parent, spawned = sorted(run(story).processes, key=lambda p: p.pid)
    assert parent.final_kb == FIRST
    assert (spawned.final_kb, spawned.shares_with) == (FIRST, 100)
    assert spawned.end == end


@pytest.mark.parametrize(("nr", "shares"), [(57, False), (58, True), (56, False), (435, True)])
def test_without_flags_the_call_tells_whether_a_child_shares(story: Story, run: Replay, nr: int, shares: bool) -> None:
    story.fork(200, known=False)
    fork = story.rows.pop()
    story.call(nr, 17, ret=200, inside=[fork])
    _, child = sorted(run(story).processes, key=lambda p: p.pid)
    assert (child.shares_with == 100) is shares


def test_a_thread_shares_and_the_last_one_ends_the_process(story: Story, run: Replay) -> None:
    story.mmap(ANON, 2 * TABLE)
    story.fork(100, tid=101, flags=0x3D0F00)
    story.tid = 101
    story.touch(ANON)
    story.tid = 100
    story.exit()
    story.tid = 101
    story.touch(ANON + TABLE)
    end = story.row(Kind.EXIT).t
    p = only(run(story))
    assert (p.final_kb, p.end) == (FIRST + 4, end)


def test_a_pid_used_again_is_another_process(story: Story, run: Replay) -> None:
    story.exit()
    story.exec("second")
    story.mmap(ANON, TABLE)
    story.touch(ANON)
    story.exit()
    first, second = sorted(run(story).processes, key=lambda p: p.generation)
    assert (first.name, first.final_kb) == ("prog", EXECUTED_KB)
    assert (second.name, second.final_kb, second.generation) == ("second", FIRST, 1)


def test_a_fault_the_model_refuses_is_counted(story: Story, run: Replay) -> None:
    story.fault(ANON)
    result = run(story)
    assert result.accuracy.faults_refused == 1
    assert f"pid 100: write at {ANON:#x}: nothing is mapped there" in result.accuracy.faults_refused_first[0]


def test_faults_that_failed_in_reality(story: Story, run: Replay) -> None:
    story.mmap(ANON, TABLE)
    story.fault(ANON + PMD, served=False)  # a segmentation fault
    story.fault(ANON, served=False, user=False)  # the kernel, with page faults disabled
    p = only(result := run(story))
    assert (result.accuracy.faults_failed, result.accuracy.faults_failed_odd, p.final_kb) == (2, 0, EXECUTED_KB)


def test_a_fault_that_the_mapping_allows_and_yet_fails_makes_upper_tables(story: Story, run: Replay) -> None:
    story.mmap(ANON, TABLE)
    story.fault(ANON, served=False)
    p = only(result := run(story))
    assert (result.accuracy.faults_failed_odd, p.final_kb) == (1, EXECUTED_KB + 8)


def test_a_write_bit_that_is_not_known(story: Story, run: Replay) -> None:
    story.mmap(ANON, TABLE)
    story.row(Kind.FAULT, 0, (ANON, 0, 1))
    p = only(result := run(story))
    assert (result.accuracy.write_unknown, p.at_end.rss_anon_kb) == (1, 8)


def test_another_result_than_recorded_is_counted(story: Story, run: Replay) -> None:
    story.munmap(ANON, TABLE)
    story.madvise(ANON, TABLE, 4)  # nothing is mapped: ENOMEM
    story.madvise(ANON, TABLE, 4)
    (mismatch,) = run(story).accuracy.mismatches
    assert (mismatch.call, mismatch.times) == ("madvise(MADV_DONTNEED)", 2)
    assert mismatch.detail.startswith(f"recorded 0, model {-errno.ENOMEM}")


def test_a_call_that_failed_for_reasons_not_recorded_is_not_applied(story: Story, run: Replay) -> None:
    story.mmap(ANON, 4 * TABLE)
    story.call(149, ANON, 4 * TABLE, ret=-errno.EPERM)  # RLIMIT_MEMLOCK
    story.call(149, ANON, 4 * TABLE, ret=-errno.ENOMEM)  # the limit again: nothing is missing in the range
    result = run(story)
    assert only(result).final_kb == EXECUTED_KB
    assert result.unapplied == {"mlock: Operation not permitted": 1, "mlock: Cannot allocate memory": 1}


def test_a_call_that_failed_at_a_gap_did_its_work_up_to_there(story: Story, run: Replay) -> None:
    story.mmap(ANON, 2 * TABLE)
    story.touch(ANON, 2)
    story.madvise(ANON, 4 * TABLE, 4, ret=-errno.ENOMEM)
    result = run(story)
    assert only(result).final_kb == FIRST - 4
    assert result.accuracy.mismatches == []


def test_a_call_that_never_returned(story: Story, run: Replay) -> None:
    story.mmap(ANON, TABLE)
    story.touch(ANON)
    story.call(9, 0, TABLE, 3, PRIVATE | ANONYMOUS, 0, 0, ret=NEVER_RETURNED)
    story.call(11, ANON, TABLE, ret=NEVER_RETURNED)
    result = run(story)
    assert only(result).final_kb == EXECUTED_KB
    assert result.unknowns == ["what mmap did that did not return (1)"]
    assert result.accuracy.mismatches == []


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("not modelled: userfaultfd (userfaultfd)", (323, (1,), 3)),
        ("not modelled: hugetlb (mmap)", (9, (ANON, TABLE, 3, PRIVATE | ANONYMOUS | 0x40000), ANON)),
        ("not modelled: memory protection keys (pkey_mprotect)", (329, (STACK, 4096, 1, 1), 0)),
        ("process_madvise", (440, (3, 0, 1, 4), 4096)),
        ("shadow stacks", (453, (0, 4096, 0), ANON)),
        ("shmat", (30, (1, 0, 0), ANON)),
    ],
)
def test_what_is_not_modelled_stops_its_process_only(
    story: Story, run: Replay, what: str, call: tuple[int, tuple[int, ...], int]
) -> None:
    story.mmap(ANON, 4 * TABLE)
    story.touch(ANON)
    story.fork(200)
    nr, args, ret = call
    story.call(nr, *args, ret=ret)
    stopped_t = story.rows[-1].t
    story.touch(ANON + TABLE)
    story.pid = story.tid = 200
    story.touch(ANON + TABLE)
    result = run(story)
    stopped, other = sorted(result.processes, key=lambda p: p.pid)
    assert stopped.stopped and what in stopped.stopped
    assert (stopped.stopped_t, stopped.final_kb) == (stopped_t, FIRST)
    assert (other.stopped, other.final_kb) == (None, FIRST + 4)
    assert result.partial


def test_a_child_of_a_stopped_process_is_not_known_until_it_execs(story: Story, run: Replay) -> None:
    story.call(323, 1, ret=3)
    story.fork(200)
    story.pid = story.tid = 200
    story.touch(STACK)
    story.exec("fresh")
    result = run(story)
    child = next(p for p in result.processes if p.pid == 200)
    assert child.stopped and "its parent's memory is not known" in child.stopped
    assert child.final_kb == EXECUTED_KB
    assert result.accuracy.faults_unattributed == 1


def test_process_vm_writev_stops_its_target(story: Story, run: Replay) -> None:
    story.fork(200)
    story.call(310, 200, 0, 1, 0, 1, 0, ret=4096)
    parent, child = sorted(run(story).processes, key=lambda p: p.pid)
    assert parent.stopped is None
    assert child.stopped == "not modelled: process_vm_readv by process 100"


def test_shared_memory_by_key(story: Story, run: Replay) -> None:
    segment = (1, 99, "/SYSV00000000")
    row = story.mapping(ANON, 2 * TABLE, shared=True, file=segment)
    story.call(30, 7, 0, 0, ret=ANON, inside=[row])
    story.touch(ANON, 2)
    story.call(67, ANON)
    p = only(run(story))
    assert (p.peak_kb, p.final_kb) == (FIRST + 4, EXECUTED_KB)


def test_calls_that_change_nothing_are_counted(story: Story, run: Replay) -> None:
    story.call(26, ANON, 4096, 4)
    story.call(999, 1)
    assert run(story).harmless == {"msync": 1, "system call 999 (not looked at)": 1}


def test_a_mapping_that_no_call_made(story: Story, run: Replay) -> None:
    story.rows.append(story.mapping(ANON, 4096)._replace(t=story.t, begin=story.t, end=story.t))
    story.touch(ANON)
    result = run(story)
    assert only(result).final_kb == FIRST
    assert result.unknowns == ["mappings made by calls that are not recorded (1)"]


def test_a_shared_mapping_outlives_a_process(story: Story, run: Replay) -> None:
    story.mmap(ANON, 2 * TABLE, flags=SHARED | ANONYMOUS)
    story.touch(ANON)
    story.fork(200)
    story.exit()
    story.pid = story.tid = 200
    story.touch(ANON, 2, write=False)
    _, child = sorted(run(story).processes, key=lambda p: p.pid)
    assert values(child)[0] == EXECUTED_KB  # shared memory is not copied, and its upper tables neither
    assert child.final_kb == FIRST + 4


def test_huge_pages_where_madvise_asks_for_them(story: Story, run: Replay) -> None:
    story.mmap(ANON, 4 * TABLE)
    story.madvise(ANON, 4 * TABLE, 14)
    story.touch(ANON)
    p = only(run(story))
    assert (p.final_kb, p.at_end.deposited, p.at_end.pte, p.at_end.huge_anon) == (FIRST, 1, 1, 1)
    assert p.at_end.rss_anon_kb == 4 + 2048


def test_the_model_s_own_rules_hold_while_it_runs(story: Story, run: Replay) -> None:
    story.mmap(ANON, 8 * TABLE)
    story.touch(ANON, 4)
    story.madvise(ANON, 2 * TABLE, 4)
    story.fork(200)
    story.call(25, ANON + 2 * TABLE, TABLE, TABLE, 3, ANON + PMD, ret=ANON + PMD)
    story.munmap(ANON, 4 * TABLE)
    story.exit()
    parent = next(p for p in run(story, driver="checked").processes if p.pid == 100)
    assert parent.final_kb == FIRST + 4  # the moved table, and a PMD page at either end


def test_a_stack_larger_than_the_usual_limit(story: Story, run: Replay) -> None:
    story.fault(STACK - (64 << 20))
    result = run(story)
    assert only(result).final_kb == EXECUTED_KB + 8  # in the next GiB below: a PMD page too
    assert result.accuracy.faults_refused == 0


def test_without_completions_every_fault_is_taken_as_served(story: Story, run: Replay) -> None:
    story.meta.events = ["exceptions:page_fault_user", "raw_syscalls:sys_enter"]
    story.mmap(ANON, TABLE)
    story.fault(ANON, served=False)
    result = run(story)
    assert only(result).at_end.rss_anon_kb == 8
    (unknown,) = result.unknowns
    assert unknown.startswith("which faults were served")


@pytest.mark.parametrize(("threads", "cpus", "rounds"), [(1, 8, 0), (2, 8, 1), (2, 1, 0)])
def test_flushes_interrupt_the_cpus_of_other_threads(
    story: Story, run: Replay, threads: int, cpus: int, rounds: int
) -> None:
    story.meta.cpus = cpus
    story.mmap(ANON, TABLE)
    story.touch(ANON)
    if threads == 2:
        story.fork(100, tid=101, flags=0x3D0F00)
    story.madvise(ANON, TABLE, 4)
    (site,) = [s for s in only(run(story, "6.1")).sites if s.call.startswith("madvise")]
    assert (site.ipis, site.flushes) == (rounds, 1)


def test_names_of_anonymous_memory_keep_mappings_apart(story: Story, run: Replay) -> None:
    story.mmap(ANON, TABLE)
    story.call(157, 0x53564D41, 0, ANON, TABLE, 0x1234)
    story.mmap(ANON + TABLE, TABLE, inside=[story.mapping(ANON + TABLE, TABLE)])
    assert run(story).accuracy.vma_mismatches == 0


def test_a_32_bit_program_stops(run: Replay) -> None:
    story = Story()
    story.row(Kind.COMM, 1, name="old")
    story.row(Kind.MMAP, 0, (0xFFF00000, 0x21000, 0, 3, 2, 0), name="[stack]")
    assert "32-bit programs" in (only(run(story)).stopped or "")


def test_a_collapse_takes_tables_from_other_processes_at_once(story: Story, run: Replay) -> None:
    memfd = (1, 7, "/memfd:x (deleted)")
    story.mmap(ANON, TABLE, flags=SHARED, fd=3, inside=[story.mapping(ANON, TABLE, shared=True, file=memfd)])
    story.fault(*range(ANON, ANON + TABLE, 4096))
    story.fork(200)
    story.pid = story.tid = 200
    story.touch(ANON)
    story.madvise(ANON, TABLE, 25)
    collapsed = story.rows[-1].t
    story.t += 1000
    story.exit()
    parent, child = sorted(run(story).processes, key=lambda p: p.pid)
    assert (parent.final_kb, child.final_kb) == (FIRST - 4, FIRST - 4)
    assert parent.times[-1] == collapsed
