# SPDX-License-Identifier: GPL-2.0-only
"""One function: its graph, what it is given, its reports and its contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tablewalk.audit.annotations import Annotation
from tablewalk.audit.calls import Calls, gives
from tablewalk.audit.contracts import Contract, Lookup, Outcome, slot_of
from tablewalk.audit.engine import Report
from tablewalk.audit.flow import Call, Graph, Op, Set, Step, Test, Use
from tablewalk.audit.names import (
    ALLOCATES,
    ERROR_TESTS,
    HUGE_LOOKUPS,
    KERNEL_LOOKUPS,
    KMAPS,
    KUNMAPS,
    LOCKS,
    MAPS,
    PMD_LOCKS,
    READS,
    SAME,
    UNLOCKS,
    UNMAPS,
    WRITES,
)
from tablewalk.audit.seeds import PTE_POINTER, Seeds, seeds_of
from tablewalk.audit.slices import compress, liveness, named, tracked
from tablewalk.audit.state import MAPPED
from tablewalk.audit.unit import Unit

_KEPT = re.compile(r"\b(?:spinlock_t|pte_t) \*$")


@dataclass(slots=True)
class Result:
    reports: list[Report]
    contract: Contract
    complete: bool


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
    seeds = seeds_of(unit, lookup, given)
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
    return Result(reports, contract, engine.complete)


def _refined(
    unit: Unit, graph: Graph, lookup: Lookup, seeds: Seeds, slots: frozenset[str]
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
    seeds: Seeds,
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
        or name in KMAPS
        or name in KUNMAPS
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


# What it does


def _inconsistent(engine: Calls, seeds: Seeds) -> Iterator[Report]:
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
        if PTE_POINTER.search(p.type) and (re.sub(r"ptep?$", "ptl", p.name) in locked) == locking
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
