# SPDX-License-Identifier: GPL-2.0-only
"""What goes wrong is one line that says what, where and what to do; what was compared by then is kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tablewalk.cli import main
from tablewalk.validate import qemu, session, workers
from tablewalk.validate.compare import Comparison
from tablewalk.validate.generate import Generator
from tablewalk.validate.kernels import PARTS, find
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.observe import digest
from tablewalk.validate.ops import program_text
from tablewalk.validate.results import VERSION
from tablewalk.validate.setup import setup

from . import fake_guest

KERNEL = "x86_64-6.12"
LENGTH, PROGRAMS = 20, 6
SHORT = f"from tablewalk.validate import session; session.LENGTH = {LENGTH}; from tablewalk.cli import main; main()"


def answers() -> dict[str, list[str]]:
    """What a guest that agrees answers to the first programs."""
    on = setup(find(KERNEL))
    model, told = ModelRun(on.config, on.geometry, on.exact_rss), {}
    for seed in range(1, PROGRAMS + 1):
        program = Generator(seed, "", on.geometry).program(LENGTH)
        lines = []
        for i, op in enumerate(program):
            result, error = model.run(op)
            lines.append(f"{i} {result} {error} {digest(model.text()):x}")
        told[fake_guest.key(fake_guest.programs(program_text(program, on.geometry, on.exact_rss))[0])] = lines
    return told


@pytest.fixture(scope="module")
def told() -> dict[str, list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", "/nowhere")
        return answers()


@pytest.fixture
def guest(told: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A kernel that seems to be cached, and the programs to boot it; what the stand-in for QEMU reads is there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "answers.json").write_text(json.dumps(told))
    (programs / "fake_guest.py").write_text(Path(fake_guest.__file__).read_text())
    for name, text in {
        "qemu-system-x86_64": f'exec {sys.executable} -I {programs}/fake_guest.py "$@"',
        "x86_64-linux-gnu-gcc": 'while [ "$1" != -o ]; do shift; done; : >"$2"',
        "mke2fs": "",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = find(KERNEL).directory
    directory.mkdir(parents=True)
    (directory / "image").touch()
    (directory / "package.json").write_text(json.dumps({"version": "stand-in 1", "parts": list(PARTS)}))
    monkeypatch.setattr(session, "LENGTH", LENGTH)
    forget = workers._comparison.cache_clear, qemu.empty_file_system.cache_clear
    for each in forget:
        each()
    yield programs
    for each in forget:
        each()


def arguments(results: Path, *more: str) -> list[str]:
    ops = str(LENGTH * PROGRAMS)
    return ["validate", "--kernel", KERNEL, "--ops", ops, "--jobs", "1", "--json", "-o", str(results), *more]


def tablewalk(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[dict[str, Any]], str]:
    """(status, what was found, stderr)."""
    with pytest.raises(SystemExit) as e:
        main(args)
    out, err = capsys.readouterr()
    return int(e.value.code or 0), json.loads(out)["kernels"] if out else [], err


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("agent-died", 2, "the agent ended early (signal 11)"),
        ("process-died", 2, "the agent stops: a process died: signal 11"),
        ("hang", 2, "no answer for 0.5 s"),
        ("qemu-died", 2, "QEMU ended early: cannot allocate memory"),
        ("panic", 1, f"the guest says {fake_guest.PANIC.strip()} (a bug of that kernel?)"),
        ("oops", 1, f"the guest says {fake_guest.OOPS.splitlines()[0]} (a bug of that kernel?)"),
    ],
)
def test_a_guest_that_ends(
    guest: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    status: int,
    message: str,
) -> None:
    results = guest / "results"
    monkeypatch.setattr(workers, "_comparison", lambda kernel, driver: Comparison(setup(find(kernel)), driver, 0.5))
    (guest / "fault").write_text(f"{fault} {2 * LENGTH + 3}")
    got, (found,), err = tablewalk(capsys, *arguments(results))
    assert (got, found["ended"], err) == (status, f"kernel {KERNEL}: {message}", "")
    assert (found["operations"], found["programs"], found["disagreements"]) == (2 * LENGTH, 2, [])
    assert found["oops"] == {"panic": fake_guest.PANIC.strip(), "oops": fake_guest.OOPS.strip()}.get(fault)
    (guest / "fault").unlink()
    got, (found,), err = tablewalk(capsys, *arguments(results))
    assert (got, found["operations"], found["ended"]) == (0, LENGTH * PROGRAMS, None)


def test_a_guest_that_ends_for_a_reader(guest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (guest / "fault").write_text(f"oops {LENGTH}")
    with pytest.raises(SystemExit) as e:
        main([arg for arg in arguments(guest / "results") if arg != "--json"])
    out, err = capsys.readouterr()
    assert e.value.code == 1
    assert "the kernel reports trouble, which may be a bug of its own:\n" + fake_guest.OOPS in out
    assert err.count("\n") == 1 and "BUG: kernel NULL pointer dereference" in err


def test_no_qemu(guest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (guest / "qemu-system-x86_64").unlink()
    monkeypatch.setenv("PATH", str(guest))
    message = "qemu-system-x86_64 is not here: apt-get install qemu-system-x86"
    got, (found,), err = tablewalk(capsys, *arguments(guest / "results"))
    assert (got, found["ended"], err) == (2, f"kernel {KERNEL}: {message}", "")


def test_no_network(guest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel that cannot be had is named, and the others are compared."""
    (guest / "apt-get").write_text("#!/bin/sh\necho 'E: Could not resolve host' >&2\nexit 100\n")
    (guest / "apt-get").chmod(0o755)
    got, found, err = tablewalk(capsys, *arguments(guest / "results", "--kernel", "x86_64-6.1"))
    assert got == 2 and err == ""
    assert [(v["kernel"], v["operations"]) for v in found] == [(KERNEL, LENGTH * PROGRAMS), ("x86_64-6.1", 0)]
    assert found[1]["ended"].startswith("kernel x86_64-6.1 cannot be had: ")
    assert "Could not resolve host" in found[1]["ended"] and "\n" not in found[1]["ended"]


@pytest.mark.parametrize(("how", "jobs"), [(signal.SIGINT, "1"), (signal.SIGINT, "2"), (signal.SIGKILL, "2")])
def test_interrupted(guest: Path, capsys: pytest.CaptureFixture[str], how: signal.Signals, jobs: str) -> None:
    """Nothing is left running, and what comes after finds the same in all."""
    results = guest / "results"
    (guest / "fault").write_text("slow 0")
    args = arguments(results, "--jobs", jobs)
    running = subprocess.Popen(
        (sys.executable, "-c", SHORT, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: programs_kept(results) > 0)
    running.send_signal(how)
    out, err = running.communicate(timeout=20)
    interrupted = how == signal.SIGINT
    assert (running.returncode, out, err) == ((130, "", "tablewalk: interrupted\n") if interrupted else (-how, "", ""))
    wait_for(lambda: not stand_ins(guest))
    assert 0 < programs_kept(results) < PROGRAMS
    (guest / "fault").unlink()
    assert tablewalk(capsys, *arguments(results))[:2] == tablewalk(capsys, *arguments(guest / "others"))[:2]
    assert programs_kept(results) == PROGRAMS


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def programs_kept(results: Path) -> int:
    name = f"file:{results}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(name, uri=True)) as db:
        return int(db.execute("select count(*) from outcomes").fetchone()[0])
    return 0


def stand_ins(guest: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(guest / "fake_guest.py") in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_a_worker_that_is_killed(guest: Path) -> None:
    results = guest / "results"
    (guest / "fault").write_text("slow 0")
    running = subprocess.Popen(
        (sys.executable, "-c", SHORT, *arguments(results, "--jobs", "2")), stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: programs_kept(results) > 0)
    os.kill(int(parent_of(stand_ins(guest)[0])), signal.SIGKILL)
    found = json.loads(running.communicate(timeout=20)[0])["kernels"][0]
    assert running.returncode == 2
    assert found["ended"] == f"kernel {KERNEL}: a process that compares was killed"
    assert found["programs"] == programs_kept(results) < PROGRAMS


def parent_of(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]


def test_disk_full(guest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the results: what fits is kept."""
    results = guest / "full" / "results"
    results.parent.mkdir()
    small = ("mount", "-t", "tmpfs", "-o", "size=32k", "tablewalk", str(results.parent))
    if os.geteuid() or subprocess.run(small, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        (results.parent / "rest").write_bytes(bytes(8 << 10))
        got, (found,), err = tablewalk(capsys, *arguments(results))
        assert (got, err) == (2, "")
        assert found["ended"] == f"{results}: results cannot be kept there: database or disk is full"
        kept = found["operations"]
        assert kept == LENGTH * programs_kept(results)
        (results.parent / "rest").unlink()
        shutil.copy(results, guest / "results")
    finally:
        subprocess.run(("umount", str(results.parent)), check=True)
    assert tablewalk(capsys, *arguments(guest / "results"))[1][0]["operations"] == LENGTH * PROGRAMS


def damage_first(results: Path) -> None:
    results.write_bytes(b"no database" * 1000)


def damage_pages(results: Path) -> None:
    data = bytearray(results.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    results.write_bytes(data)


def damage_row(results: Path) -> None:
    with contextlib.closing(sqlite3.connect(results)) as db, db:
        db.execute("update outcomes set coverage='{'")


def other_version(results: Path) -> None:
    with contextlib.closing(sqlite3.connect(results)) as db, db:
        db.execute(f"pragma user_version = {VERSION + 1}")
        db.execute("alter table outcomes drop column differences")


def other_program(results: Path) -> None:
    results.unlink()
    with contextlib.closing(sqlite3.connect(results)) as db, db:
        db.execute("create table outcomes (name text)")


@pytest.mark.parametrize("damage", [damage_first, damage_pages, damage_row, other_version, other_program])
def test_results_that_cannot_be_used(guest: Path, capsys: pytest.CaptureFixture[str], damage: Any) -> None:
    results = guest / "results"
    assert tablewalk(capsys, *arguments(results))[0] == 0
    damage(results)
    before = results.read_bytes()
    got, found, err = tablewalk(capsys, *arguments(results))
    assert (got, found, err.count("\n")) == (2, [], 1)
    assert err.startswith(f"tablewalk: {results}: ") and "remove" in err
    assert results.read_bytes() == before
