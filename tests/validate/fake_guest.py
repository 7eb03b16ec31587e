# SPDX-License-Identifier: GPL-2.0-only
"""Stands in for QEMU: answers each program as it was told before, or does what goes wrong.

It runs with the files of a directory: `answers.json`, by program what to answer, and, if something is to go wrong,
`fault`: what, and after how many answers.  A program is its lines without their numbers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from pathlib import Path

OOPS = "[    9.1] BUG: kernel NULL pointer dereference, address: 0000000000000008\n[    9.2] RIP: 0010:zap_pte_range\n"
PANIC = "[    9.1] Kernel panic - not syncing: Attempted to kill init!\n"


def key(lines: list[str]) -> str:
    """Of a program by its lines."""
    without_numbers = [line.split(" ", 1)[1] for line in lines]
    return hashlib.sha256("\n".join(without_numbers).encode()).hexdigest()


def programs(text: str) -> list[list[str]]:
    """The lines of each program; each begins with a reset."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.split(" ")[3:] == ["reset"]:
            found.append([])
        if found:
            found[-1].append(line)
    return found


def program_of(initramfs: bytes) -> str:
    """The file `program` of a cpio archive."""
    at = initramfs.index(b"program\0") - 110
    size = int(initramfs[at + 54 : at + 62], 16)
    begin = at + 110 + 8 + -(110 + 8) % 4
    return initramfs[begin : begin + size].decode()


def go_wrong(fault: str, console: Path) -> None:
    """Ends the process, but for `slow`."""
    if fault in ("oops", "panic"):
        console.write_text("[    0.1] Linux version 6.12\n" + (OOPS if fault == "oops" else PANIC))
    elif fault == "agent-died":
        print("# signal 11", flush=True)
    elif fault == "process-died":
        print("! a process died: signal 11\n# exit 1", flush=True)
    elif fault == "hang":
        time.sleep(600)
    elif fault == "qemu-died":
        print("cannot allocate memory", file=sys.stderr)
    if fault == "slow":
        time.sleep(0.05)
    else:
        sys.exit(fault == "qemu-died")


def main(directory: Path) -> None:
    told = json.loads((directory / "answers.json").read_text())
    fault, after = (directory / "fault").read_text().split() if (directory / "fault").exists() else ("", "0")
    console = Path(next(arg for arg in sys.argv if arg.startswith("file,id=console")).split("path=")[1])
    initramfs = gzip.decompress(Path(sys.argv[sys.argv.index("-initrd") + 1]).read_bytes())
    print("# ready 6.12", flush=True)
    done = 0
    for lines in programs(program_of(initramfs)):
        for answer in told[key(lines)]:
            if fault and done >= int(after):
                go_wrong(fault, console)
            print(answer, flush=True)
            done += 1
    print("# exit 0", flush=True)


if __name__ == "__main__":
    main(Path(__file__).parent)
