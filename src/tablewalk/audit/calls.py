# SPDX-License-Identifier: GPL-2.0-only
"""What calls do to page tables: the interface's own, and those of functions whose contract is known."""

from __future__ import annotations

from collections.abc import Iterable

from tablewalk.audit.contracts import Contract, Effect, place_of
from tablewalk.audit.engine import Engine
from tablewalk.audit.flow import Call, Set, Value, is_name
from tablewalk.audit.names import (
    ALLOCATES,
    ERROR_TESTS,
    HUGE_LOOKUPS,
    KERNEL_LOOKUPS,
    LOCKS,
    MAPS,
    NO_SLEEP_FLAGS,
    NULL_ALLOWED,
    PMD_LOCKS,
    PMD_SAME,
    READS,
    SAME,
    UNLOCKS,
    UNMAPS,
    WRITES,
    Map,
)
from tablewalk.audit.slices import named
from tablewalk.audit.state import ALIAS, ASSUMED, FREE, HELD, LOCK, MAPPED, NEVER, UNMAPPED, Ref, State, Table

_CLEARS_PMD = frozenset(("pmdp_collapse_flush", "pmdp_huge_clear_flush", "pmd_clear", "pmdp_get_and_clear"))
_LOCKED = (HELD, ASSUMED, ALIAS)


class Calls(Engine):
    def call(self, op: Call, node: int, s: State) -> list[State]:
        name = op.name
        contract = self.lookup(name)
        self._sleep(op, contract, s)
        if contract is not None:
            for slot, i in contract.stores:
                place = place_of(slot, op.args, op.result)
                if place and i < len(op.args):
                    self._set(Set(op.line, place, op.args[i]), s)
        if name in MAPS and name != self.function.name:
            return self._map(op, node, MAPS[name], s)
        if name in UNMAPS:
            self._unmap(op, UNMAPS[name], s)
            return [s]
        if name in LOCKS:
            return self._lock(op, s)
        if name in UNLOCKS:
            for arg in op.args[:2]:
                self._unlock(arg.place, op.line, s)
            return [s]
        if name == "pte_lockptr":
            self._lockptr(op, node, s)
            return [s]
        if name in PMD_LOCKS:
            return self._pmd_lock(op, node, s)
        if name in KERNEL_LOOKUPS or name in HUGE_LOOKUPS:
            s.env[op.result] = Ref("kernel" if name in KERNEL_LOOKUPS else "huge", node)
            return [s]
        if name in ERROR_TESTS and op.args:
            ref = s.env.get(op.args[0].place)
            if ref is not None and ref.kind in ("map", "null", "err"):
                s.facts["=" + op.result] = int(ref.kind in ERROR_TESTS[name])
            return [s]
        if SAME.search(name) or (contract is not None and contract.recheck):
            self._compare(op, contract, s)
        if name in READS and op.args and (found := s.pointer(op.args[0].place)) and found[1].kind == "rw":
            s.env[op.result] = Ref("entry", found[0].table)
        elif not SAME.search(name):
            self._stale(op, s)
        if contract is None or not (contract.takes or any(o.effects for o in contract.outcomes)):
            self._arguments(op, contract, s)
            return [s]
        return self._apply(op, node, contract, s)

    # The interface

    def _map(self, op: Call, node: int, what: Map, s: State) -> list[State]:
        old = s.tables.get(node)
        if old is not None and old.status == MAPPED:
            self.report("leak", op.line, "mapped again while it is still mapped", op.line)
        elif old is not None and old.lock == HELD:
            self.report("missing-unlock", op.line, "mapped again while its lock is still held", op.line)
        self.fresh(node, s)
        failed = s.copy()
        failed.env[op.result] = Ref("null", node)
        ptl = _argument(op, what.ptl)
        if ptl:
            failed.env[ptl] = Ref("nolock", node)
        pmdval = _argument(op, what.pmdval)
        recheck = "done" if "dummy" in pmdval else ""
        inputs = op.args[: what.pmdval or what.ptl]
        private = any(a.address and is_name(a.place) for a in inputs)  # a table behind a copy of the pmd
        lock = HELD if what.kind == "locked" else NEVER
        s.tables[node] = Table(MAPPED, lock, "private" if private else what.kind, op.line, ptl, pmdval, recheck)
        s.env[op.result] = Ref("map", node)
        s.order = (*s.order, node)
        if ptl:
            self.invalidate(ptl, s)
            s.env[ptl] = Ref("lock", node)
        if pmdval:
            self.invalidate(pmdval, s)
        return [s, failed]

    def _unmap(self, op: Call, unlocks: bool, s: State) -> None:
        if not op.args:
            return
        v = op.args[0]
        ref = s.env.get(v.place) if v.place else None
        if v.address and ref is None and "." not in v.place and "->" not in v.place:
            self.report("unmap-wrong", op.line, f"{op.name}() of the address of a local variable")
        elif ref is not None and ref.kind in ("null", "err"):
            line = self._line_of(ref)
            self.report("unmap-wrong", op.line, f"{op.name}({v.text}) where the map at line {line} has failed", line)
            s.dead = True
        elif ref is not None and ref.kind in ("kernel", "huge"):
            line = self._line_of(ref)
            self.report("unmap-wrong", op.line, f"{op.name}({v.text}), which line {line} did not map", line)
        elif ref is None and v.place and not v.address and s.facts.get("=" + v.place) == 0:
            self.report("unmap-wrong", op.line, f"{op.name}({v.text}), which is NULL here")
        found = s.pointer(v.place)
        if unlocks:
            self._unlock_with(op, s)
        if not found:
            return
        ref, table = found
        table = s.tables[ref.table]
        if ref.where == "past" and not v.shift:
            self.report("unmap-moved", op.line, f"{op.name}({v.text}): may be past the table's end", table.line)
        elif ref.where == "used" and v.shift == "-" and ref.table >= 0:
            self.report("unmap-moved", op.line, f"{op.name}({v.text}) before {v.place} has moved", table.line)
        if table.status == UNMAPPED:
            self.report("double-unmap", op.line, f"{v.text} is unmapped again", table.line)
        elif s.order and ref.table in s.order and s.order[-1] != ref.table:
            later = s.tables[s.order[-1]].line if s.order[-1] in s.tables else 0
            said = f"{v.text} is unmapped before what line {later} mapped later"
            self.report("unmap-order", op.line, said, table.line)
        s.order = tuple(i for i in s.order if i != ref.table)
        s.change(ref.table, status=UNMAPPED)

    def _unlock_with(self, op: Call, s: State) -> None:
        """The second half of pte_unmap_unlock()."""
        pointer = s.pointer(op.args[0].place)
        lock = s.env.get(op.args[1].place) if len(op.args) > 1 else None
        if pointer and lock is not None and lock.kind == "lock" and lock.table != pointer[0].table:
            text = f"{op.args[0].text} is unlocked with {op.args[1].text}, the lock of another table"
            if s.tables.get(lock.table) and s.tables[lock.table].lock != ALIAS:
                self.report("unmap-wrong", op.line, text, pointer[1].line)
        if lock is not None and lock.kind in ("lock", "live"):
            self._unlock(op.args[1].place, op.line, s)
            if lock.kind == "live" and pointer:
                s.change(pointer[0].table, lock=FREE)
        elif pointer and pointer[1].lock in _LOCKED:
            s.change(pointer[0].table, lock=FREE)
        elif pointer and pointer[1].status == MAPPED and lock is None and pointer[1].kind == "locked":
            self.report("unlock-unheld", op.line, f"{op.args[-1].text} is not held here", pointer[1].line)

    def _unlock(self, place: str, line: int, s: State) -> None:
        ref = s.env.get(place)
        if ref is None or ref.kind not in ("lock", "live") or ref.table not in s.tables:
            return
        table = s.tables[ref.table]
        if table.lock in (FREE, NEVER):
            self.report("unlock-unheld", line, f"{place} is not held here", table.line)
        self._release(ref.table, s)

    def _release(self, table: int, s: State) -> None:
        """What was compared under the lock has to be compared again under it."""
        t = s.tables[table]
        if t.lock == ALIAS:
            for i in [i for i, x in s.tables.items() if x.kind == "pmd" and x.lock == HELD]:
                s.change(i, lock=FREE)
            return
        s.change(table, lock=FREE, recheck="" if t.kind == "rw" and "dummy" not in t.pmdval else None)

    def _lock(self, op: Call, s: State) -> list[State]:
        refs = [r for a in op.args[:2] if (r := s.env.get(a.place)) is not None and r.kind in ("lock", "live")]
        taken = s.copy() if op.name == "spin_trylock" else s
        for ref in refs:
            if ref.table in taken.tables:
                if taken.tables[ref.table].lock == HELD and op.name != "spin_trylock":
                    line = taken.tables[ref.table].line
                    self.report("missing-unlock", op.line, f"{op.args[0].text} is taken while it is held", line)
                taken.change(ref.table, lock=HELD)
                for p, r in taken.env.items():
                    if r.kind == "entry" and r.table == ref.table:
                        taken.env[p] = r._replace(where="stale")
        if op.name != "spin_trylock":
            return [taken]
        taken.facts["=" + op.result] = 1
        s.facts["=" + op.result] = 0
        return [taken, s]

    def _pmd_lock(self, op: Call, node: int, s: State) -> list[State]:
        """Locks of the table above: taken, taken or NULL, or only looked up."""
        if op.name == "pmd_lockptr":
            s.env[op.result] = Ref("pml", node)
            return [s]
        old = s.tables.get(node)
        if old is not None and old.lock == HELD:
            self.report("missing-unlock", op.line, f"{op.name}() while its lock is still held", op.line)
        self.fresh(node, s)
        other = s.copy()
        s.tables[node] = Table(LOCK, HELD, "pmd", op.line)
        s.env[op.result] = Ref("lock", node)
        if op.name in ("pmd_lock", "pud_lock"):
            return [s]
        other.facts["=" + op.result] = 0
        return [s, other]

    def _lockptr(self, op: Call, node: int, s: State) -> None:
        """A lock that is looked up anew, by what the pmd is now."""
        if op.args and not op.args[-1].address:
            s.tables[node] = Table(LOCK, NEVER, "live", op.line, op.args[-1].text)
            s.env[op.result] = Ref("live", node)

    # Rechecks, writes, sleep

    def _compare(self, op: Call, contract: Contract | None, s: State) -> None:
        text = ",".join(a.text for a in op.args)
        names = named(text)
        of_pmd = bool(PMD_SAME.search(op.name)) or (contract is not None and contract.recheck == "pmd")
        which = [i for i, t in s.tables.items() if (t.pmdval and t.pmdval in names)]
        if not of_pmd:
            which = [r.table for p, r in s.env.items() if r.kind == "map" and p in names]
        weak = not of_pmd and any(s.facts.get(f"?pte_none({a.place})") is True for a in op.args)
        sense = "changed" if "changed" in op.name else "same"
        table = which[0] if len(set(which)) == 1 else -1
        s.env[op.result] = Ref("same", table, f"{'weak' if weak else 'done'}:{sense}")

    def _stale(self, op: Call, s: State) -> None:
        """An entry that was read before the lock was taken is acted on under it."""
        for a in op.args:
            ref = s.env.get(a.place)
            if ref is not None and ref.kind == "entry" and ref.where == "stale" and ref.table in s.tables:
                t = s.tables[ref.table]
                if t.lock == HELD:
                    said = f"{op.name}() is given {a.text}, read before the lock was taken and not compared since"
                    self.report("no-recheck", op.line, said, t.line)

    def _write(self, op: Call, v: Value, s: State, direct: bool) -> None:
        found = s.pointer(v.place)
        if not found:
            return
        ref, t = found
        if t.status == UNMAPPED or t.kind == "private" or (ref.table < 0 and t.kind != "rw" and t.lock != FREE):
            return
        said = f"{op.name}() writes through {v.text}"
        live = next((x for x in s.tables.values() if x.kind == "live" and x.lock in (HELD, ALIAS)), None)
        if t.lock == ALIAS:
            return
        if live is not None:
            if live.recheck != "done":
                self.report("live-lockptr", op.line, f"{said} under the lock looked up at line {live.line}", live.line)
        elif t.kind == "ro" or (t.kind == "plain" and t.lock == NEVER):
            if direct or t.lock == HELD:
                self.report("read-only-write", op.line, f"{said}, which is mapped to be read only", t.line)
        elif t.lock == FREE or (t.kind == "rw" and t.lock == NEVER):
            self.report("use-after-unlock", op.line, f"{said} without its lock", t.line)
        elif t.kind == "rw" and t.recheck == "":
            self.report("no-recheck", op.line, f"{said}, and nothing tells that the table is still in place", t.line)
        elif t.kind == "rw" and t.recheck == "weak":
            self.report("none-recheck", op.line, f"{said} after pte_same() with an entry that was none", t.line)

    def _locks_and_writes(self, op: Call, i: int, contract: Contract, s: State) -> None:
        found = s.pointer(op.args[i].place)
        if found and i in contract.locks_and_writes and found[1].kind == "ro" and found[1].status == MAPPED:
            said = f"{op.name}() writes through {op.args[i].text}, which is mapped to be read only"
            self.report("read-only-write", op.line, said, found[1].line)

    def _clear_pmd(self, op: Call, s: State) -> None:
        for t in s.tables.values():
            if t.kind == "rw" and t.status == MAPPED and t.lock == HELD and t.recheck != "done":
                self.report("no-recheck", op.line, f"{op.name}() without pmd_same() of what was mapped", t.line)

    def _sleep(self, op: Call, contract: Contract | None, s: State) -> None:
        way = self.lookup.sleeps(op.name)
        if not way and not _allocates(op):
            return
        given: set[int] = set()
        for slot in contract.takes if contract is not None else ():
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
                self._write(op, v, s, direct)
            if contract is not None:
                self._locks_and_writes(op, i, contract, s)
            if v.address:
                self.invalidate(v.place, s)
                found = s.pointer(v.place)
                if found:
                    s.env[v.place] = found[0]._replace(where="inside")
            elif not NULL_ALLOWED.match(op.name):
                self.use(v.place, op.line, f"given to {op.name}()", s)
        if op.name in _CLEARS_PMD:
            self._clear_pmd(op, s)

    def _apply(self, op: Call, node: int, contract: Contract, s: State) -> list[State]:
        """A call whose function ends in one of several known ways."""
        self._holders(op, s)
        slots = {place_of(x, op.args, op.result) for x in contract.takes}
        for i, v in enumerate(op.args):
            if v.place and not v.address and i in contract.writes:
                self._write(op, v, s, direct=False)
            self._locks_and_writes(op, i, contract, s)
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
                s.order = tuple(i for i in s.order if i != ref.table)
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


def _argument(op: Call, from_end: int | None) -> str:
    """The place whose address an argument is."""
    if from_end is None or len(op.args) < -from_end:
        return ""
    v = op.args[from_end]
    return v.place if v.address else "*" + v.text


def _allocates(op: Call) -> bool:
    return ALLOCATES.match(op.name) is not None and not any(NO_SLEEP_FLAGS.search(a.text) for a in op.args)


def gives(op: Call, contract: Contract | None) -> Iterable[str]:
    """Places that `op` may leave something of interest in."""
    name = op.name
    if name in MAPS:
        what = MAPS[name]
        return [p for p in (op.result, _argument(op, what.ptl)) if p]
    if name in KERNEL_LOOKUPS or name in HUGE_LOOKUPS or name in PMD_LOCKS or name == "pte_lockptr":
        return [op.result]
    if SAME.search(name):
        return [op.result]
    if contract is None:
        return []
    slots = {x for o in contract.outcomes for e in o.effects for x in (e.slot, *e.ptls)}
    places = [place_of(x, op.args, op.result) for x in (*slots, *(to for to, _ in contract.stores)) if x]
    return [p for p in (*places, op.result if contract.recheck else None) if p]
