# SPDX-License-Identifier: GPL-2.0-only
"""The real programs that recordings are checked on: what each needs, how it is made ready, how it is run."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
EXAMPLES = HERE.parent / "examples"


class NotRunnable(Exception):
    """A workload cannot be run on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Workload:
    """`prepare` makes ready in a directory of its own and returns the command to run."""

    name: str
    what: str
    needs: dict[str, str]  # program: Debian package
    prepare: Callable[[Path], list[str]]

    def command(self, directory: Path) -> list[str]:
        """The command, made ready in `directory`.

        Missing programs are installed by apt when root; otherwise, or where that fails, NotRunnable.
        """
        missing = {package for program, package in self.needs.items() if not shutil.which(program)}
        if missing:
            install(sorted(missing))
            missing = {package for program, package in self.needs.items() if not shutil.which(program)}
        if missing:
            raise NotRunnable(f"needs {', '.join(sorted(missing))}")
        directory.mkdir(parents=True, exist_ok=True)
        return self.prepare(directory)


def install(packages: list[str]) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--no-install-recommends", *packages]):
        subprocess.run([*apt, *step], env=env, capture_output=True)


def compiled(name: str, *args: str) -> Callable[[Path], list[str]]:
    """`prepare` for a C program of examples/."""

    def prepare(directory: Path) -> list[str]:
        program = directory / name
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, EXAMPLES / f"{name}.c"], check=True)
        return [str(program), *args]

    return prepare


def prepare_gcc(directory: Path) -> list[str]:
    """Twelve C files of some 2500 lines each, from fixed seeds: arithmetic, switches, loops over arrays."""
    units = 12
    for unit in range(units):
        (directory / f"unit{unit}.c").write_text(c_source(unit))
    calls = "".join(f"\tsum += unit{u}(sum);\n" for u in range(units))
    declarations = "".join(f"unsigned unit{u}(unsigned);\n" for u in range(units))
    (directory / "main.c").write_text(
        f'#include <stdio.h>\n{declarations}int main(void)\n{{\n\tunsigned sum = 1;\n\n{calls}'
        '\tprintf("%u\\n", sum);\n\treturn 0;\n}\n'
    )
    return [str(PROGRAMS / "gcc.sh"), str(directory)]


def c_source(unit: int, functions: int = 150) -> str:
    rng = random.Random(unit)
    text = ["#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\nstatic unsigned table[256];\n"]
    for f in range(functions):
        cases = "".join(
            f"\t\tcase {case}: x = x << {rng.randint(1, 8)} ^ table[x + {rng.randrange(99)} & 255]; break;\n"
            for case in range(rng.randrange(4, 12))
        )
        call = f"f{rng.randrange(f)}(x >> 3)" if f else "x"
        text.append(
            f"static unsigned f{f}(unsigned x)\n{{\n\tunsigned a[64];\n\n"
            f"\tfor (unsigned i = 0; i < 64; i++)\n\t\ta[i] = x * {rng.randrange(3, 99)} + i * table[i];\n"
            f"\tfor (unsigned i = 1; i < 64; i++) {{\n\t\tswitch (a[i] & 15) {{\n{cases}\t\t}}\n"
            f"\t\ttable[a[i - 1] & 255] += x;\n\t}}\n\treturn x & 1 ? x : {call};\n}}\n"
        )
    calls = "".join(f"\tx += f{f}(x);\n" for f in range(functions))
    text.append(f"unsigned unit{unit}(unsigned x)\n{{\n{calls}\treturn x;\n}}\n")
    return "\n".join(text)


def prepare_java(directory: Path) -> list[str]:
    subprocess.run(["javac", "-d", directory, PROGRAMS / "Heap.java"], check=True)
    return ["java", "-Xmx512m", "-XX:+UseParallelGC", "-cp", str(directory), "Heap"]


GCC = {"gcc": "gcc", "ld": "binutils"}

WORKLOADS = [
    Workload(
        "numpy",
        "Python with numpy, which asks for huge pages for its arrays",
        {},
        lambda directory: [sys.executable, str(PROGRAMS / "numpy_thp.py")],
    ),
    Workload("gcc", "13 compilations with -O2, two at a time, and a link", GCC, prepare_gcc),
    Workload(
        "redis",
        "redis under redis-benchmark, with a BGSAVE (fork) while it is written to",
        {"redis-server": "redis-server", "redis-benchmark": "redis-tools"},
        lambda directory: [str(PROGRAMS / "redis.sh"), str(directory)],
    ),
    Workload(
        "node",
        "node growing, churning and dropping a heap",
        {"node": "nodejs"},
        lambda directory: ["node", str(PROGRAMS / "heap.js")],
    ),
    Workload(
        "java",
        "Java, eight threads under the parallel collector",
        {"java": "default-jdk-headless", "javac": "default-jdk-headless"},
        prepare_java,
    ),
    Workload(
        "madvise",
        "4 threads that touch, verify and give back pages of shared tables at random",
        GCC,
        compiled("madvise_stress", "200"),
    ),
]

HEADLINE = [
    Workload(
        "headline-1",
        "50 GiB, one page of each 2 MiB touched, then MADV_DONTNEED",
        GCC,
        compiled("headline", "-1"),
    ),
    Workload(
        "headline", "50 GiB, every page touched, MADV_DONTNEED for each 2 MiB", GCC, compiled("headline")
    ),
]
