# SPDX-License-Identifier: GPL-2.0-only
"""Recordings as workloads: their threads do in virtual time what they did, in an order that makes sense."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from tablewalk.cli.simulate import command
from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig
from tablewalk.record.recording import Kind, Meta, Recording, Row, Rows, Writer
from tablewalk.replay.run import replay
from tablewalk.replay.select import select
from tablewalk.simulate.recorded import Extents, Stream
from tablewalk.simulate.run import Result, as_object, simulate_recording

ARENA = Path(__file__).parents[2] / "examples" / "recordings" / "arena.tw"
ANON, HUGE = 0x7F0000000000, 1 << 21
MADVISE, MUNMAP, MMAP = 28, 11, 9
US, MS = 1000, 1_000_000  # nanoseconds


class Threads:
    """A recording of one process with several threads; times in nanoseconds from its beginning."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        stack = (0x7FFC00000000, 0x21000, 0x7FFFFFFDE, 3, 2, 0)
        self.row(Kind.COMM, 1, 0, 1, name="prog")
        self.row(Kind.MMAP, 1, 1, 0, stack, name="[stack]")
        self.row(Kind.SYSCALL, 1, 1, 59)

    def row(self, kind: Kind, begin: int, end: int, nr: int = 0, a: Sequence[int] = (), ret: int = 0, tid: int = 100,
            name: str | None = None) -> None:  # fmt: skip
        self.rows.append(Row(kind, end, begin if kind in (Kind.SYSCALL, Kind.FAULT) else end, end, 100, tid, nr,
                             tuple(a), ret, name))  # fmt: skip

    def thread(self, t: int, tid: int) -> None:
        self.row(Kind.FORK, t, t, -1, (100, tid, 0x100, 1))

    def mmap(self, t: int, address: int, length: int, tid: int = 100) -> None:
        self.row(Kind.SYSCALL, t, t + US, MMAP, (address, length, 3, 0x32, 2**64 - 1, 0), address, tid)

    def munmap(self, t: int, address: int, length: int, tid: int = 100) -> None:
        self.row(Kind.SYSCALL, t, t + US, MUNMAP, (address, length), 0, tid)

    def fault(self, t: int, address: int, tid: int = 100) -> None:
        self.row(Kind.FAULT, t, t + US, 0, (address, 6), tid=tid)

    def write(self, path: Path) -> Path:
        with Writer(path) as out:
            out.add(Rows.of(sorted(self.rows, key=lambda row: row.t)))
            out.finish(Meta(command=["prog"], source="record", kernel="6.18.1-test", machine="x86_64", levels=4,
                            events=["minor-faults", "raw_syscalls:sys_enter"]))  # fmt: skip
        return path


def simulated(path: Path, kernel: str = "7.x", cpus: int = 4) -> Result:
    (selection,) = select(Recording.open(path).meta, [kernel], None, (), ())
    return simulate_recording(path, selection.config, cpus)


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
def test_a_recording_has_the_memory_over_time_that_its_replay_has(kernel: str) -> None:
    (result,) = replay(ARENA, select(Recording.open(ARENA).meta, [kernel], None, (), ())).results
    (process,) = result.processes
    r = simulated(ARENA, kernel)
    (history,) = r.memory.values()
    assert [kb for _, kb in history] == list(process.kbs)
    assert len(r.latencies["page fault"]) == process.faults
    assert r.notes == []


def test_a_recording_gives_the_same_each_time() -> None:
    (selection,) = select(Recording.open(ARENA).meta, ["7.x"], None, (), ())
    logged = simulate_recording(ARENA, selection.config, 4, logged=True)
    assert as_object(simulated(ARENA)) == as_object(logged)
    assert logged.log and len(logged.log.operations) == sum(map(len, logged.latencies.values()))
    assert "python3 1285" in logged.log.threads


def test_threads_think_for_as_long_as_they_did(tmp_path: Path) -> None:
    t = Threads()
    t.mmap(10 * US, ANON, 8 * HUGE)
    t.thread(20 * US, 101)
    for i in range(100):
        t.fault(100 * US + 50 * US * i, ANON + 4096 * i)
        t.fault(100 * US + 50 * US * i, ANON + HUGE + 4096 * i, tid=101)
    busy = t.write(tmp_path / "busy.tw")
    assert 5.0e9 < simulated(busy, cpus=2).time < 5.2e9  # picoseconds
    assert 9.8e9 < simulated(busy, cpus=1).time < 10.5e9  # both think on one CPU, one after the other
    t.fault(200 * MS, ANON + 2 * HUGE)
    asleep = t.write(tmp_path / "asleep.tw")
    assert 204.8e9 < simulated(asleep, cpus=1).time < 205.2e9  # 195 ms after what had taken 10


def test_a_thread_does_not_use_memory_before_it_is_mapped_nor_after_it_is_gone(tmp_path: Path) -> None:
    """The mapping thread is late here, since it has faults to serve first that took no time when it was recorded."""
    t = Threads()
    t.mmap(2 * US, ANON, 64 * HUGE)
    t.thread(4 * US, 101)
    for i in range(200):
        t.fault(10 * US + i, ANON + 4096 * i)
    t.mmap(20 * US, ANON + 100 * HUGE, HUGE)
    t.fault(30 * US, ANON + 100 * HUGE, tid=101)
    t.munmap(40 * US, ANON + 100 * HUGE, HUGE)
    r = simulated(t.write(tmp_path / "t.tw"))
    assert r.notes == []  # the model refused nothing
    assert len(r.latencies["page fault"]) == 201


def test_extents_tell_what_comes_first() -> None:
    a, b = Stream("a", 0), Stream("b", 0)
    extents = Extents()
    assert extents.change(100, 200, a, 1) == []
    assert extents.use(150, b, 1) == [(a, 1)]
    assert extents.use(150, a, 2) == []
    assert extents.use(250, b, 2) == []
    assert extents.change(0, 120, b, 3) == [(a, 2)]  # b's own step is no matter, a's last step is told
    assert extents.use(110, a, 3) == [(b, 3)]
    assert extents.use(130, b, 4) == [(a, 1)]
    assert sorted(extents.change(0, 1 << 64, a, 4), key=str) == [(b, 4)]


def test_the_command_compares_kernels() -> None:
    done = CliRunner().invoke(command, [str(ARENA), "--cpus", "64", "--kernel", "6.1", "--kernel", "7.x", "--json"],
                              standalone_mode=False)  # fmt: skip
    old, new = json.loads(done.stdout)["simulations"]
    assert (old["kernel"], new["kernel"], old["cpus"]) == ("6.1", "7.x", 64)
    highest = [max(kb for _, kb in next(iter(r["vmpte_kb"].values()))) for r in (old, new)]
    assert highest[0] > 10 * highest[1]  # table reclaim


@pytest.mark.parametrize(("arguments", "told"), [
    ([str(ARENA), "--with", "threads=2"], "a recording has no parameters"),
    ([str(ARENA), "--cpus", "0"], "1 to 256 is allowed"),
    ([str(ARENA), "--cpus", "257"], "1 to 256 is allowed"),
    (["nothing.tw"], "nothing.tw"),
])  # fmt: skip
def test_what_cannot_be_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(TablewalkError, match=told):
        CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)


def test_a_recording_of_another_machine_is_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "arm.tw") as out:
        out.add(Rows.of([Row(Kind.COMM, 1, 1, 1, 1, 1, 1, (), 0, "prog")]))
        out.finish(Meta(machine="aarch64", kernel="6.18"))
    with pytest.raises(TablewalkError, match="x86-64 are understood only"):
        simulate_recording(tmp_path / "arm.tw", KernelConfig(), 4)
