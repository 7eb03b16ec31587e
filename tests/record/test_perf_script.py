# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.record.events import EVENTS, FILTERS, Raw
from tablewalk.record.imports import import_perf
from tablewalk.record.perf_script import PerfScript
from tablewalk.record.recording import Columns, Recording
from tablewalk.record.rows import Kind, Rows

SCRIPT = ["--ns", "-F", "pid,tid,time,event,addr,trace", "--show-mmap-events", "--show-task-events"]

# What one process does that another one started: threads, mappings, files, forks, failing calls, faults in the kernel.
PROGRAM = """
import ctypes, mmap, os, threading, subprocess
libc = ctypes.CDLL(None)
def work():
    for i in range(40):
        m = mmap.mmap(-1, 1 << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        m[0] = m[5000] = 1
        with open(__file__, "rb") as f:
            f.readinto(memoryview(m)[8192:])
        m.madvise(mmap.MADV_DONTNEED)
        m.close()
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]
libc.madvise(ctypes.c_void_p(4096), 4096, 4)
if not os.fork():
    os._exit(3)
os.wait()
subprocess.run(["sh", "-c", "true | cat"])
[t.join() for t in threads]
m = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), 4096)
"""


@pytest.fixture(scope="module")
def recorded(perf_works: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A perf.data made with perf's own command line, and the text of it."""
    folder = tmp_path_factory.mktemp("recorded")
    program, data, text = folder / "a b\\c.py", folder / "perf.data", folder / "perf.txt"
    program.write_text(PROGRAM)
    events = [a for e in EVENTS for a in ("-e", e, *(("--filter", FILTERS[e]) if e in FILTERS else ()))]
    command = ["perf", "record", "-q", "-B", "-m", "1M", "-k", "CLOCK_MONOTONIC", "-d", "-c", "1", *events]
    subprocess.run([*command, "-o", str(data), "--", sys.executable, str(program)], check=True)
    with open(text, "wb") as out:
        subprocess.run(["perf", "script", "-i", str(data), *SCRIPT], stdout=out, stderr=subprocess.DEVNULL, check=True)
    return data, text


def columns(path: Path) -> Columns:
    groups = list(Recording.open(path).row_groups())
    return Columns(*([x for g in groups for x in getattr(g, f.name)] for f in dataclasses.fields(Columns)))


def test_text_and_binary_give_the_same_recording(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    data, text = recorded
    a_meta, a_kinds = import_perf(data, tmp_path / "a.tw")
    b_meta, b_kinds = import_perf(text, tmp_path / "b.tw")
    assert a_kinds == b_kinds
    assert a_kinds[Kind.FORK] >= 7 and a_kinds[Kind.FAULT] > 500 and a_kinds[Kind.SYSCALL] > 200
    assert a_meta.lost == 0 and set(a_meta.events) - set(b_meta.events) <= {"major-faults"}
    a, b = columns(tmp_path / "a.tw"), columns(tmp_path / "b.tw")
    # The text has no flags of mappings but shared and private.
    a.a4 = [x & 3 if k == Kind.MMAP else x for k, x in zip(a.kind, a.a4, strict=True)]
    for f in dataclasses.fields(Columns):
        assert getattr(a, f.name) == getattr(b, f.name), f.name
    assert any(n and n.endswith("sh") for n in a.name)


def test_what_the_program_did_is_there(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    import_perf(recorded[0], tmp_path / "a.tw")
    c = columns(tmp_path / "a.tw")
    calls = [(n, r) for k, n, r in zip(c.kind, c.nr, c.ret, strict=True) if k == Kind.SYSCALL]
    assert (28, -12) in calls or (28, -22) in calls
    assert sum(n == 28 and r == 0 for n, r in calls) >= 120
    flags = [x for k, x in zip(c.kind, c.a4, strict=True) if k == Kind.MMAP]
    assert 1 in flags and 2 in flags
    threads = {t for k, p, t in zip(c.kind, c.pid, c.tid, strict=True) if k == Kind.FAULT and p == c.pid[0]}
    assert len(threads) == 4
    forks = [
        (a, b, f, known) for k, a, b, f, known in zip(c.kind, c.a0, c.a1, c.a2, c.a3, strict=True) if k == Kind.FORK
    ]
    assert all(known for *_, known in forks)
    assert sum(bool(f & 0x10000) for _, _, f, _ in forks) == 3  # CLONE_THREAD
    entries = [(n, e) for k, n, e in zip(c.kind, c.nr, c.a1, strict=True) if k == Kind.FAULT]
    assert sum(not e & 4 and n >= 0 for n, e in entries) >= 120  # read() into fresh memory
    exact = [(b, t, e) for b, t, e in zip(c.begin, c.t, c.end, strict=True)]
    assert all(b <= t <= e for b, t, e in exact)


LINES = b"""\
  0/0         0.000000000: PERF_RECORD_MMAP -1/0: [0xffffffff81000000(0x1209988) @ 0x0]: x [kernel.kallsyms]_text
  100/100        0.000000000: PERF_RECORD_COMM: perf-exec:100/100
  100/100        5.000000100: PERF_RECORD_COMM exec: a:b c:100/100
  100/100        5.000000110: PERF_RECORD_MMAP2 100/100: [0x10000(0x2000) @ 0x3000 fe:1f 2602 0]: r-xp /usr/bin/e x]: y
  100/100        5.000000120: PERF_RECORD_MMAP2 100/100: [0x20000(0x2000) @ 0 <e5a1b2>]: rw-s /dev/shm/x
  100/101        5.000000130: exceptions:page_fault_kernel: address=0x5566249ef424 ip=elf_load error_code=0x2  0
  100/101        5.000000140: minor-faults:     5566249ef424
  100/101        5.000000150: major-faults:u:     5566249ef424
  100/101        5.000000160: exceptions:page_fault_user: address=page_offset_base ip=0x10 error_code=0x5  0
  100/100        5.000000170: raw_syscalls:sys_enter: NR 12 (0, 7ffdd9f33d5c, 0, 37f, 0, ffffffffffffffff)  0
  100/100        5.000000180: mmap_lock:mmap_lock_acquire_returned: mm=0xffff memcg_id=2675 write=true success=true  0
  100/100        5.000000190: mmap_lock:mmap_lock_acquire_returned: mm=0xffff memcg_path=/ write=true success=false  0
  100/100        5.000000200: raw_syscalls:sys_exit: NR 12 = -12  0
  100/100        5.000000210: PERF_RECORD_FORK(102:102):(100:100)
  100/100        5.000000220: task:task_newtask: pid=102 comm=x clone_flags=1 clone_flags=1200011 oom_score_adj=0   0
  100/100        5.000000230: PERF_RECORD_EXIT(100:101):(99:99)
  100/100        5.000000240: PERF_RECORD_LOST lost 17
  100/100        5.000000250: PERF_RECORD_SWITCH OUT
"""


def parse(path: Path, text: bytes) -> Rows:
    path.write_bytes(text)
    return Rows.concat(list(PerfScript(path).batches()))


def test_lines(tmp_path: Path) -> None:
    rows = parse(tmp_path / "x.txt", LINES)
    kinds = [Kind.COMM, Kind.COMM, Kind.MMAP, Kind.MMAP, Raw.FAULT_ENTRY, Raw.FAULT_DONE, Raw.FAULT_DONE]
    kinds += [Raw.SYS_ENTER, Raw.LOCKED, Raw.SYS_EXIT, Kind.FORK, Raw.NEWTASK, Kind.EXIT, Kind.LOST]
    assert rows.kind.tolist() == kinds
    assert rows.t[2:].tolist() == [
        5_000_000_000 + t for t in (110, 120, 130, 140, 150, 170, 180, 200, 210, 220, 230, 240)
    ]
    names = [rows.names.table[i] for i in rows.name[:4].tolist()]
    assert names == ["perf-exec", "a:b c", "/usr/bin/e x]: y", "/dev/shm/x"]
    assert rows.nr[:4].tolist() == [0, 1, 0xFE << 20 | 0x1F, 0]
    assert rows.a[:, 2].tolist() == [0x10000, 0x2000, 3, 5, 2, 2602]
    assert rows.a[:, 3].tolist() == [0x20000, 0x2000, 0, 3, 1, 0]
    assert rows.a[:2, 4].tolist() == [0x5566249EF424, 2]
    assert rows.nr[5:7].tolist() == [0, 1]
    assert rows.a[:, 7].tolist() == [0, 0x7FFDD9F33D5C, 0, 0x37F, 0, 2**64 - 1]
    assert (rows.nr[9], rows.ret[9]) == (12, -12)
    assert (rows.pid[10], rows.a[0, 10], rows.a[2, 11], rows.tid[12], rows.a[0, 13]) == (100, 102, 0x1200011, 101, 17)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"hello\n", "line 19 is none of perf script"),
        (b" 1/1  5.000000300: minor-faults: zz\n", "line 19: minor-faults cannot be understood"),
        (b" 1/1  5.000000300: raw_syscalls:sys_enter: NR 9 (1, 2)\n", "line 19: raw_syscalls:sys_enter cannot"),
        (b" 1/1  5.000000300: PERF_RECORD_MMAP2 1/1: [0x1(0x1) @ 0]: rw-p x\n", "line 19: PERF_RECORD_MMAP2 cannot"),
        (b" 1/1  5.000000200: minor-faults: 5000\n", "not in the order of time"),
        (b" 1/1  5.0003: minor-faults: 5000\n", "line 19 is none"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: bytes, what: str) -> None:
    with pytest.raises(TablewalkError, match=what):
        parse(tmp_path / "x.txt", LINES + line)


def test_import_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\n")
    with pytest.raises(TablewalkError, match="holds no event"):
        import_perf(tmp_path / "x.txt", tmp_path / "x.tw")
    with pytest.raises(TablewalkError, match="No such file"):
        import_perf(tmp_path / "none", tmp_path / "x.tw")


def test_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"".join(LINES.splitlines(True)[:4]))
    meta, _ = import_perf(tmp_path / "x.txt", tmp_path / "x.tw")
    told = "\n".join(meta.missing)
    for word in ("minor-faults was not recorded", "raw_syscalls:sys_exit was not", "the text lacks them"):
        assert word in told


def test_batches_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tablewalk.record.perf_script._BATCH", 3)
    test_lines(tmp_path)
