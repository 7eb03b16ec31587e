# SPDX-License-Identifier: GPL-2.0-only
"""The protocol of the comparison with Spin is the same in Promela and in Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from peers import PROTOCOLS, Row, spin
from tablewalk.explore.run import Options, Outcome, explore, from_file

with_spin = pytest.mark.skipif(not (shutil.which("spin") and shutil.which("cc")), reason="no spin, or no cc")


def ours(scenario: str, reduction: str) -> Outcome:
    return explore(from_file(PROTOCOLS / "tables.py")[scenario], options=Options(reduction=reduction))


def counts(found: Row) -> tuple[str, int, int]:
    return found.verdict, found.states, found.transitions - 1  # the initial state is one to Spin


@with_spin
def test_spin_and_explore_see_the_same_states(tmp_path: Path) -> None:
    outcome = ours("small", "none")
    expected = outcome.verdict, outcome.result.states, outcome.result.transitions
    assert expected[0] == "exhausted"
    assert counts(spin("small", "everything, cc -O0", tmp_path, slots=18)) == expected


@with_spin
def test_spin_and_explore_find_the_missing_recheck(tmp_path: Path) -> None:
    found = spin("small", "everything, cc -O0", tmp_path, ("-DNO_RECHECK",), slots=18)
    assert found.verdict == ours("without-recheck", "none").verdict == "violation"


@with_spin
def test_sections_merged_by_hand_hold(tmp_path: Path) -> None:
    found = spin("small", "merged by hand, cc -O0", tmp_path, slots=18)
    outcome = ours("small", "m1")
    assert found.verdict == outcome.verdict == "exhausted"
    assert outcome.result.states <= found.states < ours("small", "none").result.states
