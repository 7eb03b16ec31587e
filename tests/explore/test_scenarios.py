# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios that come along hold, on the newest kernel and on older ones, with tables of two entries or four."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewalk.explore.run import built_in, explore, prepare
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()


@pytest.mark.parametrize("name", PROGRAMS)
def test_scenario_holds(name: str) -> None:
    outcome = explore(PROGRAMS[name])
    assert (outcome.verdict, outcome.sentence) == ("exhausted", "")


def test_each_scenario_promises_something() -> None:
    """And test_scenario_holds has that it happens."""
    setups = {name: prepare(program) for name, program in PROGRAMS.items()}
    assert [name for name, setup in setups.items() if not setup.promises and not setup.endings] == []


@pytest.mark.parametrize("release", ["6.1", "6.12", "6.18"])
@pytest.mark.parametrize("name", ["munmap-and-fault", "fork-and-fault", "shmem-collapse-fault", "shmem-collapse-exit"])
def test_scenario_holds_on_older_kernels(name: str, release: str) -> None:
    outcome = explore(PROGRAMS[name], KernelConfig(release))
    assert (outcome.verdict, outcome.sentence) == ("exhausted", "")


@pytest.mark.parametrize("name", ["fault-and-dontneed", "shmem-collapse-dontneed", "anon-collapse-dontneed"])
def test_verdict_does_not_depend_on_the_tables_size(name: str) -> None:
    program = PROGRAMS[name]
    outcome = explore(replace(program, scenario=replace(program.scenario, arch="x86_64/2")))
    assert (outcome.verdict, outcome.sentence) == ("exhausted", "")


@pytest.mark.parametrize(
    ("patch", "rule", "said"), [("C09", "I1", "frees a null pointer"), ("D01", "I1", "lock of cell 0")]
)
def test_scenario_breaks_without_a_patch(patch: str, rule: str, said: str) -> None:
    outcome = explore(PROGRAMS["shmem-collapse-dontneed"], KernelConfig(without=(patch,)))
    assert outcome.rule is not None and outcome.rule.id == rule
    assert outcome.trace is not None and f"CPU0 (collapse) {said} (" in outcome.sentence
