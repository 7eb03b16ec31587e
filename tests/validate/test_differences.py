# SPDX-License-Identifier: GPL-2.0-only
"""What releases and architectures do differently is counted."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.ops import Geometry, Op

START = 0x10_0000_0000
MAP_SHARED_FIXED, MAP_PRIVATE_ANONYMOUS_FIXED = 0x11, 0x32
NO_FILE = (1 << 64) - 1


def counted(config: KernelConfig, geometry: Geometry, *ops: Op) -> dict[str, int]:
    """Without what did not occur."""
    run = ModelRun(config, geometry)
    for op in ops:
        run.run(op)
    return {what: times for what, times in run.differences().items() if times}


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1", {"page tables retracted": 1, "page tables left to other mappings of the file": 1}),
        ("6.12", {"page tables retracted": 2}),
        ("7.x", {"page tables retracted": 2}),
    ],
)
def test_who_collapses_a_file_mapped_twice_takes_both_tables_or_one(release: str, expected: dict[str, int]) -> None:
    geometry = Geometry(4096, 512, START)
    huge = 512 * 4096
    ops = [Op(0, "mmap", (START + i * huge, huge, 3, MAP_SHARED_FIXED, 0, 0)) for i in range(2)]
    ops += [Op(0, "fill", (START + i * huge, huge, 4096, 1)) for i in range(2)]
    assert counted(KernelConfig(release), geometry, *ops, Op(0, "madvise", (START, huge, 25))) == expected


@pytest.mark.parametrize(("release", "expected"), [("6.12", {}), ("6.18", {"empty page tables reclaimed": 1})])
def test_madvise_of_a_whole_table_reclaims_it(release: str, expected: dict[str, int]) -> None:
    geometry = Geometry(4096, 512, START)
    huge = 512 * 4096
    mapped = Op(0, "mmap", (START, huge, 3, MAP_PRIVATE_ANONYMOUS_FIXED, NO_FILE, 0))
    ops = (mapped, Op(0, "write", (START, 1)), Op(0, "madvise", (START, huge, 4)))
    assert counted(KernelConfig(release), geometry, *ops) == expected


def test_one_mremap_moves_several_vmas() -> None:
    geometry = Geometry(4096, 512, START)
    ops = [
        Op(0, "mmap", (START, 4096, 1, MAP_PRIVATE_ANONYMOUS_FIXED, NO_FILE, 0)),
        Op(0, "mmap", (START + 4096, 4096, 3, MAP_PRIVATE_ANONYMOUS_FIXED, NO_FILE, 0)),
        Op(0, "mremap", (START, 8192, 8192, 3, START + 0x100000)),
    ]
    assert counted(KernelConfig("7.x"), geometry, *ops) == {"more VMAs moved by one mremap": 1}
    assert counted(KernelConfig("6.12"), geometry, *ops) == {}


def test_tables_smaller_than_a_page() -> None:
    geometry = Geometry(4096, 256, START)
    mapped = Op(0, "mmap", (START, 4096, 3, MAP_PRIVATE_ANONYMOUS_FIXED, NO_FILE, 0))
    found = counted(KernelConfig("6.1", "s390x"), geometry, mapped, Op(0, "write", (START, 1)))
    assert found == {"page tables of 2048 bytes, smaller than a page": 1}
