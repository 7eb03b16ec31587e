# SPDX-License-Identifier: GPL-2.0-only
"""Tables that share a page are freed by RCU in the form that was merged and the one before it; not in the first.

sparc's tables have a page each: its three forms are C08, what all others have.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.explore.run import built_in, explore, from_file
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()
MERGED = ()


@pytest.mark.parametrize(
    ("scenario", "without", "verdict"),
    [
        ("powerpc-fragments", ("C05",), "I1"),  # freed early
        ("powerpc-fragments", ("K16a",), "BUG"),  # the first version: one rcu_head for all
        ("powerpc-fragments", ("C05-v2",), "exhausted"),
        ("powerpc-fragments", MERGED, "exhausted"),
        ("powerpc-fragments-munmap", ("K16a",), "exhausted"),  # the gather's callback has an rcu_head of its own
        ("powerpc-fragments-munmap", ("C05-v2",), "exhausted"),
        ("powerpc-fragments-munmap", MERGED, "exhausted"),
        ("s390-halves", ("C07",), "I1"),
        ("s390-halves", ("C07-v1",), "BUG"),  # the list lies over rcu_head
        ("s390-halves", ("C07-v2",), "exhausted"),
        ("s390-halves", MERGED, "exhausted"),
        ("s390-halves-munmap", ("K16b",), "BUG"),
        ("s390-halves-munmap", ("C07-v2",), "exhausted"),
        ("s390-halves-munmap", MERGED, "exhausted"),
        ("s390-halves-exit", ("K16c",), "I1"),  # the first version without a reference to the process
        ("s390-halves-exit", ("C07-v1",), "exhausted"),
        ("s390-halves-exit", ("C07-v2",), "exhausted"),
        ("s390-halves-exit", MERGED, "exhausted"),
    ],
)
def test_forms_of_free_by_rcu(scenario: str, without: tuple[str, ...], verdict: str) -> None:
    outcome = explore(PROGRAMS[scenario], KernelConfig(without=without))
    assert (outcome.rule.id if outcome.rule else outcome.verdict) == verdict


def test_a_half_that_is_being_freed_keeps_its_page() -> None:
    """Else the callback of the other frees it while it is on the list."""
    outcome = explore(from_file(Path(__file__).with_name("no_pp_bits.py"))["no-pp-bits"])
    assert outcome.rule and outcome.rule.id == "BUG"
