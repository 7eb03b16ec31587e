# SPDX-License-Identifier: GPL-2.0-only
"""A reader that trusts its pmd to hold the table that it has seen there is caught; test_scenarios has that it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewalk.explore.run import built_in, explore, searched
from tablewalk.explore.scenario import Override

PROGRAMS = built_in()


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        ("task_mmu", "smaps-and-dontneed"),
        ("task_mmu", "pagemap-and-dontneed"),
        ("task_mmu", "shmem-collapse-smaps"),
        ("mincore", "shmem-collapse-mincore"),
        ("damon_vaddr", "damon-and-dontneed"),
    ],
)
def test_a_reader_has_to_look_again(reader: str, name: str) -> None:
    trusting = searched().module("patches.mm_series").lock_anything
    program = replace(PROGRAMS[name], overrides=(Override(f"{reader}:pte_offset_map_lock", trusting),))
    outcome = explore(program)
    assert (outcome.verdict, outcome.rule.id if outcome.rule else "") == ("violation", "I1"), outcome.sentence
