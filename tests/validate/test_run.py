# SPDX-License-Identifier: GPL-2.0-only
"""Programs on the kernel that runs here and on one in QEMU, and every way in which a run can end early."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.validate import qemu
from tablewalk.validate.build import static_program
from tablewalk.validate.kernels import KERNELS, find
from tablewalk.validate.run import AGENT, Ended, boot, run
from tablewalk.validate.targets import TARGETS

GUEST = find("x86_64-6.12")
HOST = find("host")


def read_cpio(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """The mode and content of each file of a newc archive."""
    files: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        field = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_at, content_at = at + 110, at + 110 + field[11] + -(110 + field[11]) % 4
        name = archive[name_at : name_at + field[11]].rstrip(b"\0").decode()
        if name == "TRAILER!!!":
            return files
        files[name] = field[1], archive[content_at : content_at + field[6]]
        at = content_at + field[6] + -field[6] % 4


def test_cpio() -> None:
    files = {"init": b"12345", "empty": b"", "four": b"1234"}
    assert read_cpio(qemu.cpio(files)) == {name: (0o100755, content) for name, content in files.items()}


def test_host(echo_agent: Path) -> None:
    assert list(run(HOST, "a\nb c\n", agent=echo_agent)) == ["0 0 0 a", "1 0 0 b c"]
    assert list(run(HOST, "a\n", verbose_from=5, agent=echo_agent)) == [" -v 5", "0 0 0 a"]
    assert boot(HOST) == os.uname().release


@pytest.mark.parametrize(
    ("operation", "reason", "message"),
    [
        ("signal", "signal", "kernel host: the agent ended early (signal 11)"),
        ("exit", "exit", "kernel host: the agent ended early (exit 3): no such operation"),
        ("hang", "hang", "kernel host: no answer for 0.3 s"),
    ],
)
def test_host_ends_early(echo_agent: Path, operation: str, reason: str, message: str) -> None:
    answers = []
    with pytest.raises(Ended) as e:
        for answer in run(HOST, f"a\n{operation}\nb\n", timeout=0.3, agent=echo_agent):
            answers.append(answer)
    assert (e.value.reason, str(e.value), answers) == (reason, message, ["0 0 0 a"])


def test_no_process_is_left(echo_agent: Path) -> None:
    answers = run(HOST, "fork and hang\n", timeout=0.3, agent=echo_agent)
    assert next(answers) == "0 0 0 fork and hang"
    with pytest.raises(Ended, match="no answer"):
        list(answers)  # the child has the pipe open
    program = os.fsencode(static_program(echo_agent, HOST.arch))
    deadline = time.monotonic() + 5  # a killed process needs a moment
    while any(line.startswith(program) for _, line in command_lines()):
        assert time.monotonic() < deadline


def command_lines() -> Iterator[tuple[int, bytes]]:
    """(process, command line) of all."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes()


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


PROGRAM = "arena 0x10003f000000 0x100042000000\nfile tmpfs-always 2097152\n0 0 0 reset\n"


needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("gcc"), reason="needs root, and gcc")


@needs_root
def test_an_ordinary_user_is_told_to_be_root() -> None:
    """The agent mounts file systems; kernels in QEMU need no root."""
    agent = static_program(AGENT, HOST.arch)
    with tempfile.TemporaryDirectory() as name:
        there = Path(name) / "agent"
        shutil.copy(agent, there)
        os.chmod(name, 0o777)
        done = subprocess.run(
            (there,), cwd=name, user=65534, group=65534, extra_groups=(), capture_output=True, text=True, input=PROGRAM
        )
    assert (done.returncode, done.stdout) == (1, "! it mounts file systems of its own, which needs root: errno 1\n")


@needs_root
@pytest.mark.parametrize(
    ("of_controller", "reason", "message"),
    [
        (False, "exit", "kernel host: the agent ended early (exit 1)"),
        (True, "signal", "kernel host: the agent ended early (signal 11)"),
    ],
)
def test_a_process_of_the_agent_that_dies(of_controller: bool, reason: str, message: str) -> None:
    answers = run(HOST, PROGRAM + "".join(f"{i} 0 0 read 4096\n" for i in range(1, 100_000)))
    assert next(answers).startswith("0 0 0 ")
    program = os.fsencode(static_program(AGENT, HOST.arch))
    for pid, line in command_lines():
        if line.startswith(program) and (parent_of(pid) == os.getpid()) == of_controller:
            os.kill(pid, signal.SIGSEGV)
    said: list[str] = []
    with pytest.raises(Ended, match=re.escape(message)) as e:
        said += (line for line in answers if line.startswith("!"))
    assert (e.value.reason, said) == (reason, [] if of_controller else ["! a process died: signal 11"])


def test_trouble() -> None:
    boring = "[    0.1] Linux version 6.1\n[    0.2] tsc: Unable to calibrate\n"
    assert qemu.trouble(boring) == ""
    oops = "[    3.4] BUG: kernel NULL pointer dereference, address: 0\n[    3.5] RIP: 0010:zap_pte_range\n"
    assert qemu.trouble(boring + oops) == oops.strip()


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "qemu-system-s390x is not here: apt-get install qemu-system-misc"
    with pytest.raises(TablewalkError, match=message):
        qemu.command(find("s390x-6.1"), tmp_path, tmp_path, ())


def test_firmware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = find("loongarch64-7.x")
    firmware = tmp_path / "qemu-efi-somewhere" / "EFI.fd"
    monkeypatch.setitem(TARGETS, "loongarch64", replace(TARGETS["loongarch64"], firmware=str(firmware), qemu="true"))
    with pytest.raises(TablewalkError, match="is not here: apt-get install qemu-efi-somewhere"):
        qemu.command(kernel, tmp_path, tmp_path, ())
    firmware.parent.mkdir()
    firmware.touch()
    assert f"if=pflash,unit=0,format=raw,readonly=on,file={firmware}" in qemu.command(kernel, tmp_path, tmp_path, ())


@pytest.fixture
def guest() -> None:
    """Skips where the guest is not cached or cannot be started."""
    if GUEST.version is None:
        pytest.skip(f"not cached: tablewalk kernels fetch --kernel {GUEST.name}")
    if not shutil.which(TARGETS[GUEST.arch].qemu):
        pytest.skip(f"no {TARGETS[GUEST.arch].qemu}")


def test_guest(guest: None, echo_agent: Path) -> None:
    program = "".join(f"operation {i}\n" for i in range(2000))
    expected = [" -v 0", *(f"{i} 0 0 operation {i}" for i in range(2000))]
    assert list(run(GUEST, program, verbose_from=0, agent=echo_agent)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "reason", "message"),
    [
        ("signal", "signal", "kernel x86_64-6.12: the agent ended early (signal 11)"),
        ("exit", "exit", "kernel x86_64-6.12: the agent ended early (exit 3)"),
        ("hang", "hang", "kernel x86_64-6.12: no answer for 2 s"),
        ("panic", "oops", "Kernel panic - not syncing: sysrq triggered crash"),
    ],
)
def test_guest_ends_early(guest: None, echo_agent: Path, operation: str, reason: str, message: str) -> None:
    answers = []
    with pytest.raises(Ended) as e:
        for answer in run(GUEST, f"a\n{operation}\nb\n", timeout=2, agent=echo_agent):
            answers.append(answer)
    assert (e.value.reason, answers) == (reason, ["0 0 0 a"])
    assert message in str(e.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_boots(name: str) -> None:
    kernel = find(name)
    assert boot(kernel).startswith(kernel.release.removesuffix("x"))
