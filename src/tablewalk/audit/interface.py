# SPDX-License-Identifier: GPL-2.0-only
"""What the interface's own functions do: maps and unmaps, locks, comparisons, writes of entries."""

from __future__ import annotations

from tablewalk.audit.contracts import Contract
from tablewalk.audit.endings import Endings
from tablewalk.audit.flow import Call, Value, is_name
from tablewalk.audit.names import HUGE_ACCESS, PMD_SAME, READS, WRITES, Map
from tablewalk.audit.slices import named
from tablewalk.audit.state import ALIAS, ASSUMED, FREE, HELD, LOCK, MAPPED, NEVER, PAGE, UNMAPPED, Ref, State, Table

_LOCKED = (HELD, ASSUMED, ALIAS)


class Interface(Endings):
    def map(self, op: Call, node: int, what: Map, s: State) -> list[State]:
        old = s.tables.get(node)
        if old is not None and old.status == MAPPED:
            self.report("leak", op.line, "mapped again while it is still mapped", op.line)
        elif old is not None and old.lock == HELD:
            self.report("missing-unlock", op.line, "mapped again while its lock is still held", op.line)
        self.fresh(node, s)
        failed = s.copy()
        failed.env[op.result] = Ref("null", node)
        ptl = argument(op, what.ptl)
        if ptl:
            failed.env[ptl] = Ref("nolock", node)
        pmdval = argument(op, what.pmdval)
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

    def unmap(self, op: Call, unlocks: bool, s: State) -> None:
        if not op.args:
            return
        v = op.args[0]
        ref = s.env.get(v.place) if v.place else None
        if v.address and ref is None and "." not in v.place and "->" not in v.place:
            self.report("unmap-wrong", op.line, f"{op.name}() of the address of a local variable")
        elif ref is not None and ref.kind in ("null", "err"):
            line = self.line_of(ref)
            self.report("unmap-wrong", op.line, f"{op.name}({v.text}) where the map at line {line} has failed", line)
            s.dead = True
        elif ref is not None and ref.kind in ("kernel", "huge"):
            line = self.line_of(ref)
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
        else:
            self._out_of_order(op, v, ref.table, s)
        s.leave(ref.table)
        s.change(ref.table, status=UNMAPPED)

    def _out_of_order(self, op: Call, v: Value, ended: int, s: State) -> None:
        """What was mapped later than `ended` is mapped still; of a page, that is known once its end is seen."""
        if ended not in s.order or s.order[-1] == ended:
            return
        for later in (i for i in s.order[s.order.index(ended) + 1 :] if i in s.tables):
            if s.tables[later].status == PAGE:
                s.facts.setdefault(f"!outlives {later}", op.line)
            else:
                said = f"{v.text} is unmapped before what line {s.tables[later].line} mapped later"
                self.report("unmap-order", op.line, said, s.tables[ended].line)

    def map_page(self, op: Call, node: int, s: State) -> None:
        self.fresh(node, s)
        s.tables[node] = Table(PAGE, NEVER, "page", op.line)
        s.env[op.result] = Ref("page", node)
        s.order = (*s.order, node)

    def unmap_page(self, op: Call, v: Value, s: State) -> None:
        ref = s.env.get(v.place)
        if ref is None or ref.kind != "page" or ref.table not in s.order:
            s.order = tuple(i for i in s.order if i in s.tables and s.tables[i].status != PAGE)  # it may be any of them
            return
        line = s.facts.pop(f"!outlives {ref.table}", None)
        if isinstance(line, int):
            mapped = s.tables[ref.table].line
            said = f"what line {mapped} mapped is unmapped only at line {op.line}, after what was mapped before it"
            self.report("unmap-order", line, said, mapped)
        self._out_of_order(op, v, ref.table, s)
        s.leave(ref.table)
        s.change(ref.table, status=UNMAPPED)

    def huge(self, op: Call, v: Value, s: State) -> None:
        """An entry of hugetlb's accessed as another, or the other way round."""
        ref = s.env.get(v.place)
        if ref is None or "huge_pte" in self.function.name:  # hugetlb's own functions know what its entries are
            return
        by_huge = HUGE_ACCESS.match(op.name) is not None
        if ref.kind == "map" and by_huge and ref.table in s.tables:
            said = f"{op.name}() of {v.text}, which is an entry of a page table and not hugetlb's"
            self.report("huge-api", op.line, said, s.tables[ref.table].line)
        elif ref.kind == "huge" and not by_huge and (op.name in READS or WRITES.match(op.name)):
            said = f"{op.name}() of {v.text}, which is hugetlb's entry"
            self.report("huge-api", op.line, said, self.line_of(ref))

    def _unlock_with(self, op: Call, s: State) -> None:
        """The second half of pte_unmap_unlock()."""
        pointer = s.pointer(op.args[0].place)
        lock = s.env.get(op.args[1].place) if len(op.args) > 1 else None
        if pointer and lock is not None and lock.kind == "lock" and lock.table != pointer[0].table:
            text = f"{op.args[0].text} is unlocked with {op.args[1].text}, the lock of another table"
            if s.tables.get(lock.table) and s.tables[lock.table].lock != ALIAS:
                self.report("unmap-wrong", op.line, text, pointer[1].line)
        if lock is not None and lock.kind in ("lock", "live"):
            self.unlock(op.args[1].place, op.line, s)
            if lock.kind == "live" and pointer:
                s.change(pointer[0].table, lock=FREE)
        elif pointer and pointer[1].lock in _LOCKED:
            s.change(pointer[0].table, lock=FREE)
        elif pointer and pointer[1].status == MAPPED and lock is None and pointer[1].kind == "locked":
            self.report("unlock-unheld", op.line, f"{op.args[-1].text} is not held here", pointer[1].line)

    def unlock(self, place: str, line: int, s: State) -> None:
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

    def lock(self, op: Call, s: State) -> list[State]:
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

    def pmd_lock(self, op: Call, node: int, s: State) -> list[State]:
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

    def lockptr(self, op: Call, node: int, s: State) -> None:
        """A lock that is looked up anew, by what the pmd is now."""
        if op.args and not op.args[-1].address:
            s.tables[node] = Table(LOCK, NEVER, "live", op.line, op.args[-1].text)
            s.env[op.result] = Ref("live", node)

    # Rechecks and writes

    def compare(self, op: Call, contract: Contract | None, s: State) -> None:
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

    def stale(self, op: Call, s: State) -> None:
        """An entry that was read before the lock was taken is acted on under it."""
        for a in op.args:
            ref = s.env.get(a.place)
            if ref is not None and ref.kind == "entry" and ref.where == "stale" and ref.table in s.tables:
                t = s.tables[ref.table]
                if t.lock == HELD:
                    said = f"{op.name}() is given {a.text}, read before the lock was taken and not compared since"
                    self.report("no-recheck", op.line, said, t.line)

    def write(self, op: Call, v: Value, s: State, direct: bool) -> None:
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

    def locks_and_writes(self, op: Call, i: int, contract: Contract, s: State) -> None:
        found = s.pointer(op.args[i].place)
        if found and i in contract.locks_and_writes and found[1].kind == "ro" and found[1].status == MAPPED:
            said = f"{op.name}() writes through {op.args[i].text}, which is mapped to be read only"
            self.report("read-only-write", op.line, said, found[1].line)

    def clear_pmd(self, op: Call, s: State) -> None:
        for t in s.tables.values():
            if t.kind == "rw" and t.status == MAPPED and t.lock == HELD and t.recheck != "done":
                self.report("no-recheck", op.line, f"{op.name}() without pmd_same() of what was mapped", t.line)


def argument(op: Call, from_end: int | None) -> str:
    """The place whose address an argument is."""
    if from_end is None or len(op.args) < -from_end:
        return ""
    v = op.args[from_end]
    return v.place if v.address else "*" + v.text
