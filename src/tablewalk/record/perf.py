# SPDX-License-Identifier: GPL-2.0-only
"""The perf of this machine: what it can and may record, and the command line that makes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.record import events
from tablewalk.record.part import Part, format_file

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
        return " ".join(run.stderr.split())[:400] if run.returncode else ""


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
    """Whether perf's own checks are passed: the capability counts in the initial user namespace only."""
    with contextlib.suppress(OSError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16) & (1 << _CAP_SYS_ADMIN | 1 << _CAP_PERFMON) != 0
    return False
