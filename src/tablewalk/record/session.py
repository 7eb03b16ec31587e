# SPDX-License-Identifier: GPL-2.0-only
"""Runs perf and the sampler around a program, and makes a recording of what they gathered."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.inspect import procfs
from tablewalk.record import events, sampler, strace
from tablewalk.record.attach import snapshot
from tablewalk.record.host import describe
from tablewalk.record.part import Part, format_file
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Names

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_CAP_SYS_ADMIN, _CAP_PERFMON = 21, 38  # include/uapi/linux/capability.h
_BUFFER = 16 << 20  # bytes a CPU, with which 13 million faults in 45 s lost nothing
_BUFFERS = 256 << 20  # bytes for all CPUs
_GET_PERF = "install it (Debian: apt-get install linux-perf)"
_GET_ALL = "run as root, or: sysctl kernel.perf_event_paranoid=-1 and mount -o remount,mode=755 /sys/kernel/tracing"


@dataclass
class Perf:
    """The perf of this machine and what it may record here."""

    path: str
    version: str
    options: list[str]
    tracefs: Path
    events: list[str]
    missing: list[str] = field(default_factory=list)
    privileged: bool = True
    strace: str | None = None  # to trace system calls with where perf may not

    @classmethod
    def find(cls) -> Perf:
        """Look for perf, tracefs and permissions. Raises TablewalkError where nothing can be recorded."""
        if os.uname().machine != "x86_64":
            raise TablewalkError("only x86-64 can be recorded; replay --arch shows what others would do")
        path = shutil.which("perf")
        if not path:
            raise TablewalkError(f"perf is missing, without which nothing can be recorded: {_GET_PERF}")
        try:
            version = _output(path, "--version").removeprefix("perf version").strip()
            usage = _output(path, "record", "-h")
        except OSError as e:
            raise TablewalkError(f"{path}: does not run: {e.strerror}") from None
        wanted = {
            "--no-bpf-event": "--no-bpf-event",
            "--buildid-mmap": "--no-buildid-mmap",
            "--synth": "--synth=no",
        }
        perf = cls(path, version, [o for known, o in wanted.items() if known in usage], _tracefs(), [])
        paranoid = _paranoid()
        perf.privileged = _capable() or paranoid < 0
        perf.events = [e for e in events.EVENTS if e not in events.TRACEPOINT_FIELDS or perf.can_trace(e)]
        if absent := [e for e in events.EVENTS if e not in perf.events]:
            how = "this kernel does not have them" if _capable() else _GET_ALL
            perf.missing.append(f"tracepoints {', '.join(absent)} cannot be recorded here ({how})")
        if events.SYS_ENTER not in perf.events or events.SYS_EXIT not in perf.events:
            perf.strace = shutil.which("strace")
            if not perf.strace:
                perf.missing.append("strace, which could trace system calls instead (apt-get install strace)")
        if paranoid > 2 and not _capable():
            raise TablewalkError(f"perf is forbidden here (kernel.perf_event_paranoid={paranoid}): {_GET_ALL}")
        return perf

    def can_trace(self, event: str) -> bool:
        """Whether this tracepoint (system:event) exists and may be recorded."""
        return self.privileged and os.access(format_file(self.tracefs, event), os.R_OK)

    def command(self, output: Path) -> list[str]:
        """`perf record` up to the program or process that it is to record."""
        args = [self.path, "record", "-q", "-B", *self.options, "-k", "CLOCK_MONOTONIC", "-d", "-c", "1"]
        args.append("--sample-identifier")
        if self.privileged:
            share = min(_BUFFER, _BUFFERS // (os.cpu_count() or 1))
            args += ["-m", f"{1 << (max(share, 1 << 20).bit_length() - 21)}M"]
        for event in self.events:
            args += ["-e", event]
            if event in events.FILTERS:
                args += ["--filter", events.FILTERS[event]]
        return [*args, "-o", str(output)]

    def complaint(self, part: Part) -> str:
        """Why perf would not start: its first words on a program that does nothing."""
        probe = part.path / "probe.data"
        args = [a for a in self.command(probe) if a != "-q"]
        run = subprocess.run([*args, "--", "true"], capture_output=True, text=True, errors="replace")
        probe.unlink(missing_ok=True)
        return " ".join(run.stderr.split()) if run.returncode else ""


def _output(*command: str) -> str:
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    return run.stdout + run.stderr


def _tracefs() -> Path:
    """Where tracefs is; root mounts it where it belongs, as perf does."""
    usual = Path("/sys/kernel/tracing")
    for path in (usual, Path("/sys/kernel/debug/tracing")):
        if os.path.isdir(path / "events") or os.path.ismount(path):
            return path
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            subprocess.run(["mount", "-t", "tracefs", "tracefs", str(usual)], capture_output=True)
    return usual


def _paranoid() -> int:
    try:
        return int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    except OSError:
        raise TablewalkError("this kernel has no perf events (CONFIG_PERF_EVENTS)") from None


def _capable() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16) & (1 << _CAP_SYS_ADMIN | 1 << _CAP_PERFMON) != 0
    return False


def record(
    command: list[str],
    output: Path,
    *,
    interval: int = 5_000_000,
    seconds: float | None = None,
    require_all: bool = False,
) -> tuple[Part, bool]:
    """Run `command` under perf and sample it every `interval` ns: gathers what becomes the recording `output`.

    The command has this process's standard streams. SIGINT, SIGTERM and SIGHUP end the recording early, and
    so does the passing of `seconds`; perf then ends the command. Returns what was gathered, and whether a
    signal ended it. Raises TablewalkError where nothing can be recorded, or all is required and is not to be
    had, or the disk is full (what there is stays).
    """
    if not shutil.which(command[0]):
        raise TablewalkError(f"{command[0]}: no such command")
    perf, part, meta = _prepare(output, "record", command, require_all)
    environment = {**os.environ, "TABLEWALK_SAMPLES": str(part.exact_samples.absolute())}
    if perf.strace:
        part.strace.write_bytes(strace.header())
        command = [*strace.command(perf.strace, part.strace), *command]
    with _stoppable() as stop:
        stop.target = process = _start([*perf.command(part.perf_data), "--", *command], environment)
        with _sampling(part, interval, [-process.pid], meta):
            status = stop.wait(seconds)
    if not stop.ended:
        meta.exit_status = status if status >= 0 else 128 - status
    return _gathered(perf, part, meta, stop, status)


def attach(
    pid: int, output: Path, *, interval: int = 5_000_000, seconds: float | None = None, require_all: bool = False
) -> tuple[Part, bool]:
    """Record a process that runs already, and what it starts from now on, as `record` does.

    It ends with the process, after `seconds`, or by a signal. The process is held still for some milliseconds
    while its state at the start is read.
    """
    with procfs.Process(pid) as target:  # or raises: not there, a kernel thread, another user's
        target.memory_kb()
        target.read("maps")
        command = [arg.decode(errors="backslashreplace") for arg in target.read("cmdline").split(b"\0")[:-1]]
    perf, part, meta = _prepare(output, "attach", command, require_all)
    listens, asks = os.pipe()
    hears, answers = os.pipe()
    control = ["-D", "-1", f"--control=fd:{listens},{answers}", "-p", str(pid)]
    with _stoppable() as stop:
        stop.target = process = _start([*perf.command(part.perf_data), *control], None, (listens, answers))
        os.close(listens)
        os.close(answers)
        try:
            if _enable(asks, hears):
                state = snapshot(pid, Names())
                part.write_start(state)
                meta.missing += [f"not known of what was before: {what}" for what in state.attach["unknown"]]
                with _sampling(part, interval, [pid], meta):
                    status = stop.wait(seconds)
            else:
                status = process.wait()
        except TablewalkError:
            process.kill()
            process.wait()
            part.remove()
            raise
        finally:
            os.close(asks)
            os.close(hears)
    return _gathered(perf, part, meta, stop, status)


def _enable(asks: int, hears: int) -> bool:
    """Tell perf to begin; False where it has ended instead."""
    try:
        os.write(asks, b"enable\n")
    except BrokenPipeError:
        return False
    return os.read(hears, 16).startswith(b"ack")


def _prepare(output: Path, source: str, command: list[str], require_all: bool) -> tuple[Perf, Part, Meta]:
    """Find perf, make the directory in which is gathered, and note there what is known beforehand."""
    perf = Perf.find()
    if require_all and perf.missing:
        raise TablewalkError("; ".join(perf.missing))
    part = Part(output)
    part.create()
    meta = Meta(command=command, source=source, perf_version=perf.version, complete=False)
    describe(meta)
    meta.missing += perf.missing
    part.write_meta(meta)
    part.write_formats(perf.tracefs, [e for e in perf.events if e in events.TRACEPOINT_FIELDS])
    return perf, part, meta


def _gathered(perf: Perf, part: Part, meta: Meta, stop: _Stop, status: int) -> tuple[Part, bool]:
    """Note that all went well; raise TablewalkError where perf did not do its part, and say why."""
    size = part.perf_data.stat().st_size if part.perf_data.exists() else 0
    if not size:
        why = perf.complaint(part) or f"perf ended with status {status} before it recorded anything"
        part.remove()
        raise TablewalkError(f"perf cannot record: {why}")
    free = os.statvfs(part.path)
    if free.f_bavail * free.f_frsize < 1 << 20:
        raise TablewalkError(
            f"the disk is full; the {size} bytes gathered are kept: make room, then run tablewalk import {part.path}"
        )
    meta.complete = True
    part.write_meta(meta)
    return part, stop.asked > 0


def _start(
    command: list[str], environment: dict[str, str] | None, fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start perf so that it ends, and completes its file, when this process is killed."""
    prctl = ctypes.CDLL(None).prctl
    die_with_us = functools.partial(prctl, _PR_SET_PDEATHSIG, signal.SIGINT)
    return subprocess.Popen(command, env=environment, pass_fds=fds, preexec_fn=die_with_us)


class _Stop:
    """Turns signals to this process into SIGINT for perf, which then ends well; the third one into SIGKILL."""

    def __init__(self) -> None:
        self.asked = 0
        self._in_time = False
        self.target: subprocess.Popen[bytes] | None = None

    @property
    def ended(self) -> bool:
        """The recording was ended before the program did."""
        return self.asked > 0 or self._in_time

    def __call__(self, *_: object) -> None:
        self.asked += 1
        if self.target:
            self.target.send_signal(signal.SIGINT if self.asked < 3 else signal.SIGKILL)

    def wait(self, seconds: float | None) -> int:
        """Wait for perf's end, at most `seconds`, then end it; returns its status."""
        assert self.target
        try:
            return self.target.wait(seconds)
        except subprocess.TimeoutExpired:
            self._in_time = True
            self.target.send_signal(signal.SIGINT)
            return self.target.wait()


@contextlib.contextmanager
def _stoppable() -> Iterator[_Stop]:
    stop = _Stop()
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextlib.contextmanager
def _sampling(part: Part, interval: int, roots: list[int], meta: Meta) -> Iterator[None]:
    """The sampler runs inside; it ends with its input, so also when this process is killed."""
    command = [
        sys.executable,
        "-I",
        "-S",
        sampler.__file__,
        str(part.samples),
        str(interval),
        *map(str, roots),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        _, complaint = process.communicate()
        if process.returncode:
            meta.missing.append(f"samples, from some time on: {complaint.decode(errors='replace').strip()}")
