# SPDX-License-Identifier: GPL-2.0-only
"""Rules that need no paths: what a call or a few operations in a row say by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tablewalk.audit.engine import Report
from tablewalk.audit.flow import Call, Return, Select, Set, Stop, Test, Use, Value
from tablewalk.audit.names import DEPRECATED, KEEPS_TABLES, KERNEL_MM, LOCKS, MAPS, PMD_LOCKS, UPPER, USER_MM, Names
from tablewalk.audit.slices import named
from tablewalk.audit.unit import Unit

_ENTRY = re.compile(r"\bpte_t \*$")
_HUGE_DEFINITION = re.compile(r"huge_pte_(?:alloc|offset)$")


def local_reports(unit: Unit, names: Names) -> Iterator[Report]:
    for rule in (
        _deprecated,
        _kernel_table,
        _user_table,
        _huge,
        _endless,
        _undeferred,
        _saved_value_unused,
        _never_compared,
        _second_look,
    ):
        yield from rule(unit, names)


def _deprecated(unit: Unit, names: Names) -> Iterator[Report]:
    for call in unit.calls:
        if call.name in DEPRECATED and (call.name != "pte_offset_map_nolock" or names.split_nolock):
            said = f"{call.name}() is gone in newer kernels: {DEPRECATED[call.name]}"
            yield Report("deprecated-name", call.line, said)


def _kernel_table(unit: Unit, names: Names) -> Iterator[Report]:
    for call in unit.calls:
        if call.name in MAPS and any(KERNEL_MM.search(a.text) for a in call.args):
            said = f"{call.name}() of a kernel page table: pte_offset_kernel()"
            yield Report("kernel-table", call.line, said, call.line)


def _user_table(unit: Unit, names: Names) -> Iterator[Report]:
    """Tables looked up from the top of a user's mm, without anything that keeps the last one in place."""
    lookups = [c for c in unit.calls if c.name == "pte_offset_kernel" and c.args]
    if not lookups or any(KEEPS_TABLES.fullmatch(c.name) or c.name in MAPS for c in unit.calls):
        return
    given = any(_ENTRY.search(p.type) for p in unit.function.parameters)
    if given or KERNEL_MM.search(unit.function.body):
        return
    for call in lookups:
        mm = _address_space(unit, call.args[0])
        if mm:
            said = f"pte_offset_kernel() of a page table of {mm}, which is neither mapped nor kept in place"
            yield Report("user-table", call.line, said)


def _address_space(unit: Unit, pointer: Value) -> str:
    """The user's mm from which `pointer` was looked up, or nothing."""
    places, seen = [pointer.place], set()
    for place in places:
        if not place or place in seen:
            continue
        seen.add(place)
        for op in unit.graph.ops:
            if isinstance(op, Set) and op.place == place:
                places.append(op.value.place)
            elif isinstance(op, Call) and op.result == place and op.name in UPPER and op.args:
                if USER_MM.search(op.args[0].text):
                    return op.args[0].text
                places.append(op.args[0].place)
    return ""


def _huge(unit: Unit, names: Names) -> Iterator[Report]:
    """The functions that hugetlb gets its entries from: nobody unmaps what they return."""
    if not _HUGE_DEFINITION.match(unit.function.name):
        return
    for call in unit.calls:
        if call.name in MAPS:
            instead = "pte_alloc_huge" if "alloc" in call.name else "pte_offset_huge"
            yield Report("huge-api", call.line, f"{call.name}() of hugetlb's entries: {instead}()", call.line)


def _endless(unit: Unit, names: Names) -> Iterator[Report]:
    """From a failed map back to it, with nothing between that might let it succeed."""
    for i, op in enumerate(unit.graph.ops):
        if isinstance(op, Call) and op.name in MAPS and _comes_back(unit, i, op):
            yield Report("endless-retry", op.line, f"{op.name}() is tried again at once when it has failed", op.line)


def _comes_back(unit: Unit, start: int, op: Call) -> bool:
    pmd = op.args[-3].place if len(op.args) > 2 and op.name != "pte_offset_map" else op.args[0].place if op.args else ""
    holds = {op.result}
    pending = [(to, frozenset(holds)) for to in unit.graph.next[start]]
    seen = set(pending)
    while pending:
        node, null = pending.pop()
        if node == start:
            return True
        if node < 0:
            continue
        at = unit.graph.ops[node]
        ways = unit.graph.next[node]
        if isinstance(at, Return | Stop | Select | Call) or (isinstance(at, Use) and at.place == pmd):
            continue
        if isinstance(at, Set):
            if at.value.place in null:
                null |= {at.place}
            elif at.place in null or (pmd and at.place == pmd):
                continue
        if isinstance(at, Test):
            if at.op != "true" or at.left.place not in null:
                continue
            ways = ways[1:]
        for to in ways:
            if (to, null) not in seen:
                seen.add((to, null))
                pending.append((to, null))
    return False


def _undeferred(unit: Unit, names: Names) -> Iterator[Report]:
    """A table that others may be reading is freed at once."""
    clears = any(c.name in ("pmdp_collapse_flush", "pmdp_huge_clear_flush") for c in unit.calls)
    if not clears:
        return
    tables = {op.place for op in unit.graph.ops if isinstance(op, Set) and "pmd_pgtable(" in op.value.text}
    for call in unit.calls:
        if call.name == "pte_free" and len(call.args) > 1:
            table = call.args[1]
            if "pmd_pgtable(" in table.text or table.place in tables:
                yield Report("undeferred-free", call.line, "pte_free() of a table that was in use: pte_free_defer()")


def _second_look(unit: Unit, names: Names) -> Iterator[Report]:
    """A lock that is looked up by what the pmd is now."""
    unlocked = _before_pmd_lock(unit)
    for call in unit.calls:
        if call.result in unlocked and call.name == "pte_lockptr" and len(call.args) > 1 and not call.args[-1].address:
            said = f"pte_lockptr() goes by what {call.args[-1].text} is now, not by what was mapped"
            yield Report("live-lockptr", call.line, said, call.line)


def _before_pmd_lock(unit: Unit) -> set[str]:
    """Results of the calls that some path comes to without a lock of the table above."""
    found = set()
    pending, seen = [0], {0}
    for i in pending:
        op = unit.graph.ops[i]
        if isinstance(op, Call):
            if op.name in PMD_LOCKS:
                continue
            found.add(op.result)
        for to in unit.graph.next[i]:
            if to >= 0 and to not in seen:
                seen.add(to)
                pending.append(to)
    return found


def _never_compared(unit: Unit, names: Names) -> Iterator[Report]:
    """The pmd's value that a map saves for a comparison is not even named again, though the lock is taken."""
    called = {c.name for c in unit.calls}
    for call in unit.calls:
        what = MAPS.get(call.name)
        if what is None or what.pmdval is None or what.ptl is None or len(call.args) < 5:
            continue
        pmdval, ptl = call.args[what.pmdval], call.args[what.ptl]
        if (
            "dummy" in pmdval.text
            or called & PMD_LOCKS
            or not any(c.name in LOCKS and _lock_of(ptl) in _places(c) for c in unit.calls)
        ):
            continue
        if not any(pmdval.place in named(a.text) for c in unit.calls if c is not call for a in c.args):
            said = f"{call.name}() saves the pmd in {pmdval.place}, and nothing compares it under the lock"
            yield Report("no-recheck", call.line, said, call.line)


def _lock_of(ptl: Value) -> str:
    return ptl.place if ptl.address else "*" + ptl.text


def _places(call: Call) -> set[str]:
    return {a.place for a in call.args}


def _saved_value_unused(unit: Unit, names: Names) -> Iterator[Report]:
    """A comparison with saved values that leaves one out."""
    called = {c.name for c in unit.calls}
    if not called & {"pte_same", "pmd_same"} or "bool" not in unit.function.returns.split():
        return
    read = {a.place for c in unit.calls if c.name in ("pte_same", "pmd_same", "pte_none", "pmd_none") for a in c.args}
    texts = " ".join(a.text for c in unit.calls for a in c.args)
    for p in unit.function.parameters:
        if p.type in ("pte_t", "pmd_t") and p.name not in read and not re.search(rf"\b{p.name}\b", texts):
            yield Report("none-recheck", unit.function.line, f"{unit.function.name}() does not compare {p.name}")
