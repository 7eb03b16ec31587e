# SPDX-License-Identifier: GPL-2.0-only
"""The model against kernels in QEMU: some programs on one, and with --kernels many on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tablewalk.machine.drivers import fastest
from tablewalk.validate.compare import Comparison
from tablewalk.validate.generate import Generator
from tablewalk.validate.kernels import KERNELS, Kernel
from tablewalk.validate.model_run import DIFFERENCES
from tablewalk.validate.results import Results
from tablewalk.validate.session import validate
from tablewalk.validate.setup import setup

RETRACTED, LEFT = "page tables retracted", "page tables left to other mappings of the file"
RECLAIMED, MOVED = "empty page tables reclaimed", "more VMAs moved by one mremap"
SMALL = "page tables of {} bytes, smaller than a page"

# What each kernel does otherwise than others, and is to be seen doing.  QEMU's s390x has no huge pages to collapse to.
SHOWS = {
    "x86_64-6.1": {RETRACTED, LEFT},
    "x86_64-6.12": {RETRACTED},
    "x86_64-7.x": {RETRACTED, RECLAIMED, MOVED},
    "arm64-6.12": {RETRACTED},
    "arm64-7.x": {RETRACTED, RECLAIMED, MOVED},
    "s390x-6.1": {SMALL.format(2048)},
    "s390x-7.x": {SMALL.format(2048), RECLAIMED, MOVED},
    "ppc64le-6.1": {RETRACTED, LEFT, SMALL.format(256)},
    "ppc64le-7.x": {RETRACTED, MOVED},
    "riscv64-7.x": {RETRACTED, RECLAIMED, MOVED},
    "arm-lpae-6.1": {RETRACTED, LEFT},
    "arm-lpae-7.x": {RETRACTED, RECLAIMED, MOVED},
}

# docs/validate.md says how far these are compared; nobody has seen 20,000 operations on them.
SHORT = {"arm-6.1", "loongarch64-7.x", "x86-pae-6.1", "x86-2level-6.1", "mips64-6.1", "mips32-6.1"}
GUESTS = [name for name, kernel in KERNELS.items() if not kernel.is_host and name not in SHORT]


def test_what_kernels_show_is_what_is_counted() -> None:
    """Every kernel shows something, and each difference shows on one kernel and not on another."""
    assert list(SHOWS) == GUESTS
    for what in {RETRACTED, *DIFFERENCES, SMALL.format(2048), SMALL.format(256)}:
        assert 0 < sum(what in shows for shows in SHOWS.values()) < len(SHOWS), what


def test_a_guest_agrees(kernel_here: Callable[[str], Kernel]) -> None:
    on = setup(kernel_here("x86_64-6.12"))
    programs = [Generator(seed, "", on.geometry).program(250) for seed in range(1, 9)]
    outcomes = list(Comparison(on, fastest(), 120).compare(programs))
    assert [outcome.report for outcome in outcomes] == [[]] * 8
    assert sum(outcome.compared for outcome in outcomes) == 2000


@pytest.mark.kernels
@pytest.mark.parametrize("name", GUESTS)
def test_every_kernel_agrees(name: str, kernel_here: Callable[[str], Kernel], tmp_path: Path) -> None:
    found = validate(kernel_here(name), 20_000, 1, "", fastest(), Results(tmp_path / "results"))
    assert [d.small_report for d in found.disagreements] == []
    assert (found.operations, found.ended, found.never_succeeded) == (20_000, "", [])
    assert {what for what, times in found.differences.items() if times} == SHOWS[name]
