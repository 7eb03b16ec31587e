# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.record import sampler
from tablewalk.record.events import Raw
from tablewalk.record.perf_data import PerfData
from tablewalk.record.recording import Recording
from tablewalk.record.rows import Kind, Rows
from tablewalk.record.strace import WithStrace, header

if TYPE_CHECKING:
    from tests.record.conftest import PerfDataFile

OFFSET = 1_700_000_000 * 10**9
OUTPUT = b"""\
# %d
200   1700000000.001000105 execve(0x7f, 0x80, 0x81) = 0 <0.000000390>
200   1700000000.001000205 mmap(0, 0x2000, 0x3, 0x22, 0xffffffff, 0) = 0x7f974a97a000 <0.000000005>
201   1700000000.001000215 madvise(0x1000, 0x2000, 0x4 <unfinished ...>
200   1700000000.001000225 brk(0)       = 0x55704f862000 <0.000000009>
201   1700000000.001000235 <... madvise resumed>) = -1 ENOMEM (Cannot allocate memory) <0.000000020>
200   1700000000.001000245 exit_group(3) = ?
200   1700000000.001000255 +++ exited with 3 +++
"""


def test_output(perf_file: PerfDataFile, perf_path: Path) -> None:
    p = perf_file
    p.comm(b"strace", pid=100, tid=100)
    p.fault(0x5000, pid=100, tid=100)
    p.fork(200, 200)
    p.comm(b"prog", pid=200, tid=200)
    p.fork(200, 201, pid=200, tid=200)
    p.round()
    p.done(0x6000, pid=200, tid=201, t=1_000_300)
    perf_path.write_bytes(p.bytes())
    output = perf_path.with_name("strace")
    output.write_bytes(OUTPUT % OFFSET + b"200 17000")
    rows = Rows.concat(list(WithStrace(PerfData(perf_path), output).batches()))
    assert (rows.t[1:] >= rows.t[:-1]).all()
    assert rows[rows.pid == 100].kind.tolist() == [Kind.FORK]
    calls = [
        (int(k), int(t), int(pid), int(tid), int(nr), int(ret))
        for k, t, pid, tid, nr, ret in zip(rows.kind, rows.t, rows.pid, rows.tid, rows.nr, rows.ret, strict=True)
        if k in (Raw.SYS_ENTER, Raw.SYS_EXIT) and nr != 59
    ]
    enter, leave = int(Raw.SYS_ENTER), int(Raw.SYS_EXIT)
    assert calls == [
        (enter, 1_000_205, 200, 200, 9, 0),
        (leave, 1_000_210, 200, 200, 9, 0x7F974A97A000),
        (enter, 1_000_215, 200, 201, 28, 0),
        (enter, 1_000_225, 200, 200, 12, 0),
        (leave, 1_000_234, 200, 200, 12, 0x55704F862000),
        (leave, 1_000_235, 200, 201, 28, -12),
        (enter, 1_000_245, 200, 200, 231, 0),
    ]
    (advise,) = arguments_of(rows, 28, Raw.SYS_ENTER)
    assert advise[:3] == [0x1000, 0x2000, 4]


def arguments_of(rows: Rows, nr: int, kind: int) -> list[list[int]]:
    """The arguments of these calls."""
    out: list[list[int]] = rows.a[:, (rows.nr == nr) & (rows.kind == kind)].T.tolist()
    return out


@pytest.mark.parametrize(("text", "what"), [(b"200 1.5 x\n", "its first line"), (b"# 5\nrubbish\n", "line 2 is none")])
def test_bad_output(small_run: PerfDataFile, perf_path: Path, text: bytes, what: str) -> None:
    perf_path.write_bytes(small_run.bytes())
    output = perf_path.with_name("strace")
    output.write_bytes(text)
    with pytest.raises(TablewalkError, match=what):
        list(WithStrace(PerfData(perf_path), output).batches())


def test_header() -> None:
    """The two clocks differ by what the header says."""
    told = int(header()[2:])
    assert abs(time.time_ns() - time.monotonic_ns() - told) < 10**9


def unprivileged(tmp_path: Path, *args: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command line without any capability."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("no setpriv, with which root can give up its rights")
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": str(Path(sampler.__file__).parents[2])}
    if path is not None:
        environment["PATH"] = path
    command = [*([shutil.which(drop[0]) or "", *drop[1:]] if drop else []), sys.executable, "-m", "tablewalk", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)


@pytest.fixture
def perf_for_anybody() -> None:
    if not shutil.which("perf"):
        pytest.skip("perf is not installed")
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    if level > 2 or level < 0:
        pytest.skip(f"kernel.perf_event_paranoid={level}: perf counts for nobody, or traces for everybody")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_record_without_rights(perf_for_anybody: None, tmp_path: Path) -> None:
    program = "import mmap, os; m = mmap.mmap(-1, 1 << 21); m[0] = 1; m.madvise(4); m.close(); os._exit(5)"
    run = unprivileged(tmp_path, "record", "-o", "x.tw", "--json", "--", sys.executable, "-c", program)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["exit_status"] == 5 and told["rows"]["fault"] > 50
    missing = "\n".join(told["missing"])
    assert "exceptions:page_fault_user" in missing and "run as root" in missing and "kernel mode" in missing
    assert "arguments of system calls" not in missing
    (c,) = Recording.open(tmp_path / "x.tw").row_groups()
    calls = [(n, b, e) for k, n, b, e in zip(c.kind, c.nr, c.begin, c.end, strict=True) if k == Kind.SYSCALL]
    assert {59, 9, 28, 11, 231} <= {n for n, *_ in calls}
    # What the kernel mapped for a call lies inside it, on strace's clock too: that one tells microseconds, and is
    # set against perf's by an offset that was measured while other programs could get in between.
    slack = 1_000_000
    maps = [t for k, t, n in zip(c.kind, c.t, c.name, strict=True) if k == Kind.MMAP and n and "zero" in n]
    assert maps and all(any(n == 9 and b - slack <= t <= e + slack for n, b, e in calls) for t in maps)
    assert not any(n and n == "strace" for n in c.name)


def test_require_all_without_rights(perf_for_anybody: None, tmp_path: Path) -> None:
    run = unprivileged(tmp_path, "record", "--require-all", "-o", "x.tw", "--", "true")
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "task:task_newtask cannot be recorded here (run as root, or: sysctl" in run.stderr
    assert not list(tmp_path.iterdir())


def test_no_strace(perf_for_anybody: None, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("perf", "true"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or "")
    run = unprivileged(tmp_path, "record", "-o", "x.tw", "--", "true", path=str(tmp_path / "bin"))
    assert run.returncode == 0, run.stderr
    assert "strace, which could trace system calls instead" in run.stderr
    assert "raw_syscalls:sys_enter was not recorded: arguments of system calls" in run.stderr
