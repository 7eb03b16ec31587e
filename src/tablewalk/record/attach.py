# SPDX-License-Identifier: GPL-2.0-only
"""The state of a running process at the moment from which on it is recorded.

Its threads are held by ptrace(2) (PTRACE_SEIZE, which no signal tells them of) while it is read, some
milliseconds. The state becomes rows at that time: a COMM, a FORK for each further thread, an MMAP for each
mapping, a FAULT for each populated page and one exact SAMPLE.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tablewalk import arch
from tablewalk.errors import TablewalkError
from tablewalk.inspect import pagemap, procfs
from tablewalk.record.rows import UNKNOWN, Index, Kind, Names, Row, Rows, text_of

_PTRACE_DETACH, _PTRACE_SEIZE, _PTRACE_INTERRUPT = 17, 0x4206, 0x4207  # include/uapi/linux/ptrace.h
_WALL = 0x40000000
_PTHREAD_FLAGS = 0x3D0F00  # what glibc's pthread_create passes to clone
_MAP_LOCKED, _MAP_HUGETLB = 0x2000, 0x40000
_PAGE, _TABLE = 1 << 12, 1 << 21  # bytes of a page, and mapped by a PTE table
_PAGES_MAX = 4_000_000
_NOTHING = np.zeros(0, np.int64)
_USER_WRITE, _USER_READ = 6, 4  # x86 error codes of a fault in user mode

UNKNOWABLE = [
    "memory policies, userfaultfd registrations and the break to the byte, as they were at the start",
    "which mappings had an anon_vma at the start: one is assumed where anonymous pages are",
    "children that the process had at the start: only those it makes later are recorded",
]

_MAPS = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])([ps]) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$", re.M
)


@dataclass
class State:
    """Rows of the start state, and what `Meta.attach` says of it."""

    rows: Rows
    attach: dict[str, Any]


def snapshot(pid: int, names: Names) -> State:
    """Read the state of a process while it stands still.

    Raises TablewalkError for one that cannot be read: not there, a kernel thread, another user's.
    """
    kernel = pagemap.probe(arch.Arch())
    with procfs.Process(pid) as process, _held(pid) as held:
        begin = time.monotonic_ns()
        memory = process.memory_kb()
        end = time.monotonic_ns()
        maps, vmas = process.read("maps"), process.vmas()
        fd = process.open("pagemap")
        try:
            contents = pagemap.look(fd, vmas, kernel, arch.Arch())
        except OSError as e:
            raise TablewalkError(f"process {pid}: {e.strerror} while it was looked at") from None
        finally:
            os.close(fd)
        stat = process.read("stat").rpartition(b")")[2].split()
        comm = process.read("comm").rstrip(b"\n")
        threads = _threads(pid)

    def row(kind: Kind, nr: int = 0, a: tuple[int, ...] = (), name: bytes | None = None) -> Row:
        text = None if name is None else text_of(name)
        return Row(kind, begin, begin, end if kind == Kind.SAMPLE else begin, pid, pid, nr, a, 0, text)

    rows = [row(Kind.COMM, name=comm)]
    rows += [row(Kind.FORK, -1, (pid, t, _PTHREAD_FLAGS, 1)) for t in threads if t != pid]
    flags_of = {vma.start: vma.flags for vma in vmas}  # has no [vsyscall], which is the kernel's
    for m in _MAPS.finditer(maps):
        if (flags := flags_of.get(int(m[1], 16))) is not None:
            rows.append(row(Kind.MMAP, *_mapping(m, flags)))
    sample = row(Kind.SAMPLE, 0, (memory["VmPTE"], memory["VmRSS"], UNKNOWN, UNKNOWN, UNKNOWN, int(held)))
    faults, whole = _faults(contents.entries, begin, pid, names)
    notes = list(UNKNOWABLE)
    if not held:
        notes.append("one instant: it could not be held still, and ran while its state was read")
    if not whole or not contents.complete:
        notes.append("all pages that were there at the start: too many, so one stands for each table")
    if contents.tables is None:
        notes.append("page tables that were empty at the start (shown by PAGEMAP_SCAN, Linux 6.7 and later)")
    attach = {
        "pid": pid,
        "time": begin,
        "held": held,
        "vmpte_kb": memory["VmPTE"],
        "brk": [int(stat[44]), max((v.end for v in vmas if v.name == "[heap]"), default=int(stat[44]))],
        "empty_tables": None if contents.tables is None else _empty_tables(contents.tables, contents.entries),
        "huge": [[s, e] for s, e, bits in contents.entries.tolist() if bits & pagemap.PAGE_IS_HUGE],
        "vmflags": [[v.start, v.end, " ".join(sorted(v.flags))] for v in vmas],
        "unknown": notes,
    }
    return State(Rows.concat([Rows.of(rows, names), faults, Rows.of([sample], names)]), attach)


def _mapping(m: re.Match[bytes], vma: frozenset[str]) -> tuple[int, tuple[int, ...], bytes]:
    """Device, a0..a5 and name of the MMAP row for a line of /proc/PID/maps with these VmFlags."""
    start, stop = int(m[1], 16), int(m[2], 16)
    prot = (m[3] == b"r") | (m[4] == b"w") << 1 | (m[5] == b"x") << 2
    flags = (1 if m[6] == b"s" else 2) | _MAP_LOCKED * ("lo" in vma) | _MAP_HUGETLB * ("ht" in vma)
    name = m[11] if m[11] and not m[11].startswith(b"[anon:") else b"//anon"  # as perf calls them
    a = (start, stop - start, int(m[7], 16) >> 12, prot, flags, int(m[10]))
    return int(m[8], 16) << 20 | int(m[9], 16), a, name


def _faults(entries: pagemap.Ranges, t: int, pid: int, names: Names) -> tuple[Rows, bool]:
    """A FAULT row for each page (one for a huge page), or for each table if they are too many; and which it is."""
    sizes = np.where(entries[:, 2] & pagemap.PAGE_IS_HUGE, _TABLE, _PAGE)
    whole = int(((entries[:, 1] - entries[:, 0]) // sizes).sum()) <= _PAGES_MAX
    starts = entries[:, 0] if whole else entries[:, 0] // _TABLE * _TABLE
    steps = sizes if whole else np.full(len(sizes), _TABLE)
    spans = [np.arange(s, e, step) for s, e, step in zip(starts, entries[:, 1], steps, strict=True)]
    addresses = np.maximum(np.concatenate([_NOTHING, *spans]), np.repeat(entries[:, 0], list(map(len, spans))))
    file = np.repeat(entries[:, 2] & pagemap.PAGE_IS_FILE, list(map(len, spans))) != 0
    rows = Rows.zeros(len(addresses), names)
    rows.kind[:], rows.pid[:], rows.tid[:] = Kind.FAULT, pid, pid
    rows.t[:] = rows.begin[:] = rows.end[:] = t
    rows.a[0], rows.a[1] = addresses, np.where(file, _USER_READ, _USER_WRITE)
    return rows, whole


def _empty_tables(tables: pagemap.Ranges, entries: pagemap.Ranges) -> list[list[int]]:
    """What PTE tables that hold nothing map, as [begin, end] in multiples of 2 MiB."""
    empty = np.setdiff1d(_blocks(tables), _blocks(entries))
    first = empty[np.diff(empty, prepend=-2) > 1]
    last = empty[np.diff(empty, append=-1) != 1]
    out: list[list[int]] = (np.stack([first, last + 1], axis=1) * _TABLE).tolist()
    return out


def _blocks(ranges: pagemap.Ranges) -> Index:
    """The numbers of the 2 MiB of address space that the ranges touch."""
    spans = [np.arange(s // _TABLE, (e - 1) // _TABLE + 1) for s, e, _ in ranges.tolist()]
    return np.unique(np.concatenate([_NOTHING, *spans]))


@contextlib.contextmanager
def _held(pid: int) -> Iterator[bool]:
    """The threads of a process stand still inside; yields whether all of them do."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    held: set[int] = set()
    try:
        while fresh := set(_threads(pid)) - held:  # a running one may make another meanwhile
            held |= {t for t in fresh if _stop(ptrace, t)}
            if fresh - held:
                break
        yield not fresh - held
    finally:
        for thread in held:
            ptrace(_PTRACE_DETACH, thread, None, None)


def _stop(ptrace: Any, thread: int) -> bool:
    if ptrace(_PTRACE_SEIZE, thread, None, None) < 0:
        return False
    ptrace(_PTRACE_INTERRUPT, thread, None, None)
    try:
        _, status = os.waitpid(thread, _WALL)
    except ChildProcessError:
        return False
    return os.WIFSTOPPED(status)


def _threads(pid: int) -> list[int]:
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return []  # the process is gone, which its next file will say
