# SPDX-License-Identifier: GPL-2.0-only
"""A program of operations on a real kernel, answer by answer: on the one that runs here, or on one that QEMU boots."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tablewalk.errors import TablewalkError, escape

from . import qemu
from .build import static_program
from .kernels import Kernel, ensure

AGENT = Path(__file__).parent / "agent"
BOOT_SECONDS = 180.0
INIT = "# "  # begins what init prints
KERNEL = "[ "  # and messages of the kernel, which s390 prints on the device for the answers, too


class Ended(TablewalkError):
    """The run ended before the program did; what was answered by then holds.

    `reason` is "hang", "signal" or "exit" (of the agent), "agent" (it gave up), "oops" (also a warning or panic),
    "boot", "qemu", or "error" (of what runs them); `report` is what the console, or stderr, has of it.
    """

    def __init__(self, kernel: Kernel, reason: str, what: str, report: str) -> None:
        super().__init__(f"kernel {kernel.name}: {what}")
        self.reason, self.what, self.report = reason, what, report


def run(
    kernel: Kernel,
    program: str,
    verbose_from: int | None = None,
    timeout: float = 60.0,
    agent: Path = AGENT,
) -> Iterator[str]:
    """The lines that the agent answers to `program` on `kernel`, as they come.

    `verbose_from` is the operation from which on observations are printed in full, `timeout` the seconds without any
    answer after which a run is given up (booting has its own limit), `agent` the directory of the agent's C sources.
    Raises Ended if not the whole program was executed, TablewalkError where nothing could be run at all.
    """
    built = static_program(agent, kernel.arch)
    arguments = () if verbose_from is None else ("-v", str(verbose_from))
    with tempfile.TemporaryDirectory(prefix="tablewalk-") as name:
        if kernel.is_host:
            yield from _on_host(kernel, program, (str(built), *arguments), timeout, Path(name))
        else:
            files = {"agent": built.read_bytes(), "program": program.encode()}
            for line in _in_guest(kernel, files, arguments, timeout, Path(name)):
                if not line.startswith(INIT):
                    yield line


def boot(kernel: Kernel) -> str:
    """Boot `kernel` and power it off: what uname says there.  Raises as `run` does."""
    if kernel.is_host:
        return os.uname().release
    with tempfile.TemporaryDirectory(prefix="tablewalk-") as name:
        ready, *_ = _in_guest(kernel, {}, (), BOOT_SECONDS, Path(name))
    return ready.removeprefix(f"{INIT}ready ")


def _on_host(kernel: Kernel, program: str, command: tuple[str, ...], timeout: float, directory: Path) -> Iterator[str]:
    scratch, stdin, stderr = directory / "scratch", directory / "program", directory / "stderr"
    scratch.mkdir()
    stdin.write_text(program)
    with stdin.open("rb") as i, stderr.open("wb") as e:
        process = subprocess.Popen(
            command, stdin=i, stdout=subprocess.PIPE, stderr=e, cwd=scratch, env={}, start_new_session=True
        )
    with _reaped(process):
        try:
            yield from _lines(process, timeout)
        except TimeoutError:
            raise Ended(kernel, "hang", f"no answer for {timeout:g} s", "") from None
        status = process.wait()
    if status:
        reason = "signal" if status < 0 else "exit"
        said = escape(_text(stderr)[-200:])
        raise Ended(
            kernel, reason, f"the agent ended early ({reason} {abs(status)}){said and ': '}{said}", _text(stderr)
        )


def _in_guest(
    kernel: Kernel, files: dict[str, bytes], arguments: tuple[str, ...], timeout: float, directory: Path
) -> Iterator[str]:
    """The lines that init and the agent print in a guest with `files`, from init's first on."""
    ensure(kernel)
    initramfs, console, stderr = directory / "initramfs", directory / "console", directory / "stderr"
    initramfs.write_bytes(qemu.initramfs(kernel, files))
    command = qemu.command(kernel, initramfs, console, arguments)
    said = ""  # by init, last: nothing, ready, or how the agent ended
    hung = False
    with stderr.open("wb") as e:
        guest = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=e, start_new_session=True
        )
    with _reaped(guest):
        try:
            for line in _lines(guest, timeout, BOOT_SECONDS):
                if line.startswith(INIT):
                    said = line.removeprefix(INIT)
                if said and not line.startswith(KERNEL):
                    yield line
        except TimeoutError:
            hung = True
    if said != "exit 0":
        raise _end(kernel, said, timeout if hung else None, _text(console), _text(stderr))


def _end(kernel: Kernel, said: str, hung: float | None, console: str, stderr: str) -> Ended:
    """Why a guest ended early: `said` is init's last word, `hung` the seconds of silence it was ended for."""
    if report := qemu.trouble(console):
        return Ended(kernel, "oops", f"the guest says {escape(report.splitlines()[0])} (a bug of that kernel?)", report)
    how = said.split(" ")[0]
    if how in ("exit", "signal"):
        return Ended(kernel, how, f"the agent ended early ({said})", console)
    if hung is None:
        return Ended(kernel, "qemu", f"QEMU ended early: {escape(stderr[:200]) or 'it does not say why'}", stderr)
    if how == "ready":
        return Ended(kernel, "hang", f"no answer for {hung:g} s", console)
    return Ended(kernel, "boot", f"not booted after {BOOT_SECONDS:g} s", console)


def _text(path: Path) -> str:
    return path.read_text(errors="backslashreplace").strip() if path.exists() else ""


@contextlib.contextmanager
def _reaped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """See that nothing is left of `process`, the leader of its group, or of its children."""
    with process:
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _lines(process: subprocess.Popen[bytes], timeout: float, at_first: float | None = None) -> Iterator[str]:
    """The lines that `process` prints, until it ends; an unfinished last one is dropped.

    Raises TimeoutError after `timeout` seconds (`at_first` before the first line) in which nothing came.
    """
    assert process.stdout is not None
    fd = process.stdout.fileno()
    rest, wait = b"", at_first or timeout
    while True:
        if not select.select([fd], [], [], wait)[0]:
            raise TimeoutError
        if not (data := os.read(fd, 1 << 16)):
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="backslashreplace")
        if lines:
            wait = timeout
