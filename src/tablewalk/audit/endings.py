# SPDX-License-Identifier: GPL-2.0-only
"""What a function that returns leaves to its caller, or leaves undone."""

from __future__ import annotations

from collections.abc import Iterator

from tablewalk.audit.conditions import Conditions
from tablewalk.audit.contracts import Effect, Outcome, slot_of
from tablewalk.audit.flow import Constant, Return, Value, is_error
from tablewalk.audit.state import ASSUMED, FREE, HELD, LOCK, MAPPED, UNMAPPED, State


class Endings(Conditions):
    def end(self, op: Return, s: State) -> None:
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
            elif t.lock == HELD and t.status in (UNMAPPED, LOCK) and not is_lock and not (ptls and t.status == LOCK):
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
        return is_error(result)

    def _result(self, value: Value | None, s: State) -> Constant | None:
        if value is None:
            return None
        known = self.constant(value, s)
        if known == 0:
            return 0
        if is_error(known):
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
