# SPDX-License-Identifier: GPL-2.0-only
"""Whether user-mode Linux follows a NULL pointer where docs/audit-candidates.md says that it may.

    audit_um.py [SUITE]      boots the kernel of Debian's package user-mode-linux, prints what it says of its end

It runs as an ordinary process, with a disk of its own in a temporary directory.  The package is fetched into the cache,
of bookworm unless another suite is named; the kernel of a newer one may need a newer C library than this machine has.
Exit status 1 if the kernel crashed there, 2 if it could not be tried.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tablewalk.machine.native import cache_dir
from tablewalk.validate.apt import Archive
from tablewalk.validate.build import static_program
from tablewalk.validate.qemu import SCRATCH_BYTES, cpio, empty_file_system

HERE = Path(__file__).parent
SECONDS = 300
TELLING = re.compile(r"^(?:Pid: |RIP: |Kernel panic|no crash|.*: (?:No such|Invalid|Cannot)).*$", re.MULTILINE)


def kernel(suite: str, where: Path) -> Path:
    """The kernel of the newest package, unpacked into `where`."""
    archive = Archive(suite, "amd64", cache_dir() / "um" / suite)
    package = archive.download(archive.newest("user-mode-linux"))
    subprocess.run(("dpkg-deb", "-x", package, where), check=True)
    return where / "usr" / "bin" / "linux.uml"


def main(suite: str = "bookworm") -> None:
    with tempfile.TemporaryDirectory(prefix="tablewalk-") as name:
        where = Path(name)
        linux = kernel(suite, where)
        init = static_program(HERE / "audit" / "um", "x86_64").read_bytes()
        (where / "initramfs").write_bytes(gzip.compress(cpio({"init": init})))
        with (where / "disk").open("wb") as disk:
            disk.write(empty_file_system())
            disk.truncate(SCRATCH_BYTES)
        line = ["mem=256M", "initrd=initramfs", "ubd0=disk", "con=null", "con0=fd:0,fd:1", "panic=-1"]
        ran = subprocess.run(
            (linux, *line), cwd=where, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    told = TELLING.findall(ran.stdout + ran.stderr)
    print("\n".join(told) or (ran.stdout + ran.stderr)[-2000:])
    if any("maybe_map" in line for line in told):
        sys.exit(1)
    sys.exit(0 if any(line.startswith("no crash") for line in told) else 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
