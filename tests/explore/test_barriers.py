# SPDX-License-Identifier: GPL-2.0-only
"""A barrier left out before an entry shows a new table or page is missed; test_scenarios has that all are there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tablewalk.explore.run import built_in, explore
from tablewalk.explore.scenario import Override

PROGRAMS = built_in()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pgtable_generic", "file-reads"),  # pmd_install()
        ("page_alloc", "fault-and-dontneed"),  # a page of a fault
        ("page_alloc", "huge-fault-twice"),
        ("huge_pmd", "huge-split-and-fault"),  # the table that takes a huge page's place
        ("filemap", "shmem-fault-x-shmem-fault"),
        ("collapse_file", "shmem-collapse-fault"),
        ("folio_split", "huge-migrate-and-uffd-move"),
    ],
)
def test_a_barrier_left_out_is_missed(module: str, name: str) -> None:
    program = replace(PROGRAMS[name], overrides=(Override(f"{module}:publish", lambda address: None),))
    outcome = explore(program)
    assert (outcome.verdict, outcome.rule.id if outcome.rule else "") == ("violation", "I31"), outcome.sentence
    assert " show what it has written to, without smp_wmb() before (" in outcome.sentence
