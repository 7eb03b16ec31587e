# SPDX-License-Identifier: GPL-2.0-only
"""Real recordings, made by the command line as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.record import sampler
from tablewalk.record.recording import Columns, Recording
from tablewalk.record.rows import Kind

if TYPE_CHECKING:
    from tests.record.conftest import PerfDataFile

SOURCES = str(Path(sampler.__file__).parents[2])

BUSY = """
import mmap, sys, time
m = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print("running", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for i in range(0, 8 << 20, 4096):
        m[i] = 1
    m.madvise(mmap.MADV_DONTNEED)
"""

EXACT = """
import os, time
begin = time.monotonic_ns()
status = open("/proc/self/status").read()
end = time.monotonic_ns()
kb = status.split("VmPTE:")[1].split()[0]
with open(os.environ["TABLEWALK_SAMPLES"], "a") as f:
    f.write(f"{begin} {end} {os.getpid()} {kb}\\n")
"""


def tablewalk(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*args), capture_output=True, text=True, timeout=120, **_environment(options))


def started(*args: str | Path, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(_command(*args), text=True, **pipes, **_environment(options))  # type: ignore[call-overload,no-any-return]


def _command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "tablewalk", *map(str, args)]


def _environment(options: dict[str, Any]) -> dict[str, Any]:
    return {"env": {**os.environ, "PYTHONPATH": SOURCES, **options.pop("environment", {})}, **options}


def only(path: Path) -> Columns:
    (columns,) = Recording.open(path).row_groups()
    return columns


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running_children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [c for p in map(int, text.split()) for c in (p, *running_children(p))]


def test_record(perf_works: None, tmp_path: Path) -> None:
    out = tmp_path / "x.tw"
    run = tablewalk("record", "-o", out, "--json", "--", sys.executable, "-c", EXACT + "raise SystemExit(7)")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["exit_status"], told["lost"], told["complete"], told["missing"]) == (7, 0, True, [])
    assert told["bytes"] == out.stat().st_size and told["recording"] == str(out)
    meta = Recording.open(out).meta
    assert meta.command[:2] == [sys.executable, "-c"] and meta.kernel == os.uname().release
    assert (meta.page_size, meta.cpus, meta.exit_status, meta.clock) == (4096, os.cpu_count(), 7, "CLOCK_MONOTONIC")
    assert meta.levels in (4, 5) and "enabled" in meta.thp
    c = only(out)
    assert told["rows"] == {k.name.lower(): c.kind.count(k) for k in Kind}
    main = c.pid[c.kind.index(Kind.COMM)]
    # The first is the exec, in which perf begins: it has no entry.
    first = c.kind.index(Kind.SYSCALL)
    assert (c.nr[first], c.ret[first], c.pid[first]) == (59, 0, main)
    exact = [s for s in Recording.open(out).samples() if s.exact]
    assert [s.pid for s in exact] == [main] and exact[0].vmpte > 0
    assert c.kind[-1] == Kind.EXIT
    assert [p.name for p in tmp_path.iterdir()] == ["x.tw"]


def test_output_name_and_report(perf_works: None, tmp_path: Path) -> None:
    for name in ("true.tw", "true-2.tw"):
        run = tablewalk("record", "true", cwd=tmp_path)
        assert run.returncode == 0 and run.stdout == ""
        assert f"{name}: " in run.stderr and " fault, " in run.stderr
        assert (tmp_path / name).exists()


def test_samples_of_all_descendants_and_of_nobody_else(perf_works: None, tmp_path: Path) -> None:
    out = tmp_path / "x.tw"
    run = tablewalk("record", "-o", out, "--interval", "2", "--", "sh", "-c", "sleep 0.3 & sleep 0.3; wait")
    assert run.returncode == 0, run.stderr
    c = only(out)
    pids = {p for k, p in zip(c.kind, c.pid, strict=True) if k != Kind.SAMPLE}
    sampled = {s.pid for s in Recording.open(out).samples()}
    assert len(sampled) == 3 and sampled <= pids


def test_status_of_a_program_that_a_signal_ends(perf_works: None, tmp_path: Path) -> None:
    out = tmp_path / "x.tw"
    run = tablewalk("record", "-o", out, "--", "sh", "-c", "kill -9 $$")
    assert run.returncode == 0, run.stderr
    assert Recording.open(out).meta.exit_status == 128 + signal.SIGKILL
    assert "the program exited with status 137" in run.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(perf_works: None, tmp_path: Path, sign: signal.Signals) -> None:
    out = tmp_path / "x.tw"
    run = started("record", "-o", out, "--", sys.executable, "-c", BUSY, "60")
    assert run.stdout and run.stdout.readline() == "running\n"
    run.send_signal(sign)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    meta = Recording.open(out).meta
    assert meta.exit_status is None and meta.complete
    assert Recording.open(out).num_rows > 100
    assert [p.name for p in tmp_path.iterdir()] == ["x.tw"]


def test_seconds(perf_works: None, tmp_path: Path) -> None:
    run = tablewalk("record", "-o", tmp_path / "x.tw", "--seconds", "3", "--", sys.executable, "-c", BUSY, "60")
    assert run.returncode == 0, run.stderr
    meta = Recording.open(tmp_path / "x.tw").meta
    assert meta.exit_status is None and meta.end - meta.start < 10e9


def test_killed(perf_works: None, tmp_path: Path) -> None:
    """SIGKILL of the recorder: perf ends well by itself, and what it wrote can be had."""
    out = tmp_path / "x.tw"
    run = started("record", "-o", out, "--", sys.executable, "-c", BUSY, "60")
    assert run.stdout and run.stdout.readline() == "running\n"
    until(lambda: (tmp_path / "x.tw.part" / "samples").exists())
    pids = running_children(run.pid)
    run.kill()
    run.wait()
    until(lambda: not any(os.path.exists(f"/proc/{p}/fd/0") for p in pids))
    again = tablewalk("record", "-o", out, "--", "true")
    assert again.returncode == 2 and "cut short, or still runs; run tablewalk import" in again.stderr
    with pytest.raises(TablewalkError, match="run: tablewalk import"):
        Recording.open(tmp_path / "x.tw.part")
    recovered = tablewalk("import", tmp_path / "x.tw.part", "--json")
    assert recovered.returncode == 0, recovered.stderr
    told = json.loads(recovered.stdout)
    assert told["complete"] is False and told["rows"]["fault"] > 100 and told["rows"]["sample"] > 0
    meta = Recording.open(out).meta
    assert not meta.complete and meta.exit_status is None and meta.command[0] == sys.executable


def test_killed_perf(perf_works: None, tmp_path: Path) -> None:
    """SIGKILL of perf itself: its file has neither its length nor the formats of the tracepoints."""
    out = tmp_path / "x.tw"
    run = started("record", "-o", out, "--", sys.executable, "-c", BUSY, "60")
    assert run.stdout and run.stdout.readline() == "running\n"
    pids = running_children(run.pid)
    perf = next(p for p in pids if Path(f"/proc/{p}/comm").read_text() == "perf\n")
    until(lambda: (tmp_path / "x.tw.part" / "perf.data").stat().st_size > 100_000)
    os.kill(perf, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2 and "(partial: it was cut short)" in said
    meta = Recording.open(out).meta
    assert not meta.complete and meta.exit_status is None
    assert Recording.open(out).num_rows > 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    path = tmp_path / "small"
    path.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (not root)")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_disk_full_while_recording(perf_works: None, small_disk: Path, tmp_path: Path) -> None:
    run = tablewalk("record", "-o", small_disk / "x.tw", "--", sys.executable, "-c", BUSY, "60")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "the disk is full" in run.stderr and "are kept" in run.stderr
    recovered = tablewalk("import", small_disk / "x.tw.part", "-o", tmp_path / "x.tw")
    assert recovered.returncode == 0 and "partial" in recovered.stderr
    assert Recording.open(tmp_path / "x.tw").num_rows > 1000


def test_disk_full_while_writing_the_recording(small_run: PerfDataFile, perf_path: Path, small_disk: Path) -> None:
    perf_path.write_bytes(small_run.bytes())
    (small_disk / "ballast").write_bytes(bytes((4 << 20) - 4096))
    run = tablewalk("import", perf_path, "-o", small_disk / "x.tw")
    assert run.returncode == 2
    assert run.stderr == f"tablewalk: {small_disk}/x.tw: cannot be written: No space left on device\n"
    assert [p.name for p in small_disk.iterdir()] == ["ballast"]


def test_require_all_and_no_perf(tmp_path: Path) -> None:
    empty = {"PATH": str(tmp_path)}
    run = tablewalk("record", "-o", tmp_path / "x.tw", "/bin/true", environment=empty)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "perf is missing" in run.stderr and "apt-get install linux-perf" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["record"], "either a COMMAND to run or -p PID"),
        (["record", "-p", "1", "true"], "either a COMMAND to run or -p PID"),
        (["record", "no-such-command"], "no-such-command: no such command"),
        (["record", "-p", "4194304"], "process 4194304"),
        (["record", "-o", "/nowhere/x.tw", "true"], "/nowhere/x.tw.part: cannot be made"),
        (["import", "/nowhere/x"], "/nowhere/x: No such file"),
        (["import", "/"], "no directory that a recording left"),
        (["import", sampler.__file__], "line 1 is none of perf script"),
    ],
)
def test_wrong_use(perf_works: None, args: list[str], what: str, tmp_path: Path) -> None:
    run = tablewalk(*args, cwd=tmp_path)
    assert run.returncode == 2
    assert what in run.stderr and run.stderr.count("\n") == 1, run.stderr


def test_attach(perf_works: None, tmp_path: Path) -> None:
    out = tmp_path / "x.tw"
    with subprocess.Popen([sys.executable, "-c", BUSY, "60"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout and program.stdout.readline() == "running\n"
        try:
            run = tablewalk("record", "-o", out, "--seconds", "0.5", "-p", str(program.pid))
            assert run.returncode == 0, run.stderr
            assert program.poll() is None  # it goes on
            maps = Path(f"/proc/{program.pid}/maps").read_text()
        finally:
            program.kill()
    recording = Recording.open(out)
    attach = recording.meta.attach
    assert attach and attach["pid"] == program.pid and attach["held"] and attach["vmpte_kb"] > 0
    assert recording.meta.start == attach["time"] and recording.meta.source == "attach"
    assert "not known of what was before" in run.stderr
    c = next(recording.row_groups())
    start = [i for i, t in enumerate(c.t) if t == attach["time"]]
    assert c.kind[start[0]] == Kind.COMM
    spans = {(c.a0[i], c.a0[i] + c.a1[i]) for i in start if c.kind[i] == Kind.MMAP}
    listed = [line.split() for line in maps.splitlines() if "[vsyscall]" not in line]
    assert spans == {tuple(int(x, 16) for x in words[0].split("-")) for words in listed}
    populated = [c.a0[i] for i in start if c.kind[i] == Kind.FAULT]
    assert len(populated) == len(set(populated)) > 500
    samples = recording.samples()
    assert samples[0].exact and samples[0].vmpte == attach["vmpte_kb"] and len(samples) > 10
    later = [k for k, t in zip(c.kind, c.t, strict=True) if t > attach["time"]]
    assert later.count(Kind.FAULT) > 100 and later.count(Kind.SYSCALL) >= 1


def test_attach_until_the_process_ends(perf_works: None, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY, "6"], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout and program.stdout.readline() == "running\n"
        run = tablewalk("record", "-o", tmp_path / "x.tw", "-p", str(program.pid))
    assert run.returncode == 0, run.stderr
    *_, last = Recording.open(tmp_path / "x.tw").row_groups()
    assert last.kind[-1] == Kind.EXIT
