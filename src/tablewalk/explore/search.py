# SPDX-License-Identifier: GPL-2.0-only
"""A search: the loop over states, what it misses learned, its limits; and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import restore, save
from .endings import FUTURES, M1, M2, NONE
from .engine import Engine, Restart
from .estimate import share
from .loop import (
    CUT,
    DONE,
    FINALS,
    FOUND,
    GROW,
    HEAD,
    MAX_RULES,
    MISSED,
    OPERATIONS,
    PAUSED,
    RULES,
    STATES,
    TAIL,
    TRANSITIONS,
    search,
)
from .packed import hash_all, image
from .tables import COUNTED, FUTURE_ROW, LINK_BITS, Bound, scratch
from .visited import insert, rehash
from .walks import walks

BUDGET = 100_000  # states expanded between two looks at limits
QUIET_WALKS, MAX_WALKS, FEW_WALKS = 500, 5000, 20

REDUCTIONS = {"none": NONE, "m1": M1, "m2": M2, "futures": M1 | FUTURES}


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a search ends without having seen everything; 0 is no limit."""

    states: int = 0
    seconds: float = 0.0
    nodes: int = 65_000
    switches: int = -1  # how often a thread that could go on may have to wait for another; -1 is no limit
    rounds: int = 0  # of a loop


@dataclass(slots=True)
class Found:
    """A broken rule: which, at which automaton node, by whom, and the schedule that leads there."""

    rule: int
    node: int
    extra: int
    state: int
    actor: int
    count: int


@dataclass(slots=True)
class Result:
    """What a search has seen."""

    verdict: str = "exhausted"
    bound: str = ""
    states: int = 0
    transitions: int = 0
    operations: int = 0
    seconds: float = 0.0
    learning: float = 0.0
    restarts: int = 0
    found: list[Found] = field(default_factory=list)
    finals: Any = None
    ends: list[int] = field(default_factory=list)  # the number of each final state


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a search is kept, every so many seconds; `identity` says which search it is."""

    path: Path
    identity: str
    seconds: float = 10.0


Progress = Callable[["Search"], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a search stands: `waiting` states are to expand; `estimate` of all states, 0 if there is none."""

    states: int
    transitions: int
    waiting: int
    depth: int
    rate: float
    estimate: int


class Search:
    """A search over an engine's automata: `run` it, then ask for schedules."""

    def __init__(
        self,
        engine: Engine,
        reduction: str = "m1",
        depth_first: bool = False,
        wide: bool = False,
        stop: bool = True,
        limits: Limits = Limits(),
        progress: Progress | None = None,
        checkpoint: Checkpoint | None = None,
        exact: bool = False,
    ) -> None:
        self.engine, self.depth_first, self.wide, self.stop = engine, depth_first, wide, stop
        self.exact = exact
        self.reduction = REDUCTIONS[reduction]
        self.limits, self._progress, self._checkpoint = limits, progress, checkpoint
        self.result = Result()
        self.width = max(64, -(-self._bytes() // 16) * 16)
        self._warming = False
        self._began = self._saved = self._checked = self._save_took = 0.0
        self.lengths = np.zeros(engine.threads + engine.slots)  # steps of each thread, on an average walk
        self.scratch = scratch()
        self._allocate()

    def _bytes(self) -> int:
        """Of a state, as far as is known."""
        return int(self.engine.tables.dims[3]) + self.engine.memory.columns

    def _allocate(self) -> None:
        size = 1 << 14
        self.queue = np.zeros((size, self.width), np.uint8)
        self.hashes = np.zeros((size, 2), np.uint64)
        self.index = np.zeros(size, np.int64)
        rows = self.engine.threads + self.engine.slots + 2  # for each thread's step, and two for their comparison
        self.steps = np.zeros((rows, self.width), np.uint8)
        self.step_hashes = np.zeros((rows, 2), np.uint64)
        self.table = np.zeros(1 << 16, np.uint64)
        self.second = np.zeros(1 << 16 if self.wide or self.exact else 1, np.uint64)
        self.kept = np.zeros((1 << 15 if self.exact else 1, self.width), np.uint8)
        self.parent = np.zeros(1 << 15, np.int64)
        self.finals = np.zeros((1 << 10, self.width), np.uint8)
        self.ends = np.zeros(1 << 10, np.int64)
        self.rules = np.zeros((MAX_RULES, 6), np.int64)
        self.io = np.zeros(10, np.int64)
        self._begin()

    def _begin(self) -> None:
        self.engine.mistaken = False
        self.table[:] = 0
        self.second[:] = 0
        self.io[:] = 0
        self.scratch[COUNTED : COUNTED + (len(self.engine.learner.nodes) + 1) * FUTURE_ROW] = 0
        start = self.engine.initial()
        self.queue[0] = 0
        self.queue[0, : len(start)] = start
        hash_all(self.engine.tables.all, self.queue[0], self.hashes[0])
        insert(self.table, self.second, self.kept, self.hashes[0], self.queue[0], 0)
        self.index[0] = 0
        self.parent[0] = -1
        self.io[TAIL] = self.io[STATES] = 1

    def run(self) -> Result:
        """Search until all is seen, a rule is broken (if `stop`), or a limit is reached."""
        began = self._began = self._saved = time.perf_counter()
        result = self.result
        self.engine.counted = self._scratch_arrays()
        try:
            kept = self._checkpoint
            if not (kept and restore(kept.path, self, kept.identity)):
                self._warm_up()
            result.verdict = self._loop(began)
            if self.io[CUT]:
                raise Bound(f"{self.limits.switches} preemptions")
        except Bound as e:
            result.verdict, result.bound = "bounded", e.what
            self._keep()
        except MemoryError:
            result.verdict, result.bound = "bounded", "memory"
        result.seconds = time.perf_counter() - began
        io = self.io
        result.states, result.transitions, result.operations = (int(v) for v in io[STATES : OPERATIONS + 1])
        self._collect()
        if result.found:
            result.verdict = "violation"
        return result

    def _scratch_arrays(self) -> list[Any]:
        return [self.scratch]

    def _collect(self) -> None:
        self.result.found = [Found(*(int(v) for v in row)) for row in self.rules[: self.io[RULES]]]
        self.result.finals = self.finals[: self.io[FINALS]]
        self.result.ends = [int(end) for end in self.ends[: self.io[FINALS]]]

    def _warm_up(self) -> None:
        """Walk at random for a while, to see what is shared before the search counts on what is not."""
        self._warming = True
        wanted = QUIET_WALKS if self.reduction != NONE else FEW_WALKS
        quiet = 0  # since this walk
        seeds, steps = np.zeros(2, np.int64), np.zeros(len(self.lengths), np.int64)
        while seeds[0] < (end := min(quiet + wanted, MAX_WALKS)):
            seeds[1] = end
            known = self.engine.accesses
            if self._walks(seeds, steps) == MISSED:
                self._learn()
            if self.engine.accesses != known:
                quiet = int(seeds[0]) + 1
        self.lengths = steps / seeds[0]
        self._warming = False
        self._begin()

    def _walks(self, seeds: Any, steps: Any) -> int:
        tables, start = self.engine.tables.all, self.queue[0]
        return walks(tables, start, self.scratch, self.steps, self.step_hashes, self.reduction, seeds, steps)

    def _loop(self, began: float) -> str:
        while True:
            status = search(
                self.engine.tables.all, self.queue, self.hashes, self.index, self.table, self.second, self.kept,
                self.parent, self.finals, self.ends, self.rules, self.io, self.scratch, self.steps, self.step_hashes,
                self.reduction, self.limits.switches, self.depth_first, self.stop, self._budget(),
            )  # fmt: skip
            if status == MISSED:
                self._learn()
            elif status == GROW:
                self._grow()
            elif status == FOUND or (status == DONE and not self._mistaken()):
                return "exhausted"
            if status == PAUSED or time.perf_counter() - self._checked > 0.5:
                self._check_limits(began)

    def _mistaken(self) -> bool:
        """Whether the search, which is at its end, begins anew, since it counted on what others would not do.  It does
        not before, so that it learns as much as it can of what else they do."""
        if self.engine.mistaken:
            self.result.restarts += 1
            self._begin()
            return True
        return False

    def _budget(self) -> int:
        """States to expand until limits are looked at again."""
        if not self.limits.states:
            return BUDGET
        return int(min(BUDGET, max(1, self.limits.states - self.io[STATES])))

    def _check_limits(self, began: float) -> None:
        limits, kept, now = self.limits, self._checkpoint, time.perf_counter()
        self._checked = now
        if self._progress:
            self._progress(self)
        if kept and now - self._saved > max(kept.seconds, 10 * self._save_took):
            self._keep()
        if limits.states and self.io[STATES] >= limits.states:
            raise Bound(f"{limits.states} states")
        if limits.seconds and time.perf_counter() - began > limits.seconds:
            raise Bound(f"{limits.seconds:g} seconds")

    def _keep(self) -> None:
        """Write a checkpoint, if there is to be one."""
        kept, began = self._checkpoint, time.perf_counter()
        if kept:
            save(kept.path, self, kept.identity)
            self._saved = time.perf_counter()
            self._save_took = self._saved - began

    def _learn(self) -> None:
        began = time.perf_counter()
        try:
            self.engine.resolve(self.scratch, self.reduction != NONE)
        except Restart:
            self.engine.accesses += 1
            if not self._warming:
                self.result.restarts += 1
                self._begin()
        if self._bytes() > self.width:
            self.width += 16
            self._allocate()
        self.result.learning += time.perf_counter() - began

    def _grow(self) -> None:
        self.make_room(self.engine.threads + self.engine.slots)

    def make_room(self, new: int) -> None:
        """Let the arrays have room for so many new states."""
        io = self.io
        count = int(io[TAIL] - io[HEAD])
        size = len(self.queue)
        if count + new > size:
            order = np.arange(io[HEAD], io[TAIL]) & size - 1
            while count + new > size:
                size *= 2
            for name in ("queue", "hashes", "index"):
                old = getattr(self, name)
                larger = np.zeros((size, *old.shape[1:]), old.dtype)
                larger[:count] = old[order]
                setattr(self, name, larger)
            io[HEAD], io[TAIL] = 0, count
        while io[STATES] + new > len(self.parent):
            self.parent = np.concatenate([self.parent, np.zeros_like(self.parent)])
            if self.exact:
                self.kept = np.concatenate([self.kept, np.zeros_like(self.kept)])
        size = len(self.table)
        while (io[STATES] + new) * 10 > size * 7:
            size *= 4
        if size > len(self.table):
            table = np.zeros(size, np.uint64)
            second = np.zeros(size if self.wide or self.exact else 1, np.uint64)
            rehash(self.table, self.second, table, second)
            self.table, self.second = table, second
        if io[FINALS] >= len(self.finals):
            self.finals = np.concatenate([self.finals, np.zeros_like(self.finals)])
            self.ends = np.concatenate([self.ends, np.zeros_like(self.ends)])

    def standing(self) -> Standing:
        """Where the search stands."""
        io = self.io
        states, waiting = int(io[STATES]), int(io[TAIL] - io[HEAD])
        depth = len(self.schedule(self._at_head())) if waiting else 0
        part = 0.0 if self.depth_first else share(self.lengths.tolist(), depth)
        estimate = max(states, round((states - waiting) / part)) if part else 0
        rate = states / max(time.perf_counter() - self._began, 1e-9)
        return Standing(states, int(io[TRANSITIONS]), waiting, depth, rate, estimate)

    def _at_head(self) -> int:
        """The state that is expanded next."""
        return int(self.index[(self.io[TAIL] - 1 if self.depth_first else self.io[HEAD]) & len(self.index) - 1])

    def all_finals(self) -> Iterator[tuple[int, int, Any]]:
        """(number, way, state) of final states, in each way in which threads may change places."""
        for state, end in zip(self.result.finals, self.result.ends, strict=True):
            yield end, 0, state
            for g in range(1, len(self.engine.symmetry.ways)):
                other = np.zeros_like(state)
                image(self.engine.tables.all, g - 1, state, other)
                yield end, g, other

    # --- schedules ---------------------------------------------------------------------------------------

    def schedule(self, state: int) -> list[int]:
        """Who took the steps that lead to a state."""
        links = []
        while (link := self._link(state)) >= 0:
            links.append(link & (1 << LINK_BITS) - 1)
            state = link >> LINK_BITS
        return self.engine.symmetry.actors(links[::-1])

    def _link(self, state: int) -> int:
        """The state that it was found from, and by what step; -1 for the first."""
        return int(self.parent[state])
