# SPDX-License-Identifier: GPL-2.0-only
"""Which samples agree: strictly, for calls in flight, and not at all."""

from __future__ import annotations

import pytest

from tablewalk.record.rows import Kind

from .conftest import Replay, only
from .story import ANON, EXECUTED_KB, TABLE, Story

FIRST = EXECUTED_KB + 12


@pytest.fixture
def mapped(story: Story) -> Story:
    story.mmap(ANON, 64 * TABLE)
    story.touch(ANON)
    return story


def verdict(run: Replay, story: Story) -> tuple[int, int, int]:
    """(compared, strict disagreements, disagreements)"""
    story.t += 10_000
    story.exit()
    check = only(run(story, check=True)).check
    assert check
    return check.compared, check.disagreements_strict, check.disagreements


def test_equal_samples_agree(mapped: Story, run: Replay) -> None:
    mapped.sample(FIRST)
    mapped.touch(ANON + TABLE)
    mapped.sample(FIRST + 4, exact=True)
    assert verdict(run, mapped) == (2, 0, 0)


@pytest.mark.parametrize("wrong", [FIRST - 4, FIRST + 4, 0, 10**6])
def test_a_wrong_sample_disagrees(mapped: Story, run: Replay, wrong: int) -> None:
    mapped.t += 1000
    mapped.sample(wrong)
    assert verdict(run, mapped) == (1, 1, 1)


def test_samples_behind_a_recording_cut_short_are_uncovered(mapped: Story, run: Replay) -> None:
    mapped.meta.complete = False
    mapped.t += 1000
    mapped.sample(FIRST)
    assert run(mapped, check=True).uncovered == 1


def test_any_value_during_the_read_agrees_strictly(mapped: Story, run: Replay) -> None:
    begin = mapped.t + 30
    mapped.touch(ANON + TABLE, 3)
    mapped.sample(FIRST + 8, begin=begin, end=mapped.t + 10)
    assert verdict(run, mapped) == (1, 0, 0)


@pytest.mark.parametrize(("value", "wrong"), [(FIRST, 0), (FIRST + 4, 0), (FIRST - 4, 1), (FIRST + 8, 1)])
def test_a_fault_in_flight_explains_its_own_table_only(mapped: Story, run: Replay, value: int, wrong: int) -> None:
    mapped.t += 1000
    t = mapped.row(Kind.FAULT, 0, (ANON + TABLE, 6), spread=50).t
    mapped.sample(value, begin=t - 40, end=t - 30)  # the model serves the fault after the read
    compared, _, disagreements = verdict(run, mapped)
    assert (compared, disagreements) == (1, wrong)


@pytest.mark.parametrize(("value", "wrong"), [(FIRST, 0), (FIRST + 4, 0), (FIRST - 4, 1), (FIRST + 8, 1)])
def test_the_same_after_its_effect(mapped: Story, run: Replay, value: int, wrong: int) -> None:
    mapped.t += 1000
    t = mapped.row(Kind.FAULT, 0, (ANON + TABLE, 6), spread=50).t
    mapped.sample(value, begin=t + 30, end=t + 40)
    compared, _, disagreements = verdict(run, mapped)
    assert (compared, disagreements) == (1, wrong)


def test_a_long_call_does_not_excuse_what_others_do(mapped: Story, run: Replay) -> None:
    """A call that takes forever and changes nothing explains nothing."""
    mapped.row(Kind.SYSCALL, 26, (ANON, 4096, 4), spread=800)
    mapped.touch(ANON + TABLE, 2)
    mapped.sample(FIRST)
    assert verdict(run, mapped) == (1, 1, 1)


@pytest.mark.parametrize(("kb", "wrong"), [(FIRST, 0), (FIRST + 4, 0), (FIRST + 12, 0), (FIRST + 16, 1), (8, 1)])
def test_part_of_a_call_in_flight(mapped: Story, run: Replay, kb: int, wrong: int) -> None:
    mapped.touch(ANON + TABLE, 3)
    mapped.t += 1000
    t = mapped.row(Kind.SYSCALL, 28, (ANON + TABLE, 3 * TABLE, 4), spread=50).t
    mapped.sample(kb, begin=t - 20, end=t - 10)
    assert verdict(run, mapped)[2] == wrong


@pytest.mark.parametrize("kb", [0, 4, 8, 12])
def test_during_an_exec_the_tables_come_one_by_one(run: Replay, kb: int) -> None:
    story = Story()
    story.exec()
    commed, mapped, returned = (row.t for row in story.rows)
    story.sample(kb, begin=commed + 10, end=commed + 20)
    story.sample(kb, begin=mapped + 10, end=mapped + 20)
    assert verdict(run, story)[2] == 0
    story.sample(kb, begin=returned + 10, end=returned + 20)
    story.t += 100
    assert verdict(run, story)[2] == (kb != EXECUTED_KB)


def test_a_move_may_show_both_ends_at_once(mapped: Story, run: Replay) -> None:
    """mremap to another place in its 2 MiB: new tables before the old ones go."""
    mapped.touch(ANON + TABLE, 3)
    mapped.t += 1000
    new = ANON + 128 * TABLE + 4096
    t = mapped.row(Kind.SYSCALL, 25, (ANON, 4 * TABLE, 4 * TABLE, 3, new), ret=new, spread=50).t
    mapped.sample(FIRST + 12 + 20, begin=t - 20, end=t - 10)
    mapped.sample(FIRST + 12 + 40, begin=t + 10, end=t + 20)
    assert verdict(run, mapped) == (2, 2, 1)


def test_samples_of_unknown_processes_are_uncovered(mapped: Story, run: Replay) -> None:
    mapped.pid = 4000
    mapped.sample(100)
    mapped.pid = 100
    mapped.exit()
    result = run(mapped, check=True)
    assert (result.uncovered, only(result).check) == (1, None)


def test_samples_after_a_process_stopped_are_uncovered(mapped: Story, run: Replay) -> None:
    mapped.sample(FIRST)
    mapped.call(323, 1, ret=3)
    mapped.touch(ANON + TABLE)
    mapped.sample(FIRST + 4)
    mapped.exit()
    result = run(mapped, check=True)
    assert (result.uncovered, only(result).check.compared) == (1, 1)  # type: ignore[union-attr]


def test_the_first_disagreements_are_told(mapped: Story, run: Replay) -> None:
    for _ in range(20):
        mapped.sample(48)
    mapped.exit()
    check = only(run(mapped, check=True)).check
    assert check and check.disagreements == 20 and len(check.first) == 5
    assert (check.first[0].real_kb, check.first[0].model_kb) == (48, FIRST)
    assert check.max_error_kb == 48 - FIRST
