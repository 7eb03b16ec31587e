# SPDX-License-Identifier: GPL-2.0-only
"""Follows every path through a function, with what is known on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tablewalk.audit.contracts import Lookup, Outcome
from tablewalk.audit.flow import Call, Constant, Graph, Nop, Op, Return, Select, Set, Step, Test, Use, Value
from tablewalk.audit.slices import changed, named, stable
from tablewalk.audit.state import (
    ALIAS,
    ASSUMED,
    FREE,
    LOCK,
    NEVER,
    UNMAPPED,
    Frozen,
    Ref,
    State,
)
from tablewalk.audit.text import Function

MAX_STATES = 12_000
Key = tuple[int, Frozen]


@dataclass(frozen=True, slots=True)
class Waypoint:
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """A rule broken at `line` of the file; `origin` is where the table was mapped (0: by the caller)."""

    rule: str
    line: int
    message: str
    origin: int = 0
    path: tuple[Waypoint, ...] = ()


class Engine:
    """One function.  `lookup` gives the contracts of others by name."""

    def __init__(
        self,
        function: Function,
        graph: Graph,
        live: list[frozenset[str]],
        lookup: Lookup,
        seeds: Iterable[State],
    ) -> None:
        self.function = function
        self.graph = graph
        self.lookup = lookup
        self.reports: dict[tuple[str, int, int], Report] = {}
        self.outcomes: set[Outcome] = set()
        self.kept: dict[tuple[str, Constant | None], tuple[int, Key]] = {}  # slot, result: line of a return
        self.given_away: dict[tuple[str, Constant | None], tuple[int, Key, int]] = {}  # likewise, and the map's line
        self.not_given: set[tuple[str, Constant | None]] = set()  # ways of ending where a slot has something else
        self.complete = True
        self.remember: frozenset[str] | None = None  # conditions whose outcome is remembered; None for all
        self.wanted: set[str] = set()  # conditions that a reported path takes both ways
        self.slots: frozenset[str] = frozenset()  # places of the caller's that may come to hold a table or a lock
        self.guards: dict[str, frozenset[str]] = {}  # parameters that say whether to lock, and the locks' places
        self._live = live
        self._seeds = list(seeds)
        self._parents: dict[Key, Key | None] = {}
        self.at: Key = (0, State().freeze())
        kind = function.returns.split()
        self.result_tells = not ({"void", "vm_fault_t"} & set(kind)) or "*" in function.returns

    def run(self) -> None:
        pending: deque[Key] = deque()
        for seed in self._seeds:
            key = (0, seed.freeze())
            self._parents.setdefault(key, None)
            pending.append(key)
        while pending:
            key = pending.popleft()
            self.at = key
            node = key[0]
            op = self.graph.ops[node]
            for frozen, way in self._step(node, op, key[1]):
                to = self.graph.next[node][way] if way < len(self.graph.next[node]) else -1
                new = (to, frozen)
                if to >= 0 and new not in self._parents:
                    self._parents[new] = key
                    pending.append(new)
            if len(self._parents) > MAX_STATES:
                self.complete = False
                break

    def _step(self, node: int, op: Op, frozen: Frozen) -> Iterator[tuple[Frozen, int]]:
        if isinstance(op, Nop):
            yield frozen, 0
            return
        s = State(frozen)
        if isinstance(op, Test):
            results = self.test(op, s)
        elif isinstance(op, Select):
            results = self.select(op, s)
        elif isinstance(op, Return):
            self.end(op, s)
            return
        elif isinstance(op, Call):
            results = [(new, 0) for new in self.call(op, node, s)]
        else:
            if isinstance(op, Set):
                self.set(op, s)
            elif isinstance(op, Use):
                self.use(op.place, op.line, "dereferenced", s)
            elif isinstance(op, Step):
                self._move(op, s)
            results = [(s, 0)]
        for new, way in results:
            if new.dead:
                continue
            self._tidy(node, new)
            yield new.freeze(), way

    def call(self, op: Call, node: int, s: State) -> list[State]:
        raise NotImplementedError

    def test(self, op: Test, s: State) -> list[tuple[State, int]]:
        raise NotImplementedError

    def select(self, op: Select, s: State) -> list[tuple[State, int]]:
        raise NotImplementedError

    def end(self, op: Return, s: State) -> None:
        raise NotImplementedError

    def _tidy(self, node: int, s: State) -> None:
        """Drop what nobody asks for any more, so that paths that differ in nothing else meet."""
        live = self._live[node]
        for place in [p for p in s.env if p not in live and p[0] != "*" and "->" not in p and "." not in p]:
            del s.env[place]
        for key in [k for k in s.facts if k not in live and k[0] != "!" and k[1:] not in self.slots]:
            if key.startswith("?pte_none("):
                continue
            del s.facts[key]
        if any(t.status in (UNMAPPED, LOCK) for t in s.tables.values()):
            referred = {r.table for r in s.env.values() if r.kind != "entry"}
            for i, t in list(s.tables.items()):
                done = t.status in (UNMAPPED, LOCK) and t.lock in (FREE, NEVER, ASSUMED, ALIAS) and i >= 0
                if done and i not in referred:
                    del s.tables[i]

    # Reports

    def report(self, rule: str, line: int, message: str, origin: int = 0) -> None:
        key = (rule, line, origin)
        if key not in self.reports:
            self.reports[key] = Report(rule, line, message, origin, self.path_to(self.at, line, message))

    def path_to(self, key: Key | None, line: int, message: str) -> tuple[Waypoint, ...]:
        steps: list[Waypoint] = []
        taken: dict[str, bool] = {}
        later = -1
        while key is not None:
            node = key[0]
            op = self.graph.ops[node]
            for place in changed(op) if taken else ():
                for text in [t for t in taken if place in named(t)]:
                    del taken[text]
            if isinstance(op, Test) and later >= 0:
                holds = later == self.graph.next[node][0]
                if stable(op.text) and taken.setdefault(op.text, holds) != holds:
                    self.wanted.add(op.text)
                steps.append(Waypoint(op.line, f"{_shown(op.text)} is {'true' if holds else 'false'}"))
            elif isinstance(op, Call) and later >= 0:
                steps.append(Waypoint(op.line, f"{op.name}()"))
            later = node
            key = self._parents.get(key)
        steps.reverse()
        return (*steps[-40:], Waypoint(line, message))

    def use(self, place: str, line: int, how: str, s: State) -> None:
        """The pointer in `place` is followed."""
        ref = s.env.get(place)
        if ref is None:
            return
        table = s.tables.get(ref.table)
        if ref.kind in ("null", "err"):
            origin = self.line_of(ref)
            word = "NULL" if ref.kind == "null" else "an error"
            said = f"{place} is {how}; it is {word} if the map at line {origin} fails"
            self.report("unchecked-null", line, said, origin)
            s.dead = True  # reported, and the kernel has crashed
        elif ref.kind == "map" and table is not None:
            if table.status == UNMAPPED:
                self.report("use-after-unmap", line, f"{place} is {how} after it was unmapped", table.line)
            if ref.where in ("past", "start"):
                s.env[place] = ref._replace(where="inside" if ref.where == "past" else "used")

    def line_of(self, ref: Ref) -> int:
        return self.graph.ops[ref.table].line if ref.table >= 0 else 0

    # Operations

    def set(self, op: Set, s: State) -> None:
        if op.how != "=":
            self.invalidate(op.place, s)
            if op.how in "+-":
                self._advance(op.place, op.how == "+", s)
            return
        source = s.env.get(op.value.place) if op.value.place and not op.value.address else None
        known = self.constant(op.value, s)
        self.invalidate(op.place, s)
        s.forget(op.place)
        if op.place in self.slots:
            s.facts["!set " + op.place] = True
        if source is not None:
            if op.value.shift and source.kind == "map":
                source = source._replace(where="inside")
            s.env[op.place] = source
        elif known is not None:
            s.facts["=" + op.place] = known
        if op.place[0] == "*":
            self.use(op.place[1:], op.line, "written through", s)

    def invalidate(self, place: str, s: State) -> None:
        s.facts.pop("=" + place, None)
        for key in [k for k in s.facts if k[0] == "?" and place in named(k[1:])]:
            del s.facts[key]

    def _move(self, op: Step, s: State) -> None:
        self.invalidate(op.place, s)
        self._advance(op.place, op.forward, s)

    def _advance(self, place: str, forward: bool, s: State) -> None:
        found = s.pointer(place)
        if found:
            s.env[place] = found[0]._replace(where="past" if forward else "inside")

    def constant(self, v: Value, s: State) -> Constant | None:
        if v.constant is not None:
            return v.constant
        return s.facts.get("=" + v.place) if v.place and not v.shift and not v.address else None

    seed_slots: dict[int, str]
    seed_places: dict[int, str]
    seed_ptls: dict[int, str]
    seed_unlocks: dict[int, bool]


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
