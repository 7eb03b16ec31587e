# SPDX-License-Identifier: GPL-2.0-only
"""Chrome's trace format (JSON), which ui.perfetto.dev opens: tracks of slices, arrows between them, counters."""

from __future__ import annotations

import json
from typing import Any, Final

NS: Final = 0.001  # times are microseconds; nothing finer is shown


class Trace:
    """Events by process and track (`pid`, `tid`), at times in microseconds."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._flows = 0

    def text(self) -> str:
        """The file."""
        return json.dumps({"traceEvents": self.events, "displayTimeUnit": "ns"}, separators=(",", ":")) + "\n"

    def process(self, pid: int, name: str) -> None:
        """Name a group of tracks; they are shown in the order of their numbers."""
        self._about(pid, 0, "process_name", name=name)
        self._about(pid, 0, "process_sort_index", sort_index=pid)

    def track(self, pid: int, tid: int, name: str) -> None:
        """Name a track."""
        self._about(pid, tid, "thread_name", name=name)
        self._about(pid, tid, "thread_sort_index", sort_index=tid)

    def _about(self, pid: int, tid: int, what: str, **args: object) -> None:
        self.events.append({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args})

    def slice(self, pid: int, tid: int, name: str, begin: float, end: float, **args: object) -> None:
        """Something that lasts.  Those of one track nest."""
        self.events.append({"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": begin,
                            "dur": round(end - begin, 3), "args": args})  # fmt: skip

    def instant(self, pid: int, tid: int, name: str, at: float) -> None:
        """Something that takes no time."""
        self.events.append({"ph": "i", "s": "t", "name": name, "pid": pid, "tid": tid, "ts": at})

    def held(self, pid: int, tid: int, track: str, name: str, begin: float, end: float) -> None:
        """Something that lasts and need not nest in what else the track has."""
        for ph, ts in (("b", begin), ("e", end)):
            self.events.append({"ph": ph, "cat": track, "id": f"{tid}/{name}", "name": name, "pid": pid, "tid": tid,
                                "ts": ts})  # fmt: skip

    def flow(self, name: str, pid: int, from_: tuple[int, float], to: tuple[int, float]) -> None:
        """An arrow from the slice that a track (`tid`) has at a time to another's."""
        self._flows += 1
        for ph, (tid, ts) in (("s", from_), ("f", to)):
            self.events.append({"ph": ph, "cat": "flow", "id": self._flows, "name": name, "pid": pid, "tid": tid,
                                "ts": ts, "bp": "e"})  # fmt: skip

    def counter(self, pid: int, name: str, at: float, **values: float) -> None:
        """A number that is so from a time on."""
        self.events.append({"ph": "C", "name": name, "pid": pid, "ts": at, "args": values})
