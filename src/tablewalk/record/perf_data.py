# SPDX-License-Identifier: GPL-2.0-only
"""The records of a perf.data file as raw events in the order of time.

Records of every CPU stand in the file in the order in which perf emptied the buffers. A FINISHED_ROUND
record says that all buffers were emptied once: what is older than the newest record before the *previous*
such mark can have no older record after it (tools/perf/util/ordered-events.c).

Read a chunk at a time; within a chunk only the walk from record to record is a Python loop, the rest is
numpy over all records of an event. The layouts are those of include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tablewalk.errors import TablewalkError
from tablewalk.record import events, perf_header
from tablewalk.record.events import TRACEPOINT_FIELDS, Raw
from tablewalk.record.perf_header import ADDR, IDENTIFIER, RAW, TID, TIME, Attr, Format
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Array, Index, Kind, Names, Rows, by_time

# enum perf_event_type and enum perf_user_event_type
_LOST, _COMM, _EXIT, _THROTTLE, _FORK, _SAMPLE, _MMAP2, _LOST_SAMPLES = 2, 3, 4, 5, 7, 9, 10, 13
_FINISHED_ROUND, _AUXTRACE, _COMPRESSED, _COMPRESSED2 = 68, 71, 81, 83
_MISC_COMM_EXEC, _MISC_MMAP_BUILD_ID, _MISC_LOST_SAMPLES_BPF = 1 << 13, 1 << 14, 1 << 15

_CHUNK = 8 << 20  # bytes read at a time; more takes memory and wins no time
_HELD_MAX = 6_000_000  # events held back for order; perf's rounds are far smaller


def _struct(size: int, **fields: tuple[str, int]) -> np.dtype[Any]:
    """A dtype of `size` bytes with fields as (format, offset)."""
    return np.dtype(
        {
            "names": list(fields),
            "formats": [f for f, _ in fields.values()],
            "offsets": [o for _, o in fields.values()],
            "itemsize": size,
        }
    )


_TASK = _struct(32, pid=("<i4", 8), ppid=("<i4", 12), tid=("<i4", 16), ptid=("<i4", 20))
_COMM_HEAD = _struct(16, misc=("<u2", 4), pid=("<i4", 8), tid=("<i4", 12))
_LOST_HEAD = _struct(24, lost=("<u8", 16))
_LOST_SAMPLES_HEAD = _struct(16, misc=("<u2", 4), lost=("<u8", 8))
_SAMPLE_HEAD = _struct(16, id=("<u8", 8))
_MMAP2_HEAD = _struct(
    72,
    misc=("<u2", 4), pid=("<i4", 8), tid=("<i4", 12), addr=("<u8", 16), len=("<u8", 24), pgoff=("<u8", 32),
    major=("<u4", 40), minor=("<u4", 44), inode=("<u8", 48), prot=("<u4", 64), flags=("<u4", 68),
)  # fmt: skip
_HEADS = {_MMAP2: _MMAP2_HEAD, _COMM: _COMM_HEAD, _FORK: _TASK, _EXIT: _TASK, _LOST: _LOST_HEAD}
_KINDS = {_MMAP2: Kind.MMAP, _COMM: Kind.COMM, _FORK: Kind.FORK, _EXIT: Kind.EXIT, _LOST: Kind.LOST}


@dataclass
class _Chunk:
    """Part of the file as words of eight bytes, and its records: where they begin, their types and sizes."""

    path: Path
    base: int  # the byte of the file at which the chunk begins
    words: Array
    pos: Index
    types: Index
    sizes: Index

    def damaged(self, pos: Index, bad: Array, what: str) -> None:
        """Raise TablewalkError if any of these records is bad."""
        if bad.any():
            raise TablewalkError(f"{self.path}: damaged at byte {self.base + 8 * int(pos[bad.argmax()])}: {what}")

    def gather(self, which: Index, dtype: np.dtype[Any]) -> Array:
        """These records as a structured array, as far as `dtype` goes."""
        pos, n = self.pos[which], dtype.itemsize // 8
        self.damaged(pos, self.sizes[which] < n, "the record there is too short for its event")
        block: Array = self.words[pos[:, None] + np.arange(n)].view(dtype)[:, 0]
        return block


class PerfData:
    """A perf.data file that is open for reading. An error is a TablewalkError, one line that names the file.

    `formats` are tracepoint formats by id, needed only where perf was killed (it writes them last).
    """

    def __init__(self, path: str | os.PathLike[str], formats: dict[int, Format] | None = None) -> None:
        self.path = Path(path)
        self.names = Names()
        self._lost_samples = 0  # by perf's own count; the same events as in LOST records
        self._throttled = 0
        self._build_ids = False  # mappings carry build ids in the place of device and inode
        try:
            size = os.stat(self.path).st_size
            self._file: IO[bytes] = open(self.path, "rb")  # noqa: SIM115 - closed when all is read
            self.header = header = perf_header.read_header(self._file, size, formats)
        except OSError as e:
            raise TablewalkError(f"{self.path}: {e.strerror}") from None
        except TablewalkError as e:
            raise TablewalkError(f"{self.path}: {e}") from None
        self._complete = header.complete
        if header.arch not in ("", "x86_64"):
            raise TablewalkError(f"{self.path}: recorded on {header.arch}; only recordings of x86_64 can be read")
        self._readers = [_reader_of(self.path, a) for a in header.attrs]
        if not any(self._readers):
            raise TablewalkError(f"{self.path}: has none of the events of a recording: see docs/recording.md")
        if not all(a.sample_type & IDENTIFIER and a.sample_type & TIME for a in header.attrs):
            raise TablewalkError(f"{self.path}: its records don't say their event and time: see docs/recording.md")
        ids = sorted((id, i) for i, a in enumerate(header.attrs) for id in a.ids)
        self._ids = np.array([id for id, _ in ids], np.uint64)
        self._attr_of_id = np.array([i for _, i in ids], np.int64)
        self._trailer = np.array([a.words_of_sample_id for a in header.attrs], np.int64)
        self._time_from_end = np.array([a.words_from_time for a in header.attrs], np.int64)

    @property
    def attached(self) -> bool:
        """Recording began in a running process, not with the exec of a program."""
        return not any(a.from_exec for a in self.header.attrs if a.name in events.EVENTS)  # a dummy may say so

    @property
    def has_newtask(self) -> bool:
        return any(a.name == events.NEWTASK for a in self.header.attrs)

    def describe(self, meta: Meta) -> None:
        """Fill in what the file tells, once its batches were read: events, losses, what is missing."""
        attrs = {a.name: a for a in self.header.attrs}
        meta.events = [name for name in events.EVENTS if name in attrs]
        meta.missing += events.missing_events(set(attrs))
        meta.lost = self._lost_samples
        if not self._complete:
            meta.complete, meta.exit_status = False, None
        if not self.header.monotonic:
            meta.clock = "perf"
            meta.missing.append("times are not CLOCK_MONOTONIC's (perf record -k): samples cannot be joined")
        if any(attrs[name].user_only for name in meta.events):
            meta.missing.append("faults in kernel mode, such as read() into fresh memory: some tables appear too late")
        if not any(a.data_mappings for a in attrs.values()):
            meta.missing.append("mappings that are not executable (perf record -d): most tables cannot be placed")
        if self._throttled:
            meta.missing.append(f"the kernel throttled events {self._throttled} times: some are not recorded")
        if self._build_ids:
            meta.missing.append("device and inode of files (perf record --no-buildid-mmap): names stand for files")
        filtered = {int(n) for arg in self.header.cmdline for n in re.findall(r"\bid ?== ?(\d{1,4})\b", arg)}
        if filtered and (left_out := sorted(set(events.SYSCALLS) - filtered)):
            meta.missing.append(f"system calls {', '.join(events.SYSCALLS[n] for n in left_out)}: not in perf's filter")

    def batches(self) -> Iterator[Rows]:
        """Raw events in batches, each sorted by time and none before the one that precedes it."""
        held: list[Rows] = []
        newest = settled = 0
        for rows, rounds in self._chunks():
            held.append(rows)
            seen = np.maximum.accumulate(np.concatenate([[newest], rows.t]))
            limit = settled
            for n in rounds:  # how many of the chunk's rows stood before each mark
                limit, settled = settled, int(seen[n])
            newest = int(seen[-1])
            if rounds:
                batch = by_time(held)
                n = int(np.searchsorted(batch.t, limit, "right"))
                held = [batch[n:]]
                if n:
                    yield batch[:n]
            if sum(map(len, held)) > _HELD_MAX:
                raise TablewalkError(f"{self.path}: has no FINISHED_ROUND records, without which there is no order")
        if any(map(len, held)):
            yield by_time(held)

    def _chunks(self) -> Iterator[tuple[Rows, list[int]]]:
        """The raw events of each chunk in file order, and at which of them the marks of rounds stand."""
        at, end = self.header.data
        rest = b""
        with self._file:
            self._file.seek(at)
            while content := self._file.read(min(_CHUNK, end - at - len(rest))):
                content = rest + content
                chunk, used = self._records(content, at)
                yield self._decode(chunk)
                rest = content[used:]
                at += used
        if at < end:
            if self.header.complete:
                raise TablewalkError(f"{self.path}: damaged or truncated at byte {at}: a record does not fit there")
            self._complete = False

    def _records(self, content: bytes, base: int) -> tuple[_Chunk, int]:
        """The whole records of what stands at byte `base`, and how many bytes they take."""
        words = np.frombuffer(content, "<u8", len(content) // 8)
        step = (words >> np.uint64(51)).astype(np.uint16)
        steps, n, p = memoryview(step.data), len(words), 0
        found: list[int] = []
        while p < n:
            found.append(p)
            p += steps[p] or n
        pos = np.array(found, np.int64)
        types = (words[pos] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        sizes = (words[pos] >> np.uint64(48)).astype(np.int64)
        chunk = _Chunk(self.path, base, words, pos, types, sizes // 8)
        chunk.damaged(pos, (sizes < 8) | (sizes % 8 != 0), "no record has such a size")
        if p > n:
            p = found[-1]
            chunk.pos, chunk.types, chunk.sizes = pos[:-1], types[:-1], chunk.sizes[:-1]
        return chunk, p * 8

    def _decode(self, chunk: _Chunk) -> tuple[Rows, list[int]]:
        rows = Rows.zeros(len(chunk.pos), self.names)
        for type in np.unique(chunk.types).tolist():
            which = np.flatnonzero(chunk.types == type)
            if type == _SAMPLE:
                self._samples(chunk, which, rows)
            elif type in _HEADS:
                self._side_band(type, chunk, which, rows)
            elif type == _LOST_SAMPLES:
                block = chunk.gather(which, _LOST_SAMPLES_HEAD)
                self._lost_samples += sum(block["lost"][block["misc"] & _MISC_LOST_SAMPLES_BPF == 0].tolist())
            elif type == _THROTTLE:
                self._throttled += len(which)
            elif type in (_COMPRESSED, _COMPRESSED2, _AUXTRACE):
                what = "with hardware traces" if type == _AUXTRACE else "compressed (-z)"
                raise TablewalkError(f"{self.path}: recorded {what}, which is not supported; record without")
        chunk.damaged(chunk.pos, rows.t < 0, "a time past the end of time")
        kept = rows.kind != 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return rows[kept], before[:-1][chunk.types == _FINISHED_ROUND].tolist()

    def _samples(self, chunk: _Chunk, which: Index, rows: Rows) -> None:
        attr = self._attr(chunk, chunk.pos[which], chunk.gather(which, _SAMPLE_HEAD)["id"])
        for i in np.unique(attr).tolist():
            if (reader := self._readers[i]) is not None:
                mine = which[attr == i]
                reader.read(chunk.gather(mine, reader.dtype), mine, rows)

    def _side_band(self, type: int, chunk: _Chunk, which: Index, rows: Rows) -> None:
        """Records that are no samples: their time stands in the struct sample_id at their end."""
        head = _HEADS[type]
        block = chunk.gather(which, head)
        end = chunk.pos[which] + chunk.sizes[which]
        last = chunk.words[end - 1]
        made = last == 0  # by perf itself, of what was there before: it has no time
        attr = np.zeros(len(which), np.int64)
        attr[~made] = self._attr(chunk, chunk.pos[which][~made], last[~made])
        rest, rest_end = chunk.pos[which] + head.itemsize // 8, end - self._trailer[attr]
        chunk.damaged(chunk.pos[which], rest > rest_end, "the record there is too short for its event")
        rows.t[which] = np.where(made, 0, chunk.words[end - self._time_from_end[attr]].view(np.int64))
        rows.kind[which] = _KINDS[type]
        if type == _LOST:
            rows.a[0, which] = block["lost"]
        elif type == _FORK:
            rows.pid[which], rows.tid[which] = block["ppid"], block["ptid"]
            rows.a[0, which], rows.a[1, which] = block["pid"], block["tid"]
        else:
            rows.pid[which], rows.tid[which] = block["pid"], block["tid"]
        if type in (_COMM, _MMAP2):
            text = chunk.words.data.cast("B")
            spans = zip((8 * rest).tolist(), (8 * rest_end).tolist(), strict=True)
            rows.name[which] = [self.names.index(bytes(text[lo:hi]).split(b"\0", 1)[0]) for lo, hi in spans]
        if type == _COMM:
            rows.nr[which] = (block["misc"] & _MISC_COMM_EXEC) != 0
        elif type == _MMAP2:
            self._mmap2(block, which, rows)

    def _mmap2(self, block: Array, which: Index, rows: Rows) -> None:
        no_device = (block["misc"] & _MISC_MMAP_BUILD_ID) != 0
        self._build_ids |= bool(no_device.any())
        rows.nr[which] = np.where(no_device, 0, (block["major"] << np.uint32(20)) | block["minor"])
        inode = np.where(no_device, 0, block["inode"])
        pgoff = block["pgoff"] >> np.uint64(12)
        columns = (block["addr"], block["len"], pgoff, block["prot"], block["flags"], inode)
        for i, column in enumerate(columns):
            rows.a[i, which] = column

    def _attr(self, chunk: _Chunk, pos: Index, ids: Array) -> Index:
        """The indices of the attributes with these ids; `pos` are the records that bear them."""
        found = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        chunk.damaged(pos, self._ids[found] != ids, "a record of an event that the file doesn't have")
        return self._attr_of_id[found]


class _Reader:
    """Reads the samples of one event into rows."""

    def __init__(self, attr: Attr, kind: int, extra: dict[str, tuple[str, int]]) -> None:
        tid, time = attr.offset_of(TID), attr.offset_of(TIME)
        assert tid is not None and time is not None
        fields = {"pid": ("<i4", tid), "tid": ("<i4", tid + 4), "time": ("<u8", time), **extra}
        size = max(np.dtype(f).itemsize + o for f, o in fields.values())
        self.dtype = _struct(-(-size // 8) * 8, **fields)
        self.name, self.kind = attr.name, kind

    def read(self, block: Array, which: Index, rows: Rows) -> None:
        rows.t[which], rows.pid[which], rows.tid[which] = block["time"], block["pid"], block["tid"]
        rows.kind[which] = self.kind
        match self.name:
            case events.FAULTS_MINOR | events.FAULTS_MAJOR:
                rows.a[0, which] = block["addr"]
                rows.nr[which] = self.name == events.FAULTS_MAJOR
            case events.FAULT_USER | events.FAULT_KERNEL:
                rows.a[0, which], rows.a[1, which] = block["address"], block["error_code"]
            case events.SYS_ENTER:
                rows.nr[which] = _number(block["id"])
                rows.a[:, which] = block["args"].T
            case events.SYS_EXIT:
                rows.nr[which], rows.ret[which] = _number(block["id"]), block["ret"]
            case events.MMAP_LOCK:
                rows.kind[which] = np.where((block["write"] == 1) & (block["success"] == 1), self.kind, 0)
            case events.NEWTASK:
                rows.a[2, which] = block["clone_flags"]


def _number(id: Array) -> Array:
    """System call numbers; -1 for what is none."""
    return np.where((id >= 0) & (id < 1 << 16), id, -1)


_KIND_OF = {
    events.FAULTS_MINOR: Raw.FAULT_DONE,
    events.FAULTS_MAJOR: Raw.FAULT_DONE,
    events.FAULT_USER: Raw.FAULT_ENTRY,
    events.FAULT_KERNEL: Raw.FAULT_ENTRY,
    events.SYS_ENTER: Raw.SYS_ENTER,
    events.SYS_EXIT: Raw.SYS_EXIT,
    events.MMAP_LOCK: Raw.LOCKED,
    events.NEWTASK: Raw.NEWTASK,
}
_FORMATS = {1: "u1", 4: "<u4", 8: "<u8"}


def _reader_of(path: Path, attr: Attr) -> _Reader | None:
    """The reader of an event's samples; None for an event that a recording does not use."""
    if attr.name not in _KIND_OF:
        return None
    if not attr.every:
        raise TablewalkError(f"{path}: only a sample of {attr.name} was recorded: record with -c 1")
    fields = TRACEPOINT_FIELDS.get(attr.name, {})
    needed = (TID, TIME, RAW if fields else ADDR)
    at = attr.offset_of(needed[-1])
    if at is None or any(attr.offset_of(bit) is None for bit in needed):
        raise TablewalkError(f"{path}: {attr.name} lacks its address or data: record with -d, and without -g")
    extra = {} if fields else {"addr": ("<u8", at)}
    for name, sizes in fields.items():
        field = attr.format.fields.get(name) if attr.format else None
        if field is None or field.size not in sizes:
            raise TablewalkError(f"{path}: {attr.name} has no field {name} of {sizes[0]} bytes: too old a kernel")
        extra[name] = ("(6,)<u8" if name == "args" else _FORMATS[field.size], at + 4 + field.offset)
    for name in ("id", "ret"):
        if name in extra:
            extra[name] = ("<i8", extra[name][1])
    return _Reader(attr, _KIND_OF[attr.name], extra)
