# SPDX-License-Identifier: GPL-2.0-only
"""Raw events from the text that perf script prints of a perf.data, which is in the order of time:

    perf script --ns -F pid,tid,time,event,addr,trace --show-mmap-events --show-task-events

The text lacks the flags of mappings other than shared and private, and says nothing of the clock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from tablewalk.errors import TablewalkError
from tablewalk.record import events
from tablewalk.record.events import Raw
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Kind, Names, Rows

_LINE = re.compile(
    rb"\s*(-?\d{1,10})/(-?\d{1,10})\s+(\d{1,9})\.(\d{9}):\s+"
    rb"([\w-]+(?::[a-z_]\w+)?)(?::[ukhHGpPSDWe]+)?(?::\s+|(?=[ (]))(.*)"
)
_MMAP2 = re.compile(
    rb" ?(-?\d{1,10})/(-?\d{1,10}): \[0x([0-9a-f]{1,16})\(0x([0-9a-f]{1,16})\) @ (?:0x)?([0-9a-f]{1,16})"
    rb" (?:([0-9a-f]{2,3}):([0-9a-f]{2,5}) (\d{1,19}) \d+|<[0-9a-f]*>)\]: ([r-])([w-])([x-])([sp]) (.*)"
)
_TASK = re.compile(rb"\((-?\d{1,10}):(-?\d{1,10})\):\((-?\d{1,10}):(-?\d{1,10})\)")
_COMM = re.compile(rb"( exec: )?(.*):(-?\d{1,10})/(-?\d{1,10})")
_ADDRESS = re.compile(rb"([0-9a-f]{1,16})\b.*")
_FAULT = re.compile(rb"address=(?:0x([0-9a-f]{1,16})|\S+) .*error_code=0x([0-9a-f]{1,16})\b.*")
_ENTER = re.compile(rb"NR (-?\d{1,18}) \(" + rb", ".join([rb"([0-9a-f]{1,16})"] * 6) + rb"\).*")
_EXIT = re.compile(rb"NR (-?\d{1,18}) = (-?\d{1,18})\b.*")
_LOCKED = re.compile(rb".*\bwrite=(true|false) success=(true|false)\b.*")
_FLAGS = re.compile(rb"pid=.* clone_flags=(?:0x)?([0-9a-f]{1,16}) oom_score_adj=.*")
_LOST = re.compile(rb" lost (\d{1,18})")
_BATCH = 50_000  # lines
_SHARED, _PRIVATE = 1, 2  # MAP_SHARED, MAP_PRIVATE


class PerfScript:
    """The text of perf script, open for reading. An error is a TablewalkError that names file and line."""

    has_newtask = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.names = Names()
        self.attached = False
        self._seen: set[str] = set()
        self._without_device = False
        try:
            with open(self.path, "rb") as f:
                # What perf itself tells of running processes has no time, and stands first.
                for line in f:
                    m = _LINE.match(line)
                    if not m or int(m[3]) or int(m[4]):
                        break
                    self.attached |= m[5] == b"PERF_RECORD_MMAP2" and int(m[1]) > 0
        except OSError as e:
            raise TablewalkError(f"{self.path}: {e.strerror}") from None

    def describe(self, meta: Meta) -> None:
        """Fill in what the text tells, once it was read: events, what is missing."""
        meta.events = [e for e in events.EVENTS if e in self._seen]
        # No line need mean no more than that nothing waited for a disk.
        meta.missing += events.missing_events(self._seen | {events.FAULTS_MAJOR})
        meta.missing.append("flags of mappings other than shared and private, losses and clock: the text lacks them")
        if self._without_device:
            meta.missing.append("device and inode of files (perf record --no-buildid-mmap): names stand for files")

    def batches(self) -> Iterator[Rows]:
        """Raw events in batches, each sorted by time and none before the one that precedes it."""
        number, last = 0, 0
        with open(self.path, "rb") as f:
            while lines := list(islice(f, _BATCH)):
                rows = self._parse(lines, number)
                number += len(lines)
                if len(rows):
                    if (np.diff(rows.t, prepend=last) < 0).any():
                        raise TablewalkError(f"{self.path}: its lines up to {number} are not in the order of time")
                    last = int(rows.t[-1])
                    yield rows

    def _parse(self, lines: list[bytes], before: int) -> Rows:
        kinds: list[int] = []
        numbers: list[tuple[int, int, int, int, int, int]] = []  # t, pid, tid, nr, ret, name
        args: list[tuple[int, ...]] = []
        for i, line in enumerate(lines, before + 1):
            m = _LINE.fullmatch(line.rstrip(b"\n"))
            if not m:
                if line.strip():
                    raise TablewalkError(
                        f"{self.path}: line {i} is none of perf script with the options in docs/recording.md"
                    )
                continue
            if event := self._event(m[5].decode(), m[6], int(m[1]), int(m[2]), i):
                kind, pid, tid, nr, ret, name, a = event
                kinds.append(kind)
                numbers.append((int(m[3]) * 10**9 + int(m[4]), pid, tid, nr, ret, name))
                args.append(a + (0,) * (6 - len(a)))
        rows = Rows.zeros(len(kinds), self.names)
        if kinds:
            rows.kind[:] = kinds
            for column, values in zip(
                (rows.t, rows.pid, rows.tid, rows.nr, rows.ret, rows.name), zip(*numbers, strict=True), strict=True
            ):
                column[:] = values
            rows.a[:] = np.array(args, np.uint64).T
        return rows

    def _event(
        self, event: str, rest: bytes, pid: int, tid: int, line: int
    ) -> tuple[int, int, int, int, int, int, tuple[int, ...]] | None:
        """kind, pid, tid, nr, ret, name, arguments of a line; None for one that a recording does not keep."""

        def fields(pattern: re.Pattern[bytes]) -> re.Match[bytes]:
            m = pattern.fullmatch(rest)
            if not m:
                raise TablewalkError(f"{self.path}: line {line}: {event} cannot be understood")
            return m

        self._seen.add(event)
        match event:
            case events.FAULTS_MINOR | events.FAULTS_MAJOR:
                address = int(fields(_ADDRESS)[1], 16)
                return Raw.FAULT_DONE, pid, tid, int(event == events.FAULTS_MAJOR), 0, -1, (address,)
            case events.FAULT_USER | events.FAULT_KERNEL:
                m = fields(_FAULT)
                if m[1] is None:  # a symbol: an address of the kernel's
                    return None
                return Raw.FAULT_ENTRY, pid, tid, 0, 0, -1, (int(m[1], 16), int(m[2], 16))
            case events.SYS_ENTER:
                m = fields(_ENTER)
                return Raw.SYS_ENTER, pid, tid, _number(m[1]), 0, -1, tuple(int(m[i], 16) for i in range(2, 8))
            case events.SYS_EXIT:
                m = fields(_EXIT)
                return Raw.SYS_EXIT, pid, tid, _number(m[1]), int(m[2]), -1, ()
            case events.MMAP_LOCK:
                taken = fields(_LOCKED).groups() == (b"true", b"true")
                return (Raw.LOCKED, pid, tid, 0, 0, -1, ()) if taken else None
            case events.NEWTASK:
                return Raw.NEWTASK, pid, tid, 0, 0, -1, (0, 0, int(fields(_FLAGS)[1], 16))
            case "PERF_RECORD_MMAP2":
                return self._mmap2(fields(_MMAP2))
            case "PERF_RECORD_COMM":
                m = fields(_COMM)
                return Kind.COMM, int(m[3]), int(m[4]), int(m[1] is not None), 0, self.names.index(m[2]), ()
            case "PERF_RECORD_FORK":
                m = fields(_TASK)
                child = (int(m[1]), int(m[2]))
                if min(child) < 0:
                    return None
                return Kind.FORK, int(m[3]), int(m[4]), 0, 0, -1, child
            case "PERF_RECORD_EXIT":
                m = fields(_TASK)
                return Kind.EXIT, int(m[1]), int(m[2]), 0, 0, -1, ()
            case "PERF_RECORD_LOST":
                return Kind.LOST, 0, 0, 0, 0, -1, (int(fields(_LOST)[1]),)
        return None

    def _mmap2(self, m: re.Match[bytes]) -> tuple[int, int, int, int, int, int, tuple[int, ...]]:
        start, length, pgoff = (int(m[i], 16) for i in (3, 4, 5))
        device, inode = 0, 0
        if m[6] is None:
            self._without_device = True
        else:
            device, inode = int(m[6], 16) << 20 | int(m[7], 16), int(m[8])
        prot = (m[9] != b"-") | (m[10] != b"-") << 1 | (m[11] != b"-") << 2
        flags = _SHARED if m[12] == b"s" else _PRIVATE
        name = self.names.index(m[13])
        return Kind.MMAP, int(m[1]), int(m[2]), device, 0, name, (start, length, pgoff >> 12, prot, flags, inode)


def _number(text: bytes) -> int:
    """A system call's number; -1 for what is none."""
    return n if 0 <= (n := int(text)) < 1 << 16 else -1
