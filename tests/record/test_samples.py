# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.record import sampler
from tablewalk.record.imports import import_perf
from tablewalk.record.recording import Recording
from tablewalk.record.rows import UNKNOWN, Names, Rows
from tablewalk.record.samples import read_samples

if TYPE_CHECKING:
    from tests.record.conftest import PerfDataFile


def read(path: Path, text: bytes, *, exact: bool = False, whole: bool = True) -> Rows:
    path.write_bytes(text)
    return read_samples(path, Names(), exact=exact, whole=whole)


def test_seconds_and_nanoseconds(tmp_path: Path) -> None:
    rows = read(tmp_path / "s", b"# begin end pid\n\n12.000000001 12.5 7 48 100 60\n1000 2000 8 44\n")
    assert rows.t.tolist() == rows.begin.tolist() == [1000, 12_000_000_001]
    assert rows.end.tolist() == [2000, 12_500_000_000]
    assert rows.pid.tolist() == [8, 7]
    assert rows.a[:, 1].tolist() == [48, 100, 60, UNKNOWN, UNKNOWN, 0]
    assert rows.a[:, 0].tolist() == [44, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0]
    assert read(tmp_path / "s", b"1 2 7 48\n", exact=True).a[5].tolist() == [1]
    assert len(read(tmp_path / "s", b"")) == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"1 2 7 48", "last line is cut off"),
        (b"1 2 7 48\nx\n", "line 2 is no sample"),
        (b"1 2 7\n", "line 1 is no sample"),
        (b"5 2 7 48\n", "line 1: the reading ends before it begins"),
        (b"1 2 7 -48\n", "line 1 is no sample"),
        (b"1 9999999999999999999 7 48\n", "line 1"),
    ],
)
def test_bad_lines(tmp_path: Path, text: bytes, what: str) -> None:
    with pytest.raises(TablewalkError, match=what):
        read(tmp_path / "s", text)


def test_last_line_of_a_killed_sampler(tmp_path: Path) -> None:
    assert len(read(tmp_path / "s", b"1 2 7 48\n3 4 7 4", whole=False)) == 1


def test_import_joins_samples(small_run: PerfDataFile, perf_path: Path, tmp_path: Path) -> None:
    perf_path.write_bytes(small_run.bytes())
    (tmp_path / "polled").write_text("999000 999500 100 28\n1000100 1000120 100 44 1 2 3 4\n1000110 1000120 555 44\n")
    (tmp_path / "exact").write_text("0.001000050 0.001000060 100 40\n")
    import_perf(perf_path, tmp_path / "x.tw", tmp_path / "polled", tmp_path / "exact")
    got = Recording.open(tmp_path / "x.tw").samples()
    # Not that of a process nobody knows, nor the one from before the exec.
    assert [(s.begin, s.vmpte, s.vmrss, s.rss_shmem, s.exact) for s in got] == [
        (1000050, 40, None, None, True),
        (1000100, 44, 1, 4, False),
    ]


def test_sampler_follows_the_family(tmp_path: Path) -> None:
    """It reads the children of a process and theirs, also when their parent is gone; nothing else."""
    out = tmp_path / "samples"
    script = "sleep 60 & echo $!; (sleep 60 & echo $!; read x); echo; read x"
    parent = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stranger = subprocess.Popen(["sleep", "60"])
    command = [sys.executable, "-I", "-S", sampler.__file__, str(out), "2000000", str(-parent.pid)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert parent.stdout and parent.stdin
    child, grandchild = (int(parent.stdout.readline()) for _ in range(2))
    try:
        _until(lambda: {child, grandchild} <= _sampled(out).keys())
        parent.stdin.write("\n")
        parent.stdin.flush()
        parent.stdout.readline()  # the one between is gone
        before = len(_sampled(out)[grandchild])
        _until(lambda: len(_sampled(out)[grandchild]) > before + 2)
        process.communicate(timeout=20)
        assert process.returncode == 0
        got = _sampled(out)
        assert {child, grandchild} <= got.keys() and not {stranger.pid, parent.pid, process.pid} & got.keys()
        for samples in got.values():
            assert all(begin <= end and pte > 0 and rss == sum(parts) for begin, end, _, pte, rss, *parts in samples)
    finally:
        for pid in (child, grandchild):
            os.kill(pid, signal.SIGKILL)
        stranger.kill()
        stranger.wait()
        parent.communicate("\n")


def _sampled(path: Path) -> dict[int, list[list[int]]]:
    """The whole lines of a sampler's file by pid."""
    out: dict[int, list[list[int]]] = {}
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        out.setdefault(int(line.split()[2]), []).append([int(word) for word in line.split()])
    return out


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sampler_says_what_stops_it() -> None:
    command = [sys.executable, "-I", "-S", sampler.__file__, "/dev/full", "1000000", str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.wait(20) == 1
        assert process.stderr and process.stderr.read() == "/dev/full: No space left on device\n"
