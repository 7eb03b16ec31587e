# SPDX-License-Identifier: GPL-2.0-only
"""Static C programs for any target, compiled once and cached by the text of their sources and the compiler's name."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.machine.native import cache_dir

from .targets import host_arch, target

FLAGS = ("-static", "-O2", "-std=gnu11", "-Wall", "-Wextra")


def static_program(sources: Path, arch: str) -> Path:
    """The program that the C files of the directory `sources` make on the model's architecture `arch`.

    A file `cflags` beside them has further options.  Raises TablewalkError where there is no compiler for `arch`
    or it finds errors.
    """
    compiler = _compiler(arch)
    files = sorted(sources.glob("*.[ch]"))
    extra = sources / "cflags"
    flags = (*FLAGS, *(extra.read_text().split() if extra.exists() else ()))
    digest = hashlib.sha256(repr((compiler, flags)).encode())
    for file in files:
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    program = cache_dir() / "kernels" / "programs" / f"{sources.name}-{arch}-{digest.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as directory:
            built = Path(directory) / "program"
            c_files = [str(file) for file in files if file.suffix == ".c"]
            _compile((*compiler, *flags, f"-I{sources}", "-o", str(built), *c_files), sources.name, arch)
            built.rename(program)
    return program


def _compile(command: tuple[str, ...], what: str, arch: str) -> None:
    environment = os.environ | {"LC_ALL": "C", "ZIG_GLOBAL_CACHE_DIR": str(cache_dir() / "zig")}
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error: " in line] or [done.stderr.strip() or "failed"]
        raise TablewalkError(f"cannot compile the {what} program for {arch}: {errors[0]}")


def _compiler(arch: str) -> tuple[str, ...]:
    """A command that compiles for `arch`: Debian's (cross) gcc, the machine's own, or zig from PyPI or the path."""
    t = target(arch)
    names = [f"{t.triplet}-gcc"]
    if host_arch() == arch:
        names += ["gcc", "cc"]
    for name in names:
        if shutil.which(name):
            return (name,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "cc", f"--target={t.zig}")
    if shutil.which("zig"):
        return ("zig", "cc", f"--target={t.zig}")
    libc = f"libc6-dev-{t.debian}-cross"
    packages = "gcc libc6-dev" if host_arch() == arch else f"gcc-{t.triplet} {libc}"
    raise TablewalkError(f"no C compiler for {arch}: apt-get install {packages}, or pip install ziglang")
