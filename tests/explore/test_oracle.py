# SPDX-License-Identifier: GPL-2.0-only
"""Searches against naive enumeration, on random small programs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tablewalk.explore import endings
from tablewalk.explore.engine import Engine
from tablewalk.explore.loop import V_DEADLOCK
from tablewalk.explore.run import searched
from tablewalk.explore.search import Search
from tablewalk.explore.workers import ParallelSearch
from tablewalk.machine.drivers import KernelConfig

from .oracle import Block, Program, Subject, enumerate_all, random_program

WAYS: tuple[dict[str, Any], ...] = (
    {"reduction": "m1"},
    {"reduction": "m1", "depth_first": True, "wide": True},
    {"reduction": "m1", "workers": 2},
    {"reduction": "m2"},
    {"reduction": "futures"},
    {"reduction": "futures", "depth_first": True},
    {"reduction": "futures", "workers": 2},
)
WAYS_OF_TWINS: tuple[dict[str, Any], ...] = (
    {"reduction": "none"},
    {"reduction": "m1"},
    {"reduction": "m1", "workers": 2},
    {"reduction": "futures", "depth_first": True},
)
KINDS = {endings.V_FREED: "freed", endings.V_GUARD: "guard", V_DEADLOCK: "deadlock"}


def searched_all(
    subject: Subject, engine: Engine, workers: int = 1, **how: Any
) -> tuple[set[tuple[Any, ...]], set[str]]:
    if workers == 1:
        search: Search = Search(engine, stop=False, **how)
    else:
        search = ParallelSearch(engine, workers=workers, stop=False, **how)
    result = search.run()
    assert result.verdict in ("exhausted", "violation")
    finals = {
        subject.seen(engine.memory.cells(state), [engine.result_of(state, t) for t in range(engine.threads)])
        for _, _, state in search.all_finals()
    }
    return finals, {KINDS[f.rule] for f in result.found}


def subject_of(program: Program) -> Subject:
    model = searched()
    model.configure(KernelConfig(arch="x86_64/1"))
    return Subject(model, program)


def compare(program: Program, ways: tuple[dict[str, Any], ...] = WAYS, **options: Any) -> None:
    """All reductions reach the final states that there are; each finds a violation if there is one."""
    subject = subject_of(program)
    engine = Engine(subject.model, list(subject.bodies), pool=2, slots=2, max_nodes=5000, **options)
    finals, violations = enumerate_all(program)
    assert searched_all(subject, engine, reduction="none") == (finals, violations), program
    for how in ways:
        found, broken = searched_all(subject, engine, **how)
        assert found == finals, (how, program)
        broken |= violations & {"deadlock"} if how["reduction"] == "m2" else set()
        assert broken <= violations and bool(broken) == bool(violations), (how, broken, violations, program)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        compare(random_program(rng))


def frees(thread: tuple[Block, ...]) -> bool:
    return any(("call_rcu",) in block for block in thread)


@pytest.mark.parametrize("seed", range(4))
def test_random_programs_with_twins(seed: int) -> None:
    """Threads that do the same, and sometimes one that does not."""
    rng = random.Random(seed)
    for _ in range(10):
        first, *others = sorted(random_program(rng), key=frees)  # what is freed is freed once
        twins = rng.choice(((first, first), (first, first, others[0]), (others[0], first, first)))
        group = [t for t, thread in enumerate(twins) if thread is first]
        compare(twins, WAYS_OF_TWINS, alike=[group])


@pytest.mark.parametrize("seed", range(4))
def test_random_programs_unmerged(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        compare(random_program(rng), merged=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1020))
def test_many_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        compare(random_program(rng))
