# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tablewalk.record.events import Raw
from tablewalk.record.pairing import Pairing
from tablewalk.record.perf_data import PerfData
from tablewalk.record.rows import NEVER_RETURNED, Kind, Names, Row, Rows

if TYPE_CHECKING:
    from tests.record.conftest import PerfDataFile


def raw(kind: int, t: int, *, tid: int = 7, nr: int = 0, a: tuple[int, ...] = (), ret: int = 0, pid: int = 7) -> Row:
    return Row(kind, t, t, t, pid, tid, nr, a, ret, "x" if kind in (Kind.COMM, Kind.MMAP) else None)


def pair(events: list[Row], *, cuts: tuple[int, ...] = (), late: bool = False) -> list[Row]:
    """What pairing makes of the events, given in batches that are cut there, by time."""
    names = Names()
    pairing = Pairing(names, late=late)
    out = []
    for lo, hi in zip((0, *cuts), (*cuts, len(events)), strict=True):
        batch = Rows.of(events[lo:hi], names)
        rows = pairing.add(batch)
        out.append(rows)
        assert pairing.settled <= max((e.t for e in events[:hi]), default=0)
        rest = [e.t for e in events[hi:]]
        assert all(pairing.settled <= t for t in rest)
    out.append(pairing.finish())
    rows = Rows.concat(out)
    listed = []
    for i in range(len(rows)):
        one = rows[i : i + 1]
        kind, t, begin, end = int(one.kind[0]), int(one.t[0]), int(one.begin[0]), int(one.end[0])
        pid, tid, nr, ret = int(one.pid[0]), int(one.tid[0]), int(one.nr[0]), int(one.ret[0])
        name = names.table[one.name[0]] if one.name[0] >= 0 else None
        listed.append(Row(kind, t, begin, end, pid, tid, nr, tuple(one.a[:, 0].tolist()), ret, name))
    return sorted(listed, key=lambda r: (r.t, r.tid, r.kind))


def test_fault_served() -> None:
    (row,) = pair([raw(Raw.FAULT_ENTRY, 10, a=(0x5123, 6)), raw(Raw.FAULT_DONE, 15, nr=1, a=(0x5000,))])
    assert row[:7] == (Kind.FAULT, 15, 10, 15, 7, 7, 1)
    assert row.a == (0x5123, 6, 0, 0, 0, 0)


def test_fault_never_served() -> None:
    first, second = pair(
        [
            raw(Raw.FAULT_ENTRY, 10, a=(0x5000, 6)),
            raw(Raw.FAULT_ENTRY, 20, a=(0x6000, 4)),
            raw(Raw.FAULT_DONE, 25, a=(0x6000,)),
        ]
    )
    assert (first.nr, first.t, first.end, first.a[:3]) == (-1, 10, 10, (0x5000, 6, 0))
    assert (second.nr, second.t, second.begin) == (0, 25, 20)


def test_fault_of_another_page_is_no_partner() -> None:
    first, second = pair([raw(Raw.FAULT_ENTRY, 10, a=(0x5000, 6)), raw(Raw.FAULT_DONE, 15, a=(0x9000,))])
    assert first.nr == -1
    assert (second.nr, second.begin, second.a[:3]) == (0, 15, (0x9000, 0, 1))


def test_fault_with_stack_growth_in_between() -> None:
    events = [raw(Raw.FAULT_ENTRY, 10, a=(0x5000, 6)), raw(Raw.LOCKED, 12), raw(Raw.FAULT_DONE, 15, a=(0x5000,))]
    (row,) = pair(events)
    assert (row.kind, row.t, row.begin) == (Kind.FAULT, 15, 10)


def test_threads_do_not_mix() -> None:
    rows = pair(
        [
            raw(Raw.FAULT_ENTRY, 10, tid=7, a=(0x5000, 6)),
            raw(Raw.FAULT_ENTRY, 11, tid=8, a=(0x5000, 4)),
            raw(Raw.FAULT_DONE, 12, tid=8, a=(0x5000,)),
            raw(Raw.FAULT_DONE, 13, tid=7, a=(0x5000,)),
        ]
    )
    assert [(r.tid, r.begin, r.t, r.a[1]) for r in rows] == [(8, 11, 12, 4), (7, 10, 13, 6)]


def test_call_takes_effect_at_its_first_lock() -> None:
    (row,) = pair(
        [
            raw(Raw.LOCKED, 5),
            raw(Raw.SYS_ENTER, 10, nr=11, a=(0x1000, 0x2000)),
            raw(Raw.LOCKED, 12),
            raw(Raw.LOCKED, 14),
            raw(Raw.SYS_EXIT, 20, nr=11, ret=-22),
        ]
    )
    assert row[:7] == (Kind.SYSCALL, 12, 10, 20, 7, 7, 11)
    assert row.a[:2] == (0x1000, 0x2000) and row.ret == -22


def test_call_without_lock_takes_effect_at_its_end() -> None:
    (row,) = pair([raw(Raw.SYS_ENTER, 10, nr=28), raw(Raw.LOCKED, 11, tid=8), raw(Raw.SYS_EXIT, 20, nr=28)])
    assert (row.t, row.begin, row.end) == (20, 10, 20)


def test_exec_takes_effect_at_its_end() -> None:
    (row,) = pair([raw(Raw.SYS_ENTER, 10, nr=59), raw(Raw.LOCKED, 12), raw(Raw.SYS_EXIT, 20, nr=59)])
    assert (row.t, row.begin) == (20, 10)


def test_exec_from_another_thread() -> None:
    """The thread that calls execve takes the leader's tid, under which it returns."""
    rows = pair([raw(Raw.SYS_ENTER, 10, tid=8, nr=59), raw(Raw.SYS_EXIT, 20, tid=7, nr=59)])
    assert [(r.tid, r.t, r.ret) for r in rows] == [(7, 20, 0), (8, 20, NEVER_RETURNED)]


def test_exit_group_never_returns() -> None:
    rows = pair([raw(Raw.SYS_ENTER, 10, nr=231, a=(3,)), raw(Kind.EXIT, 20)])
    assert [(r.kind, r.t, r.begin, r.end, r.ret) for r in rows] == [
        (Kind.SYSCALL, 20, 10, 20, NEVER_RETURNED),
        (Kind.EXIT, 20, 20, 20, 0),
    ]


def test_killed_in_a_call_that_had_its_lock() -> None:
    rows = pair([raw(Raw.SYS_ENTER, 10, nr=28), raw(Raw.LOCKED, 12), raw(Kind.EXIT, 20)])
    assert [(r.t, r.ret) for r in rows] == [(12, NEVER_RETURNED), (20, 0)]


def test_recording_ends_inside_a_call() -> None:
    rows = pair([raw(Raw.SYS_ENTER, 10, nr=28), raw(Kind.COMM, 30, tid=8)])
    assert [(r.kind, r.t, r.begin, r.end) for r in rows] == [(Kind.SYSCALL, 30, 10, 30), (Kind.COMM, 30, 30, 30)]


def test_child_side_of_a_clone_is_no_call() -> None:
    assert not pair([raw(Raw.SYS_EXIT, 10, nr=435, ret=0)])


def test_calls_that_are_not_kept() -> None:
    assert not pair([raw(Raw.SYS_ENTER, 10, nr=0), raw(Raw.SYS_EXIT, 20, nr=0)])


def test_return_without_entry_is_counted() -> None:
    pairing = Pairing(Names())
    assert not len(pairing.add(Rows.of([raw(Raw.SYS_EXIT, 10, nr=11)], Names())))
    assert "1 returns of system calls" in "".join(pairing.missing())


def test_kernel_addresses_and_lost_processes() -> None:
    pairing = Pairing(Names())
    kept = pairing.add(
        Rows.of(
            [
                raw(Raw.FAULT_ENTRY, 10, a=(0xFFFF888000000000, 0)),
                raw(Kind.EXIT, 11, pid=-1, tid=-1),
                raw(Kind.LOST, 12, pid=0, tid=0, a=(3,)),
            ]
        )
    )
    assert kept.kind.tolist() == [Kind.LOST]
    assert "1 events that the kernel could not attribute" in "".join(pairing.missing())


def test_fork_gets_its_flags() -> None:
    rows = pair(
        [
            raw(Kind.FORK, 10, a=(9, 9)),
            raw(Raw.NEWTASK, 11, a=(0, 0, 0x1200011)),
            raw(Kind.FORK, 20, a=(7, 8)),
            raw(Raw.NEWTASK, 21, a=(0, 0, 0x3D0F00)),
        ]
    )
    assert [r.a[:4] for r in rows] == [(9, 9, 0x1200011, 1), (7, 8, 0x3D0F00, 1)]


def test_fork_without_flags() -> None:
    (row,) = pair([raw(Kind.FORK, 10, a=(9, 9))])
    assert row.a[:4] == (9, 9, 0, 0)


def test_what_perf_made_up_belongs_to_late_recordings() -> None:
    events = [raw(Kind.MMAP, 0, a=(0x1000, 0x1000, 0, 3, 2)), raw(Raw.FAULT_DONE, 50, a=(0x1000,))]
    assert [r.kind for r in pair(events)] == [Kind.FAULT]
    assert [(r.kind, r.t) for r in pair(events, late=True)] == [(Kind.FAULT, 50), (Kind.MMAP, 50)]


def test_first_seen() -> None:
    pairing = Pairing(Names())
    exec = raw(Kind.COMM, 10, nr=1)
    pairing.add(Rows.of([exec, raw(Kind.FORK, 20, a=(9, 9)), raw(Raw.NEWTASK, 21)]))
    assert [pairing.has_seen(7, 9), pairing.has_seen(7, 10), pairing.has_seen(9, 15), pairing.has_seen(9, 25)] == [
        False, True, False, True,
    ]  # fmt: skip


def test_32_bit_programs_are_told() -> None:
    names = Names()
    pairing = Pairing(names)
    pairing.add(Rows.of([Row(Kind.MMAP, 9, 9, 9, 7, 7, 0, (0xFFFE0000, 0x10000, 0, 3, 2), 0, "[stack]")], names))
    assert "32-bit programs" in "".join(pairing.missing())


def test_synthetic_run(small_run: PerfDataFile, perf_path: Path) -> None:
    perf_path.write_bytes(small_run.bytes())
    perf = PerfData(perf_path)
    events = Rows.concat(list(perf.batches()))
    pairing = Pairing(perf.names)
    rows = Rows.concat([pairing.add(events), pairing.finish()])
    calls = rows[rows.kind == Kind.SYSCALL]
    assert sorted(zip(calls.nr.tolist(), calls.ret.tolist(), strict=True)) == sorted(
        [(59, 0), (9, 0x700000000000), (435, 200), (28, -22), (231, NEVER_RETURNED), (231, NEVER_RETURNED)]
    )
    fork = rows[rows.kind == Kind.FORK]
    assert fork.a[:4, 0].tolist() == [200, 200, 0x1200011, 1]


STEPS = st.tuples(
    st.sampled_from([*Raw, Kind.EXIT, Kind.FORK, Kind.MMAP]),
    st.integers(1, 3),
    st.sampled_from([9, 11, 28, 59, 231]),
    st.integers(1, 3),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEPS, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_batches_do_not_matter(steps: list[tuple[int, int, int, int]], cuts: list[int]) -> None:
    events = []
    for i, (kind, tid, nr, page) in enumerate(steps):
        a = (page << 12, 4096) if kind != Kind.FORK else (tid, 90 + i)
        events.append(raw(kind, 10 * i + 10, tid=tid, nr=nr, a=a))
    whole = pair(events)
    assert pair(events, cuts=tuple(sorted(min(c, len(events)) for c in cuts))) == whole
    served = sum(r.kind == Kind.FAULT and r.nr >= 0 for r in whole)
    assert served == sum(k == Raw.FAULT_DONE for k, *_ in steps)
    faults = sum(r.kind == Kind.FAULT for r in whole)
    paired = sum(r.kind == Kind.FAULT and r.nr >= 0 and not r.a[2] for r in whole)
    assert faults == served + sum(k == Raw.FAULT_ENTRY for k, *_ in steps) - paired


@pytest.mark.parametrize("size", [0, 1])
def test_empty_and_single(size: int) -> None:
    assert len(pair([raw(Kind.EXIT, 5)][:size])) == size
