# SPDX-License-Identifier: GPL-2.0-only
"""The head of a perf.data file: attributes, features and tracepoint formats.

The layout is that of tools/perf/Documentation/perf.data-file-format.txt, perf_event_attr that of
include/uapi/linux/perf_event.h, the tracing data that of trace.dat version 5 and 6 (trace-cmd.dat(5)).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from tablewalk.errors import TablewalkError
from tablewalk.record.events import CLOCK_MONOTONIC

PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT = 1, 2
SOFTWARE = {2: "page-faults", 5: "minor-faults", 6: "major-faults", 9: "dummy"}  # enum perf_sw_ids

# enum perf_event_sample_format, in the order in which the fields stand in a sample.
IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD = (
    1 << 16, 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 9, 1 << 7, 1 << 8
)  # fmt: skip
READ, CALLCHAIN, RAW = 1 << 4, 1 << 5, 1 << 10

# Bits of perf_event_attr's flag word.
_EXCLUDE_KERNEL, _FREQ, _ENABLE_ON_EXEC = 1 << 5, 1 << 10, 1 << 12
_MMAP_DATA, _SAMPLE_ID_ALL, _USE_CLOCKID = 1 << 17, 1 << 18, 1 << 25

_TRACING_DATA, _OSRELEASE, _VERSION, _ARCH, _NRCPUS, _CMDLINE = 1, 4, 5, 6, 7, 11
_FEATURES_MAX = 256
_SECTION_MAX = 256 << 20  # bytes; tracing data, the largest, has a few megabytes
_ATTR_MIN = 96  # PERF_ATTR_SIZE_VER3: with clockid


class Field(NamedTuple):
    """Where a tracepoint's field stands in its raw data, in bytes."""

    offset: int
    size: int


@dataclass
class Format:
    """A tracepoint: name as system:event, id, fields."""

    name: str
    id: int
    fields: dict[str, Field]


@dataclass
class Attr:
    """One event of the file: name as perf writes it, and what its records carry."""

    name: str
    sample_type: int
    flags: int
    period: int
    clockid: int | None
    ids: tuple[int, ...]
    format: Format | None = None

    @property
    def every(self) -> bool:
        """Whether every occurrence was recorded, not a sample of them."""
        return not self.flags & _FREQ and self.period == 1

    @property
    def user_only(self) -> bool:
        return bool(self.flags & _EXCLUDE_KERNEL)

    @property
    def from_exec(self) -> bool:
        """Recording began with the exec of a program that perf started."""
        return bool(self.flags & _ENABLE_ON_EXEC)

    @property
    def data_mappings(self) -> bool:
        return bool(self.flags & _MMAP_DATA)

    def offset_of(self, bit: int) -> int | None:
        """Bytes from a sample's begin to this field; None if it has none, or none at a fixed place."""
        at = 8  # struct perf_event_header
        for each in (IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD, READ, CALLCHAIN, RAW):
            if each == bit:
                return at if self.sample_type & bit else None
            if self.sample_type & each:
                if each in (READ, CALLCHAIN):
                    return None
                at += 8
        return None

    @property
    def words_from_time(self) -> int:
        """From the time to the end of a record that is no sample (struct sample_id), in words of 8 bytes."""
        return sum(bool(self.sample_type & b) for b in (TIME, ID, STREAM_ID, CPU, IDENTIFIER))

    @property
    def words_of_sample_id(self) -> int:
        """The size of the struct sample_id at the end of a record that is no sample, in words of 8 bytes."""
        return self.words_from_time + bool(self.sample_type & TID)


@dataclass
class Header:
    """What a perf.data file says before and after its records."""

    attrs: list[Attr]
    data: tuple[int, int]  # begin and end of the records, bytes
    complete: bool  # False: perf was killed before it could say how much it wrote
    release: str = ""
    version: str = ""
    arch: str = ""
    cpus: int | None = None
    cmdline: list[str] = field(default_factory=list)
    page_size: int | None = None

    @property
    def monotonic(self) -> bool:
        return all(a.clockid == CLOCK_MONOTONIC for a in self.attrs)


class _Bytes:
    """Reads fields of bytes that stand at `base` of a file; what does not fit is a TablewalkError."""

    def __init__(self, raw: bytes, base: int) -> None:
        self._raw, self._base, self._at = raw, base, 0

    def take(self, n: int) -> bytes:
        if not 0 <= n <= len(self._raw) - self._at:
            raise TablewalkError(f"damaged at byte {self._base + self._at}: {n} bytes do not fit there")
        self._at += n
        return self._raw[self._at - n : self._at]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def line(self) -> str:
        """A string that a NUL ends."""
        end = self._raw.find(b"\0", self._at)
        return self.take((end if end >= 0 else len(self._raw)) - self._at + 1)[:-1].decode("utf-8", "replace")

    def text(self) -> str:
        """A perf_header_string: length, bytes, padding."""
        return self.take(self.u32()).split(b"\0")[0].decode("utf-8", "surrogateescape")


class _File:
    """A perf.data file of `size` bytes, read a section at a time."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self.size = file, size

    def section(self, offset: int, length: int) -> _Bytes:
        if offset + length > self.size or length > _SECTION_MAX:
            raise TablewalkError(
                f"damaged or truncated: {length} bytes should be at byte {offset}, the file has {self.size}"
            )
        self._file.seek(offset)
        return _Bytes(self._file.read(length), offset)


def read_header(file: IO[bytes], size: int, formats: dict[int, Format] | None = None) -> Header:
    """The header of a perf.data file of `size` bytes.

    `formats` are the tracepoint formats, by id, for a file that perf could not complete: it writes them last.
    Raises TablewalkError (without the file's name) for a file that is damaged, or that cannot be used.
    """
    source = _File(file, size)
    magic = source.section(0, min(size, 8)).take(min(size, 8))
    if magic == b"2ELIFREP":
        raise TablewalkError("a perf.data of a big-endian machine, which is not supported")
    if magic != b"PERFILE2":
        raise TablewalkError("not a perf.data file")
    head = source.section(8, 96)
    header_size, attr_size, attrs_at, attrs_size, data_at, data_size = (head.u64() for _ in range(6))
    if header_size < 104:
        raise TablewalkError("perf's pipe format is not supported: write a file with perf record -o")
    head.take(16)  # event types, of old
    bits = int.from_bytes(head.take(_FEATURES_MAX // 8), "little")
    complete = data_size > 0
    data_end = data_at + data_size if complete else size
    if not header_size <= data_at <= data_end <= size:
        raise TablewalkError(f"damaged or truncated: its records end at byte {data_end}, the file at {size}")

    header = Header([], (data_at, data_end), complete)
    if complete:
        formats = _read_features(header, source, bits) or formats
    if not _ATTR_MIN + 16 <= attr_size <= 4096 or attrs_size % attr_size:
        raise TablewalkError("damaged at byte 16: impossible size of its event attributes")
    entries = source.section(attrs_at, attrs_size)
    for _ in range(attrs_size // attr_size):
        raw = entries.take(attr_size - 16)
        ids_at, ids_size = entries.u64(), entries.u64()
        ids = source.section(ids_at, ids_size)
        header.attrs.append(_attr(raw, tuple(ids.u64() for _ in range(ids_size // 8)), formats or {}))
    return header


def _attr(raw: bytes, ids: tuple[int, ...], formats: dict[int, Format]) -> Attr:
    """One struct perf_event_attr."""
    kind, _, config, period, sample_type, _, flags = struct.unpack_from("<IIQQQQQ", raw)
    clockid = struct.unpack_from("<i", raw, 92)[0] if flags & _USE_CLOCKID else None
    if not flags & _SAMPLE_ID_ALL:
        raise TablewalkError("its records carry no times (no sample_id_all): recorded by too old a perf")
    format = formats.get(config) if kind == PERF_TYPE_TRACEPOINT else None
    name = format.name if format else f"event {kind}:{config:#x}"
    if kind == PERF_TYPE_SOFTWARE:
        name = SOFTWARE.get(config, name)
    elif kind == PERF_TYPE_TRACEPOINT and not format:
        raise TablewalkError(f"the format of tracepoint {config} is not in the file: it was cut short")
    return Attr(name, sample_type, flags, period, clockid, ids, format)


def _read_features(header: Header, source: _File, bits: int) -> dict[int, Format]:
    """Fill in what the features after the records tell; returns the tracepoint formats by id."""
    table = source.section(header.data[1], 16 * bits.bit_count())
    formats: dict[int, Format] = {}
    for bit in (b for b in range(_FEATURES_MAX) if bits >> b & 1):
        at, length = table.u64(), table.u64()
        if bit not in (_TRACING_DATA, _OSRELEASE, _VERSION, _ARCH, _NRCPUS, _CMDLINE):
            continue
        feature = source.section(at, length)
        if bit == _TRACING_DATA:
            header.page_size, formats = read_tracing_data(feature)
        elif bit == _OSRELEASE:
            header.release = feature.text()
        elif bit == _VERSION:
            header.version = feature.text()
        elif bit == _ARCH:
            header.arch = feature.text()
        elif bit == _NRCPUS:
            header.cpus = feature.u32()
        else:
            header.cmdline = [feature.text() for _ in range(min(feature.u32(), 1 << 16))]
    return formats


def read_tracing_data(data: _Bytes) -> tuple[int, dict[int, Format]]:
    """The page size and the tracepoint formats, by id, of a tracing-data section."""
    if data.take(10) != b"\x17\x08\x44tracing":
        raise TablewalkError("damaged: its tracing data has no magic number")
    data.line()  # version
    if data.take(2) != b"\0\x08":
        raise TablewalkError("recorded on a big-endian or 32-bit machine, which is not supported")
    page_size = data.u32()
    for _ in ("header_page", "header_event"):
        data.line()
        data.take(data.u64())
    for _ in range(data.u32()):  # ftrace's own events
        data.take(data.u64())
    formats = {}
    for _ in range(data.u32()):
        system = data.line()
        for _ in range(data.u32()):
            format = parse_format(system, data.take(data.u64()).decode("utf-8", "replace"))
            formats[format.id] = format
    return page_size, formats


_FIELD = re.compile(r"field:[^;]*?(\w+)(?:\[[^\]]*\])?;\s*offset:(\d{1,5});\s*size:(\d{1,5});")


def parse_format(system: str, text: str) -> Format:
    """The format file of a tracepoint (/sys/kernel/tracing/events/SYSTEM/EVENT/format)."""
    name, number = re.search(r"^name: (\w+)", text, re.M), re.search(r"^ID: (\d{1,9})$", text, re.M)
    if not name or not number:
        raise TablewalkError(f"damaged: a tracepoint format of {system!r} has no name or no ID")
    fields = {m[1]: Field(int(m[2]), int(m[3])) for m in _FIELD.finditer(text)}
    return Format(f"{system}:{name[1]}", int(number[1]), fields)
