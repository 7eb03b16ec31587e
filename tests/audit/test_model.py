# SPDX-License-Identifier: GPL-2.0-only
"""What the rules say of the model: who does not keep one breaks its invariant, in its scenario."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tablewalk.audit.rules import RULES
from tablewalk.explore.run import Options, built_in, explore, from_file
from tablewalk.explore.verify import command_of, rows

PROGRAMS = built_in()
BROKEN = {o.function.__name__: o for p in from_file(Path(__file__).parent / "broken.py").values() for o in p.overrides}
WRITES = ("write_without_lock", "unmap_only")


@pytest.mark.parametrize("name", [n for n, r in RULES.items() if r.without])
def test_a_patch_that_the_catalogue_shows(name: str) -> None:
    """`patches --verify` runs what the catalogue claims."""
    rule = RULES[name]
    (row,) = (row for row in rows() if row.id == rule.without)
    assert (row.claim.scenario, row.claim.invariant) == (rule.scenario, rule.invariant)
    assert command_of(row) == f"tablewalk explore {rule.command()}"


@pytest.mark.parametrize("name", [n for n, r in RULES.items() if r.scenario and not r.without])
def test_the_scenario_shows_that_the_rule_is_broken(name: str) -> None:
    rule = RULES[name]
    broken = WRITES if rule.invariant == "I3" else (name.replace("-", "_"),)
    program = replace(PROGRAMS[rule.scenario], overrides=tuple(BROKEN[b] for b in broken))
    outcome = explore(program, options=Options(depth_first=True))
    assert (outcome.verdict, outcome.rule.id if outcome.rule else "") == ("violation", rule.invariant), outcome.sentence
