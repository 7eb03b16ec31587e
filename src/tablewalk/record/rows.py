# SPDX-License-Identifier: GPL-2.0-only
"""Rows of a recording: the columns, their meaning and limits, and batches of them as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tablewalk.errors import TablewalkError

Index = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

UNKNOWN = 2**64 - 1
"""A SAMPLE's a1..a4 (VmRSS and its parts) where only VmPTE was read."""

NEVER_RETURNED = -(2**31)
"""`ret` of a system call that was entered and never left (exit_group, killed, recording ended)."""

PID_MAX_LIMIT = 4 << 20  # include/linux/threads.h
NAME_MAX_BYTES = 4 * 4096  # PATH_MAX, every byte escaped


class Kind(IntEnum):
    """What a row tells; docs/recording.md has the columns of each."""

    FAULT = 1
    SYSCALL = 2
    MMAP = 3
    COMM = 4
    FORK = 5
    EXIT = 6
    SAMPLE = 7
    LOST = 8


class Row(NamedTuple):
    """One row, for writing a few by hand; times are ns, `name` is text already (see `text_of`)."""

    kind: int
    t: int
    begin: int
    end: int
    pid: int
    tid: int
    nr: int = 0
    a: Sequence[int] = ()
    ret: int = 0
    name: str | None = None


class Names:
    """Interns names: a row holds an index, -1 for none."""

    def __init__(self) -> None:
        self.table: list[str] = []
        self._index: dict[bytes, int] = {}

    def index(self, raw: bytes) -> int:
        """The index of the name with these bytes."""
        i = self._index.get(raw)
        if i is None:
            i = self._index[raw] = len(self.table)
            self.table.append(text_of(raw))
        return i


def text_of(raw: bytes) -> str:
    """A name's bytes as text: UTF-8; a byte that is none as `\\xNN`, a backslash as `\\\\`. Invertible."""
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


COLUMNS: dict[str, npt.DTypeLike] = {
    "kind": np.int8,
    "t": np.int64,
    "begin": np.int64,
    "end": np.int64,
    "pid": np.int32,
    "tid": np.int32,
    "nr": np.int32,
    "ret": np.int64,
    "name": np.int32,
}
"""The one-dimensional arrays of `Rows` and their types; `a` is beside them, six uint64 by row."""


@dataclass
class Rows:
    """A batch of rows as numpy arrays; `a` has the shape (6, n), `name` holds indices of `names`."""

    kind: Array
    t: Index
    begin: Index
    end: Index
    pid: Array
    tid: Array
    nr: Array
    ret: Index
    name: Array
    a: npt.NDArray[np.uint64]
    names: Names = field(default_factory=Names)

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def zeros(cls, n: int, names: Names | None = None) -> Rows:
        """`n` rows of zeros without names."""
        columns = {c: np.zeros(n, dtype) for c, dtype in COLUMNS.items()}
        columns["name"] -= 1
        return cls(**columns, a=np.zeros((6, n), np.uint64), names=names or Names())

    @classmethod
    def of(cls, rows: Iterable[Row], names: Names | None = None) -> Rows:
        """These rows as a batch."""
        rows = list(rows)
        out = cls.zeros(len(rows), names)
        for i, r in enumerate(rows):
            out.kind[i], out.t[i], out.begin[i], out.end[i] = r.kind, r.t, r.begin, r.end
            out.pid[i], out.tid[i], out.nr[i], out.ret[i] = r.pid, r.tid, r.nr, r.ret
            out.a[: len(r.a), i] = [x & UNKNOWN for x in r.a]
            if r.name is not None:
                out.name[i] = len(out.names.table)
                out.names.table.append(r.name)
        return out

    def __getitem__(self, which: slice | Array) -> Rows:
        """The rows that a slice, a mask or an array of indices picks."""
        return Rows(**{c: getattr(self, c)[which] for c in COLUMNS}, a=self.a[:, which], names=self.names)

    def renamed(self, names: Names) -> Rows:
        """The rows with their names in another table, to which these are added."""
        used = np.unique(self.name[self.name >= 0])
        base = len(names.table)
        names.table += [self.names.table[i] for i in used.tolist()]
        index = np.where(self.name < 0, -1, base + np.searchsorted(used, self.name)).astype(np.int32)
        return replace(self, name=index, names=names)

    @classmethod
    def concat(cls, batches: Sequence[Rows]) -> Rows:
        """One batch of several that share their names."""
        if len(batches) == 1:
            return batches[0]
        if not batches:
            return cls.zeros(0)
        columns = {c: np.concatenate([getattr(b, c) for b in batches]) for c in COLUMNS}
        return cls(**columns, a=np.concatenate([b.a for b in batches], axis=1), names=batches[0].names)


def by_time(batches: Sequence[Rows]) -> Rows:
    """One batch of several, sorted by time; rows of the same time stay in their order."""
    rows = Rows.concat(batches)
    return rows if (rows.t[1:] >= rows.t[:-1]).all() else rows[np.argsort(rows.t, kind="stable")]


def check_rows(rows: Rows, after: int = 0) -> int:
    """Refuse what no kernel can have said: returns the last row's time, for the next call's `after`.

    Raises TablewalkError that names the first bad row's time and what is wrong with it.
    """
    if not len(rows):
        return after
    k, t, a, nr = rows.kind, rows.t, rows.a, rows.nr
    kind = {each: k == each for each in Kind}
    before = np.concatenate([[after], t[:-1]])
    span = kind[Kind.MMAP]
    pids = kind[Kind.FORK]
    checks = {
        "a kind that is not known": ~np.isin(k, np.array(list(Kind), np.int8)),
        "a time before its predecessor's": t < before,
        "a negative time": rows.begin < 0,
        "an effect outside its begin and end": (rows.begin > t) | (t > rows.end),
        "a pid or tid out of range": ~(_pid_ok(rows.pid) & _pid_ok(rows.tid)) & ~kind[Kind.LOST],
        "a child's pid or tid out of range": pids & ~(_pid_ok(a[0]) & _pid_ok(a[1])),
        "a fault that is neither minor, major nor unfinished": kind[Kind.FAULT] & (abs(nr) > 1),
        "a negative system call number": kind[Kind.SYSCALL] & (nr < 0),
        "a mapping of no length or past the end of memory": span & ((a[1] == 0) | (a[0] > -a[1])),
        "a mapping that is not of whole pages": span & (((a[0] | a[1]) & np.uint64(4095)) != 0),
        "a mapping with unknown protection bits": span & (a[3] > 7),
        "a mapping or comm without a name": (span | kind[Kind.COMM]) & (rows.name < 0),
        "a table size past all memory": kind[Kind.SAMPLE] & (a[0] >= np.uint64(1 << 54)),
        "more events lost than can be": kind[Kind.LOST] & (a[0] >= np.uint64(1 << 63)),
    }
    for what, bad in checks.items():
        if bad.any():
            i = int(bad.argmax())
            raise TablewalkError(f"the event at {int(t[i])} ns (kind {int(k[i])}, pid {int(rows.pid[i])}) has {what}")
    return int(t[-1])


def _pid_ok(pid: Array) -> npt.NDArray[np.bool_]:
    return (pid > 0) & (pid <= PID_MAX_LIMIT)
