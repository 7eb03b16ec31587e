# SPDX-License-Identifier: GPL-2.0-only
"""System calls by strace, for where perf may count page faults but not trace system calls.

strace's clock is CLOCK_REALTIME, so the difference to CLOCK_MONOTONIC is kept with its output; a step of the
clock meanwhile would show as calls at the wrong time.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tablewalk.errors import TablewalkError
from tablewalk.record import events
from tablewalk.record.events import SYSCALLS, Raw
from tablewalk.record.perf_data import PerfData
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Kind, Row, Rows, by_time

_LINE = re.compile(
    rb"(\d{1,7}) +(\d{1,10})\.(\d{9}) (?:<\.\.\. )?(\w+)(?:\((.*?)(\)| <unfinished \.\.\.>)| resumed>(.*?)\))"
    rb"(?: += (?:(-?(?:0x)?[0-9a-f]+)(?: (E\w+) .*?)?|\?)(?: <(\d+)\.(\d+)>)?)?"
)
_OTHER = re.compile(rb"\d+ +[\d.]+ (?:\+\+\+|---) ")  # exits and signals
_NUMBER = {name.encode(): nr for nr, name in SYSCALLS.items()}
_HEADER = re.compile(rb"# (-?\d{1,19})\n")


def command(strace: str, output: Path) -> list[str]:
    """strace up to the program; it appends to `output`, which must begin with `header()`."""
    calls = ",".join(f"?{name}" for name in SYSCALLS.values())
    clock = "--absolute-timestamps=format:unix,precision:ns"
    quiet = ["--quiet=all", "-e", "signal=none", "-e", "raw=all"]
    return [strace, "-f", "-A", "--syscall-times=ns", *quiet, clock, "-e", f"trace={calls}", "-o", str(output), "--"]


def header() -> bytes:
    """The first line of the output: CLOCK_REALTIME less CLOCK_MONOTONIC, ns."""
    tries = []
    for _ in range(100):
        before = time.monotonic_ns()
        now = time.time_ns()
        after = time.monotonic_ns()
        tries.append((after - before, now - (before + after) // 2))
    return b"# %d\n" % min(tries)[1]


class WithStrace:
    """perf's events of a program that runs under strace, and strace's system calls; strace itself left out."""

    has_newtask = False

    def __init__(self, perf: PerfData, output: Path) -> None:
        self._perf, self._output = perf, output
        self.names = perf.names
        self.path = perf.path
        self.attached = perf.attached
        self._pid_of: dict[int, int] = {}

    def describe(self, meta: Meta) -> None:
        """As PerfData.describe; system calls are there."""
        self._perf.describe(meta)
        meta.events.append("strace")
        told = tuple(events.EVENTS[e] for e in (events.SYS_ENTER, events.SYS_EXIT))
        meta.missing = [m for m in meta.missing if not m.endswith(told)]

    def batches(self) -> Iterator[Rows]:
        """Raw events in batches, each sorted by time and none before the one that precedes it."""
        calls = self._read()
        tracer = 0
        for rows in self._perf.batches():
            if not tracer and (execs := rows.pid[(rows.kind == Kind.COMM) & (rows.nr == 1)]).size:
                tracer = int(execs[0])
            rows = rows[(rows.pid != tracer) | (rows.kind == Kind.FORK)]
            if len(rows):
                n = int(np.searchsorted(calls.t, rows.t[-1], "right"))
                yield self._placed(by_time([calls[:n], rows]))
                calls = calls[n:]
        if len(calls):
            yield self._placed(calls)

    def _placed(self, rows: Rows) -> Rows:
        """strace tells threads; the processes they are of are known from perf."""
        for i in np.flatnonzero(rows.kind == Kind.FORK).tolist():
            self._pid_of[int(rows.a[1, i])] = int(rows.a[0, i])
        calls = np.flatnonzero((rows.kind == Raw.SYS_ENTER) | (rows.kind == Raw.SYS_EXIT))
        rows.pid[calls] = [self._pid_of.get(t, t) for t in rows.tid[calls].tolist()]
        return rows

    def _read(self) -> Rows:
        try:
            text = self._output.read_bytes()
        except OSError as e:
            raise TablewalkError(f"{self._output}: {e.strerror}") from None
        head = _HEADER.match(text)
        if not head:
            raise TablewalkError(f"{self._output}: its first line does not tell the clock's difference")
        offset = int(head[1])
        whole = text[head.end() : text.rfind(b"\n") + 1]
        found: list[Row] = []
        for number, line in enumerate(whole.splitlines(), 2):
            m = _LINE.fullmatch(line.rstrip())
            if m and m[4] in _NUMBER:
                found += _rows(m, offset)
            elif not m and line.strip() and not _OTHER.match(line):
                raise TablewalkError(f"{self._output}: line {number} is none of strace's")
        return by_time([Rows.of(found, self.names)])


def _rows(m: re.Match[bytes], offset: int) -> Iterator[Row]:
    """The raw events of a line: entry and exit, or one of them for a call that others came between."""
    tid, nr = int(m[1]), _NUMBER[m[4]]
    t = int(m[2]) * 10**9 + int(m[3]) - offset
    if m[5] is not None:
        arguments = tuple(int(a, 16) for a in m[5].split(b", ") if a)[:6]
        yield Row(Raw.SYS_ENTER, t, t, t, tid, tid, nr, arguments)
        t += int(m[10] or 0) * 10**9 + int((m[11] or b"0").ljust(9, b"0")[:9])
    if m[8] is not None:
        ret = -getattr(errno, m[9].decode(), errno.EINVAL) if m[9] else int(m[8], 0)
        yield Row(Raw.SYS_EXIT, t, t, t, tid, tid, nr, (), ret)
