# SPDX-License-Identifier: GPL-2.0-only
"""What a condition says of page tables and their locks, and what is known of it before it is asked."""

from __future__ import annotations

from tablewalk.audit.engine import Engine
from tablewalk.audit.flow import Select, Test, is_error
from tablewalk.audit.slices import stable
from tablewalk.audit.state import ALIAS, ASSUMED, FREE, NEVER, Ref, State

_DIFFERENT = "!different"  # locks that cannot be the same


class Conditions(Engine):
    def test(self, op: Test, s: State) -> list[tuple[State, int]]:
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
            return False if locks == _DIFFERENT else fact if isinstance(fact, bool) else None
        left = self.constant(op.left, s)
        if op.op == "true":
            ref = s.env.get(op.left.place) if op.left.place and not op.left.shift and not op.left.address else None
            if ref is not None and ref.kind in ("map", "err", "lock", "kernel", "pml", "live", "page"):
                return True
            if ref is not None and ref.kind == "null":
                return False
            return bool(left) if isinstance(left, int) else True if left == "!0" or is_error(left) else None
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
            return False if is_error(left) or is_error(right) else None
        if is_error(left) and isinstance(right, int) and right >= 0:
            return True
        if is_error(right) and isinstance(left, int) and left >= 0:
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
            return _DIFFERENT
        return f"!same {min(found).table} {max(found).table}" if len(found) == 2 else ""

    def _learn(self, op: Test, s: State, holds: bool) -> None:
        place = op.left.place
        locks = self._locks(op, s)
        if locks and locks != _DIFFERENT:
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
        for place in [
            p for p, r in s.env.items() if r.table == node and r.kind in ("map", "lock", "null", "nolock", "page")
        ]:
            del s.env[place]
        for key in [k for k in s.facts if k.startswith(("!same ", "!outlives ")) and str(node) in k.split()]:
            del s.facts[key]
        s.tables.pop(node, None)
        s.leave(node)

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

    def select(self, op: Select, s: State) -> list[tuple[State, int]]:
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
