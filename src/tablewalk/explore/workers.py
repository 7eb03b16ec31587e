# SPDX-License-Identifier: GPL-2.0-only
"""A search breadth first by several native threads, each with the states whose hash says so.

They go on in rounds: each expands states of its own for a while, then each takes over what the others found for it.
Between the rounds one Python thread learns what was missed, so the tables only change while nobody reads them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from .engine import Engine
from .loop import (
    CUT,
    FINALS,
    HEAD,
    MISSED,
    OPERATIONS,
    RULES,
    STATES,
    TAIL,
    TRANSITIONS,
    VIOLATIONS,
    absorb,
    expand,
)
from .search import Found, Limits, Progress, Search
from .tables import COUNTED

ROUND = 1 << 15  # states that one shard may find for another in a round


class ParallelSearch(Search):
    """A search by `workers` threads."""

    def __init__(
        self,
        engine: Engine,
        reduction: str,
        workers: int,
        wide: bool = False,
        stop: bool = True,
        limits: Limits | None = None,
        progress: Progress | None = None,
        exact: bool = False,
    ) -> None:
        self.shards = [Search(engine, reduction, False, wide, stop, exact=exact) for _ in range(workers)]
        super().__init__(engine, reduction, False, wide, stop, limits or Limits(), progress, exact=exact)

    def _allocate(self) -> None:
        for shard in self.shards:
            shard.width = self.width
            shard._allocate()
        n = len(self.shards)
        self._out = np.zeros((n, n, ROUND, self.width), np.uint8)
        self._out_hashes = np.zeros((n, n, ROUND, 2), np.uint64)
        self._out_links = np.zeros((n, n, ROUND), np.int64)
        self._counts = np.zeros((n, n), np.int64)
        super()._allocate()

    def _begin(self) -> None:
        super()._begin()
        self._counts[:] = 0
        owner = self._owner(self.hashes[0])
        for i, shard in enumerate(self.shards):
            shard._begin()
            if i != owner:
                shard.table[:] = 0
                shard.second[:] = 0
                shard.io[:] = 0

    def _owner(self, h: Any) -> int:
        return (int(h[0]) >> 40) % len(self.shards)

    def _loop(self, began: float) -> str:
        shards = self.shards
        with ThreadPoolExecutor(len(shards)) as pool:
            while True:
                done = list(pool.map(self._expand, range(len(shards))))
                for shard in shards:
                    shard._grow()
                list(pool.map(self._absorb, range(len(shards))))
                self._total()
                for miss in [s.scratch[:COUNTED].copy() for s, how in zip(shards, done, strict=True) if how == MISSED]:
                    if not self._learned(miss):
                        break
                self._check_limits(began)
                if self.stop and self.io[VIOLATIONS]:
                    return "exhausted"
                if self.io[HEAD] == self.io[TAIL] and not self._mistaken():
                    return "exhausted"

    def _learned(self, miss: Any) -> bool:
        """Learn what was missed; false if the search begins anew for it."""
        self.scratch[:COUNTED] = miss
        restarts, width = self.result.restarts, self.width
        self._learn()
        return restarts == self.result.restarts and width == self.width

    def _expand(self, i: int) -> int:
        s = self.shards[i]
        return int(
            expand(
                self.engine.tables.all, s.queue, s.hashes, s.index, s.finals, s.ends, s.rules, s.io,
                self._out[i], self._out_hashes[i], self._out_links[i], self._counts[i], s.scratch, s.steps,
                s.step_hashes, self.reduction, self.limits.switches, i,
            )
        )  # fmt: skip

    def _absorb(self, i: int) -> None:
        s = self.shards[i]
        for other in range(len(self.shards)):
            count = int(self._counts[other, i])
            s.make_room(count)
            absorb(
                s.queue, s.hashes, s.index, s.table, s.second, s.kept, s.parent, s.io,
                self._out[other, i], self._out_hashes[other, i], self._out_links[other, i], count,
            )  # fmt: skip
            self._counts[other, i] = 0

    def _total(self) -> None:
        """The sums over all shards, as a single search would have them."""
        for column in (HEAD, TAIL, STATES, TRANSITIONS, OPERATIONS, FINALS, RULES, VIOLATIONS, CUT):
            self.io[column] = sum(int(s.io[column]) for s in self.shards)

    def _scratch_arrays(self) -> list[Any]:
        return [shard.scratch for shard in self.shards]

    def _collect(self) -> None:
        merged: dict[tuple[int, int], Found] = {}
        for shard in self.shards:
            for row in shard.rules[: shard.io[RULES]]:
                found = Found(*(int(v) for v in row))
                known = merged.get((found.rule, found.node))
                merged[found.rule, found.node] = replace(found, count=found.count + (known.count if known else 0))
        self.result.found = list(merged.values())
        self.result.finals = np.concatenate([s.finals[: s.io[FINALS]] for s in self.shards])
        self.result.ends = [int(end) for s in self.shards for end in s.ends[: s.io[FINALS]]]

    def _at_head(self) -> int:
        n = len(self.shards)
        i = next(i for i, s in enumerate(self.shards) if s.io[HEAD] < s.io[TAIL])
        return self.shards[i]._at_head() * n + i

    def _link(self, state: int) -> int:
        n = len(self.shards)
        return int(self.shards[state % n].parent[state // n])
