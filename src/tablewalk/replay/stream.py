# SPDX-License-Identifier: GPL-2.0-only
"""A recording as the engine reads it: runs of page faults as plain lists, and between them everything else.

What happened inside a system call (mappings made, processes forked) is put into the call's event. Such rows
may stand before the call's own row (which stands where it took its lock, or at its end where it took none) or
behind it, so a chunk is held back until the next one has been looked through.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tablewalk.record.recording import Kind, Recording, Rows

EXECS = (59, 322)  # execve, execveat on x86-64


class How(IntEnum):
    """What a page fault did, as far as the recording knows."""

    READ = 0
    WRITE = 1
    UNKNOWN = 2  # read or write, that was not recorded
    FAILED = 3  # not served, user mode
    FAILED_IN_KERNEL = 4  # not served, kernel mode: often on purpose (pagefault_disable)


class Event:
    """A row other than a page fault or a sample. `no` counts the recording's rows from 1."""

    __slots__ = ("a", "begin", "call", "end", "inside", "kind", "name", "no", "nr", "pid", "ret", "t", "tid")

    def __init__(
        self, no: int, kind: int, t: int, begin: int, end: int, pid: int, tid: int, nr: int,
        a: tuple[int, ...], ret: int, name: str | None,
    ) -> None:  # fmt: skip
        self.no, self.kind, self.t, self.begin, self.end = no, kind, t, begin, end
        self.pid, self.tid, self.nr, self.a, self.ret, self.name = pid, tid, nr, a, ret, name
        self.inside: list[Event] = []  # of a system call: the MMAP and FORK rows it made
        self.call: Event | None = None  # of an MMAP or FORK row: the call it is inside


@dataclass(slots=True)
class Chunk:
    """A piece of the recording. Event i comes after the first `before[i]` faults."""

    rows: int
    last_t: int  # of anything but samples
    t: list[int]
    pid: list[int]
    address: list[int]
    how: list[int]
    events: list[Event]
    before: list[int]
    faults: Rows  # the faults' rows, with what a replay does not ask for: threads, begins and ends

    def until(self, t: int) -> Chunk:
        """What there is of it up to a time."""
        n = bisect_right(self.t, t)
        events = [e for e in self.events if e.t <= t]
        lists = (self.t[:n], self.pid[:n], self.address[:n], self.how[:n], events, self.before[: len(events)])
        return Chunk(n + len(events), min(self.last_t, t), *lists, self.faults[:n])


def chunks(
    recording: Recording, look: Callable[[Rows], None] | None = None, all_served: bool = False
) -> Iterator[Chunk]:
    """The recording in time order; `look` sees each batch of rows first.

    `all_served`: completions of faults were not recorded, so that none has one. Raises TablewalkError for bad rows.
    """
    pairing = _Pairing()
    held: Chunk | None = None
    first = 1
    for rows in recording.batches():
        if look:
            look(rows)
        chunk = _chunk(rows, first, all_served)
        first += len(rows)
        pairing.add(chunk.events)
        if held:
            yield held
        held = chunk
    if held:
        yield held


def _chunk(rows: Rows, first: int, all_served: bool) -> Chunk:
    is_fault = rows.kind == Kind.FAULT
    a1 = rows.a[1][is_fault]
    how = (a1 >> np.uint64(1) & np.uint64(1)).astype(np.int8)
    how[rows.a[2][is_fault] != 0] = How.UNKNOWN
    failed = (rows.nr[is_fault] < 0) & (not all_served)
    how[failed] = np.where(a1[failed] & np.uint64(4), How.FAILED, How.FAILED_IN_KERNEL)
    no_sample = rows.kind != Kind.SAMPLE
    other = np.flatnonzero(~is_fault & no_sample)
    names = [*rows.names.table, None]
    columns = (rows.kind, rows.t, rows.begin, rows.end, rows.pid, rows.tid, rows.nr)
    events = list(
        map(
            Event,
            (other + first).tolist(),
            *(column[other].tolist() for column in columns),
            map(tuple, rows.a[:, other].T.tolist()),
            rows.ret[other].tolist(),
            map(names.__getitem__, rows.name[other].tolist()),
        )
    )
    before = np.cumsum(is_fault)[other].tolist()
    return Chunk(
        len(rows),
        int(rows.t[no_sample].max(initial=0)),
        rows.t[is_fault].tolist(),
        rows.pid[is_fault].tolist(),
        rows.a[0][is_fault].tolist(),
        how.tolist(),
        events,
        before,
        rows[is_fault],
    )


class _Pairing:
    """Finds, thread by thread, the call that a mapping or a fork happened in."""

    def __init__(self) -> None:
        self._call: dict[int, Event] = {}  # the last call of each thread
        self._waiting: dict[int, list[Event]] = {}  # what happened since, in no known call

    def add(self, events: list[Event]) -> None:
        for e in events:
            if e.kind == Kind.SYSCALL:
                self._enter(e)
            elif e.kind in (Kind.MMAP, Kind.FORK):
                call = self._call.get(e.tid)
                if call and call.begin <= e.t <= call.end:
                    call.inside.append(e)
                    e.call = call
                else:
                    self._waiting.setdefault(e.tid, []).append(e)
            elif e.kind == Kind.EXIT:
                self._call.pop(e.tid, None)
                self._waiting.pop(e.tid, None)

    def _enter(self, call: Event) -> None:
        waiting = self._waiting.pop(call.tid, ())
        if call.nr in EXECS:  # what an exec maps is the engine's to tell apart
            return
        self._call[call.tid] = call
        for e in waiting:
            if call.begin <= e.t <= call.end:
                call.inside.append(e)
                e.call = call
