# SPDX-License-Identifier: GPL-2.0-only
"""A cached kernel in QEMU, with an initramfs that holds a program for the agent."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tablewalk.errors import TablewalkError

from .build import static_program
from .kernels import Kernel
from .targets import target

HERE = Path(__file__).parent
SCRATCH_BYTES = 128 << 20  # of a RAM disk that init makes, which is larger
# A warning of the kernel ends the run as an oops does: what comes after it proves nothing.
COMMAND_LINE = (
    "loglevel=5 panic=-1 oops=panic panic_on_warn=1 transparent_hugepage=madvise rdinit=/init answers=/dev/{answers} "
    "swap={swap} mitigations=off init_on_alloc=0 hardened_usercopy=off"
)
TROUBLE = re.compile(
    r"^.*(?:Kernel panic|Oops|BUG: |WARNING: |Unable to handle kernel|general protection fault"
    r"|Internal error|watchdog: BUG|rcu: INFO|Out of memory|UBSAN: |init: ).*$",
    re.MULTILINE,
)


def command(kernel: Kernel, initramfs: Path, console: Path, agent_arguments: tuple[str, ...]) -> list[str]:
    """The command that boots `kernel`, which is cached: answers on its stdout, the console's text in a file.

    Raises TablewalkError if this QEMU is not here.
    """
    available(kernel)
    t = target(kernel.arch)
    line = f"console={t.console} {COMMAND_LINE.format(answers=t.answers, swap=int(kernel.has_swap))} {t.options}"
    if agent_arguments:
        line += " -- " + " ".join(agent_arguments)
    return [
        *(t.qemu, *t.machine, "-m", t.memory, "-accel", "tcg"),
        *(("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={t.firmware}") if t.firmware else ()),
        *("-display", "none", "-monitor", "none", "-nodefaults", "-no-reboot"),
        *("-chardev", f"file,id=console,path={console}", "-chardev", "stdio,id=answers,signal=off"),
        *(*t.ports, "-kernel", str(kernel.directory / "image"), "-initrd", str(initramfs), "-append", line),
    ]


def available(kernel: Kernel) -> None:
    """Raises TablewalkError with the name of the Debian package if there is no QEMU for `kernel`, or no firmware."""
    t = target(kernel.arch)
    if not shutil.which(t.qemu):
        raise TablewalkError(f"{t.qemu} is not here: apt-get install {t.qemu_package}")
    if t.firmware and not Path(t.firmware).exists():
        package = Path(t.firmware).parent.name
        raise TablewalkError(f"{t.firmware} is not here: apt-get install {package} (Debian 13)")


def initramfs(kernel: Kernel, files: dict[str, bytes]) -> bytes:
    """A compressed archive of `files`, of init, and of the modules that init loads."""
    files = {"init": static_program(HERE / "init", kernel.arch).read_bytes(), **files}
    for number, module in enumerate(kernel.modules):
        files[f"{number}-{module.name}"] = module.read_bytes()
    files["ext4"] = empty_file_system()
    return gzip.compress(cpio(files), compresslevel=1)


@cache
def empty_file_system() -> bytes:
    """The beginning of an ext4 file system without files; what follows of its `SCRATCH_BYTES` is zero."""
    with tempfile.NamedTemporaryFile(prefix="tablewalk-") as image:
        image.truncate(SCRATCH_BYTES)
        try:
            subprocess.run(
                ("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-m", "0", "-F", image.name),
                check=True,
                capture_output=True,
                env=os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
            )
        except FileNotFoundError:
            raise TablewalkError("mke2fs is not here: apt-get install e2fsprogs") from None
        except subprocess.CalledProcessError as e:
            raise TablewalkError(f"mke2fs: {e.stderr.decode(errors='replace').strip()}") from None
        return Path(image.name).read_bytes().rstrip(b"\0")


def cpio(files: dict[str, bytes]) -> bytes:
    """A cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

    Every file is executable and belongs to root.
    """
    return b"".join(
        _entry(number, name, 0o100755, content) for number, (name, content) in enumerate(files.items(), 1)
    ) + _entry(0, "TRAILER!!!", 0, b"")


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links, checksum = 1, 0
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), checksum)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def trouble(console: str) -> str:
    """What the kernel complained of on its console, from the first line of it on; empty if of nothing."""
    found = TROUBLE.search(console)
    return console[found.start() :].strip() if found else ""
