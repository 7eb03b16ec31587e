# SPDX-License-Identifier: GPL-2.0-only
"""The model's VmPTE against the recorded samples.

A sample is what one read of /proc/PID/status said, somewhere between its begin and end. *Strictly* it agrees if
the model has that value at some instant of the read. A call or fault in flight during the read has its effect
somewhere between its own begin and end, in the model at one instant: so its effect may be there or not, whole or
in part. During an execve the address space is built piece by piece: any value up to the largest agrees.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tablewalk.record.recording import Kind, Rows, Sample
from tablewalk.replay.results import Check, Disagreement, SamplePoint
from tablewalk.replay.spaces import Process

FIRST_SHOWN = 5


class InFlight:
    """The calls and faults during which some sample was read, by pid; `look` is shown all rows, in order."""

    def __init__(self, samples: list[Sample]) -> None:
        self._begins = np.array([s.begin for s in samples], np.int64)
        self._ends = np.maximum.accumulate(np.array([s.end for s in samples], np.int64))
        self.by_pid: dict[int, list[tuple[int, int, int]]] = {}  # (begin, end, effect)

    def look(self, rows: Rows) -> None:
        if not len(self._begins):
            return
        calls = (rows.kind == Kind.FAULT) | (rows.kind == Kind.SYSCALL)
        # The first sample that ends at or after the call's begin must begin by its end.
        i = np.searchsorted(self._ends, rows.begin, "left")
        reaches = self._begins[np.minimum(i, len(self._begins) - 1)] <= rows.end
        hit = np.flatnonzero(calls & (i < len(self._begins)) & reaches)
        for pid, begin, end, t in zip(
            rows.pid[hit].tolist(), rows.begin[hit].tolist(), rows.end[hit].tolist(), rows.t[hit].tolist(),
            strict=True,
        ):  # fmt: skip
            self.by_pid.setdefault(pid, []).append((begin, end, t))


class Lives:
    """Which process had a pid at a time."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._by_pid: dict[int, list[Process]] = {}
        for process in processes:
            self._by_pid.setdefault(process.pid, []).append(process)

    def at(self, pid: int, t: int) -> Process | None:
        of_pid = self._by_pid.get(pid, [])
        i = bisect_right(of_pid, t, key=lambda p: p.start) - 1
        if i < 0:
            return None
        process = of_pid[i]
        return process if process.spaces and (process.end is None or t < process.end) else None


@dataclass(slots=True)
class _Verdict:
    strict_error: int  # 0: agrees
    error: int
    nearest: int


class Comparison:
    """The samples of one process against its history."""

    def __init__(self, process: Process, in_flight: InFlight | None) -> None:
        self._process = process
        self.times, self.kbs = process.history()
        self._calls = _calls_of(process, in_flight) if in_flight else []
        self._ends = array("q", sorted(end for _, end, _ in self._calls))
        self._longest = max((end - begin for begin, end, _ in self._calls), default=0)
        self._begins = [begin for begin, _, _ in self._calls]
        self._transients = {
            t: span for _, space, _ in process.spaces for t, span in space.transients.items()
        }

    def value(self, t: int) -> int:
        """The model's VmPTE at `t`, kB."""
        return self.kbs[max(bisect_right(self.times, t) - 1, 0)]

    def check(self, samples: list[Sample]) -> Check:
        """Compare the samples that lie within what the model knows of the process."""
        result = Check()
        for s in samples:
            verdict = self._compare(s)
            result.compared += 1
            result.error_kb += abs(verdict.strict_error)
            result.disagreements_strict += verdict.strict_error != 0
            result.max_error_strict_kb = max(result.max_error_strict_kb, abs(verdict.strict_error))
            if verdict.error:
                result.disagreements += 1
                result.max_error_kb = max(result.max_error_kb, abs(verdict.error))
                if len(result.first) < FIRST_SHOWN:
                    result.first.append(Disagreement(s.begin, s.vmpte, verdict.nearest))
        return result

    def points(self, samples: list[Sample], n: int) -> list[SamplePoint]:
        """`n` samples that tell most: the exact ones or all, evenly, with the first, the highest and the last."""
        chosen = [s for s in samples if s.exact] or samples
        if len(chosen) > n:
            top = max(range(len(chosen)), key=lambda i: chosen[i].vmpte)
            picked = {round(i * (len(chosen) - 1) / (n - 2)) for i in range(n - 1)} | {top}
            chosen = [chosen[i] for i in sorted(picked)]
        return [SamplePoint(s.begin, s.vmpte, self.value(s.begin), s.exact) for s in chosen]

    def _compare(self, s: Sample) -> _Verdict:
        first = max(bisect_right(self.times, s.begin) - 1, 0)
        values = self.kbs[first : max(bisect_right(self.times, s.end), first + 1)]
        nearest = min(values, key=lambda v: abs(v - s.vmpte))
        strict = s.vmpte - nearest
        if strict == 0:
            return _Verdict(0, 0, nearest)
        low, high = self._allowed(s, min(values), max(values))
        error = s.vmpte - low if s.vmpte < low else max(s.vmpte - high, 0)
        return _Verdict(strict, error, nearest)

    def _allowed(self, s: Sample, low: int, high: int) -> tuple[int, int]:
        """The lowest and highest value that the calls in flight during the read can explain."""
        for begin, end in self._process.execs:
            if begin <= s.end and s.begin <= end:
                first = max(bisect_left(self.times, begin) - 1, 0)
                return 0, max(high, *self.kbs[first : bisect_right(self.times, end)])
        i = bisect_left(self._begins, s.begin - self._longest)
        j = bisect_right(self._begins, s.end)
        floor, ceiling = low, high
        for _, end, t in self._calls[i:j]:
            if end < s.begin:
                continue
            before, after, lowest, highest = self._effect(t)
            # Not yet done in reality though done in the model, or the other way round.
            base = after if t <= s.begin else before
            floor += min(lowest - base, 0)
            ceiling += max(highest - base, 0)
        return max(floor, 0), ceiling

    def _effect(self, t: int) -> tuple[int, int, int, int]:
        """VmPTE before and after what happened at `t` in the model, and the extremes between."""
        i = bisect_left(self.times, t)
        before = self.kbs[i - 1] if i else self.kbs[0]
        after = self.value(t)
        lowest, highest = self._transients.get(t, (before, before))
        return before, after, min(before, after, lowest), max(before, after, highest)


def _calls_of(process: Process, in_flight: InFlight) -> list[tuple[int, int, int]]:
    """The calls of every process that used the address spaces of this one, and others' that reached into them."""
    pids = {process.pid, *(pid for _, space, _ in process.spaces for pid in space.pids)}
    foreign = [call for _, space, _ in process.spaces for call in space.foreign]
    return sorted([call for pid in pids for call in in_flight.by_pid.get(pid, ())] + foreign)
