# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import random
import struct
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tablewalk.errors import TablewalkError
from tablewalk.record.events import Raw
from tablewalk.record.imports import import_perf
from tablewalk.record.perf_data import PerfData
from tablewalk.record.perf_header import parse_format
from tablewalk.record.rows import Kind, Rows

if TYPE_CHECKING:
    from tests.record.conftest import PerfDataFile


def read(path: Path, content: bytes) -> list[Rows]:
    path.write_bytes(content)
    return list(PerfData(path).batches())


def test_kinds_and_fields(small_run: PerfDataFile, perf_path: Path) -> None:
    rows = Rows.concat(read(perf_path, small_run.bytes()))
    assert Counter(rows.kind.tolist()) == {
        Kind.COMM: 2, Kind.MMAP: 2, Kind.FORK: 1, Kind.EXIT: 2, Raw.SYS_ENTER: 5, Raw.SYS_EXIT: 5,
        Raw.FAULT_ENTRY: 2, Raw.FAULT_DONE: 2, Raw.LOCKED: 1, Raw.NEWTASK: 1,
    }  # fmt: skip
    fork = rows[rows.kind == Kind.FORK]
    assert (fork.pid[0], fork.tid[0], fork.a[0, 0], fork.a[1, 0]) == (100, 100, 200, 200)
    enter = rows[rows.kind == Raw.SYS_ENTER]
    assert enter.nr.tolist() == [9, 435, 231, 28, 231]
    assert enter.a[:, 0].tolist() == [0, 0x4000, 3, 0x22, 0, 0]
    leave = rows[rows.kind == Raw.SYS_EXIT]
    assert leave.ret.tolist() == [0, 0x700000000000, 200, 0, -22]
    entry = rows[rows.kind == Raw.FAULT_ENTRY]
    assert entry.a[0].tolist() == [0x700000000123, 0x700000001000]
    assert entry.a[1].tolist() == [6, 2]
    assert rows.nr[rows.kind == Raw.FAULT_DONE].tolist() == [0, 1]
    assert rows.a[2][rows.kind == Raw.NEWTASK].tolist() == [0x1200011]
    comm = rows[rows.kind == Kind.COMM]
    assert [(rows.names.table[n], t, nr) for n, t, nr in zip(comm.name, comm.t, comm.nr, strict=True)] == [
        ("perf-exec", 0, 0),
        ("prog", 1_000_000, 1),
    ]


def test_header(small_run: PerfDataFile, perf_path: Path) -> None:
    perf_path.write_bytes(small_run.bytes())
    perf = PerfData(perf_path)
    assert (perf.header.release, perf.header.version, perf.header.cpus) == ("6.18.0", "6.1.1", 4)
    assert perf.header.monotonic and not perf.attached and perf.has_newtask
    assert perf.header.page_size == 4096


def test_mapping(perf_file: PerfDataFile, perf_path: Path) -> None:
    perf_file.mmap2(0x10000, 0x3000, b"/bin/a\\b\xff\n", prot=5, flags=1, pgoff=0x2000, device=(254, 1), inode=7)
    perf_file.mmap2(0x20000, 0x1000, b"/lib/with-build-id", device=(1, 2), inode=9, misc=1 << 14)
    (rows,) = read(perf_path, perf_file.bytes())
    assert rows.a[:, 0].tolist() == [0x10000, 0x3000, 2, 5, 1, 7]
    assert rows.nr.tolist() == [254 << 20 | 1, 0]
    assert rows.a[5, 1] == 0
    assert rows.names.table[rows.name[0]] == "/bin/a\\\\b\\xff\n"


def test_order_of_two_cpus_over_rounds(perf_file: PerfDataFile, perf_path: Path) -> None:
    p = perf_file
    rng = random.Random(1)
    expected = []
    for round in range(50):
        # Each buffer is in order, and may be a round behind the other.
        early, late = (
            sorted(
                rng.randrange(1000 * (round + back) + 5000, 1000 * (round + 1) + 5000) for _ in range(rng.randrange(9))
            )
            for back in (-1 if round else 0, 0)
        )
        for tid, times in ((1, late), (2, early)):
            for t in times:
                p.done(t << 12, tid=tid, t=t)
                expected.append(t)
        p.round()
    batches = read(perf_path, p.bytes())
    assert [t for b in batches for t in b.t.tolist()] == sorted(expected)
    assert len(batches) > 1


def test_chunks_do_not_matter(small_run: PerfDataFile, perf_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Rows.concat(read(perf_path, small_run.bytes()))
    for size in (8, 104, 512):
        monkeypatch.setattr("tablewalk.record.perf_data._CHUNK", size)
        parts = Rows.concat(read(perf_path, small_run.bytes()))
        assert parts.t.tolist() == whole.t.tolist() and parts.kind.tolist() == whole.kind.tolist()
        assert (parts.a == whole.a).all()


def test_killed_perf(small_run: PerfDataFile, perf_path: Path) -> None:
    content = small_run.bytes(complete=False)
    with pytest.raises(TablewalkError, match=r"format of tracepoint \d+ is not in the file"):
        read(perf_path, content)
    formats = {f.id: f for f in (parse_format(n.partition(":")[0], t) for n, t in small_run.formats().items())}
    whole = Rows.concat(list(PerfData(perf_path, formats).batches()))
    perf_path.write_bytes(content[:-20])
    perf = PerfData(perf_path, formats)
    cut = Rows.concat(list(perf.batches()))
    assert len(whole) - 1 == len(cut)
    assert cut.t.tolist() == sorted(cut.t.tolist())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"arch": b"aarch64"}, "recorded on aarch64"),
        ({"period": 4000}, "only a sample"),
        ({"flags": 1 << 18 | 1 << 10}, "only a sample"),
        ({"flags": 1 << 12}, "no times"),
    ],
)
def test_unusable(small_run: PerfDataFile, perf_path: Path, change: dict[str, object], what: str) -> None:
    for name, value in change.items():
        setattr(small_run, name, value)
    with pytest.raises(TablewalkError, match=what):
        read(perf_path, small_run.bytes())


def test_compressed(small_run: PerfDataFile, perf_path: Path) -> None:
    small_run.raw(81, bytes(64))
    with pytest.raises(TablewalkError, match=r"compressed \(-z\)"):
        read(perf_path, small_run.bytes())


def test_foreign(perf_path: Path, tmp_path: Path) -> None:
    for content, what in (
        (b"", "not a perf.data"),
        (b"PAR1" * 40, "not a perf.data"),
        (b"2ELIFREP" * 30, "big-endian"),
    ):
        with pytest.raises(TablewalkError, match=what):
            read(perf_path, content)
    with pytest.raises(TablewalkError, match="pipe format"):
        read(perf_path, struct.pack("<8sQ", b"PERFILE2", 16) + bytes(88))
    with pytest.raises(TablewalkError, match="No such file"):
        PerfData(tmp_path / "none")


def test_damage_names_the_byte(small_run: PerfDataFile, perf_path: Path) -> None:
    content = bytearray(small_run.bytes())
    data_at = struct.unpack_from("<Q", content, 40)[0]
    content[data_at + 6 : data_at + 8] = (0).to_bytes(2, "little")
    with pytest.raises(TablewalkError, match=f"damaged at byte {data_at}:"):
        read(perf_path, bytes(content))
    content[data_at + 6 : data_at + 8] = (65528).to_bytes(2, "little")
    with pytest.raises(TablewalkError, match=f"at byte {data_at}:"):
        read(perf_path, bytes(content))


def test_unknown_event_id(small_run: PerfDataFile, perf_path: Path) -> None:
    small_run.id["minor-faults"] = 9999
    content = small_run.bytes().replace(struct.pack("<Q", 9999), struct.pack("<Q", 9998), 1)  # the attribute's
    with pytest.raises(TablewalkError, match="event that the file doesn't have"):
        read(perf_path, content)


def test_lost(small_run: PerfDataFile, perf_path: Path, tmp_path: Path) -> None:
    small_run.lost(5)
    small_run.raw(13, struct.pack("<Q", 7))
    small_run.raw(13, struct.pack("<Q", 1000), 1 << 15)  # left out by a BPF filter, not lost
    perf_path.write_bytes(small_run.bytes())
    meta, by_kind = import_perf(perf_path, tmp_path / "x.tw")
    assert meta.lost == 7
    assert by_kind[Kind.LOST] == 1


def test_missing_is_said(small_run: PerfDataFile, perf_path: Path, tmp_path: Path) -> None:
    small_run.flags = 1 << 18 | 1 << 5 | 1 << 12
    small_run.names.remove("task:task_newtask")
    small_run.records = small_run.records[:4]
    small_run.cmdline = [b"perf", b"--filter", b"id==9||id==28", b"--", b"x"]
    perf_path.write_bytes(small_run.bytes())
    meta, _ = import_perf(perf_path, tmp_path / "x.tw")
    told = "\n".join(meta.missing)
    for word in ("task_newtask", "not CLOCK_MONOTONIC", "kernel mode", "perf record -d", "munmap"):
        assert word in told
    assert meta.clock == "perf" and meta.command == ["x"]
    with pytest.raises(TablewalkError, match="samples cannot be joined"):
        import_perf(perf_path, tmp_path / "x.tw", samples=tmp_path / "none")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_end_in_one_line(small_run: PerfDataFile, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small_run.bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped"
    path.write_bytes(content)
    try:
        import_perf(path, tmp_path / "x.tw")
    except TablewalkError as e:
        assert "\n" not in str(e)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_is_refused(small_run: PerfDataFile, tmp_path: Path, share: float) -> None:
    content = small_run.bytes()
    path = tmp_path / "cut"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TablewalkError):
        import_perf(path, tmp_path / "x.tw")
