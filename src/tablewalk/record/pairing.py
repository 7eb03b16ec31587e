# SPDX-License-Identifier: GPL-2.0-only
"""Raw events to rows of a recording: entries find their returns.

Everything is paired within a thread, where events follow each other as the program ran: a fault's entry and
the event of its completion, a system call's entry and exit with the first mmap_lock taken between them, a
PERF_RECORD_FORK and the task_newtask with its flags. What is still open at the end of a batch is carried
into the next.
"""

from __future__ import annotations

import numpy as np

from tablewalk.record.events import EXECS, SYSCALLS, Raw
from tablewalk.record.rows import NEVER_RETURNED, Array, Index, Kind, Names, Rows

_CLONES = (56, 57, 58, 435)
_TASK_SIZE_32 = 1 << 32


class Pairing:
    """Feed it batches of raw events in the order of time; `settled` says up to where its rows are final.

    `has_newtask`: task_newtask was recorded, so a FORK waits for it. `late`: recording began in a running
    process, so that what perf found there (events with the time 0) counts as having happened at its start.
    """

    def __init__(self, names: Names, *, has_newtask: bool = True, late: bool = False) -> None:
        self.settled = 0  # ns: all rows still to come have at least this time
        self._without_entry = 0  # returns of calls whose arguments nobody saw
        self._without_process = 0  # events that the kernel could not attribute any more
        self._compat = set[int]()  # processes that ran a 32-bit program
        self._first_seen: dict[int, int] = {}  # pid: ns of the fork or exec with which it appears
        self._has_newtask, self._late = has_newtask, late
        self._carry = Rows.zeros(0, names)
        self._last = 0

    def add(self, raw: Rows) -> Rows:
        """The rows that this batch completes, in no particular order."""
        raw = self._useful(raw)
        if len(raw):
            self._last = int(raw.t[-1])
        return self._pair(Rows.concat([self._carry, raw]), final=False)

    def finish(self) -> Rows:
        """The rows of what never returned."""
        return self._pair(self._carry, final=True)

    def has_seen(self, pid: int, t: int) -> bool:
        """Whether a process had appeared at `t` ns (all of them have, in a recording that began late)."""
        return self._late or self._first_seen.get(pid, t + 1) <= t

    def missing(self) -> list[str]:
        """Sentences on what could not be paired."""
        out = []
        if self._without_entry:
            out.append(f"{self._without_entry} returns of system calls whose arguments were not recorded")
        if self._without_process:
            out.append(f"{self._without_process} events that the kernel could not attribute to a process")
        if self._compat:
            pids = ", ".join(map(str, sorted(self._compat)[:10]))
            out.append(f"{len(self._compat)} processes ran 32-bit programs, whose system calls are misread: {pids}")
        return out

    def _useful(self, raw: Rows) -> Rows:
        """Without what a recording does not keep: other calls, kernel addresses, what has no process."""
        k = raw.kind
        nobody = ((raw.pid <= 0) | (raw.tid <= 0)) & (k != Kind.LOST)
        made = raw.t == 0
        self._without_process += int((nobody & ~made).sum())
        keep = ~nobody
        calls = (k == Raw.SYS_ENTER) | (k == Raw.SYS_EXIT)
        keep &= ~calls | np.isin(raw.nr, np.array(list(SYSCALLS), np.int32))
        faults = (k == Raw.FAULT_ENTRY) | (k == Raw.FAULT_DONE)
        keep &= ~faults | (raw.a[0] < np.uint64(1 << 63))
        if not self._late:
            keep &= ~made
        elif made.any() and not made.all():
            raw.t[made] = raw.t[~made][0]
        raw = raw[keep]
        raw.begin[:] = raw.end[:] = raw.t
        return raw

    def _pair(self, raw: Rows, *, final: bool) -> Rows:
        order = np.argsort(raw.tid, kind="stable")
        s = raw[order]
        out = raw[order]
        carried = np.zeros(len(s), bool)
        _faults(s, out, carried, final)
        self._calls(s, out, carried, final)
        self._forks(s, out, carried, final)
        back = np.argsort(order)
        carried = carried[back]
        self._carry = raw[carried]
        out = out[back][(~carried & (out.kind[back] < Raw.FAULT_ENTRY))]
        holds = np.isin(self._carry.kind, (Raw.FAULT_ENTRY, Raw.LOCKED, Kind.FORK))
        self.settled = int(self._carry.t[holds].min(initial=self._last))
        self._note(out)
        return out

    def _calls(self, s: Rows, out: Rows, carried: Array, final: bool) -> None:
        """System calls: SYS_EXIT becomes the row, or SYS_ENTER where none follows."""
        at, following = _sequence(s, (Raw.SYS_ENTER, Raw.SYS_EXIT, Kind.EXIT))
        entered = s.kind[at] == Raw.SYS_ENTER
        follows = following >= 0
        next_at = np.where(follows, following, 0)
        returned = follows & entered & (s.kind[next_at] == Raw.SYS_EXIT) & (s.nr[next_at] == s.nr[at])
        open_end = entered & ~follows & (not final)
        never = entered & ~returned & ~open_end

        locks = np.flatnonzero(s.kind == Raw.LOCKED)
        first_lock = np.append(locks, len(s))[np.searchsorted(locks, at)]
        end_of_thread = np.searchsorted(s.tid, s.tid[at], "right")
        locked = first_lock < np.where(follows, following, end_of_thread)
        carried[at[open_end]] = True
        carried[first_lock[open_end & locked]] = True

        enter, exit = at[returned], following[returned]
        out.kind[exit] = Kind.SYSCALL
        out.begin[exit] = s.t[enter]
        out.a[:, exit] = s.a[:, enter]
        early = locked[returned] & ~np.isin(s.nr[enter], EXECS)
        out.t[exit[early]] = s.t[first_lock[returned][early]]

        enter = at[never]
        out.kind[enter], out.ret[enter] = Kind.SYSCALL, NEVER_RETURNED
        out.end[enter] = np.where(follows[never], s.t[next_at[never]], self._last)
        out.t[enter] = out.end[enter]
        early = locked[never] & ~np.isin(s.nr[enter], EXECS)
        out.t[enter[early]] = s.t[first_lock[never][early]]

        alone = np.setdiff1d(np.flatnonzero(s.kind == Raw.SYS_EXIT), following[returned])
        # The first exec of a program that perf starts has no entry: recording begins in it.
        execs = np.isin(s.nr[alone], EXECS)
        out.kind[alone[execs]] = Kind.SYSCALL
        child = np.isin(s.nr[alone], _CLONES) & (s.ret[alone] == 0)
        self._without_entry += int((~execs & ~child).sum())

    def _forks(self, s: Rows, out: Rows, carried: Array, final: bool) -> None:
        """A FORK gets the flags of the NEWTASK that its thread says next."""
        if not self._has_newtask:
            return
        at, following = _sequence(s, (Kind.FORK, Raw.NEWTASK))
        fork = s.kind[at] == Kind.FORK
        told = fork & (following >= 0)
        told[told] = s.kind[following[told]] == Raw.NEWTASK
        out.a[2, at[told]] = s.a[2, following[told]]
        out.a[3, at[told]] = 1
        carried[at[fork & (following < 0) & (not final)]] = True

    def _note(self, out: Rows) -> None:
        appears = np.flatnonzero((out.kind == Kind.FORK) | ((out.kind == Kind.COMM) & (out.nr == 1)))
        for i in appears.tolist():
            pid = int(out.a[0, i] if out.kind[i] == Kind.FORK else out.pid[i])
            self._first_seen.setdefault(pid, int(out.t[i]))
        for i in np.flatnonzero((out.kind == Kind.MMAP) & (out.a[0] + out.a[1] <= _TASK_SIZE_32)).tolist():
            if out.names.table[out.name[i]] == "[stack]":
                self._compat.add(int(out.pid[i]))


def _faults(s: Rows, out: Rows, carried: Array, final: bool) -> None:
    """Page faults: FAULT_DONE becomes the row, or FAULT_ENTRY where the fault was not served."""
    at, following = _sequence(s, (Raw.FAULT_ENTRY, Raw.FAULT_DONE, Raw.SYS_ENTER, Raw.SYS_EXIT, Kind.EXIT))
    entered = s.kind[at] == Raw.FAULT_ENTRY
    follows = following >= 0
    next_at = np.where(follows, following, 0)
    page = s.a[0] >> np.uint64(12)
    served = entered & follows & (s.kind[next_at] == Raw.FAULT_DONE) & (page[next_at] == page[at])
    open_end = entered & ~follows & (not final)
    carried[at[open_end]] = True

    done = s.kind == Raw.FAULT_DONE
    out.kind[done] = Kind.FAULT
    out.a[2, done] = 1
    entry, exit = at[served], following[served]
    out.begin[exit] = s.t[entry]
    out.a[0, exit], out.a[1, exit], out.a[2, exit] = s.a[0, entry], s.a[1, entry], 0

    unserved = at[entered & ~served & ~open_end]
    out.kind[unserved], out.nr[unserved] = Kind.FAULT, -1


def _sequence(s: Rows, kinds: tuple[int, ...]) -> tuple[Index, Index]:
    """Where events of these kinds stand among events sorted by thread, and their successors there, or -1."""
    at = np.flatnonzero(np.isin(s.kind, kinds))
    following = np.append(at[1:], -1)[: len(at)]
    following[s.tid[following] != s.tid[at]] = -1
    if len(at):
        following[-1] = -1
    return at, following
