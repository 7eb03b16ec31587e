# SPDX-License-Identifier: GPL-2.0-only
"""What calls do to page tables: the interface's own, and those of functions whose contract is known."""

from __future__ import annotations

from collections.abc import Iterable

from tablewalk.audit.contracts import Contract, Effect, place_of
from tablewalk.audit.flow import Call, Set
from tablewalk.audit.interface import Interface, argument
from tablewalk.audit.names import (
    ALLOCATES,
    ERROR_TESTS,
    HUGE_LOOKUPS,
    KERNEL_LOOKUPS,
    KMAPS,
    KUNMAPS,
    LOCKS,
    MAPS,
    NO_SLEEP_FLAGS,
    NULL_ALLOWED,
    PMD_LOCKS,
    READS,
    SAME,
    UNLOCKS,
    UNMAPS,
    WRITES,
)
from tablewalk.audit.state import FREE, HELD, MAPPED, NEVER, UNMAPPED, Ref, State, Table

_CLEARS_PMD = frozenset(("pmdp_collapse_flush", "pmdp_huge_clear_flush", "pmd_clear", "pmdp_get_and_clear"))


class Calls(Interface):
    def call(self, op: Call, node: int, s: State) -> list[State]:
        name = op.name
        contract = self.lookup(name)
        self._sleep(op, contract, s)
        if contract is not None:
            for slot, i in contract.stores:
                place = place_of(slot, op.args, op.result)
                if place and i < len(op.args):
                    self.set(Set(op.line, place, op.args[i]), s)
        if name in MAPS and name != self.function.name:
            return self.map(op, node, MAPS[name], s)
        if name in UNMAPS:
            self.unmap(op, UNMAPS[name], s)
            return [s]
        if name in KMAPS:
            self.map_page(op, node, s)
            return [s]
        if name in KUNMAPS and len(op.args) > KUNMAPS[name]:
            self.unmap_page(op, op.args[KUNMAPS[name]], s)
            return [s]
        if name in LOCKS:
            return self.lock(op, s)
        if name in UNLOCKS:
            for arg in op.args[:2]:
                self.unlock(arg.place, op.line, s)
            return [s]
        if name == "pte_lockptr":
            self.lockptr(op, node, s)
            return [s]
        if name in PMD_LOCKS:
            return self.pmd_lock(op, node, s)
        if name in KERNEL_LOOKUPS or name in HUGE_LOOKUPS:
            s.env[op.result] = Ref("kernel" if name in KERNEL_LOOKUPS else "huge", node)
            return [s]
        if name in ERROR_TESTS and op.args:
            ref = s.env.get(op.args[0].place)
            if ref is not None and ref.kind in ("map", "null", "err"):
                s.facts["=" + op.result] = int(ref.kind in ERROR_TESTS[name])
            return [s]
        if SAME.search(name) or (contract is not None and contract.recheck):
            self.compare(op, contract, s)
        if name in READS and op.args and (found := s.pointer(op.args[0].place)) and found[1].kind == "rw":
            s.env[op.result] = Ref("entry", found[0].table)
        elif not SAME.search(name):
            self.stale(op, s)
        if contract is None or not (contract.takes or any(o.effects for o in contract.outcomes)):
            self._arguments(op, contract, s)
            return [s]
        return self._apply(op, node, contract, s)

    def _sleep(self, op: Call, contract: Contract | None, s: State) -> None:
        way = self.lookup.sleeps(op.name)
        if not way and not _allocates(op):
            return
        given: set[int] = set()
        for slot in contract.ends() if contract is not None else ():
            place = place_of(slot, op.args, op.result)
            lock = (place or "").replace("pte", "ptl")
            given |= {r.table for p, r in s.env.items() if p == place or (p == lock and r.kind in ("lock", "live"))}
        for i, t in s.tables.items():
            held = t.lock == HELD and t.status != MAPPED
            if (t.status == MAPPED or held) and i not in given:
                by = f" (by {'(), '.join(way[1:])}())" if len(way) > 1 else ""
                what = "the page table is mapped" if t.status == MAPPED else f"{t.ptl or 'its lock'} is held"
                self.report("sleep-while-mapped", op.line, f"{op.name}() may sleep{by} while {what}", t.line)
                return

    # Other functions

    def _holders(self, op: Call, s: State) -> None:
        """What is given a struct that holds a pointer looks at where it points."""
        prefixes = tuple(a.place + (".", "->")[not a.address] for a in op.args if a.place)
        for place in [p for p, r in s.env.items() if r.where == "past" and p.startswith(prefixes)]:
            s.env[place] = s.env[place]._replace(where="inside")

    def _arguments(self, op: Call, contract: Contract | None, s: State) -> None:
        self._holders(op, s)
        for i, v in enumerate(op.args):
            if not v.place:
                continue
            direct = WRITES.match(op.name) is not None
            if direct or (contract is not None and i in contract.writes):
                self.write(op, v, s, direct)
            if contract is not None:
                self.locks_and_writes(op, i, contract, s)
            self.huge(op, v, s)
            if v.address:
                self.invalidate(v.place, s)
                found = s.pointer(v.place)
                if found:
                    s.env[v.place] = found[0]._replace(where="inside")
            elif not NULL_ALLOWED.match(op.name):
                self.use(v.place, op.line, f"given to {op.name}()", s)
        if op.name in _CLEARS_PMD:
            self.clear_pmd(op, s)

    def _apply(self, op: Call, node: int, contract: Contract, s: State) -> list[State]:
        """A call whose function ends in one of several known ways."""
        self._holders(op, s)
        slots = {place_of(x, op.args, op.result) for x in contract.takes}
        for i, v in enumerate(op.args):
            if v.place and not v.address and i in contract.writes:
                self.write(op, v, s, direct=False)
            self.locks_and_writes(op, i, contract, s)
            if v.place and v.place in slots:
                self.use(v.place, op.line, f"given to {op.name}()", s)
        given = contract.gives()
        results = []
        for outcome in sorted(contract.outcomes, key=repr):
            if any(s.pointer(place_of(x, op.args, op.result) or "") for x in outcome.without):
                continue
            new = s.copy()
            for a in op.args:
                if a.address and a.place:
                    self.invalidate(a.place, new)
            if outcome.result is not None:
                new.facts["=" + op.result] = outcome.result
            for slot in given - {e.slot for e in outcome.effects}:
                place = place_of(slot, op.args, op.result)
                if place and place not in s.env:
                    new.forget(place)
            for effect in outcome.effects:
                self._effect(op, node, effect, new)
            results.append(new)
        return results or [s]

    def _effect(self, op: Call, node: int, e: Effect, s: State) -> None:
        place = place_of(e.slot, op.args, op.result)
        if place is None:
            return
        if e.what in ("null", "err"):
            s.env[place] = Ref(e.what, node)
        elif e.what == "mapped":
            ptls = [p for slot in e.ptls if (p := place_of(slot, op.args, op.result))]
            old = s.tables.get(node)
            if old is not None and old.status == MAPPED:
                self.report("leak", op.line, f"{op.name}() maps again what is still mapped", op.line)
            elif old is not None and old.lock == HELD:
                self.report("missing-unlock", op.line, f"{op.name}() maps again while the lock is still held", op.line)
            s.tables[node] = Table(MAPPED, HELD if e.locked else NEVER, e.kind, op.line, ptls[0] if ptls else "")
            s.env[place] = Ref("map", node)
            s.order = (*(i for i in s.order if i != node), node)
            for ptl in ptls:
                s.env[ptl] = Ref("lock", node)
        elif e.what in ("zero", "other"):
            s.forget(place)
            if e.what == "zero":
                s.facts["=" + place] = 0
        elif e.what == "unmapped":
            found = s.pointer(place)
            if found:
                ref, table = found
                if table.status == UNMAPPED:
                    self.report("double-unmap", op.line, f"{op.name}() unmaps {place} again", table.line)
                s.leave(ref.table)
                lock = s.env.get(place.replace("pte", "ptl"))
                live = lock is not None and lock.kind == "live" and lock.table in s.tables
                if e.kind == "unlocks" and table.status == MAPPED and table.lock in (NEVER, FREE) and not live:
                    said = f"{op.name}() unlocks what {place} is in, which is not locked here"
                    self.report("unlock-unheld", op.line, said, table.line)
                stays = table.lock == NEVER or e.kind == "lock stays"
                s.change(ref.table, status=UNMAPPED, lock=table.lock if stays else FREE)
                if lock is not None and live:
                    s.change(lock.table, lock=FREE)
        elif e.what == "unlocked":
            lock = s.env.get(place)
            if lock is not None and lock.kind in ("lock", "live") and lock.table in s.tables:
                s.change(lock.table, lock=FREE)


def _allocates(op: Call) -> bool:
    return ALLOCATES.match(op.name) is not None and not any(NO_SLEEP_FLAGS.search(a.text) for a in op.args)


def gives(op: Call, contract: Contract | None) -> Iterable[str]:
    """Places that `op` may leave something of interest in."""
    name = op.name
    if name in MAPS:
        what = MAPS[name]
        return [p for p in (op.result, argument(op, what.ptl)) if p]
    if name in KERNEL_LOOKUPS or name in HUGE_LOOKUPS or name in PMD_LOCKS or name in KMAPS or name == "pte_lockptr":
        return [op.result]
    if SAME.search(name):
        return [op.result]
    if contract is None:
        return []
    slots = {x for o in contract.outcomes for e in o.effects for x in (e.slot, *e.ptls)}
    places = [place_of(x, op.args, op.result) for x in (*slots, *(to for to, _ in contract.stores)) if x]
    return [p for p in (*places, op.result if contract.recheck else None) if p]
