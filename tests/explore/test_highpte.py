# SPDX-License-Identifier: GPL-2.0-only
"""With HIGHPTE the table that was mapped last is unmapped first; without it nobody can tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.explore.run import Outcome, built_in, explore
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()
ORDER = "K30-order"


def in_high_memory(name: str, arch: str, *without: str) -> Outcome:
    program = PROGRAMS[name]
    options = (*program.scenario.options, ("highpte", "y"))
    program = replace(program, scenario=replace(program.scenario, arch=arch, options=options))
    return explore(program, KernelConfig(without=without))


@pytest.mark.parametrize("arch", ["x86-pae/1", "arm-lpae/1"])
def test_two_unmaps_that_changed_places_are_found_with_highpte(arch: str) -> None:
    outcome = in_high_memory("uffd-move-and-dontneed", arch, ORDER)
    assert outcome.rule is not None and outcome.rule.id == "I7"
    assert "not the last that it has mapped" in outcome.sentence


def test_and_not_without() -> None:
    assert explore(PROGRAMS["uffd-move-and-dontneed"], KernelConfig(without=(ORDER,))).verdict == "exhausted"


@pytest.mark.parametrize(
    "name",
    ["fork-and-fault", "mremap-and-fault", "shmem-collapse-mremap-page", "dontneed-twice", "shmem-collapse-fault"],
)
def test_who_maps_two_tables_unmaps_the_second_first(name: str) -> None:
    outcome = in_high_memory(name, "x86-pae/1")
    assert (outcome.verdict, outcome.sentence) == ("exhausted", "")


def test_who_sleeps_with_a_table_mapped_is_found_with_highpte_only() -> None:
    lacking = KernelConfig(without=("K59", "B03"))
    found = explore(PROGRAMS["anon-collapse-fault-highpte"], lacking)
    assert found.rule is not None and found.rule.id == "I27"
    assert explore(PROGRAMS["anon-collapse-fault"], lacking).verdict == "exhausted"


def test_an_architecture_without_high_memory_refuses_it() -> None:
    with pytest.raises(TablewalkError, match="does not have it"):
        in_high_memory("fork-and-fault", "arm64/1")


def test_the_checked_driver_finds_the_order_and_what_is_left() -> None:
    machine = drivers.model(KernelConfig(arch="x86-pae", options=(("highpte", "y"),)), "checked").machine
    generic, init = (drivers.load("checked").kernel(name) for name in ("pgtable_generic", "mm_init"))
    mm = init.mm_alloc()
    first, second = (generic.pte_alloc_one(mm).entry for _ in range(2))
    machine.kmap_local(first)
    machine.kmap_local(second)
    with pytest.raises(machine.Violation, match="was mapped last"):
        machine.kunmap_local(first)
    machine.kunmap_local(second)
    with pytest.raises(machine.Violation, match="returned to user space"):
        machine.quiescent()
