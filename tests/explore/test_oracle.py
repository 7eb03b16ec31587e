# SPDX-License-Identifier: GPL-2.0-only
"""Searches against naive enumeration, on random small programs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tablewalk.explore import native
from tablewalk.explore.engine import Engine
from tablewalk.explore.loop import V_DEADLOCK
from tablewalk.explore.run import searched
from tablewalk.explore.search import Search
from tablewalk.explore.workers import ParallelSearch
from tablewalk.machine.drivers import KernelConfig

from .oracle import Program, Subject, enumerate_all, random_program

WAYS: tuple[dict[str, Any], ...] = (
    {"reduction": "m1"},
    {"reduction": "m1", "depth_first": True, "wide": True},
    {"reduction": "m1", "workers": 2},
    {"reduction": "m2"},
    {"reduction": "futures"},
    {"reduction": "futures", "depth_first": True},
    {"reduction": "futures", "workers": 2},
)
KINDS = {native.V_FREED: "freed", native.V_GUARD: "guard", V_DEADLOCK: "deadlock"}


def searched_all(
    subject: Subject, engine: Engine, workers: int = 1, **how: Any
) -> tuple[set[tuple[Any, ...]], set[str]]:
    if workers == 1:
        result = Search(engine, stop=False, **how).run()
    else:
        result = ParallelSearch(engine, workers=workers, stop=False, **how).run()
    assert result.verdict in ("exhausted", "violation")
    finals = {
        subject.seen(engine.cells(state), [engine.result_of(state, t) for t in range(engine.threads)])
        for state in result.finals
    }
    return finals, {KINDS[f.rule] for f in result.found}


def compare(program: Program) -> None:
    """All reductions reach the final states that there are; each finds a violation if there is one."""
    model = searched()
    model.configure(KernelConfig(arch="x86_64/1"))
    subject = Subject(model, program)
    engine = Engine(model, list(subject.bodies), pool=2, slots=2, max_nodes=5000)
    finals, violations = enumerate_all(program)
    assert searched_all(subject, engine, reduction="none") == (finals, violations), program
    for how in WAYS:
        found, broken = searched_all(subject, engine, **how)
        assert found == finals, (how, program)
        broken |= violations & {"deadlock"} if how["reduction"] == "m2" else set()
        assert broken <= violations and bool(broken) == bool(violations), (how, broken, violations, program)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        compare(random_program(rng))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_many_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        compare(random_program(rng))
