# SPDX-License-Identifier: GPL-2.0-only
"""Programs that swap, and what three kernels on x86_64 showed of them, operation by operation.

swap.txt has a section for each kernel and program: of each operation what it returned, errno, the kB of Swap in
smaps, and the lines of pagemap and mincore.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.ops import Geometry, Op

NO_FILE = (1 << 64) - 1
SHOWN = Path(__file__).with_name("swap.txt")
GEOMETRY = Geometry(4096, 512, 0x1000_3F00_0000)
PAGE, HUGE, START = GEOMETRY.page, GEOMETRY.page * GEOMETRY.table, GEOMETRY.start
WILLNEED, DONTNEED, FREE, HUGEPAGE, PAGEOUT, COLLAPSE = 3, 4, 8, 14, 21, 25


def read(process: int, page: int) -> Op:
    return Op(process, "read", (START + page * PAGE,))


def write(process: int, page: int, value: int) -> Op:
    return Op(process, "write", (START + page * PAGE, value))


def fill(page: int, nr: int, value: int) -> Op:
    return Op(0, "fill", (START + page * PAGE, nr * PAGE, PAGE, value))


def advise(process: int, page: int, nr: int, advice: int) -> Op:
    return Op(process, "madvise", (START + page * PAGE, nr * PAGE, advice))


def mmap(page: int, nr: int, flags: int, file: int = NO_FILE) -> Op:
    return Op(0, "mmap", (START + page * PAGE, nr * PAGE, 3, flags, file, 0))


PROGRAMS = {
    "small": (
        *(Op(0, "reset"), mmap(0, 4, 0x32), fill(0, 4, 7), advise(0, 0, 4, PAGEOUT), read(0, 0), Op(0, "fork", (1,))),
        *(read(1, 1), write(1, 2, 9), advise(0, 1, 1, DONTNEED), read(0, 2), advise(1, 0, 4, PAGEOUT)),
        *(advise(0, 3, 1, WILLNEED), write(0, 3, 5), read(1, 3), advise(1, 0, 4, FREE)),
        *(Op(0, "mremap", (START, 4 * PAGE, 4 * PAGE, 3, START + HUGE)), advise(0, 512, 4, PAGEOUT)),
        *(Op(0, "munmap", (START + HUGE, 2 * PAGE)), Op(1, "exit"), read(0, 514), read(0, 515)),
    ),
    "huge": (
        *(Op(0, "reset"), mmap(0, 1024, 0x32), advise(0, 0, 1024, HUGEPAGE), write(0, 0, 3), write(0, 513, 4)),
        *(advise(0, 0, 512, PAGEOUT), read(0, 0), advise(0, 512, 8, PAGEOUT), fill(1, 3, 0)),
        *(advise(0, 0, 1024, COLLAPSE), Op(0, "fork", (1,)), advise(0, 0, 1024, PAGEOUT), write(1, 0, 8)),
        *(advise(0, 0, 512, FREE), advise(0, 0, 512, PAGEOUT), read(0, 0)),
    ),
    "shmem": (
        *(Op(0, "reset"), mmap(0, 512, 0x11, 0), mmap(512, 512, 0x12, 0), fill(0, 6, 6), advise(0, 0, 512, PAGEOUT)),
        *(read(0, 1), write(0, 514, 9), advise(0, 0, 512, WILLNEED), advise(0, 512, 512, PAGEOUT), read(0, 514)),
        *(Op(0, "punch", (0, 3 * PAGE, PAGE)), Op(0, "ftruncate", (0, 4 * PAGE)), Op(0, "ftruncate", (0, HUGE))),
        *(fill(0, 512, 2), advise(0, 0, 512, COLLAPSE), advise(0, 0, 512, PAGEOUT), read(0, 9)),
        *(Op(0, "punch", (0, 0, 8 * PAGE)), advise(0, 0, 512, PAGEOUT), Op(0, "ftruncate", (0, 300 * PAGE))),
        *(advise(0, 512, 512, PAGEOUT), read(0, 100)),
    ),
}


def sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in SHOWN.read_text().splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        else:
            lines.append(line)
    return found


def shown(text: str, result: tuple[int, int]) -> str:
    """The line of swap.txt for an observation."""
    lines = text.splitlines()
    swap = sum(int(line.split()[4].split(",")[6]) for line in lines if line.startswith("v"))
    return f"{result[0]} {result[1]} {swap} " + ";".join(line for line in lines if line[0] in "mc")


@pytest.mark.parametrize("section", sections())
def test_as_the_kernels_showed(section: str) -> None:
    kernel, name = section.split()
    config = KernelConfig(kernel.removeprefix("x86_64-"), "x86_64", (("known_contents", "y"), ("swap", "y")))
    model = ModelRun(config, GEOMETRY)
    for op, line in zip(PROGRAMS[name], sections()[section], strict=True):
        result = model.run(op)
        assert shown(model.text(), result) == line, op
    model.exit()


@pytest.mark.parametrize("name", PROGRAMS)
def test_rules_are_kept(name: str) -> None:
    """On the checked driver: guards, lock order, nothing used after it was freed."""
    model = ModelRun(KernelConfig("7.x", "x86_64", (("swap", "y"),)), GEOMETRY, driver="checked")
    model.__dict__["_set_dirty"] = lambda process, addr: None  # what the CPU does by itself has no lock
    for op in PROGRAMS[name]:
        model.run(op)
    model.exit()
