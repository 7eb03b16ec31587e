# SPDX-License-Identifier: GPL-2.0-only
"""Follows every path through a function, with what is known on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tablewalk.audit.contracts import Effect, Lookup, Outcome, slot_of
from tablewalk.audit.flow import Call, Constant, Graph, Nop, Op, Return, Select, Set, Step, Test, Use, Value
from tablewalk.audit.slices import changed, named, stable
from tablewalk.audit.state import (
    ALIAS,
    ASSUMED,
    AWAY,
    FREE,
    HELD,
    LOCK,
    MAPPED,
    NEVER,
    UNMAPPED,
    Frozen,
    Ref,
    State,
)
from tablewalk.audit.text import Function

MAX_STATES = 12_000
DIFFERENT = "!different"  # locks that cannot be the same
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
        self.states = 0
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
        self.states = len(self._parents)

    def _step(self, node: int, op: Op, frozen: Frozen) -> Iterator[tuple[Frozen, int]]:
        if isinstance(op, Nop):
            yield frozen, 0
            return
        s = State(frozen)
        if isinstance(op, Test):
            results = self._test(op, s)
        elif isinstance(op, Select):
            results = self._select(op, s)
        elif isinstance(op, Return):
            self._return(op, s)
            return
        elif isinstance(op, Call):
            results = [(new, 0) for new in self.call(op, node, s)]
        else:
            if isinstance(op, Set):
                self._set(op, s)
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

    def _tidy(self, node: int, s: State) -> None:
        """Drop what nobody asks for any more, so that paths that differ in nothing else meet."""
        live = self._live[node]
        for place in [p for p in s.env if p not in live and p[0] != "*" and "->" not in p and "." not in p]:
            del s.env[place]
        for key in [k for k in s.facts if k not in live and k[0] != "!" and k[1:] not in self.slots]:
            if key.startswith("?pte_none("):
                continue
            del s.facts[key]
        if any(t.status in (UNMAPPED, AWAY, LOCK) for t in s.tables.values()):
            referred = {r.table for r in s.env.values() if r.kind != "entry"}
            for i, t in list(s.tables.items()):
                done = t.status in (UNMAPPED, AWAY, LOCK) and t.lock in (FREE, NEVER, ASSUMED, ALIAS) and i >= 0
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
            origin = self._line_of(ref)
            word = "NULL" if ref.kind == "null" else "an error"
            said = f"{place} is {how}; it is {word} if the map at line {origin} fails"
            self.report("unchecked-null", line, said, origin)
            s.dead = True  # reported, and the kernel has crashed
        elif ref.kind == "map" and table is not None:
            if table.status == UNMAPPED:
                self.report("use-after-unmap", line, f"{place} is {how} after it was unmapped", table.line)
            if ref.where in ("past", "start"):
                s.env[place] = ref._replace(where="inside" if ref.where == "past" else "used")

    def _line_of(self, ref: Ref) -> int:
        return self.graph.ops[ref.table].line if ref.table >= 0 else 0

    # Operations

    def _set(self, op: Set, s: State) -> None:
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

    # Tests

    def _test(self, op: Test, s: State) -> list[tuple[State, int]]:
        known = self._decide(op, s)
        if known is None and stable(op.text):
            fact = s.facts.get("?" + op.text)
            known = fact if isinstance(fact, bool) else None
        if known is not None:
            self._learn(op, s, known)
            return [(s, 0 if known else 1)]
        other = s.copy()
        self._learn(op, s, True)
        self._learn(op, other, False)
        return [(s, 0), (other, 1)]

    def _decide(self, op: Test, s: State) -> bool | None:
        locks = self._locks(op, s)
        if locks:
            fact = s.facts.get(locks)
            return False if locks == DIFFERENT else fact if isinstance(fact, bool) else None
        left = self.constant(op.left, s)
        if op.op == "true":
            ref = s.env.get(op.left.place) if op.left.place and not op.left.shift and not op.left.address else None
            if ref is not None and ref.kind in ("map", "err", "lock", "kernel", "pml", "live"):
                return True
            if ref is not None and ref.kind == "null":
                return False
            return bool(left) if isinstance(left, int) else True if left == "!0" or _negative(left) else None
        right = self.constant(op.right, s) if op.right is not None else None
        if left is None or right is None or "!0" in (left, right):
            if op.op == "==" and "!0" in (left, right) and 0 in (left, right):
                return False
            return None
        if isinstance(left, int) and isinstance(right, int):
            return left == right if op.op == "==" else left < right if op.op == "<" else left <= right
        if op.op == "==":
            if type(left) is type(right):
                return left == right
            return False if _negative(left) or _negative(right) else None
        if _negative(left) and isinstance(right, int) and right >= 0:
            return True
        if _negative(right) and isinstance(left, int) and left >= 0:
            return False
        return None

    def _locks(self, op: Test, s: State) -> str:
        """The fact that says whether two places hold the same lock, where two locks are compared."""
        if op.op != "==" or op.right is None:
            return ""
        refs = [s.env.get(v.place) for v in (op.left, op.right) if v.place and not v.address]
        found = [r for r in refs if r is not None and r.kind in ("lock", "live", "nolock")]
        if any(r.kind == "nolock" for r in found) or (
            found and 0 in [self.constant(v, s) for v in (op.left, op.right)]
        ):
            return DIFFERENT
        return f"!same {min(found).table} {max(found).table}" if len(found) == 2 else ""

    def _learn(self, op: Test, s: State, holds: bool) -> None:
        place = op.left.place
        locks = self._locks(op, s)
        if locks and locks != DIFFERENT:
            s.facts[locks] = holds
        if not holds:
            self._left_to_the_caller(self.guards.get(op.text, frozenset()), s)
        followed = place in self.slots or s.env.get(place) is not None
        if self.remember is not None and op.text not in self.remember and not followed:
            weakens = op.text.startswith("pte_none(") and any(t.kind == "rw" for t in s.tables.values())
            if not weakens:  # a comparison that comes later
                return
        if stable(op.text):
            s.facts["?" + op.text] = holds
        if op.op == "true" and place and not op.left.shift:
            ref = s.env.get(place)
            if ref is None and not op.left.address:
                s.facts["=" + place] = "!0" if holds else 0
            elif ref is not None and ref.kind == "same":
                self.rechecked(ref, holds, s)
        elif op.op == "==" and holds:
            for v in (op.left, op.right):
                ref = s.env.get(v.place) if v is not None and v.place else None
                if ref is not None and ref.kind in ("lock", "live") and ref.table in s.tables:
                    table = s.tables[ref.table]
                    if table.lock in (FREE, NEVER):
                        s.change(ref.table, lock=ALIAS)  # the same as a lock that is held already
            if place and op.right is not None and op.right.constant is not None and place not in s.env:
                s.facts["=" + place] = op.right.constant

    def fresh(self, node: int, s: State) -> None:
        """The operation `node` is about to map or lock anew: nothing is known of what it did before."""
        for place in [p for p, r in s.env.items() if r.table == node and r.kind in ("map", "lock", "null", "nolock")]:
            del s.env[place]
        for key in [k for k in s.facts if k.startswith("!same ") and str(node) in k.split()]:
            del s.facts[key]
        s.tables.pop(node, None)
        s.order = tuple(i for i in s.order if i != node)

    def _left_to_the_caller(self, locks: frozenset[str], s: State) -> None:
        """A parameter says not to lock: the caller answers for that."""
        for i, t in s.tables.items():
            if t.ptl in locks and t.lock == NEVER:
                s.change(i, lock=ASSUMED, recheck="done")

    def rechecked(self, ref: Ref, holds: bool, s: State) -> None:
        """A comparison with saved values came out as `holds`."""
        strength, _, sense = ref.where.partition(":")
        if holds != (sense != "changed"):
            return
        for i, t in s.tables.items():
            if ref.table in (i, -1) and t.recheck != "done":
                s.change(i, recheck=strength)
            for p, r in s.env.items():
                if r.kind == "entry" and r.table == i and ref.table in (i, -1):
                    s.env[p] = r._replace(where="start")

    def _select(self, op: Select, s: State) -> list[tuple[State, int]]:
        known = self.constant(op.value, s)
        if isinstance(known, int) or (known is not None and any(known in c for c in op.cases)):
            for way, cases in enumerate(op.cases):
                if known in cases:
                    return [(s, way)]
            if all(isinstance(c, int) for cases in op.cases for c in cases):
                return [(s, len(op.cases) - 1)]
        results = []
        for way, cases in enumerate(op.cases):
            new = s.copy()
            if len(cases) == 1 and op.value.place and op.value.place not in new.env:
                new.facts["=" + op.value.place] = cases[0]
            results.append((new, way))
        return results

    # The end

    def _return(self, op: Return, s: State) -> None:
        value = op.value
        returned = s.env.get(value.place) if value is not None and value.place else None
        result = self._result(value, s)
        effects: set[Effect] = set()
        if returned is not None and returned.kind in ("null", "err"):
            effects.add(Effect("ret", returned.kind))
        for i, t in s.tables.items():
            slots = self._slots(i, s)
            locks = (slot_of(p, self.function) for p, r in s.env.items() if r.table == i and r.kind in ("lock", "live"))
            ptls = tuple(sorted(filter(None, locks)))
            is_returned = returned is not None and returned.kind == "map" and returned.table == i
            is_lock = returned is not None and returned.kind in ("lock", "live") and returned.table == i
            kind = "locked" if t.lock == HELD and t.recheck == "done" else t.kind
            if i < 0:
                effects |= self._seeded(op.line, i, t.status, t.lock, result, slots)
            elif t.status == MAPPED and is_returned:
                effects.add(Effect("ret", "mapped", kind, t.lock == HELD, ptls))
            elif t.status == MAPPED and slots and not self._fails(result):
                effects |= {Effect(slot, "mapped", kind, t.lock == HELD, ptls) for slot in slots}
                for slot in slots:
                    self.given_away.setdefault(
                        (slot, result if self.result_tells else None), (op.line, self.at, t.line)
                    )
            elif t.status == MAPPED and not self._stored(i, s):
                lock = " and locked" if t.lock == HELD else ""
                self.report("leak", op.line, f"returns with the page table of line {t.line} still mapped{lock}", t.line)
            elif (
                t.lock == HELD
                and t.status in (UNMAPPED, LOCK, AWAY)
                and not is_lock
                and not (ptls and t.status == LOCK)
            ):
                self.report("missing-unlock", op.line, f"returns with {t.ptl or 'the lock'} still held", t.line)
        effects.update(self._overwritten(s))
        told = {e.slot for e in effects if e.what == "mapped"}
        for place in self.slots:
            ref, own = s.env.get(place), slot_of(place, self.function)
            null = ref.kind in ("null", "huge", "kernel") if ref is not None else s.facts.get("=" + place) == 0
            if own and own not in told and not null:
                self.not_given.add((own, result if self.result_tells else None))
        without = frozenset(k.removeprefix("!none ") for k in s.facts if k.startswith("!none "))
        self.outcomes.add(Outcome(result if self.result_tells else None, frozenset(effects), without))

    def _overwritten(self, s: State) -> Iterator[Effect]:
        """Places of the caller's that hold no table and no lock now, though they may have."""
        for place in self.slots:
            slot = slot_of(place, self.function)
            ref = s.env.get(place)
            if slot is None or (ref is not None and ref.kind != "null"):
                continue
            if ref is not None:
                yield Effect(slot, "null")
            elif "!set " + place in s.facts:
                yield Effect(slot, "zero" if s.facts.get("=" + place) == 0 else "other")

    def _slots(self, table: int, s: State) -> list[str]:
        places = [p for p, r in s.env.items() if r.kind == "map" and r.table == table]
        return [x for p in places if not self._own(p) and (x := slot_of(p, self.function))]

    def _own(self, place: str) -> bool:
        """Whether a place dies with the function."""
        return place[0] != "*" and "->" not in place

    def _stored(self, table: int, s: State) -> bool:
        """Whether something outside the function still knows the table: its address was put away."""
        return any(r.kind == "map" and r.table == table and "->" in p for p, r in s.env.items()) and self.result_tells

    def _fails(self, result: Constant | None) -> bool:
        words = self.function.returns.split()
        if "bool" in words or "*" in self.function.returns:
            return result == 0
        return _negative(result)

    def _result(self, value: Value | None, s: State) -> Constant | None:
        if value is None:
            return None
        known = self.constant(value, s)
        if known == 0:
            return 0
        if _negative(known):
            return known
        return "!0" if isinstance(known, int) or known == "!0" else None

    def _seeded(
        self, line: int, i: int, status: str, lock: str, result: Constant | None, slots: list[str]
    ) -> set[Effect]:
        name = self.seed_slots.get(i, "")
        if status == LOCK:
            if lock == HELD:
                self.report("missing-unlock", line, f"returns with {self.seed_places[i]} held")
            return {Effect(name, "unlocked")} if lock == FREE else set()
        if status == MAPPED:
            self.kept.setdefault((name, result if self.result_tells else None), (line, self.at))
            return set()
        if lock == HELD or (lock == ASSUMED and self.seed_unlocks.get(i)):
            self.report("missing-unlock", line, f"returns with the lock of {self.seed_places[i]} still held")
        kind = "unlocks" if self.seed_unlocks.get(i) else "" if self.seed_ptls.get(i) else "lock stays"
        return {Effect(name, "unmapped", kind)}

    seed_slots: dict[int, str]
    seed_places: dict[int, str]
    seed_ptls: dict[int, str]
    seed_unlocks: dict[int, bool]


def _negative(constant: Constant | None) -> bool:
    return constant.startswith("-") if isinstance(constant, str) else constant is not None and constant < 0


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
