# SPDX-License-Identifier: GPL-2.0-only
"""Secondary MMUs under every schedule: what they reach of what is gone is found, and nobody else pays for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.explore.run import Options, built_in, explore, from_file
from tablewalk.machine.drivers import KernelConfig

PROGRAMS = built_in()


@pytest.mark.parametrize(
    ("name", "rule", "said"),
    [
        ("map-and-dontneed", "I16", "in the end page 0 of the guest is struct page "),
        ("read-and-dontneed", "I1", "CPU0 (guest) accesses folio@"),
    ],
)
def test_a_page_looked_up_before_an_invalidation_is_not_mapped_after_it(name: str, rule: str, said: str) -> None:
    outcome = explore(from_file(Path(__file__).parent / "no_retry.py")[name])
    assert outcome.rule is not None and outcome.rule.id == rule
    assert outcome.sentence.startswith(said), outcome.sentence


@pytest.mark.parametrize(
    ("name", "without", "said"),
    [
        ("guest-khugepaged-reclaim", "K16e", "CPU1 (guest) accesses folio@"),
        ("device-and-shmem-collapse", "K16e R-secondary-tlbs", "CPU1 (device) accesses entry 0 of table @"),
    ],
)
def test_who_is_not_told_reaches_what_was_freed(name: str, without: str, said: str) -> None:
    outcome = explore(PROGRAMS[name], KernelConfig(without=tuple(without.split())))
    assert outcome.rule is not None and outcome.rule.id == "I1"
    assert outcome.sentence.startswith(said), outcome.sentence


def test_a_device_is_told_by_the_flush() -> None:
    """Since 6.6 the notifier is not what keeps a device from a table."""
    outcome = explore(PROGRAMS["device-and-shmem-collapse"], KernelConfig(without=("K16e",)))
    assert outcome.verdict == "exhausted"


def test_where_nobody_has_subscribed_nothing_is_added() -> None:
    """Without the option there is no step more; with it each change asks, which is a step that no other sees."""
    found = {}
    for reduction in ("m1", "none"):
        for option in ("n", "y"):
            config = KernelConfig(options=(("mmu_notifier", option),))
            outcome = explore(PROGRAMS["fault-and-dontneed"], config, Options(reduction=reduction))
            assert outcome.verdict == "exhausted"
            found[reduction, option] = outcome.result.states
    assert found["m1", "n"] == found["m1", "y"]
    assert found["none", "n"] < found["none", "y"]
