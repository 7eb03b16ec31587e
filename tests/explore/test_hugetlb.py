# SPDX-License-Identifier: GPL-2.0-only
"""Hugetlb pages in a PMD entry and in runs of PTEs: smaps needs their lock on each architecture, and all are set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.explore.run import built_in, explore, from_file
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()
RUNS = ("arm64", "riscv", "parisc", "sparc")


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(("without", "found"), [((), "exhausted"), (("K62",), "BUG")])
def test_smaps_locks_runs_too(name: str, without: tuple[str, ...], found: str) -> None:
    outcome = explore(PROGRAMS[f"hugetlb-run-migrates-{name}"], KernelConfig(without=without))
    assert (outcome.rule.id if outcome.rule else outcome.verdict) == found


@pytest.mark.parametrize("name", ["pmd-faults", *(f"run-faults-{name}" for name in RUNS)])
def test_of_two_faults_one_maps_its_page(name: str) -> None:
    assert explore(PROGRAMS[f"hugetlb-{name}"], KernelConfig()).verdict == "exhausted"


def test_a_run_is_set_as_a_whole() -> None:
    outcome = explore(from_file(Path(__file__).with_name("hugetlb_first_entry.py"))["hugetlb-first-entry"])
    assert outcome.rule and outcome.rule.id == "RESULT"
