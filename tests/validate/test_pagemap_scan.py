# SPDX-License-Identifier: GPL-2.0-only
"""PAGEMAP_SCAN: what it finds on the model by release, and against the kernel that runs here."""

from __future__ import annotations

from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.compare import host_difference
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.ops import Geometry, Op

from .test_validate import GEOMETRY, needs_host

START, PAGE, TABLE = GEOMETRY.start, 4096, 0x200000
NO_FILE = (1 << 64) - 1
EPERM, EINVAL, ENOTTY = 1, 22, 25
WPALLOWED, WRITTEN, FILE, PRESENT, SWAPPED, PFNZERO, HUGE, GUARD = 1, 2, 4, 8, 16, 32, 64, 256
ALL = 0x17F
WP_MATCHING, CHECK_WPASYNC = 1, 2
WP_ASYNC = 1 << 15


def scan(addr: int, length: int, flags: int = 0, pages: int = 0, nr: int = 64, *sets: int) -> Op:
    return Op(0, "pagemap_scan", (addr, length, flags, pages, nr, *(sets or (0, 0, 0, ALL))))


PAGES = [
    Op(0, "reset"),
    Op(0, "mmap", (START, 8 * PAGE, 3, 0x32, NO_FILE, 0)),
    Op(0, "mmap", (START + 8 * PAGE, 2 * PAGE, 3, 0x11, 0, 0)),
    Op(0, "fill", (START, 2 * PAGE, PAGE, 1)),
    Op(0, "read", (START + 2 * PAGE,)),
    Op(0, "madvise", (START + 4 * PAGE, PAGE, 102)),
    Op(0, "write", (START + 8 * PAGE, 1)),
]
TRACKED = [
    Op(0, "reset"),
    Op(0, "mmap", (START, 4 * TABLE, 3, 0x32, NO_FILE, 0)),
    Op(0, "mmap", (START + 5 * TABLE, TABLE, 3, 0x11, 0, 0)),
    Op(0, "madvise", (START, 2 * TABLE, 14)),
    Op(0, "fill", (START, TABLE, PAGE, 1)),
    Op(0, "fill", (START + 2 * TABLE, 3 * PAGE, PAGE, 1)),
    Op(0, "fill", (START + 5 * TABLE, 9 * PAGE, PAGE, 1)),
    Op(0, "uffd_open", (0, WP_ASYNC, 0)),
    Op(0, "uffd_register", (START, 4 * TABLE, 2, 0)),
    Op(0, "uffd_register", (START + 5 * TABLE, TABLE, 2, 0)),
]


def found(release: str, ops: list[Op], op: Op) -> tuple[int, int, list[tuple[int, int, int]]]:
    """(ranges, page where the scan ended, ranges as pages and categories) of the scan after `ops`."""
    model = ModelRun(KernelConfig(release), Geometry(4096, 512, START))
    for before in ops:
        assert model.run(before)[1] == 0, before
    addr, length, flags, pages, nr, *sets = op.args
    call = model.k("pagemap_scan")
    arg = call.pm_scan_arg(addr, addr + length, flags, pages, nr, tuple(sets))
    nr, ended, ranges = call.do_pagemap_scan(model.mms[0], arg)
    return nr, (ended - START) // PAGE, [((a - START) // PAGE, (b - START) // PAGE, kind) for a, b, kind in ranges]


def test_ranges_have_categories() -> None:
    whole = [
        (0, 2, PRESENT | WRITTEN),
        (2, 3, PRESENT | WRITTEN | PFNZERO),
        (3, 4, WRITTEN),
        (4, 5, SWAPPED | WRITTEN | GUARD),
        (5, 8, WRITTEN),
        (8, 9, PRESENT | WRITTEN | FILE),
        (9, 10, WRITTEN),
    ]
    assert found("7.x", PAGES, scan(START, 64 * PAGE)) == (7, 64, whole)
    assert found("7.x", PAGES, scan(START, 64 * PAGE, 0, 4)) == (3, 4, whole[:3])
    assert found("7.x", PAGES, scan(START, 64 * PAGE, 0, 0, 2)) == (2, 3, whole[:2])
    present = found("7.x", PAGES, scan(START, 64 * PAGE, 0, 0, 64, 0, PRESENT, 0, PRESENT))
    assert present == (2, 64, [(0, 3, PRESENT), (8, 9, PRESENT)])
    absent = found("7.x", PAGES, scan(START, 64 * PAGE, 0, 0, 64, PRESENT, PRESENT, 0, SWAPPED))
    assert absent == (4, 64, [(3, 4, 0), (4, 5, SWAPPED), (5, 8, 0), (9, 10, 0)])


def test_what_a_release_refuses() -> None:
    assert found("7.x", PAGES, scan(START, PAGE, 4))[0] == -EINVAL
    assert found("7.x", PAGES, scan(START, PAGE, CHECK_WPASYNC))[0] == -EPERM
    assert found("6.12", PAGES[:3], scan(START, PAGE))[0] == -EINVAL
    assert found("6.12", PAGES[:3], scan(START, PAGE, 0, 0, 1, 0, 0, 0, PRESENT))[0] == 1
    assert found("6.1", PAGES[:3], scan(START, PAGE))[0] == -ENOTTY


def test_written_pages_are_tracked() -> None:
    protect = scan(START, TABLE * 6, WP_MATCHING | CHECK_WPASYNC, 0, 64, 0, WRITTEN, 0, WRITTEN)
    model = [*TRACKED, protect]
    assert found("7.x", TRACKED, protect)[2] == [(0, 4 * 512, WRITTEN), (5 * 512, 6 * 512, WRITTEN)]
    assert found("7.x", model, protect)[2] == []
    model += [Op(0, "write", (START + 7 * PAGE, 1)), Op(0, "write", (START + 5 * TABLE + PAGE, 1))]
    assert found("7.x", model, protect)[2] == [(7, 8, WRITTEN), (5 * 512 + 1, 5 * 512 + 2, WRITTEN)]


@needs_host
def test_the_host_agrees_about_scans() -> None:
    scans = [scan(START, 64 * PAGE, 0, pages, nr) for pages in (0, 1, 4, 5) for nr in (0, 1, 2, 64)]
    assert host_difference([*PAGES, *scans]) == []
    protect = scan(START, TABLE * 6, WP_MATCHING, 0, 64, 0, WRITTEN, 0, WRITTEN)
    part = scan(START + PAGE, 7 * PAGE, WP_MATCHING)
    whatever = scan(START, TABLE * 6, WP_MATCHING | CHECK_WPASYNC, 0, 0)
    writes = [Op(0, "write", (START + 7 * PAGE, 1)), Op(0, "write", (START + 5 * TABLE + PAGE, 1))]
    assert host_difference([*TRACKED, protect, *writes, protect, part, protect]) == []
    assert host_difference([*TRACKED, part, *writes, whatever, protect, *writes, scan(START, TABLE * 6)]) == []
