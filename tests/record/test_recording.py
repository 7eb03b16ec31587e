# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import dataclasses
import re
import resource
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tablewalk.errors import TablewalkError
from tablewalk.record import recording
from tablewalk.record.recording import UNKNOWN, Columns, Meta, Recording, Sample, Writer
from tablewalk.record.rows import Kind, Names, Row, Rows, check_rows, text_of


def fault(t: int, address: int = 0x7000, **changes: int) -> Row:
    return Row(Kind.FAULT, t, t - 1, t, 7, 7, 0, (address, 6))._replace(**changes)  # type: ignore[arg-type]


def write(path: Path, rows: list[Row], meta: Meta | None = None) -> None:
    with Writer(path) as out:
        out.add(Rows.of(rows))
        out.finish(meta or Meta())


def rows_of(path: Path) -> Columns:
    (columns,) = Recording.open(path).row_groups()
    return columns


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.tw"
    meta = Meta(command=["prog", "arg\n", '"tablewalk-recording" v0001 crc32=00000000'], kernel="6.18.0", levels=4)
    mapping = Row(
        Kind.MMAP, 30, 30, 30, 7, 7, 5, (0x1000, 0x1000, 0, 3, 2, 9), 0, '"tablewalk-recording" v0001 crc32=ff'
    )
    sample = Row(Kind.SAMPLE, 40, 40, 45, 7, 7, 0, (48, 100, 50, 30, 20, 0))
    write(
        path,
        [fault(20), mapping, sample, Row(Kind.COMM, 10, 10, 10, 7, 7, 1, (), 0, text_of(b"a\\b\xff\x1b[31m"))],
        meta,
    )
    return path


def test_what_is_written_is_read(good: Path) -> None:
    r = Recording.open(good)
    assert (r.num_rows, r.meta.kernel, r.meta.levels, r.meta.start, r.meta.end) == (4, "6.18.0", 4, 10, 40)
    c = rows_of(good)
    assert len(c) == 4
    assert (c.kind, c.t, c.begin) == ([4, 1, 3, 7], [10, 20, 30, 40], [10, 19, 30, 40])
    assert c.name == ["a\\\\b\\xff\x1b[31m", None, '"tablewalk-recording" v0001 crc32=ff', None]
    assert (c.a0, c.a1, c.a5) == ([0, 0x7000, 0x1000, 48], [0, 6, 0x1000, 100], [0, 0, 9, 0])
    assert r.samples() == [Sample(40, 45, 7, 48, 100, 50, 30, 20, False)]


def test_extremes_survive(tmp_path: Path) -> None:
    last = 2**63 - 1
    top = Row(Kind.SYSCALL, last, 0, last, 4 << 20, 4 << 20, 2**31 - 1, (UNKNOWN,) * 6, -(2**63))
    write(tmp_path / "x.tw", [top])
    c = rows_of(tmp_path / "x.tw")
    assert (c.t, c.end, c.pid, c.nr, c.a5, c.ret) == ([last], [last], [4 << 20], [2**31 - 1], [UNKNOWN], [-(2**63)])


def test_other_tools_can_read_it(good: Path) -> None:
    table = pq.read_table(good)
    assert table.column_names == [f.name for f in dataclasses.fields(Columns)]
    assert table.column("name").to_pylist()[0].startswith("a")
    assert b'"kernel": "6.18.0"' in pq.read_metadata(good).metadata[b"tablewalk"]


def test_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "x.tw", [])
    assert list(Recording.open(tmp_path / "x.tw").row_groups()) == []


def test_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "ROW_GROUP", 100)
    write(tmp_path / "x.tw", [fault(10 * i + 1) for i in range(1050)])
    groups = list(Recording.open(tmp_path / "x.tw").row_groups())
    assert [len(g) for g in groups] == [100] * 10 + [50]
    assert [t for g in groups for t in g.t] == [10 * i + 1 for i in range(1050)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(st.integers(1, 50), min_size=1, max_size=60), settle=st.lists(st.booleans(), max_size=60))
def test_order_whatever_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: list[int], settle: list[bool]
) -> None:
    """Rows that come after later ones were written stand in their places all the same."""
    monkeypatch.setattr(recording, "ROW_GROUP", 4)
    monkeypatch.setattr(recording, "HELD_MAX", 6)
    names = Names()
    with Writer(tmp_path / "x.tw") as out:
        for i, t in enumerate(times):
            out.add(Rows.of([Row(Kind.COMM, t, t, t, 7, 7, 0, (i,), 0, f"name {i}")], names))
            if i < len(settle) and settle[i]:
                out.settle(0)
        out.finish(Meta())
    r = Recording.open(tmp_path / "x.tw")
    rows = [row for g in r.row_groups() for row in zip(g.t, g.a0, g.name, strict=True)]
    assert sorted(rows) == sorted((t, i, f"name {i}") for i, t in enumerate(times))
    assert [t for t, *_ in rows] == sorted(times)
    assert (out.num_rows, out.by_kind[Kind.COMM]) == (len(times), len(times))
    assert (r.meta.start, r.meta.end) == (min(times), max(times))
    assert [p.name for p in tmp_path.iterdir()] == ["x.tw"]


BAD = {
    "time before its predecessor": [fault(10), fault(9)],
    "negative time": [fault(10, begin=-1)],
    "kind that is not known": [fault(10, kind=9)],
    "outside its begin and end": [fault(10, end=9)],
    "pid or tid out of range": [fault(10, pid=0)],
    "pid or tid out of": [fault(10, tid=(4 << 20) + 1)],
    "child's pid": [Row(Kind.FORK, 10, 10, 10, 7, 7, -1, (2**40, 5))],
    "neither minor, major": [fault(10, nr=2)],
    "negative system call": [Row(Kind.SYSCALL, 10, 10, 10, 7, 7, -3)],
    "past the end of memory": [Row(Kind.MMAP, 10, 10, 10, 7, 7, 0, (2**64 - 4096, 8192, 0, 0, 0, 0), 0, "x")],
    "of no length": [Row(Kind.MMAP, 10, 10, 10, 7, 7, 0, (4096, 0), 0, "x")],
    "whole pages": [Row(Kind.MMAP, 10, 10, 10, 7, 7, 0, (4096, 4097), 0, "x")],
    "protection bits": [Row(Kind.MMAP, 10, 10, 10, 7, 7, 0, (4096, 4096, 0, 8), 0, "x")],
    "without a name": [Row(Kind.COMM, 10, 10, 10, 7, 7)],
    "past all memory": [Row(Kind.SAMPLE, 10, 10, 10, 7, 7, 0, (2**60,))],
    "more events lost": [Row(Kind.LOST, 10, 10, 10, 0, 0, 0, (2**63,))],
}


@pytest.mark.parametrize("what", BAD)
def test_hostile_rows_are_refused(what: str, tmp_path: Path) -> None:
    with pytest.raises(TablewalkError, match=what):
        check_rows(Rows.of(BAD[what]))
    out = recording._ParquetOut(tmp_path / "x.tw")  # which checks nothing
    out.write(Rows.of(BAD[what]))
    out.finish(Meta())
    with pytest.raises(TablewalkError, match=what):
        list(Recording.open(tmp_path / "x.tw").row_groups())


def test_last_page_of_memory_is_allowed() -> None:
    check_rows(Rows.of([Row(Kind.MMAP, 10, 10, 10, 7, 7, 0, (2**64 - 4096, 4096, 0, 0, 0, 0), 0, "x")]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_found(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    if bytes(content) == good.read_bytes():
        return
    path = tmp_path / "flipped.tw"
    path.write_bytes(content)
    with pytest.raises(TablewalkError) as e:
        list(Recording.open(path).row_groups())
    assert "\n" not in str(e.value) and "flipped.tw" in str(e.value)


@pytest.mark.parametrize("keep", [0, 3, 4, 8, 100, -1, -8])
def test_truncated(good: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.tw"
    path.write_bytes(good.read_bytes()[:keep])
    with pytest.raises(TablewalkError, match=r"truncated|empty|no Parquet"):
        Recording.open(path)


def resealed(content: bytes) -> bytes:
    """The file with a checksum that fits."""
    at = content.rindex(b" crc32=") + 7
    crc = zlib.crc32(content[at + 8 :], zlib.crc32(b"00000000", zlib.crc32(content[:at])))
    return content[:at] + f"{crc:08x}".encode() + content[at + 8 :]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_bytes_under_a_good_checksum(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whoever repairs the checksum gets one line, or the rows that the file now holds; never anything else."""
    content = bytearray(good.read_bytes())
    mark = content.rindex(b" crc32=")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, mark - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "hostile.tw"
    path.write_bytes(resealed(bytes(content)))
    try:
        r = Recording.open(path)
        assert sum(map(len, r.row_groups())) == r.num_rows
    except TablewalkError as e:
        assert "\n" not in str(e) and "hostile.tw" in str(e)


def test_future_version(good: Path) -> None:
    content = good.read_bytes()
    at = content.rindex(b" v0001 crc32=")
    good.write_bytes(resealed(content[:at] + b" v0002" + content[at + 6 :]))
    with pytest.raises(TablewalkError, match=r"newer Tablewalk \(schema 2"):
        Recording.open(good)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b'"kernel": "6.18.0"', b'"kernel": [6.18.0]', "no JSON"),
        (b'"kernel": "6.18.0"', b'"kernel":  618.000', "field 'kernel' has the wrong type"),
        (b'"page_size": 4096', b'"page_size": true', "field 'page_size' has the wrong type"),
        (b'"schema_version": 1', b'"schema_version": 3', "schema 1 and 3 at once"),
    ],
)
def test_bad_metadata(good: Path, old: bytes, new: bytes, what: str) -> None:
    content = good.read_bytes()
    assert content.count(old) == 1
    good.write_bytes(resealed(content.replace(old, new)))
    with pytest.raises(TablewalkError, match=what):
        Recording.open(good)


def test_foreign(good: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), other)
    with pytest.raises(TablewalkError, match="not a recording of Tablewalk"):
        Recording.open(other)
    other.write_bytes(b"PERFILE2" + bytes(100))
    with pytest.raises(TablewalkError, match="tablewalk import"):
        Recording.open(other)
    other.write_text("<html>hello</html>")
    with pytest.raises(TablewalkError, match="no Parquet"):
        Recording.open(other)
    with pytest.raises(TablewalkError, match="No such file"):
        Recording.open(tmp_path / "none")
    with pytest.raises(TablewalkError, match="directory"):
        Recording.open(tmp_path)
    (tmp_path / "perf.data").touch()
    with pytest.raises(TablewalkError, match="cut short; run: tablewalk import"):
        Recording.open(tmp_path)


def test_other_columns(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = recording.SCHEMA.set(1, pa.field("t", pa.uint64(), nullable=False))
    monkeypatch.setattr(recording, "SCHEMA", schema)
    with pytest.raises(TablewalkError, match="its columns aren't"):
        Recording.open(good)


def test_overlong_names_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.tw", [Row(Kind.COMM, 1, 1, 1, 7, 7, 0, (), 0, "x" * 20000)])
    with pytest.raises(TablewalkError, match="longer than any path"):
        rows_of(tmp_path / "x.tw")


def test_a_million_processes(tmp_path: Path) -> None:
    n = 1_000_000
    rows = Rows.zeros(n)
    rows.kind[:], rows.pid[:], rows.tid[:] = Kind.FORK, 1, 1
    rows.t[:] = rows.begin[:] = rows.end[:] = np.arange(n)
    rows.a[0] = rows.a[1] = np.arange(n) + 2
    begin = time.monotonic()
    with Writer(tmp_path / "x.tw") as out:
        out.add(rows)
        out.finish(Meta())
    assert sum(len(b) for b in Recording.open(tmp_path / "x.tw").batches()) == n
    assert time.monotonic() - begin < 30


@pytest.fixture
def small_files() -> Iterator[None]:
    """A file may have 20 kB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n", [3000, 400_000])
def test_full_disk(tmp_path: Path, small_files: None, n: int) -> None:
    rng = np.random.default_rng(1)
    rows = Rows.zeros(n)
    rows.kind[:], rows.pid[:], rows.tid[:] = Kind.SYSCALL, 7, 7
    rows.a[:] = rng.integers(0, 2**63, (6, n))
    (tmp_path / "x.tw").write_text("what was there before")
    with pytest.raises(TablewalkError, match=r"x\.tw: cannot be written"), Writer(tmp_path / "x.tw") as out:
        out.add(rows)
        out.settle(1)
        out.finish(Meta())
    assert [p.name for p in tmp_path.iterdir()] == ["x.tw"]
    assert (tmp_path / "x.tw").read_text() == "what was there before"


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(TablewalkError, match="cannot be written: No such file"):
        Writer(tmp_path / "none" / "x.tw")


def test_unfinished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "x.tw") as out:
        out.add(Rows.of([fault(5)]))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_meta_of_a_later_program() -> None:
    meta = Meta.from_json(b'{"schema_version": 1, "kernel": "7.2", "something_new": [1]}')
    assert meta.kernel == "7.2"
    for bad in (b"", b"[]", b"[" * 100_000, b'{"missing": [1]}', b'{"levels": "4"}', b'{"thp": {"a": 1}}'):
        with pytest.raises(TablewalkError):
            Meta.from_json(bad)


@given(st.binary(max_size=40).filter(lambda b: b"\0" not in b))
def test_names_can_be_taken_back(raw: bytes) -> None:
    def byte(m: re.Match[bytes]) -> bytes:
        return b"\\" if m[1] == b"\\" else bytes([int(m[1][1:], 16)])

    assert re.sub(rb"\\(\\|x[0-9a-f]{2})", byte, text_of(raw).encode()) == raw
