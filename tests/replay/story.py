# SPDX-License-Identifier: GPL-2.0-only
"""Recordings made by hand: a program's story, event by event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tablewalk.record.recording import Meta, Row, Rows, Writer
from tablewalk.record.rows import UNKNOWN, Kind

STACK = 0x7FFC00000000
HEAP = 0x555555600000
ANON = 0x7F0000000000  # its own PUD page: the first touch costs 12 kB
TABLE = 1 << 21  # what a PTE table maps
PMD = 1 << 30
PRIVATE, SHARED, FIXED, ANONYMOUS, LOCKED, POPULATE = 2, 1, 0x10, 0x20, 0x2000, 0x8000
EXECUTED_KB = 12  # the stack's PTE, PMD and PUD page


class Story:
    """Rows of a recording in the order of their effects. Every event is 100 ns after the one before it."""

    def __init__(self, pid: int = 100) -> None:
        self.rows: list[Row] = []
        self.pid = self.tid = pid
        self.t = 1000
        self.meta = Meta(
            command=["prog"], source="record", kernel="6.18.1-test", machine="x86_64", levels=4,
            thp={"enabled": "madvise", "shmem_enabled": "never"}, events=["minor-faults", "raw_syscalls:sys_enter"],
        )  # fmt: skip

    def row(
        self, kind: Kind, nr: int = 0, a: Sequence[int] = (), ret: int = 0, name: str | None = None, spread: int = 0
    ) -> Row:
        """Any row; `spread`: begin and end lie so far from the effect, in ns."""
        self.t += 100
        row = Row(kind, self.t, self.t - spread, self.t + spread, self.pid, self.tid, nr, tuple(a), ret, name)
        self.rows.append(row)
        return row

    def exec(self, name: str = "prog") -> None:
        self.row(Kind.COMM, 1, name=name)
        self.row(Kind.MMAP, 0, (STACK, 0x21000, 0x7FFFFFFDE, 3, 2, 0), name="[stack]")
        self.row(Kind.SYSCALL, 59)

    def call(self, nr: int, *args: int, ret: int = 0, inside: Sequence[Row] = ()) -> None:
        """A system call, with rows that happen inside it (built by `mapping`)."""
        begin = self.t + 50
        row, at = self.row(Kind.SYSCALL, nr, args, ret), len(self.rows) - 1
        for other in inside:
            self.t += 10
            self.rows.append(other._replace(t=self.t, begin=self.t, end=self.t, pid=self.pid, tid=self.tid))
        self.rows[at] = row._replace(begin=begin, end=self.t + 10)

    def mapping(
        self, start: int, length: int, *, prot: int = 3, shared: bool = False, pgoff: int = 0,
        file: tuple[int, int, str] = (0, 0, "//anon"), flags: int = 0,
    ) -> Row:  # fmt: skip
        device, inode, name = file
        a = (start, length, pgoff, prot, (1 if shared else 2) | flags, inode)
        return Row(Kind.MMAP, 0, 0, 0, self.pid, self.tid, device, a, 0, name)

    def mmap(
        self, start: int, length: int, *, prot: int = 3, flags: int = PRIVATE | ANONYMOUS, fd: int = -1, pgoff: int = 0,
        inside: Sequence[Row] = (),
    ) -> None:  # fmt: skip
        self.call(9, start, length, prot, flags, fd & UNKNOWN, pgoff << 12, ret=start, inside=inside)

    def munmap(self, start: int, length: int) -> None:
        self.call(11, start, length)

    def madvise(self, start: int, length: int, advice: int, ret: int = 0) -> None:
        self.call(28, start, length, advice, ret=ret)

    def fault(self, *addresses: int, write: bool = True, served: bool = True, user: bool = True) -> None:
        for address in addresses:
            error = 2 * write + 4 * user
            self.row(Kind.FAULT, 0 if served else -1, (address, error), spread=20)

    def touch(self, start: int, tables: int = 1, *, write: bool = True) -> None:
        """One fault in each of so many tables."""
        self.fault(*range(start, start + tables * TABLE, TABLE), write=write)

    def fork(self, child: int, *, flags: int = 0x1200011, tid: int | None = None, known: bool = True) -> None:
        self.row(Kind.FORK, -1, (child, tid or child, flags, int(known)))

    def exit(self) -> None:
        self.row(Kind.EXIT)

    def sample(self, vmpte: int, *, begin: int | None = None, end: int | None = None, exact: bool = False) -> None:
        """A reading now, or between two times."""
        self.t += 100
        begin = self.t if begin is None else begin
        end = self.t if end is None else end
        a = (vmpte, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, int(exact))
        self.rows.append(Row(Kind.SAMPLE, begin, begin, end, self.pid, self.pid, 0, a))

    def write(self, path: Path) -> Path:
        with Writer(path) as out:
            out.add(Rows.of(sorted(self.rows, key=lambda row: row.t)))
            out.finish(self.meta)
        return path
