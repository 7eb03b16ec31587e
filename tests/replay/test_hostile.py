# SPDX-License-Identifier: GPL-2.0-only
"""Recordings that no kernel can have written: one clear line or a partial result, never a traceback or a hang."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig
from tablewalk.record.recording import Row
from tablewalk.record.rows import UNKNOWN, Kind
from tablewalk.replay import calls, run
from tablewalk.replay.select import Selection
from tablewalk.replay.syscalls import Calls

from .conftest import Replay, only
from .story import ANON, ANONYMOUS, EXECUTED_KB, LOCKED, POPULATE, PRIVATE, STACK, TABLE, Story

HUGE = 1 << 46


@pytest.mark.parametrize(
    ("nr", "args", "ret"),
    [
        (9, (0, HUGE, 3, PRIVATE | ANONYMOUS | POPULATE, UNKNOWN, 0), ANON >> 1),
        (9, (0, HUGE, 3, PRIVATE | ANONYMOUS | LOCKED, UNKNOWN, 0), ANON >> 1),
        (28, (1 << 46, HUGE - TABLE, 22), 0),
        (28, (1 << 46, HUGE - TABLE, 23), 0),
        (28, (1 << 46, HUGE - TABLE, 102), 0),
        (28, (1 << 46, HUGE - TABLE, 25), 0),
        (149, (1 << 46, HUGE - TABLE), 0),
        (151, (1,), 0),
        (216, (1 << 46, HUGE, 0, 0, 0), 0),
    ],
)
def test_filling_more_than_there_can_be_stops_the_process(
    story: Story, run: Replay, nr: int, args: tuple[int, ...], ret: int
) -> None:
    story.mmap(1 << 46, (1 << 46) - (1 << 38))
    story.call(nr, *args, ret=ret)
    row = len(story.rows)
    began = time.monotonic()
    p = only(run(story))
    assert time.monotonic() - began < 10
    assert p.stopped and f"row {row}: a call that fills" in p.stopped


def test_advice_on_a_huge_sparse_range_is_quick(story: Story, run: Replay) -> None:
    story.mmap(1 << 46, (1 << 46) - (1 << 38))
    story.touch(1 << 46)
    for advice in (0, 4, 8, 14, 15, 18, 20, 21):
        story.madvise(1 << 46, (1 << 46) - (1 << 39), advice)
    story.call(10, 1 << 46, 1 << 45, 1)
    story.fork(200)
    story.munmap(1 << 46, 1 << 45)
    began = time.monotonic()
    run(story)
    assert time.monotonic() - began < 10


def test_mappings_on_top_of_each_other(story: Story, run: Replay) -> None:
    for i in range(50):
        story.mmap(ANON + (i % 7) * 4096, 20 * 4096)
        story.fault(ANON + (i % 7) * 4096)
    result = run(story)
    assert only(result).final_kb == EXECUTED_KB + 12
    assert any("the model still had" in what for what in result.unknowns)


def test_many_processes(run: Replay) -> None:
    story = Story()
    story.exec()
    parent = 100
    for child in range(1000, 4000):
        story.fork(child)
        if child % 2:
            story.pid = story.tid = child
            story.exit()
            story.pid = story.tid = parent
    result = run(story)
    assert (len(result.processes), result.more_processes) == (1000, 2001)
    assert result.more_peak_kb == EXECUTED_KB


def test_more_memory_than_there_is(story: Story, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    story.mmap(1 << 46, 1 << 45)
    for i in range(300):
        story.fault((1 << 46) + (i << 30))
    monkeypatch.setattr(run, "available", lambda: 8 << 20)
    with pytest.raises(TablewalkError, match=r"story\.tw: at row 304 the model needs more memory than there is"):
        replayed(story, tmp_path)


def test_a_recording_of_another_machine(story: Story, tmp_path: Path) -> None:
    story.meta.machine = "aarch64"
    with pytest.raises(TablewalkError, match="recorded on aarch64"):
        replayed(story, tmp_path)


@pytest.mark.parametrize(
    "attach",
    [
        {}, {"pid": 1}, {"pid": 1, "time": 2, "brk": [1, 2], "empty_tables": [[0, 1 << 60]], "huge": [], "vmflags": []},
        {"pid": 1, "time": 2, "brk": ["x", 2], "empty_tables": None, "huge": [], "vmflags": []},
        {"pid": 1, "time": 2, "brk": [1, 2], "empty_tables": None, "huge": [], "vmflags": [[1, 2, 3]]},
    ],
)  # fmt: skip
def test_a_start_state_that_makes_no_sense(story: Story, tmp_path: Path, attach: dict[str, object]) -> None:
    story.meta.attach = attach
    with pytest.raises(TablewalkError, match="makes no sense"):
        replayed(story, tmp_path)


def test_a_failure_of_the_replay_itself_is_one_line(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("\x1b[31mx")

    monkeypatch.setattr(Calls, "apply", broken)
    monkeypatch.delenv("TABLEWALK_DEBUG", raising=False)
    story.munmap(ANON, TABLE)
    with pytest.raises(TablewalkError) as e:
        replayed(story, tmp_path)
    assert "the replay itself failed (KeyError" in str(e.value) and "\x1b" not in str(e.value)


def replayed(story: Story, directory: Path, release: str = "6.18") -> None:
    selection = Selection(KernelConfig(release), {}, {})
    run.replay(story.write(directory / "story.tw"), [selection], check=True)


# Addresses and lengths that meet each other, and some that are absurd.
_addresses = st.one_of(
    st.sampled_from([ANON, STACK, 0, HUGE, (1 << 47) - 4096, UNKNOWN, 1 << 63]),
    st.integers(0, 40).map(lambda i: ANON + i * (TABLE // 4)),
    st.integers(0, 40).map(lambda i: ANON + i * 4096),
)
_lengths = st.one_of(
    st.integers(0, 20).map(lambda i: i * (TABLE // 4)),
    st.integers(0, 5 * 4096),
    st.sampled_from([HUGE, UNKNOWN, 1 << 63]),
)
_args = st.one_of(_addresses, _lengths, st.integers(0, 300), st.integers(0, UNKNOWN))
_rets = st.one_of(_addresses.map(lambda a: a if a < 1 << 63 else 0), st.integers(-135, 0), st.just(-(2**31)))
_pids = st.sampled_from([100, 200, 201])
_calls = st.one_of(st.sampled_from(sorted(calls.NAMES)), st.sampled_from([9, 10, 11, 12, 25, 28]))


@st.composite
def _call(draw: st.DrawFn) -> Row:
    nr = draw(_calls)
    a = [draw(_addresses), draw(_lengths), draw(_args), draw(_args), draw(_args), draw(_args)]
    if nr == 28:
        a[2] = draw(st.sampled_from([*calls.ADVICE, 77]))
    if nr == 9:
        a[2], a[3], a[5] = draw(st.integers(0, 7)), draw(st.integers(0, 1 << 17)) & ~(POPULATE | LOCKED), 0
    if nr in (151, 325, 149):
        a[1] %= 1 << 24
        a[0] = a[0] & 6 if nr == 151 else a[0]
    return Row(Kind.SYSCALL, 0, 0, 0, draw(_pids), draw(_pids), nr, a, draw(_rets))


_rows = st.one_of(
    _call(),
    st.builds(
        lambda pid, a, error, nr: Row(Kind.FAULT, 0, 0, 0, pid, pid, nr, (a, error)),
        _pids, _addresses, st.integers(0, 7), st.sampled_from([0, 0, 0, 1, -1]),
    ),
    st.builds(
        lambda pid, a, n, prot, flags, name, inode: Row(
            Kind.MMAP, 0, 0, 0, pid, pid, inode, (a & -4096, n, inode, prot, flags, inode), 0, name
        ),
        _pids, _addresses.filter(lambda a: a < 1 << 47), st.integers(1, 2000).map(lambda n: n * 4096),
        st.integers(0, 7),
        st.sampled_from([1, 2, 0x102, 0x2002, 0x40002]),
        st.sampled_from(["[stack]", "[vdso]", "[vvar]", "[heap]", "//anon", "/x"]), st.integers(0, 2),
    ),
    st.builds(lambda pid, nr: Row(Kind.COMM, 0, 0, 0, pid, pid, nr, (), 0, "<b>\x1b[2J"), _pids, st.integers(0, 1)),
    st.builds(
        lambda pid, child, tid, flags, known: Row(Kind.FORK, 0, 0, 0, pid, pid, -1, (child, tid, flags, known)),
        _pids, _pids, _pids, st.sampled_from([0, 0x100, 0x4111, 17]), st.integers(0, 1),
    ),
    st.builds(lambda pid, tid: Row(Kind.EXIT, 0, 0, 0, pid, tid), _pids, _pids),
    st.builds(lambda pid, kb: Row(Kind.SAMPLE, 0, 0, 0, pid, pid, 0, (kb, UNKNOWN)), _pids, st.integers(0, 1000)),
    st.just(Row(Kind.LOST, 0, 0, 0, 100, 100, 0, (3,))),
)  # fmt: skip


@settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(_rows, min_size=1, max_size=60), release=st.sampled_from(["6.1", "6.12", "6.18", "7.x"]))
def test_any_rows_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Row], release: str) -> None:
    """Whatever is recorded: a result, or an error in one line, and never a failure of the replay itself."""
    monkeypatch.setenv("TABLEWALK_DEBUG", "1")
    story = Story()
    story.exec()
    story.mmap(ANON, 20 * TABLE)
    for i, row in enumerate(rows):
        t = story.t + 100 * (i + 1)
        story.rows.append(row._replace(t=t, begin=t - 150, end=t + 150))
    try:
        replayed(story, tmp_path, release)
    except TablewalkError as e:
        assert "\n" not in str(e)
