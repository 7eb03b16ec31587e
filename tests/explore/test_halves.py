# SPDX-License-Identifier: GPL-2.0-only
"""A pmd that is read in two halves is torn on the architecture that reads so, and on no other."""

from __future__ import annotations

from pathlib import Path

from tablewalk.explore.run import built_in, explore, from_file
from tablewalk.machine.drivers import KernelConfig

WITHOUT = KernelConfig(without=("C02",))


def test_a_pmd_is_torn_on_pae_only() -> None:
    programs = built_in()
    torn = explore(programs["shmem-collapse-map-in-halves"], WITHOUT)
    assert (torn.verdict, torn.rule and torn.rule.id) == ("violation", "I1")
    assert explore(programs["shmem-collapse-map-at-once"], WITHOUT).verdict == "exhausted"


def test_reclaim_does_not_care_for_reads_in_halves() -> None:
    """Linux 7.2 has pmdp_get_lockless_sync() in khugepaged alone, and PT_RECLAIM on x86 with PAE too."""
    (program,) = from_file(Path(__file__).with_name("pae_reclaim.py")).values()
    outcome = explore(program)
    assert (outcome.verdict, outcome.rule and outcome.rule.id) == ("violation", "I1")
