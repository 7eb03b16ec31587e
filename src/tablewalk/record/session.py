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
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.files import replaceable
from tablewalk.inspect import procfs
from tablewalk.record import events, sampler, strace
from tablewalk.record.attach import snapshot
from tablewalk.record.host import describe
from tablewalk.record.part import Part
from tablewalk.record.perf import Perf
from tablewalk.record.recording import Meta
from tablewalk.record.rows import Names

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


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
        there = "/" in command[0] and os.path.exists(command[0])
        raise TablewalkError(f"{command[0]}: {'not executable' if there else 'no such command'}")
    perf, part, meta = _prepare(output, "record", command, require_all)
    environment = {**os.environ, "TABLEWALK_SAMPLES": str(part.exact_samples.absolute())}
    with _nothing_left(part), _stoppable() as stop:
        if perf.strace:
            part.strace.write_bytes(strace.header())
            command = [*strace.command(perf.strace, part.strace), *command]
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
    with _nothing_left(part), _stoppable() as stop:
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
    replaceable(output)
    perf = Perf.find()
    if require_all and perf.missing:
        raise TablewalkError("; ".join(perf.missing))
    part = Part(output)
    part.create()
    with _nothing_left(part):
        meta = Meta(command=command, source=source, perf_version=perf.version, complete=False)
        describe(meta)
        meta.missing += perf.missing
        part.write_meta(meta)
        part.write_formats(perf.tracefs, [e for e in perf.events if e in events.TRACEPOINT_FIELDS])
    return perf, part, meta


@contextlib.contextmanager
def _nothing_left(part: Part) -> Iterator[None]:
    """Removes the directory where something goes wrong before perf has written anything."""
    try:
        yield
    except BaseException:
        if not part.gathered:
            part.remove()
        raise


def _gathered(perf: Perf, part: Part, meta: Meta, stop: _Stop, status: int) -> tuple[Part, bool]:
    """Note that all went well; raise TablewalkError where perf did not do its part, and say why."""
    if not (size := part.gathered):
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
