# SPDX-License-Identifier: GPL-2.0-only
"""What a function is given by its callers: tables that are mapped, locks that are held."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tablewalk.audit.contracts import Lookup, place_of
from tablewalk.audit.flow import Call, Set, Test
from tablewalk.audit.names import LOCKS, UNLOCKS, UNMAPS
from tablewalk.audit.state import ASSUMED, LOCK, MAPPED, NEVER, Ref, State, Table
from tablewalk.audit.unit import Unit

PTE_POINTER = re.compile(r"\bpte_t \*$")
_LOCK_POINTER = re.compile(r"\bspinlock_t \*$")
_SAVED = re.compile(r"\b(?:pte_t|pmd_t)$")


@dataclass(slots=True)
class Seed:
    place: str
    table: Table
    ptl: str = ""  # the place of its lock
    may_be_null: bool = False
    slot: str = ""
    unlocks: bool = False


@dataclass(slots=True)
class Seeds:
    found: list[Seed] = field(default_factory=list)
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


def seeds_of(unit: Unit, lookup: Lookup, given: frozenset[str] | None) -> Seeds:
    function = unit.function
    seeds = Seeds()
    names = {p.name: i for i, p in enumerate(function.parameters) if p.name}
    for place, sites in _released(unit, lookup).items():
        root = re.split(r"->|\.", place.lstrip("*"))[0]
        if root not in names or (place == root and not PTE_POINTER.search(function.parameters[names[root]].type)):
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
        seeds.found.append(Seed(place, table, lock, null, slot, bool(ptl) and not locks))
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


def _locked_here(unit: Unit, seeds: Seeds, names: dict[str, int]) -> None:
    """A pointer that comes without its lock held, and the lock with it: as after a nolock map."""
    locked = {a.place for c in unit.calls if c.name in LOCKS for a in c.args[:2]}
    if not any(_SAVED.search(p.type) for p in unit.function.parameters):
        return  # no saved value to compare with: the caller has made sure
    for parameter in unit.function.parameters:
        if not PTE_POINTER.search(parameter.type) or any(s.place == parameter.name for s in seeds.found):
            continue
        ptl = re.sub(r"ptep?$", "ptl", parameter.name)
        lock = names.get(ptl)
        if ptl in locked and lock is not None and _LOCK_POINTER.search(unit.function.parameters[lock].type):
            seeds.found.append(Seed(parameter.name, Table(MAPPED, NEVER, "rw", 0, ptl), ptl))


def _unlocked_here(unit: Unit, seeds: Seeds, names: dict[str, int]) -> None:
    """A lock that comes held."""
    for i, parameter in enumerate(unit.function.parameters):
        name = parameter.name
        if not _LOCK_POINTER.search(parameter.type) or any(s.ptl == name for s in seeds.found):
            continue
        unlocks = any(c.name in UNLOCKS and any(a.place == name for a in c.args[:2]) for c in unit.calls)
        locks = any(c.name in LOCKS and any(a.place == name for a in c.args[:2]) for c in unit.calls)
        declared = re.search(rf"__releases\s*\(\s*\*?{name}\b", unit.function.annotations) is not None
        if (unlocks and not locks) or declared:
            seeds.found.append(Seed(name, Table(LOCK, ASSUMED, "lock", 0, name), "", False, str(i)))
