# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios that come along hold, on the newest kernel and on older ones."""

from __future__ import annotations

import pytest

from tablewalk.explore.run import built_in, explore

PROGRAMS = built_in()


@pytest.mark.parametrize("name", PROGRAMS)
def test_scenario_holds(name: str) -> None:
    outcome = explore(PROGRAMS[name])
    assert (outcome.verdict, outcome.sentence) == ("exhausted", "")
