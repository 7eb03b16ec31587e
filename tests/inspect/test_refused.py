# SPDX-License-Identifier: GPL-2.0-only
"""Processes that cannot be looked at, or only with care: one clear line each."""

from __future__ import annotations

import os
import platform
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.inspect import Inspection, Inspector, Uninspectable, procfs

NOBODY = 65534
SOURCE = Path(__file__).parents[2] / "src"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def as_nobody(pid: int, *wrapper: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import ctypes, os; from tablewalk.cli import main; import tablewalk.cli.inspect;"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY});"
        "ctypes.CDLL(None).prctl(4, 1);"  # PR_SET_DUMPABLE, as after an execve
        f"main(['inspect', '{pid}'])"
    )
    return subprocess.run(
        [*wrapper, sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )


def test_no_such_process(inspector: Inspector) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(Uninspectable, match=rf"^process {process.pid}: no such process$"):
        inspector.inspect(process.pid)


def test_kernel_thread(inspector: Inspector) -> None:
    try:
        if Path("/proc/2/comm").read_text() != "kthreadd\n":
            pytest.skip("no kernel threads in this pid namespace")
    except FileNotFoundError:
        pytest.skip("no kernel threads in this pid namespace")
    with pytest.raises(Uninspectable, match=r"^process 2 \(kthreadd\): kernel thread"):
        inspector.inspect(2)


def test_zombie(inspector: Inspector) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(Uninspectable, match=r"\(true\): zombie"):
        inspector.inspect(process.pid)
    process.wait()


@pytest.mark.parametrize("step", ["memory_kb", "vmas", "open"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_dies_while_looked_at(
    step: str, when: str, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(procfs.Process, step)
    with running("cat") as process:

        def dying(self: procfs.Process, *args: str) -> object:
            if when == "before":
                die()
            result = original(self, *args)
            die()
            return result

        def die() -> None:
            process.kill()
            process.wait()

        monkeypatch.setattr(procfs.Process, step, dying)
        with pytest.raises(Uninspectable, match=r"^process \d+( \(\w+\))?: exited while it was looked at$"):
            inspector.inspect(process.pid)


def test_killed_at_any_time(inspector: Inspector) -> None:
    seen = set()
    for i in range(150):
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        killer = threading.Timer(i * 20e-6, process.kill)
        killer.start()
        try:
            result = inspector.inspect(process.pid)
            seen.add("ok")
            assert isinstance(result, Inspection)
            assert result.changed or result.tables.missing == 0
        except Uninspectable as e:
            seen.add(e.reason)
        killer.join()
        process.communicate()
    assert seen <= {"ok", procfs.EXITED, procfs.ZOMBIE, procfs.DENIED}


@needs_root
def test_other_user() -> None:
    with running("cat") as process:
        result = as_nobody(process.pid)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"tablewalk: process {process.pid} (cat): {procfs.DENIED}\n"


@needs_root
def test_hidepid(tmp_path: Path) -> None:
    with running("cat") as process:
        mount = 'mount -t proc -o hidepid=2 proc /proc || exit 77; exec "$@"'
        result = as_nobody(process.pid, "unshare", "--mount", "sh", "-c", mount, "sh")
    if result.returncode == 77:
        pytest.skip(f"cannot mount /proc here: {result.stderr}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"tablewalk: process {process.pid}: {procfs.HIDDEN}\n"


def test_32_bit_process(inspector: Inspector, tmp_path: Path) -> None:
    """A process of a 32-bit program has the same tables as any other."""
    code = b"\xb8\x1d\x00\x00\x00\xcd\x80\xeb\xf7"  # mov $__NR_pause, %eax; int $0x80; jmp -9
    base, entry = 0x08048000, 0x08048000 + 52 + 32
    size = 52 + 32 + len(code)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    program = header + struct.pack("<8I", 1, 0, base, base, size, size, 5, 4096) + code
    path = tmp_path / "pause32"
    path.write_bytes(program)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    try:
        context = running(str(path))
        with context as process:
            result = inspector.inspect(process.pid)
    except OSError as e:
        pytest.skip(f"this kernel runs no 32-bit programs: {e.strerror}")
    assert not result.changed
    assert result.tables.vmpte == result.tables.populated + result.tables.empty + result.tables.unknown
    assert max(t.vma.end for t in result.tables.vmas) <= 1 << 32


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(TablewalkError, match="x86_64 only, not aarch64"):
        Inspector()


def test_survey_says_who_was_left_out(inspector: Inspector) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with running("cat") as process:
        survey = inspector.survey([gone.pid, process.pid])
    assert [p.pid for p in survey.processes] == [process.pid]
    assert [(e.pid, e.reason) for e in survey.skipped] == [(gone.pid, "no such process")]


def test_shared_memory_counts_once(inspector: Inspector) -> None:
    """vfork(2): the child runs on its parent's memory until it ends."""
    code = "import ctypes, time; ctypes.CDLL(None).syscall(56, 0x4111, 0, 0, 0, 0) or print(flush=True)"
    code += "; time.sleep(60)"
    with running(sys.executable, "-c", code) as process:
        assert process.stdout
        process.stdout.readline()  # the child's
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("this kernel does not list children (CONFIG_PROC_CHILDREN)")
        [child] = map(int, children.read_text().split())
        survey = inspector.survey([process.pid, child])
        os.kill(child, signal.SIGKILL)
    if not survey.same_mm:
        pytest.skip("kcmp(2) does not say")
    assert survey.same_mm == {child: process.pid}
    assert [p.pid for p in survey.distinct] == [process.pid]
