# SPDX-License-Identifier: GPL-2.0-only
"""Reads VmPTE and RSS of a process and all its descendants at an interval, on perf's clock.

A program of its own (`python sampler.py FILE INTERVAL_NS ROOT...`), so that it disturbs the recorded
processes little and is none of them. It imports nothing of Tablewalk. Lines of FILE, see record/samples.py:

    begin_ns end_ns pid VmPTE VmRSS RssAnon RssFile RssShmem        (kB)

A descendant is a process whose chain of parents leads to a ROOT: to a living one, or to one seen before.
A ROOT of the form -PID counts as an ancestor but is not read itself. It ends when its standard input does.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import select
import signal
import sys
import time

_STATUS = re.compile(
    rb"VmRSS:\s*(\d+) kB\nRssAnon:\s*(\d+) kB\nRssFile:\s*(\d+) kB\nRssShmem:\s*(\d+) kB\n"
    rb"(?:.*\n)*?VmPTE:\s*(\d+) kB"
)
_DUTY = 4  # of its own time it sleeps at least this many times as much: at most a fifth of a CPU


class Sampler:
    """The processes that are read; an open status file stays with its process when its pid is reused."""

    def __init__(self, roots: list[int]) -> None:
        self._family = {abs(r) for r in roots}
        self._hidden = {-r for r in roots if r < 0} | {os.getpid()}
        self._files: dict[int, int] = {}
        self._strangers: set[int] = set()

    def tick(self) -> bytes:
        """One reading of every process, as lines."""
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._strangers &= pids
        for pid in self._files.keys() - pids:
            self._forget(pid)
        for pid in sorted(pids - self._files.keys() - self._strangers - self._hidden):
            self._meet(pid)
        return b"".join(filter(None, map(self._read, list(self._files))))

    def _meet(self, pid: int) -> None:
        """Open a new process that belongs to the family; remember one that doesn't."""
        try:
            parent, chain = pid, []
            while parent > 1 and parent not in self._family and parent not in self._strangers:
                chain.append(parent)
                with open(f"/proc/{parent}/stat", "rb") as f:
                    parent = int(f.read().rpartition(b")")[2].split()[1])
            if parent in self._family:
                self._family.update(chain)
                self._files[pid] = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
            else:
                self._strangers.update(chain)
        except OSError:
            pass  # it is gone already, or it may not be read

    def _forget(self, pid: int) -> None:
        os.close(self._files.pop(pid))
        self._family.discard(pid)

    def _read(self, pid: int) -> bytes | None:
        begin = time.monotonic_ns()
        try:
            status = os.pread(self._files[pid], 8192, 0)
        except OSError:  # ESRCH: it died, and another process may get its pid before the next tick
            self._forget(pid)
            return None
        end = time.monotonic_ns()
        m = _STATUS.search(status)  # a zombie has no memory, and no such lines
        return b"%d %d %d %b %b %b %b %b\n" % (begin, end, pid, m[5], m[1], m[2], m[3], m[4]) if m else None


def main(path: str, interval: int, roots: list[int]) -> None:
    """Append to `path` every `interval` ns until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the recording first, which ends the input
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sampler = Sampler(roots)
    pause = 0.0
    while not select.select([0], [], [], pause)[0]:
        begin = time.monotonic_ns()
        lines = sampler.tick()
        if lines and os.write(out, lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        work = time.monotonic_ns() - begin
        pause = max(interval - work, _DUTY * work) / 1e9


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), [int(a) for a in sys.argv[3:]])
    except OSError as e:
        sys.exit(f"{sys.argv[1]}: {e.strerror}")
