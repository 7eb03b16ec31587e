# SPDX-License-Identifier: GPL-2.0-only
"""The functions of an architecture's patch that its row in the catalogue does not show, each without the patch."""

from __future__ import annotations

import pytest

from tablewalk.explore.run import built_in, explore
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()


@pytest.mark.parametrize(
    ("scenario", "patch", "verdict"),
    [
        ("arm-show-pte", "A01", "I1"),
        ("arm-adjust-pte", "A01", "I1"),
        ("m68k-cmpxchg", "A05", "exhausted"),  # no table goes away under it
        ("powerpc-flush-hash", "A12", "I7"),
        ("powerpc-show-pte", "A12", "I7"),
        ("s390-make-secure", "A15", "I1"),
        ("sparc-signal-insns", "A19", "I1"),
        ("sparc-batch-pmd-scan", "A19", "exhausted"),  # what it maps is a copy, of what was a table
    ],
)
def test_without_its_patch(scenario: str, patch: str, verdict: str) -> None:
    assert explore(PROGRAMS[scenario]).verdict == "exhausted"
    outcome = explore(PROGRAMS[scenario], KernelConfig(without=(patch,)))
    assert (outcome.rule.id if outcome.rule else outcome.verdict) == verdict
