# SPDX-License-Identifier: GPL-2.0-only
"""Locks against schedules worked out by hand from kernel/locking/rwsem.c: who gets them, in which order, and when."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tablewalk.simulate.locks import Locks
from tablewalk.simulate.profile import Profile
from tablewalk.simulate.threads import Stuck
from tablewalk.simulate.waits import Waits

US = 1_000_000  # picoseconds
SEM, OTHER = 100, 200
NOTHING = replace(Profile(), wakeup=0.001, switch=0.001, transfer=0.001)


class Schedule:
    """Threads that take a lock at a time and keep it for a time; `got` is who got it when (microseconds)."""

    def __init__(self, cpus: int = 16, profile: Profile = NOTHING) -> None:
        self.locks = Locks([0], cpus, profile, name_of={SEM: "sem", OTHER: "other"}.__getitem__)
        self.got: list[tuple[str, int]] = []

    def thread(self, name: str, begin: int, keep: int, take: str, give: str, sleeps: bool = True) -> None:
        locks = self.locks

        def body() -> None:
            locks.sleep(begin * US - locks.clock[0])
            getattr(locks, take)(SEM)
            self.got.append((name, round(locks.clock[0] / US)))
            if sleeps:
                locks.sleep(keep * US)
            else:
                locks.clock[0] += keep * US
            getattr(locks, give)(SEM)

        locks.spawn(name, body)

    def reader(self, name: str, begin: int, keep: int, sleeps: bool = True) -> None:
        self.thread(name, begin, keep, "down_read", "up_read", sleeps)

    def writer(self, name: str, begin: int, keep: int, sleeps: bool = True) -> None:
        self.thread(name, begin, keep, "down_write", "up_write", sleeps)

    def run(self) -> list[tuple[str, int]]:
        self.locks.run()
        return self.got


def test_readers_share_and_the_writer_behind_them_waits_for_the_last() -> None:
    s = Schedule()
    s.reader("r1", 10, 100)
    s.reader("r2", 20, 300)
    s.writer("w", 30, 10)
    assert s.run() == [("r1", 10), ("r2", 20), ("w", 320)]


def test_a_reader_does_not_pass_a_waiting_writer_while_readers_hold_the_lock() -> None:
    s = Schedule()
    s.reader("r1", 10, 100)
    s.writer("w", 20, 50)
    s.reader("r2", 50, 10)
    # the writer spins on the reader for 10.5 us, then it sleeps; r2 finds it in the queue
    assert s.run() == [("r1", 10), ("w", 110), ("r2", 160)]


def test_all_readers_in_the_queue_are_woken_together_also_those_behind_a_writer() -> None:
    s = Schedule()
    s.writer("w1", 10, 100)
    s.reader("r1", 20, 40)
    s.writer("w2", 30, 10)
    s.reader("r2", 40, 60)
    assert s.run() == [("w1", 10), ("r1", 110), ("r2", 110), ("w2", 170)]


def test_a_writer_spins_while_the_owner_runs_and_goes_before_those_who_sleep() -> None:
    s = Schedule()
    s.writer("w1", 10, 100, sleeps=False)
    s.reader("r", 20, 10)
    s.writer("w2", 30, 10, sleeps=False)
    assert s.run() == [("w1", 10), ("w2", 110), ("r", 120)]


def test_a_writer_does_not_spin_on_an_owner_that_sleeps() -> None:
    s = Schedule()
    s.writer("w1", 10, 100, sleeps=True)
    s.reader("r", 20, 10)
    s.writer("w2", 30, 10, sleeps=False)
    assert s.run() == [("w1", 10), ("r", 110), ("w2", 120)]


def test_who_has_slept_too_long_gets_the_lock_handed_over() -> None:
    """A chain of spinning writers would keep the reader out for ever; after 4 ms it forbids that."""
    s = Schedule()
    for i in range(20):
        s.writer(f"w{i}", 10 + i * 900, 1000, sleeps=False)
    s.reader("r", 500, 10)
    got = dict(s.run())
    assert 4000 < got["r"] < 7000
    assert sum(when > got["r"] for when in got.values()) > 10


def test_spinlocks_are_first_come_first_served() -> None:
    s = Schedule()
    for i in (3, 1, 2):
        s.thread(f"t{i}", 10 * i, 100, "lock", "unlock", sleeps=False)
    assert s.run() == [("t1", 10), ("t2", 110), ("t3", 210)]


def test_a_downgraded_lock_lets_waiting_readers_in() -> None:
    s = Schedule()
    locks = s.locks

    def body() -> None:
        locks.down_write(SEM)
        locks.sleep(100 * US)
        locks.downgrade_write(SEM)
        locks.sleep(100 * US)
        locks.up_read(SEM)

    locks.spawn("w1", body)
    s.reader("r", 20, 10)
    assert s.run() == [("r", 100)]


def test_a_folio_lock_may_be_lost_to_who_comes_by_five_times_and_is_then_handed_over() -> None:
    s = Schedule(profile=replace(NOTHING, wakeup=5000.0))
    s.thread("w", 50, 10, "mutex_lock", "mutex_unlock")
    locks = s.locks

    def again_and_again() -> None:
        for _ in range(20):
            locks.mutex_lock(SEM)
            s.got.append(("t", round(locks.clock[0] / US)))
            locks.clock[0] += 100 * US
            locks.sync()
            locks.mutex_unlock(SEM)
            locks.clock[0] += 1 * US

    locks.spawn("t", again_and_again)
    names = [name for name, _ in s.run()]
    assert names.index("w") == 6  # at the first unlock it is woken, loses, and so on: five times


def test_more_threads_than_cpus_take_turns() -> None:
    s = Schedule(cpus=1)
    locks, ends = s.locks, {}

    def body(name: str) -> Callable[[], None]:
        def work() -> None:
            for _ in range(100):
                locks.clock[0] += 100 * US
                locks.sync()
            ends[name] = locks.clock[0] / US

        return work

    for name in ("a", "b"):
        locks.spawn(name, body(name))
    locks.run()
    assert max(ends.values()) == pytest.approx(20_000, rel=0.01)
    assert min(ends.values()) > 15_000  # they took turns: one after the other, the first would be done at 10,000


def test_a_thousand_threads_begin_one_after_the_other() -> None:
    """Each is begun while the one before it waits: Python's stack must not grow with them."""
    s = Schedule(cpus=1024)
    for i in range(1000):
        s.thread(f"t{i}", 10, 1, "lock", "unlock", sleeps=False)
    assert s.run() == [(f"t{i}", 10 + i) for i in range(1000)]


def test_waits_name_the_holder() -> None:
    s = Schedule()
    s.writer("w1", 10, 100)
    s.reader("r", 20, 10)
    s.run()
    by_holder: dict[str, int] = {}
    for (lock, _, holder, _), wait in s.locks.waits.by.items():
        assert lock == "sem"
        by_holder[holder] = by_holder.get(holder, 0) + round(wait.total / US)
    assert by_holder["w1"] == 90


def deadlock(first: str, second: str) -> Callable[[Locks], None]:
    def run(locks: Locks) -> None:
        def body(a: int, b: int) -> Callable[[], None]:
            def work() -> None:
                getattr(locks, first)(a)
                locks.clock[0] += 10 * US
                getattr(locks, second)(b)

            return work

        locks.spawn("A", body(SEM, OTHER))
        locks.spawn("B", body(OTHER, SEM))
        locks.run()

    return run


@pytest.mark.parametrize("kind", [("lock", "lock"), ("down_write", "down_write"), ("mutex_lock", "mutex_lock")])
def test_a_deadlock_is_told_with_who_waits_for_whom(kind: tuple[str, str]) -> None:
    with pytest.raises(Stuck) as e:
        deadlock(*kind)(Schedule().locks)
    told = str(e.value)
    assert told.startswith("deadlock at 0.0000")
    assert "A in work waits for other, held by B in work; B in work waits for sem, held by A in work" in told
    assert told.endswith("A: a circle")


def test_a_livelock_is_told(monkeypatch: Any) -> None:
    monkeypatch.setattr("tablewalk.simulate.threads.LIVELOCK", 1000)
    locks = Schedule().locks

    def body() -> None:
        while True:
            locks.again()

    locks.spawn("A", body)
    with pytest.raises(Stuck, match="livelock"):
        locks.run()


def random_schedule(seed: int) -> list[tuple[str, str, int]]:
    """Threads that take locks of all kinds at random, on fewer CPUs than there are threads: who got what when."""
    locks = Locks([0], 3, Profile(), name_of=str)
    got: list[tuple[str, str, int]] = []
    kinds = [("lock", "unlock", 1), ("down_read", "up_read", 2), ("down_write", "up_write", 2),
             ("mutex_lock", "mutex_unlock", 3)]  # fmt: skip

    def body(number: int) -> Callable[[], None]:
        rng = Random(f"{seed}/{number}")

        def work() -> None:
            for _ in range(200):
                take, give, address = rng.choice(kinds)
                getattr(locks, take)(address)
                got.append((str(number), take, locks.clock[0]))
                locks.clock[0] += rng.randrange(20 * US)
                getattr(locks, give)(address)
                (locks.sleep if rng.random() < 0.1 else locks.think)(rng.randrange(20 * US))

        return work

    for number in range(8):
        locks.spawn(f"t{number}", body(number))
    locks.run()
    got += [(f"{key}", f"{w.times}", w.total) for key, w in locks.waits.worst_first()]
    return got


def test_a_seed_determines_who_gets_which_lock_when() -> None:
    """In another process, too, where strings and objects hash to something else."""
    here = random_schedule(1)
    assert here == random_schedule(1)
    assert here != random_schedule(2)
    text = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_locks as t; " \
        "print(t.digest(t.random_schedule(1)))"
    for hash_seed in ("1", "2"):
        done = subprocess.run([sys.executable, "-c", text], env=os.environ | {"PYTHONHASHSEED": hash_seed},
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == digest(here)


def digest(schedule: list[tuple[str, str, int]]) -> str:
    return hashlib.sha256(repr(schedule).encode()).hexdigest()


def test_waits_are_told_together_by_any_part_of_them() -> None:
    waits = Waits()
    for holder, time in (("t1", 5), ("t2", 7), ("t1", 1)):
        waits.add("sem", "f", (holder, "g"), time)
    waits.add("other", "f", ("t1", "g"), 14)
    assert [(name, w.times, w.total, w.longest) for name, w in waits.grouped(lambda key: key[0])] == [
        ("other", 1, 14, 14), ("sem", 3, 13, 7)]  # fmt: skip
    assert [key for key, _ in waits.worst_first()] == [("other", "f", "t1", "g"), ("sem", "f", "t2", "g"),
                                                      ("sem", "f", "t1", "g")]  # fmt: skip
