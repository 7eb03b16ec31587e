# SPDX-License-Identifier: GPL-2.0-only
"""One function: its graph, what it is given, its reports and its contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tablewalk.audit.annotations import Annotation
from tablewalk.audit.calls import Calls, gives
from tablewalk.audit.contracts import Contract, Lookup, Outcome, place_of, slot_of
from tablewalk.audit.engine import Report
from tablewalk.audit.flow import Call, Graph, Op, Set, Step, Test, Use
from tablewalk.audit.grammar import errors
from tablewalk.audit.lower import lower
from tablewalk.audit.names import (
    ALLOCATES,
    ERROR_TESTS,
    HUGE_LOOKUPS,
    KERNEL_LOOKUPS,
    LOCKS,
    MAPS,
    PMD_LOCKS,
    READS,
    SAME,
    UNLOCKS,
    UNMAPS,
    WRITES,
)
from tablewalk.audit.slices import compress, liveness, named, tracked
from tablewalk.audit.state import ASSUMED, LOCK, MAPPED, NEVER, Ref, State, Table
from tablewalk.audit.text import Function

_PTE_POINTER = re.compile(r"\bpte_t \*$")
_LOCK_POINTER = re.compile(r"\bspinlock_t \*$")
_KEPT = re.compile(r"\b(?:spinlock_t|pte_t) \*$")
_SAVED = re.compile(r"\b(?:pte_t|pmd_t)$")


@dataclass(slots=True)
class Unit:
    """A function that can be followed."""

    function: Function
    graph: Graph  # as written
    calls: tuple[Call, ...]
    broken: list[int]  # offsets in the body that the grammar did not understand

    @classmethod
    def of(cls, function: Function) -> Unit | None:
        lowered = lower(function)
        if lowered is None:
            return None
        calls = tuple(op for op in lowered.graph.ops if isinstance(op, Call))
        return cls(function, lowered.graph, calls, errors(lowered.tree))


@dataclass(slots=True)
class Result:
    reports: list[Report]
    contract: Contract
    complete: bool
    states: int


@dataclass(slots=True)
class _Seed:
    place: str
    table: Table
    ptl: str = ""  # the place of its lock
    may_be_null: bool = False
    slot: str = ""
    unlocks: bool = False


@dataclass(slots=True)
class _Seeds:
    found: list[_Seed] = field(default_factory=list)
    opaque: bool = False  # callers are told by a protocol of its own

    def states(self) -> Iterator[State]:
        full = State()
        for n, seed in enumerate(self.found, 1):
            full.tables[-n] = seed.table
            full.env[seed.place] = Ref("lock" if seed.table.status == LOCK else "map", -n)
            if seed.ptl:
                full.env[seed.ptl] = Ref("lock", -n)
        yield full
        nullable = [(-n, s.place) for n, s in enumerate(self.found, 1) if s.may_be_null]
        if nullable:
            other = full.copy()
            for table, place in nullable:
                del other.tables[table]
                for p in [p for p, r in other.env.items() if r.table == table]:
                    del other.env[p]
                other.facts["=" + place] = 0
            for seed in self.found:
                if seed.may_be_null and seed.slot:
                    other.facts["!none " + seed.slot] = True
            yield other


def follow(unit: Unit, lookup: Lookup, note: Annotation) -> Result:
    """Follow the function on all its paths."""
    result = _follow(unit, lookup, note.takes, note.opaque)
    released = {e.slot for o in result.contract.outcomes for e in o.effects if e.what == "unmapped"}
    if note.takes is None and result.contract.takes - released:
        result = _follow(unit, lookup, frozenset(released), note.opaque)  # what it never unmaps it was not given
    if note.opaque:
        result.contract = Contract()
    return result


def _follow(unit: Unit, lookup: Lookup, given: frozenset[str] | None, opaque: bool) -> Result:
    function = unit.function
    seeds = _seeds(unit, lookup, given)
    seeds.opaque = opaque
    places = [s.place for s in seeds.found] + [s.ptl for s in seeds.found if s.ptl]
    graph = Graph(list(unit.graph.ops), [list(w) for w in unit.graph.next])
    rechecks = any(c.name == "pte_offset_map_rw_nolock" for c in unit.calls)
    reads = READS if rechecks else frozenset()
    interesting = tracked(graph, places, lambda op: [op.result] if op.name in reads else gives(op, lookup(op.name)))
    looked_at = interesting.union(*map(named, interesting))  # and structs that hold such a place

    def matters(op: Op) -> bool:
        if isinstance(op, Call):
            return _call_matters(op, looked_at, lookup)
        if isinstance(op, Use | Step):
            return op.place in interesting or isinstance(op, Step)
        return isinstance(op, Set)

    compress(graph, matters)
    graph = _without_dead_sets(graph, interesting)
    slots = frozenset(p for p in interesting if slot_of(p, function) and (p[0] == "*" or "->" in p))
    engine, reports = _refined(unit, graph, lookup, seeds, slots)
    nulls = {r.origin for r in reports if r.rule == "unchecked-null"}
    reports = [r for r in reports if r.rule != "unmap-wrong" or r.origin not in nulls or "has failed" not in r.message]
    contract = Contract(
        frozenset(s.slot for s in seeds.found if s.slot and s.table.status == MAPPED and s.table.kind == "given"),
        _useful(_told_apart(engine.outcomes)),
        _writes(unit, lookup, locking=False),
        _writes(unit, lookup, locking=True),
        _recheck(unit),
        _stores(unit),
    )
    return Result(reports, contract, engine.complete, engine.states)


def _refined(
    unit: Unit, graph: Graph, lookup: Lookup, seeds: _Seeds, slots: frozenset[str]
) -> tuple[Calls, list[Report]]:
    """First without remembering how conditions came out, then remembering those that a report took both ways.

    Where the function has a contract its ways of ending must be told apart, and all conditions are remembered.
    """
    live = liveness(graph)
    remember: frozenset[str] | None = frozenset()
    tries: list[tuple[Calls, list[Report]]] = []
    while True:
        engine = _engine(unit, graph, live, lookup, seeds, slots, remember)
        reports = list(engine.reports.values()) + list(_inconsistent(engine, seeds))
        tries.append((engine, reports))
        if not engine.complete and len(tries) > 1:
            return tries[-2]
        wanted = engine.wanted - (remember or frozenset())
        if remember is None or not wanted:
            if remember is not None and any(o.effects for o in engine.outcomes):
                full = _engine(unit, graph, live, lookup, seeds, slots, None)
                if full.complete:
                    return full, list(full.reports.values()) + list(_inconsistent(full, seeds))
            return engine, reports
        remember |= wanted


def _without_dead_sets(graph: Graph, interesting: frozenset[str]) -> Graph:
    """Assignments that nobody asks for are no operations either, which may leave more tests without a purpose."""
    while True:
        live = liveness(graph)
        dead = set()
        for i, op in enumerate(graph.ops):
            if isinstance(op, Set | Step) and op.place not in interesting and "=" + op.place not in live[i]:
                texts = [k for k in live[i] if k[0] == "?" and op.place in named(k[1:])]
                if not texts:
                    dead.add(id(op))
        before = [list(w) for w in graph.next]
        compress(graph, lambda op: id(op) not in dead)  # noqa: B023
        if before == graph.next:
            return graph


def _engine(
    unit: Unit,
    graph: Graph,
    live: list[frozenset[str]],
    lookup: Lookup,
    seeds: _Seeds,
    slots: frozenset[str],
    remember: frozenset[str] | None,
) -> Calls:
    engine = Calls(unit.function, graph, live, lookup, seeds.states())
    engine.remember = remember
    engine.slots = slots
    engine.guards = _guards(unit)
    numbered = list(enumerate(seeds.found, 1))
    engine.seed_slots = {-n: s.slot for n, s in numbered}
    engine.seed_places = {-n: s.place for n, s in numbered}
    engine.seed_ptls = {-n: s.table.ptl for n, s in numbered}
    engine.seed_unlocks = {-n: s.unlocks for n, s in numbered}
    engine.run()
    return engine


def _guards(unit: Unit) -> dict[str, frozenset[str]]:
    """Parameters that say whether to take a lock, and the places of those locks."""
    found: dict[str, frozenset[str]] = {}
    names = {p.name for p in unit.function.parameters}
    for op, ways in zip(unit.graph.ops, unit.graph.next, strict=True):
        if isinstance(op, Test) and op.op == "true" and op.left.place in names and ways[0] >= 0:
            first = unit.graph.ops[ways[0]]
            if isinstance(first, Call) and first.name in LOCKS and first.args:
                found[op.text] = found.get(op.text, frozenset()) | {first.args[0].place}
    return found


def _call_matters(op: Call, interesting: frozenset[str], lookup: Lookup) -> bool:
    name = op.name
    contract = lookup(name)
    return (
        name in MAPS
        or name in UNMAPS
        or lookup.sleeps(name) != ()
        or name in LOCKS
        or name in UNLOCKS
        or name in ERROR_TESTS
        or name == "pte_lockptr"
        or name in KERNEL_LOOKUPS
        or name in PMD_LOCKS
        or name in HUGE_LOOKUPS
        or ALLOCATES.match(name) is not None
        or SAME.search(name) is not None
        or (contract is not None and contract.matters())
        or any(a.place in interesting for a in op.args)
        or any(a.address for a in op.args)
        or name.startswith("pmd")
    )


def _useful(outcomes: set[Outcome]) -> frozenset[Outcome]:
    """Outcomes with their effects, or nothing where no way of ending has any.

    That something else is in a slot matters only where it may be a table or a lock.
    """
    effects = {e for o in outcomes for e in o.effects}
    given = {x for e in effects if e.what == "mapped" for x in (e.slot, *e.ptls)}
    idle = {e for e in effects if e.what in ("null", "zero", "other") and e.slot not in (*given, "ret")}
    return frozenset(o._replace(effects=o.effects - idle) for o in outcomes) if effects - idle else frozenset()


# What the function is given


def _seeds(unit: Unit, lookup: Lookup, given: frozenset[str] | None) -> _Seeds:
    function = unit.function
    seeds = _Seeds()
    names = {p.name: i for i, p in enumerate(function.parameters) if p.name}
    for place, sites in _released(unit, lookup).items():
        root = re.split(r"->|\.", place.lstrip("*"))[0]
        if root not in names or (place == root and not _PTE_POINTER.search(function.parameters[names[root]].type)):
            continue
        unchanged = _before_set(unit, place, lookup)
        reached = unchanged & sites.keys()
        if not reached:
            continue
        ptl = next((sites[i] for i in sorted(reached) if sites[i]), "")
        slot = f"{names[root]}{place[len(root) :]}" if place[0] != "*" else f"{names[root]}*"
        if given is not None and slot not in given:
            continue
        if any(s.place == place for s in seeds.found):
            continue
        ptl = ptl or _unlocked_apart(unit, place, unchanged)
        lock = "" if any(s.ptl == ptl for s in seeds.found) else ptl
        null = _tested(unit, place, unchanged)
        locks = any(c.name in LOCKS and any(a.place == lock for a in c.args[:2]) for c in unit.calls)
        table = Table(MAPPED, NEVER if locks else ASSUMED, "given", 0, lock)
        seeds.found.append(_Seed(place, table, lock, null, slot, bool(ptl) and not locks))
    _locked_here(unit, seeds, names)
    _unlocked_here(unit, seeds, names)
    return seeds


def _released(unit: Unit, lookup: Lookup) -> dict[str, dict[int, str]]:
    """Places that the function unmaps: at which operations, and the place of the lock that is released there."""
    found: dict[str, dict[int, str]] = {}
    for i, call in enumerate(unit.graph.ops):
        if not isinstance(call, Call):
            continue
        if call.name in UNMAPS and call.args and call.args[0].place:
            ptl = call.args[1].place if UNMAPS[call.name] and len(call.args) > 1 else ""
            found.setdefault(call.args[0].place, {})[i] = ptl
        elif (contract := lookup(call.name)) is not None:
            for slot in sorted(contract.takes):
                place = place_of(slot, call.args, call.result)
                if place:
                    effects = {e for o in contract.outcomes for e in o.effects if e.slot == slot}
                    apart = ("->" not in place and "." not in place) or any(e.kind == "lock stays" for e in effects)
                    ptl = "" if apart else place.replace("pte", "ptl")
                    found.setdefault(place, {})[i] = ptl
    return found


def _before_set(unit: Unit, place: str, lookup: Lookup) -> set[int]:
    """The operations that some path comes to with the value that `place` had at the beginning."""
    pending, seen = [0], {0}
    while pending:
        i = pending.pop()
        op = unit.graph.ops[i]
        if isinstance(op, Set) and op.place == place:
            continue
        if isinstance(op, Call):
            if op.name in UNMAPS and op.args and op.args[0].place == place:
                continue
            contract = lookup(op.name)
            if contract is not None:
                slots = (*contract.takes, *contract.gives())
                if place in (place_of(x, op.args, op.result) for x in slots):
                    continue
            if any(a.address and a.place == place for a in op.args):
                continue
        for to in unit.graph.next[i]:
            if to >= 0 and to not in seen:
                seen.add(to)
                pending.append(to)
    return seen


def _unlocked_apart(unit: Unit, place: str, where: set[int]) -> str:
    """The lock of a pointer, by its name, if the function releases it at one of these places and does not take it."""
    ptl = re.sub(r"pte(p?)$", r"ptl", place) if place[0] != "*" else ""
    locked = {a.place for c in unit.calls if c.name in LOCKS for a in c.args[:2]}
    calls = [op for i in where if isinstance(op := unit.graph.ops[i], Call)]
    unlocked = {a.place for c in calls if c.name in UNLOCKS for a in c.args[:2]}
    return ptl if ptl != place and ptl in unlocked - locked else ""


def _tested(unit: Unit, place: str, where: set[int]) -> bool:
    ops = (unit.graph.ops[i] for i in where)
    return any(isinstance(op, Test) and op.op == "true" and op.left.place == place for op in ops)


def _locked_here(unit: Unit, seeds: _Seeds, names: dict[str, int]) -> None:
    """A pointer that comes without its lock held, and the lock with it: as after a nolock map."""
    locked = {a.place for c in unit.calls if c.name in LOCKS for a in c.args[:2]}
    if not any(_SAVED.search(p.type) for p in unit.function.parameters):
        return  # no saved value to compare with: the caller has made sure
    for parameter in unit.function.parameters:
        if not _PTE_POINTER.search(parameter.type) or any(s.place == parameter.name for s in seeds.found):
            continue
        ptl = re.sub(r"ptep?$", "ptl", parameter.name)
        lock = names.get(ptl)
        if ptl in locked and lock is not None and _LOCK_POINTER.search(unit.function.parameters[lock].type):
            seeds.found.append(_Seed(parameter.name, Table(MAPPED, NEVER, "rw", 0, ptl), ptl))


def _unlocked_here(unit: Unit, seeds: _Seeds, names: dict[str, int]) -> None:
    """A lock that comes held."""
    for i, parameter in enumerate(unit.function.parameters):
        name = parameter.name
        if not _LOCK_POINTER.search(parameter.type) or any(s.ptl == name for s in seeds.found):
            continue
        unlocks = any(c.name in UNLOCKS and any(a.place == name for a in c.args[:2]) for c in unit.calls)
        locks = any(c.name in LOCKS and any(a.place == name for a in c.args[:2]) for c in unit.calls)
        declared = re.search(rf"__releases\s*\(\s*\*?{name}\b", unit.function.annotations) is not None
        if (unlocks and not locks) or declared:
            seeds.found.append(_Seed(name, Table(LOCK, ASSUMED, "lock", 0, name), "", False, str(i)))


# What it does


def _inconsistent(engine: Calls, seeds: _Seeds) -> Iterator[Report]:
    """What the function was given mapped must be unmapped on all paths that end alike, or on none."""
    if seeds.opaque:
        return
    for i, seed in enumerate(seeds.found, 1):
        if seed.table.status != MAPPED or seed.table.kind != "given":
            continue
        unmaps = [o for o in engine.outcomes if any(e.slot == seed.slot and e.what == "unmapped" for e in o.effects)]
        released = {o.result for o in unmaps}
        for (slot, result), (line, key) in engine.kept.items():
            if slot == engine.seed_slots[-i] and (result in released or (released and not engine.result_tells)):
                said = f"returns with {seed.place} still mapped, which other paths unmap"
                yield Report("leak", line, said, 0, engine.path_to(key, line, said))
    for way, (line, key, origin) in engine.given_away.items():
        if way in engine.not_given and (way[1] is not None or not engine.result_tells):
            said = "returns with the page table still mapped, which the caller cannot tell from other ways of ending"
            yield Report("leak", line, said, origin, engine.path_to(key, line, said))


def _writes(unit: Unit, lookup: Lookup, locking: bool) -> frozenset[int]:
    """Parameters that entries are written through, under a lock that the function takes, or not."""
    locked = {a.place for c in unit.calls if c.name in LOCKS for a in c.args[:2]}
    copies = {
        p.name: i
        for i, p in enumerate(unit.function.parameters)
        if _PTE_POINTER.search(p.type) and (re.sub(r"ptep?$", "ptl", p.name) in locked) == locking
    }
    for op in unit.graph.ops:
        if isinstance(op, Set) and op.value.place in copies and op.how == "=" and op.place not in copies:
            copies[op.place] = copies[op.value.place]
    found = set()
    for call in unit.calls:
        contract = lookup(call.name)
        for i, a in enumerate(call.args):
            indirect = contract is not None and i in (contract.locks_and_writes if locking else contract.writes)
            if a.place in copies and (WRITES.match(call.name) or indirect):
                found.add(copies[a.place])
    return frozenset(found)


def _told_apart(outcomes: set[Outcome]) -> set[Outcome]:
    """Callers tell ways of ending apart by the result alone: one unlike those with 0 gives something else."""
    zero = {o[1:] for o in outcomes if o.result == 0}
    if len(zero) != 1:
        return outcomes
    return {o._replace(result="!0") if o.result is None and o[1:] not in zero else o for o in outcomes}


def _stores(unit: Unit) -> frozenset[tuple[str, int]]:
    """Pointers to entries and locks that are put where another parameter points."""
    kept = {p.name: i for i, p in enumerate(unit.function.parameters) if _KEPT.search(p.type)}
    found = set()
    for op in unit.graph.ops:
        if isinstance(op, Set) and op.how == "=" and op.value.place in kept and not op.value.address:
            slot = slot_of(op.place, unit.function)
            if slot and "->" in slot:
                found.add((slot, kept[op.value.place]))
    return frozenset(found)


def _recheck(unit: Unit) -> str:
    """Whether the function is a comparison with saved values and nothing else."""
    if len(unit.calls) > 12 or len(unit.function.body) > 700 or "bool" not in unit.function.returns.split():
        return ""
    names = {c.name for c in unit.calls}
    return "pmd" if "pmd_same" in names else "pte" if "pte_same" in names else ""
