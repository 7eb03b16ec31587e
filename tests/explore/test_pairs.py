# SPDX-License-Identifier: GPL-2.0-only
"""Each two kinds of things meet in some scenario, unless one takes a table's range from which the other is shut out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tablewalk.explore import pairs
from tablewalk.explore.run import built_in, explore
from tablewalk.explore.scenario import Override

PROGRAMS = built_in()
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "explore.md"


def test_each_pair_meets_or_one_takes_the_whole_range() -> None:
    kinds = pairs.kinds()
    whole = {name for name, kind in kinds.items() if not any("+" in memory for memory in kind.memories)}
    assert whole == {"huge-fault", "collapse-anon", "collapse-shmem", "collapse-file", "khugepaged"}
    for (a, b), scenarios in pairs.covered(PROGRAMS).items():
        apart = not set(kinds[a].memories) & set(kinds[b].memories)
        assert bool(scenarios) != apart, (a, b)
        assert not apart or {a, b} & whole, (a, b)


def test_a_pair_that_no_scenario_has_is_noticed() -> None:
    without = {name: program for name, program in PROGRAMS.items() if name != "mprotect-x-migrate"}
    missing = [pair for pair, scenarios in pairs.covered(without).items() if not scenarios]
    assert ("mprotect", "migrate") in missing
    assert ("mprotect", "migrate") not in [pair for pair, names in pairs.covered(PROGRAMS).items() if not names]


def test_the_document_has_the_table() -> None:
    assert pairs.as_markdown(PROGRAMS) in DOCUMENT.read_text()
    triples = pairs.triples(PROGRAMS)
    assert triples in DOCUMENT.read_text() and len(triples.splitlines()) >= 25


def not_locked(vma: int) -> None:
    """The reverse map is not kept from looking in between."""


def test_mremap_keeps_the_reverse_map_from_looking_in_between() -> None:
    overrides = tuple(Override(f"move_page_tables.{name}_rmap_locks", not_locked) for name in ("take", "drop"))
    outcome = explore(replace(PROGRAMS["migrate-mremap-after"], overrides=overrides))
    assert (outcome.verdict, outcome.rule.id if outcome.rule else "") == ("violation", "I25"), outcome.sentence


def irqs_stay_on() -> int:
    """Interrupts stay on."""
    return 0


def nothing(flags: int) -> None:
    """They were on."""


def test_perf_needs_interrupts_off() -> None:
    overrides = (
        Override("events_core:local_irq_save", irqs_stay_on),
        Override("events_core:local_irq_restore", nothing),
    )
    outcome = explore(replace(PROGRAMS["dontneed-x-perf"], overrides=overrides))
    assert (outcome.verdict, outcome.rule.id if outcome.rule else "") == ("violation", "I1"), outcome.sentence
