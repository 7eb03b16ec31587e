# SPDX-License-Identifier: GPL-2.0-only
"""A recording: one Parquet file, one row an event, sorted by time. docs/recording.md describes it.

The file's footer carries a mark, `"tablewalk-recording" vNNNN crc32=XXXXXXXX`: the schema version and the
CRC-32 of the whole file with those eight digits taken as zeros. It is checked before anything else is read,
so a recording that a disk, a copy or a hand has changed is refused instead of answering wrongly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import mmap
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tablewalk.errors import TablewalkError
from tablewalk.files import check_regular, replaceable
from tablewalk.record.rows import (
    COLUMNS,
    NAME_MAX_BYTES,
    NEVER_RETURNED,
    UNKNOWN,
    Array,
    Kind,
    Names,
    Row,
    Rows,
    by_time,
    check_rows,
)

__all__ = [
    "NEVER_RETURNED",
    "UNKNOWN",
    "Columns",
    "Kind",
    "Meta",
    "Recording",
    "Row",
    "Rows",
    "Sample",
    "Writer",
]

SCHEMA_VERSION = 1
ROW_GROUP = 65536  # rows; a reader holds one group at a time as Python lists
ROW_GROUP_MAX = 262144
HELD_MAX = 1_000_000  # rows held back for order before some are written early (see Writer)
_serial = itertools.count()  # for names of temporary files
_MAGIC = b"PAR1"
_MARK = re.compile(rb'"tablewalk-recording" v(\d{4}) crc32=([0-9a-f]{8})')

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.int8(), nullable=False),
        *(pa.field(c, pa.int64(), nullable=False) for c in ("t", "begin", "end")),
        *(pa.field(c, pa.int32(), nullable=False) for c in ("pid", "tid", "nr")),
        *(pa.field(f"a{i}", pa.uint64(), nullable=False) for i in range(6)),
        pa.field("ret", pa.int64(), nullable=False),
        pa.field("name", pa.dictionary(pa.int32(), pa.string())),
    ]
)


@dataclass
class Meta:
    """What a recording says of itself; stored as JSON under the Parquet key `tablewalk`."""

    schema_version: int = SCHEMA_VERSION
    command: list[str] = field(default_factory=list)
    source: str = ""  # "record", "attach", "perf.data" or "perf script": what the rows were made from
    kernel: str = ""  # release, as `uname -r`
    machine: str = ""  # as `uname -m`
    page_size: int = 4096  # bytes
    levels: int | None = None  # page-table levels; None where it is not known
    thp: dict[str, str] = field(default_factory=dict)  # enabled, shmem_enabled, defrag, ...
    kconfig: dict[str, str] = field(default_factory=dict)  # PT_RECLAIM: y, m, n; absent: unknown
    host: dict[str, str] = field(default_factory=dict)  # further facts, by /proc or /sys name
    cpus: int | None = None
    perf_version: str = ""
    events: list[str] = field(default_factory=list)  # what was recorded
    missing: list[str] = field(default_factory=list)  # what was not, and what that means; a sentence each
    clock: str = "CLOCK_MONOTONIC"
    start: int = 0  # ns, first row
    end: int = 0  # ns, last row
    lost: int = 0  # events that the kernel could not deliver
    complete: bool = True  # False: recovered from a recording that was killed or ran out of disk
    exit_status: int | None = None  # of the recorded program; 128 + N for signal N
    attach: dict[str, Any] | None = None  # recorded with -p: pid, the start state and what is not known of it

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Meta:
        """Raises TablewalkError where the text is no such JSON; fields of a later program are left out."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise TablewalkError("its metadata is no JSON") from None
        if not isinstance(raw, dict):
            raise TablewalkError("its metadata is no JSON object")
        hints = get_type_hints(cls)
        known = {name: value for name, value in raw.items() if name in hints}
        for name, value in known.items():
            if not _fits(value, hints[name]):
                raise TablewalkError(f"its metadata field {name!r} has the wrong type")
        return cls(**known)


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is of a type such as int, list[str], dict[str, str] or int | None."""
    if args := getattr(hint, "__args__", ()):
        origin = getattr(hint, "__origin__", None)
        if origin is list:
            return isinstance(value, list) and all(_fits(v, args[0]) for v in value)
        if origin is dict:
            return isinstance(value, dict) and all(_fits(v, args[1]) for v in value.values())
        return any(_fits(value, a) for a in args)
    return hint is Any or (isinstance(value, hint) and (hint is bool or not isinstance(value, bool)))


@dataclass(slots=True)
class Columns:
    """A row group as plain lists of equal length: what the columns hold is in docs/recording.md."""

    kind: list[int]
    t: list[int]
    begin: list[int]
    end: list[int]
    pid: list[int]
    tid: list[int]
    nr: list[int]
    a0: list[int]
    a1: list[int]
    a2: list[int]
    a3: list[int]
    a4: list[int]
    a5: list[int]
    ret: list[int]
    name: list[str | None]

    def __len__(self) -> int:
        return len(self.kind)


class Sample(NamedTuple):
    """A reading of /proc/PID/status: times in ns, sizes in kB (None where only VmPTE was read)."""

    begin: int
    end: int
    pid: int
    vmpte: int
    vmrss: int | None
    rss_anon: int | None
    rss_file: int | None
    rss_shmem: int | None
    exact: bool  # read by the program itself while it did nothing else


class Recording:
    """A recording that is open for reading. Errors are TablewalkError, each one line that names the file."""

    def __init__(self, path: Path, file: pq.ParquetFile, meta: Meta) -> None:
        self.path = path
        self.meta = meta
        self._file = file

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Recording:
        """Open and verify the recording at `path`: its mark and checksum, version, columns and metadata."""
        path = Path(path)
        version = _verify(path)
        if version != SCHEMA_VERSION:
            raise TablewalkError(
                f"{path}: made by a newer Tablewalk (schema {version}, here {SCHEMA_VERSION}); upgrade"
            )
        try:
            file = pq.ParquetFile(path)
            metadata, schema = file.metadata, file.schema_arrow
            meta = Meta.from_json((metadata.metadata or {}).get(b"tablewalk", b""))
        except Exception as e:  # of a hostile file pyarrow may raise anything
            raise TablewalkError(f"{path}: not a recording: {_line(e)}") from None
        if not schema.equals(SCHEMA):
            raise TablewalkError(f"{path}: not a recording: its columns aren't those of schema {version}")
        if any(metadata.row_group(i).num_rows > ROW_GROUP_MAX for i in range(metadata.num_row_groups)):
            raise TablewalkError(f"{path}: not a recording: a row group of more than {ROW_GROUP_MAX} rows")
        if meta.schema_version != version:
            raise TablewalkError(f"{path}: not a recording: schema {version} and {meta.schema_version} at once")
        return cls(path, file, meta)

    @property
    def num_rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self) -> Iterator[Rows]:
        """The rows in time order, a row group at a time, verified, as numpy arrays."""
        after = 0
        for i in range(self._file.metadata.num_row_groups):
            try:
                rows = _rows_of(self._file.read_row_group(i, use_threads=False))
                after = check_rows(rows, after)
            except Exception as e:  # of a hostile file pyarrow may raise anything
                raise TablewalkError(f"{self.path}: row group {i} is bad: {_line(e)}") from None
            yield rows

    def row_groups(self) -> Iterator[Columns]:
        """The rows in time order, a row group at a time, verified, as lists."""
        for rows in self.batches():
            table: list[str | None] = [*rows.names.table, None]  # index -1, no name, is the last
            numbers = {c: _ints(getattr(rows, c)) for c in COLUMNS if c != "name"}
            numbers |= {f"a{i}": _ints(column) for i, column in enumerate(rows.a)}
            yield Columns(**numbers, name=[table[i] for i in _ints(rows.name)])

    def samples(self) -> list[Sample]:
        """The readings of /proc/PID/status by the time at which they began."""
        out: list[Sample] = []
        for batch in self.batches():
            r = batch[batch.kind == Kind.SAMPLE]
            kb = ([None if v == UNKNOWN else v for v in column] for column in r.a[1:5].tolist())
            exact = (r.a[5] != 0).tolist()
            out += map(Sample, _ints(r.begin), _ints(r.end), _ints(r.pid), _ints(r.a[0]), *kb, exact)
        return out


def _ints(column: Array) -> list[int]:
    """The column as a list; most of a recording's arguments are zero, and a list of one int is free."""
    return column.tolist() if column.any() else [0] * len(column)


def _rows_of(table: pa.Table) -> Rows:
    """A row group as arrays. Raises TablewalkError for a null where none may be or an overlong name."""
    columns: dict[str, Array] = {}
    for name in SCHEMA.names[:-1]:
        column = table.column(name)
        if column.null_count:
            raise TablewalkError(f"column {name} has nulls")
        columns[name] = column.to_numpy()
    dictionary = table.column("name").combine_chunks()
    names = Names()
    names.table = dictionary.dictionary.to_pylist()
    if any(n is None or len(n) > NAME_MAX_BYTES for n in names.table):
        raise TablewalkError("a name is missing or longer than any path")
    index = dictionary.indices.fill_null(-1).to_numpy()
    if len(index) and not -1 <= index.min() <= index.max() < len(names.table):
        raise TablewalkError("a name's index is out of range")
    a = np.stack([columns.pop(f"a{i}") for i in range(6)])
    return Rows(**columns, name=index, a=a, names=names)


def _verify(path: Path) -> int:
    """Check the mark and the checksum of the file; returns its schema version."""
    if path.is_dir():
        if (path / "perf.data").exists():
            raise TablewalkError(f"{path}: left by a recording that was cut short; run: tablewalk import {path}")
        raise TablewalkError(f"{path}: a directory, not a recording")
    try:
        check_regular(path)
        with open(path, "rb") as f:
            if not (size := os.fstat(f.fileno()).st_size):
                raise TablewalkError(f"{path}: empty, not a recording")
            with mmap.mmap(f.fileno(), size, access=mmap.ACCESS_READ) as content:
                return _verify_content(path, content)
    except (OSError, ValueError) as e:
        raise TablewalkError(f"{path}: {getattr(e, 'strerror', None) or e}") from None


def _verify_content(path: Path, content: mmap.mmap) -> int:
    if content[:8] == b"PERFILE2":
        raise TablewalkError(f"{path}: a perf.data file; run: tablewalk import {path}")
    if content[:4] != _MAGIC:
        raise TablewalkError(f"{path}: not a recording (no Parquet file)")
    footer = int.from_bytes(content[-8:-4], "little")
    if content[-4:] != _MAGIC or footer > len(content) - 12:
        raise TablewalkError(f"{path}: truncated, or its end is damaged; record again or use a whole copy")
    marks = list(_MARK.finditer(content, len(content) - 8 - footer))
    if len(marks) != 1:
        raise TablewalkError(f"{path}: a Parquet file, but not a recording of Tablewalk (or damaged)")
    if _crc(content, marks[0].start(2)) != int(marks[0][2], 16):
        raise TablewalkError(f"{path}: damaged: its checksum does not match; use a whole copy")
    return int(marks[0][1])


def _crc(content: mmap.mmap, digits: int) -> int:
    """CRC-32 of a file whose eight bytes at `digits` count as zeros."""

    def span(lo: int, hi: int, crc: int) -> int:
        for i in range(lo, hi, 1 << 24):
            crc = zlib.crc32(content[i : min(i + (1 << 24), hi)], crc)
        return crc

    return span(digits + 8, len(content), zlib.crc32(b"00000000", span(0, digits, 0)))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns an error of the file system into one line that names the recording that was to be written."""
    try:
        yield
    except OSError as e:
        raise TablewalkError(f"{path}: cannot be written: {e.strerror or _line(e)}") from None


def _line(e: BaseException) -> str:
    return " ".join(str(e).split()) or type(e).__name__


class Writer:
    """Writes a recording to a temporary file beside `path` (links followed), which `finish` puts in its place.

    Rows may be added in any order. What is not yet `settle`d is held in memory; if that grows past
    HELD_MAX rows (a call that took its lock long ago and still has not returned), the oldest are written
    all the same, and a row that then comes late costs a second pass over the file in `finish`.

    Every error of the file system is a TablewalkError; the temporary file is removed unless finished.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.num_rows = 0
        self.by_kind = dict.fromkeys(Kind, 0)
        self._held: list[Rows] = []
        self._late: list[Rows] = []
        self._written_to = 0
        self._start: int | None = None
        self._out: _ParquetOut | None = _ParquetOut(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if self._out:
            self._out.discard()

    @property
    def num_held(self) -> int:
        """Rows that were added and are not yet written."""
        return sum(map(len, self._held)) + sum(map(len, self._late))

    def add(self, rows: Rows) -> None:
        """Take these rows; all that one Writer gets share their `names`."""
        late = rows.t < self._written_to
        if late.any():
            self._late.append(rows[late])
            rows = rows[~late]
        if len(rows):
            self._held.append(rows)

    def settle(self, t: int) -> None:
        """Every row still to come has a time of at least `t` ns: what lies before it can be written."""
        held = sum(map(len, self._held))
        if held < ROW_GROUP:
            return
        rows = by_time(self._held)
        n = int(np.searchsorted(rows.t, t, "left"))
        if held - n > HELD_MAX:
            n = int(np.searchsorted(rows.t, rows.t[held - HELD_MAX // 2], "left"))
        n -= n % ROW_GROUP
        self._write(rows[:n])
        self._held = [rows[n:]] if n < held else []

    def finish(self, meta: Meta) -> None:
        """Write what is left and `meta` (its start and end are set here), and put the file in its place."""
        if self._held:
            self._write(by_time(self._held))
            self._held = []
        assert self._out
        if self._late:
            self._merge_late(by_time(self._late))
        meta.start, meta.end = self._start or 0, self._written_to
        self._out.finish(meta)
        self._out = None

    def _write(self, rows: Rows) -> None:
        assert self._out
        if not len(rows):
            return
        if self._start is None:
            self._start = int(rows.t[0])
        self._written_to = check_rows(rows, self._written_to)
        for i in range(0, len(rows), ROW_GROUP):
            self._out.write(rows[i : i + ROW_GROUP])
        self._count(rows)

    def _count(self, rows: Rows) -> None:
        self.num_rows += len(rows)
        for kind, n in zip(*np.unique(rows.kind, return_counts=True), strict=True):
            self.by_kind[Kind(kind)] += int(n)

    def _merge_late(self, late: Rows) -> None:
        """Write the file again with the rows that came late in their places."""
        first, self._out = self._out, _ParquetOut(self.path)
        assert first
        try:
            first.close()
            source = pq.ParquetFile(first.path)
            check_rows(late)
            self._start = min(self._start or 0, int(late.t[0]))
            self._count(late)
            for i in range(source.metadata.num_row_groups):
                rows = _rows_of(source.read_row_group(i, use_threads=False))
                n = int(np.searchsorted(late.t, rows.t[-1], "right"))
                rows = by_time([rows, late[:n].renamed(rows.names)])
                late = late[n:]
                for j in range(0, len(rows), ROW_GROUP):
                    self._out.write(rows[j : j + ROW_GROUP])
        finally:
            first.discard()


class _ParquetOut:
    """A Parquet file under a temporary name; its checksum is put in after it is closed."""

    def __init__(self, path: Path) -> None:
        self._final = path
        self._place = replaceable(path)
        self.path = self._place.with_name(f".{path.name}.{os.getpid()}-{next(_serial)}.tmp")
        with _told(path):
            self._file: IO[bytes] = open(self.path, "w+b")  # noqa: SIM115 - closed by finish or discard
        delta = ["t", "begin", "end", "a0"]
        self._parquet = pq.ParquetWriter(
            self._file,
            SCHEMA,
            compression="zstd",
            compression_level=3,
            use_dictionary=[c for c in SCHEMA.names if c not in delta],
            column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
            # The names' extremes would stand in the footer as they are, and could be taken for the mark.
            write_statistics=SCHEMA.names[:-1],
        )

    def write(self, rows: Rows) -> None:
        used, index = np.unique(rows.name, return_inverse=True)
        none = int(len(used) > 0 and used[0] < 0)
        dictionary = pa.array([rows.names.table[i] for i in used[none:].tolist()], pa.string())
        name = pa.DictionaryArray.from_arrays(pa.array(index - none, pa.int32(), mask=index < none), dictionary)
        columns = [pa.array(getattr(rows, c)) for c in ("kind", "t", "begin", "end", "pid", "tid", "nr")]
        columns += [*map(pa.array, rows.a), pa.array(rows.ret), name]
        with _told(self._final):
            self._parquet.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), row_group_size=len(rows))

    def close(self) -> None:
        with _told(self._final):
            self._parquet.close()
            self._file.flush()

    def finish(self, meta: Meta) -> None:
        mark = f'"tablewalk-recording" v{SCHEMA_VERSION:04d} crc32=00000000'
        self._parquet.add_key_value_metadata({"tablewalk": meta.to_json(), "tablewalk.mark": mark})
        self.close()
        with _told(self._final):
            size = self._file.tell()
            with mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ) as content:
                found = content.rfind(mark.encode())
                crc = _crc(content, found + len(mark) - 8)
            self._file.seek(found + len(mark) - 8)
            self._file.write(f"{crc:08x}".encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self._place)

    def discard(self) -> None:
        try:
            self._parquet.close()
            self._file.close()
        except (pa.ArrowException, OSError):
            pass  # the disk is full, which has been said already
        finally:
            self.path.unlink(missing_ok=True)
