# SPDX-License-Identifier: GPL-2.0-only
"""A schedule as what each CPU does, operation by operation, with function, file and line."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import numpy as np

from . import endings
from .endings import BROKEN
from .engine import Engine
from .learn import Node
from .packed import get_node, value
from .rules import MISTAKE, RESULT, Rule, native_rule
from .search import Found
from .step import step
from .tables import scratch

QUIET = frozenset(
    {"get", "might_sleep", "publish", "unpublish", "is_locked", "rwsem_is_locked", "map_read", "map_write"}
    | {"map_try", "map_release", "map_release_writes", "vec_init", "vec_push", "vec_take", "exit", "error"}
)
MAX_LOG = 1 << 14

SECTIONS = {
    "rcu_read_lock": "RCU", "rcu_read_unlock": "RCU", "irq_save": "interrupts off", "irq_restore": "interrupts off",
}  # fmt: skip
ENTRY_NAME = re.compile(r"ptdesc@(\d+)\.entry\[(\d+)\]")
PAGE_NAME = re.compile(r"folio@(\d+)\.page\[(\d+)\].*")
SINCE = re.compile(r" after its table was detached$|, which was freed( before)?$")  # said better with who did
TAKES = ("lock", "trylock", "down_")
GIVES = ("unlock", "up_")


@dataclass(frozen=True, slots=True)
class Event:
    """An operation in a schedule: who, what, the cell's old and new value, and where in the model."""

    thread: int
    node: Node
    before: int
    after: int
    memory: tuple[int, ...] = ()  # all cells after it
    pending: tuple[str, ...] = ()  # RCU callbacks that are not done
    holds: tuple[tuple[str, ...], ...] = ()  # by CPU: locks, RCU sections and interrupts off
    cached: tuple[tuple[str, ...], ...] = ()  # by CPU: what its TLB has, for as long as an instruction takes

    def place(self) -> str:
        """Function, file and line, without the path."""
        return self.node.place()


class Trace:
    """The events of the schedule that leads to what a search found."""

    def __init__(self, engine: Engine, found: Found, schedule: list[int], reduction: int) -> None:
        self.engine, self.found, self.reduction = engine, found, reduction
        self.events: list[Event] = []
        self.schedule = list(schedule)
        start = engine.initial()
        self.state = np.zeros(len(start) + engine.memory.columns + 16, np.uint8)
        self.state[: len(start)] = start
        self._miss = scratch()
        self._holds: list[list[str]] = [[] for _ in range(engine.threads + engine.slots)]
        self._cached: list[list[str]] = [[] for _ in self._holds]
        self._inside = [False for _ in self._holds]
        done = all([self._step(actor) == endings.OK for actor in schedule])
        if found.rule in range(endings.V_MESSAGE, endings.V_UNORDERED + 1):
            self.schedule.append(found.actor)
            broken = self._step(found.actor) == BROKEN and int(self._miss[0]) == found.rule
            last = self.events[-1] if self.events else Event(0, engine.learner.nodes[0], 0, 0)
            node = engine.learner.nodes[found.node]
            self.events.append(replace(last, thread=node.thread, node=node, before=0, after=0))
            if found.rule == endings.V_LIVELOCK:
                self.events = one_round(self.events)
        else:
            broken = all(self._step(t) in (endings.WAITS, endings.IDLE) for t in range(engine.threads))
        self.holds = done and broken  # the schedule leads to what was found

    def _step(self, actor: int) -> int:
        """One step of the search, operation by operation for the values in between; its status."""
        before = self.state.copy()
        log, m, h = np.zeros(MAX_LOG, np.int64), scratch(), np.zeros(2, np.uint64)
        outcome = int(step(self.engine.tables.all, self.state, h, self._miss, actor, self.reduction, log, False))
        for i in range(1, min(int(log[0]), MAX_LOG - 1) + 1):
            node = self.engine.learner.nodes[int(log[i])]
            old = self._value(before, node)
            status = step(self.engine.tables.all, before, h, m, node.thread, endings.NONE, np.zeros(2, np.int64), True)
            if status == BROKEN:
                break
            new = self._value(before, node)
            self._hold(node, old != new)
            self._cache(node, old)
            memory = tuple(self.engine.memory.cells(before))
            told = memory, self._pending(before), tuple(map(tuple, self._holds)), tuple(map(tuple, self._cached))
            self.events.append(Event(node.thread, node, old, new, *told))
        return outcome

    def _hold(self, node: Node, changed: bool) -> None:
        """Keep count of what who does it holds."""
        held = self._holds[node.thread]
        section = SECTIONS.get(node.name)
        what = section or self.engine.machine.name_of(node.address)
        if node.name in ("rcu_read_lock", "irq_save") or (node.name.startswith(TAKES) and changed):
            held.append(what)
        elif (section or node.name.startswith(GIVES)) and what in held:
            held.remove(what)

    def _cache(self, node: Node, value: int) -> None:
        """Keep account of the entries that an instruction has walked through, which a CPU forgets at its end."""
        cached = self._cached[node.thread]
        if node.name in ("instruction_begin", "instruction_end"):
            cached.clear()
            self._inside[node.thread] = node.name == "instruction_begin"
        elif self._inside[node.thread] and value and ENTRY_NAME.match(self.engine.machine.name_of(node.address)):
            cached.append(entry_words(self.engine, value))

    def _pending(self, state: Any) -> tuple[str, ...]:
        found = []
        for t in range(self.engine.threads, self.engine.threads + self.engine.slots):
            node = self.engine.learner.nodes[int(get_node(state, t))]
            if node.where:
                found.append(node.where[-1][0])
        return tuple(found)

    def _value(self, state: Any, node: Node) -> int:
        address = int(self.engine.tables.op[node.number, 1])
        return self.engine.memory.widen(int(value(self.engine.tables.all, state, address))) if address else 0

    # --- words -------------------------------------------------------------------------------------------

    def conflict(self, names: list[str]) -> tuple[Rule, str]:
        """(rule, one sentence: who did what where, and whose earlier operation it conflicts with)."""
        found, engine = self.found, self.engine
        message = engine.rows.messages[found.extra] if found.rule == endings.V_MESSAGE else ""
        rule, text = native_rule(found.rule, message)
        node = engine.learner.nodes[found.node]
        if node.name == "error" and not any("/" in file for _, file, _ in node.where):  # no function of the model runs
            rule = RESULT if message.startswith("AssertionError") else MISTAKE
        cell = "something"
        if node.name == "free" and not node.address:
            cell, text = "a null pointer", SINCE.sub("", text)
        elif found.rule != endings.V_MESSAGE and (found.extra or node.address):
            name = engine.machine.name_of(found.extra or node.address)
            cell = name if found.extra else name.partition(".")[0]
        cell = ENTRY_NAME.sub(r"entry \2 of table @\1", cell)
        text = text.format(cell=cell, guard=engine.rows.guard_text(found.node))
        function, file, line = node.where[0] if node.where else ("?", "?", 0)
        place = f"{function}, {file}:{line}"
        other = self._other_side(rule)
        if other is not None:
            did = "freed" if rule.id == "I1" else "detached"
            text = f"{SINCE.sub('', text)} after {who(other.thread, names)} {did} it"
            place += f"; {other.place()}"
        sentence = f"{who(node.thread, names)} {text} ({place})"
        return rule, sentence

    def _other_side(self, rule: Rule) -> Event | None:
        """The last operation of another thread that freed or detached what the rule is about."""
        machine, found, node = self.engine.machine, self.found, self.engine.learner.nodes[self.found.node]
        culprit, address = node.thread, node.address
        if found.rule != endings.V_MESSAGE:
            address = found.extra or address
        base = machine.base_of[address] if 0 < address < len(machine.base_of) else 0
        for event in reversed(self.events):
            if event.thread == culprit or base == 0:
                continue
            if event.node.name == "free" and event.node.address == base and rule.id == "I1":
                return event
            if rule.id == "I2" and event.before >> 12 == base and event.after != event.before:
                return event
        return None


def one_round(events: list[Event]) -> list[Event]:
    """Events that go round a loop in the end, with one round of it; all where histories are told apart."""
    nodes = [e.node.number for e in events]
    begin = nodes.index(nodes[-1])
    while begin and nodes[begin - 1] in nodes[begin:]:
        begin -= 1
    again = [i for i, node in enumerate(nodes) if node == nodes[begin] and i > begin]
    return events[: again[0] + 1] if again else events


def who(thread: int, names: list[str]) -> str:
    """A thread by its name; an RCU callback."""
    return f"CPU{thread} ({names[thread]})" if thread < len(names) else "an RCU callback"


def describe(engine: Engine, event: Event) -> str:
    """An operation in a few words."""
    node, machine = event.node, engine.machine
    if node.name in ("alloc", "free"):
        if node.name == "free":
            return f"free {machine.name_of(node.address).partition('.')[0]}"
        return f"alloc {machine.layouts[node.operands[0]].name}"
    if node.name == "call_rcu":
        return f"call_rcu {node.operands[0].__name__}"
    if not node.address:
        return node.name
    cell = machine.name_of(node.address)
    words = partial(entry_words, engine) if ENTRY_NAME.match(cell) else "{:#x}".format
    if node.name in engine.value_names and event.before != event.after:
        return f"{node.name} {cell}: {words(event.before)} -> {words(event.after)}"
    if node.name == "load":
        return f"load {cell}: {words(event.before)}"
    return f"{node.name} {cell}"


def entry_words(engine: Engine, value: int) -> str:
    """An entry of a page table: what it points to, and what it says of that."""
    p, machine = engine.pgtable, engine.machine
    target = value >> p.PFN_SHIFT
    if value == 0:
        return "none"
    if p.pmd_is_table(value) and machine.class_of.get(target) == engine.tables.dims[4]:
        return f"table @{target}"
    if p.is_pte_marker(value):
        bits = {p.PTE_MARKER_UFFD_WP: "uffd-wp", p.PTE_MARKER_POISONED: "poisoned", p.PTE_MARKER_GUARD: "guard"}
        return "marker " + " ".join(name for bit, name in bits.items() if target & bit)
    if p.is_swap_pte(value) and p.swp_type(value) == p.SWP_SWAP:
        return f"swap slot {target}"
    page = PAGE_NAME.sub(r"page \2 of folio @\1", machine.name_of(target))
    if p.is_swap_pte(value):
        return f"{page}, which migrates" if p.swp_type(value) == p.SWP_MIGRATION else f"{value:#x}"
    bits = {
        p.LEAF: "huge", p.PROTNONE: "no access", p.RW: "writable", p.ACCESSED: "young", p.DIRTY: "dirty",
        p.UFFD_WP: "uffd-wp", p.SPECIAL: "special",
    }  # fmt: skip
    return ", ".join([page, *(name for bit, name in bits.items() if value & bit)])


def shown(trace: Trace) -> list[Event]:
    """The events worth a line."""
    return [e for e in trace.events if e.node.name not in QUIET or e is trace.events[-1]]


def as_table(trace: Trace, names: list[str], width: int = 0) -> list[str]:
    """The schedule as lines, one column a CPU, in each cell the operation and its place in the model.

    `width`: how many characters a line may have; 0: as many as it takes.
    """
    columns = sorted({e.thread for e in trace.events})
    cells = []
    for e in shown(trace):
        held = ", ".join(e.holds[e.thread]) if e.holds else ""
        cells.append((e.thread, f"{describe(trace.engine, e)}  [{e.place()}]" + (f"  holds {held}" if held else "")))
    rows = [{c: who(c, names) for c in columns}, *({thread: text} for thread, text in cells)]
    widths = {c: max(len(row.get(c, "")) for row in rows) for c in columns}
    room = max(24, (width + 1) // len(columns) - 3) if width else max(widths.values())
    lines = []
    for row in rows:
        parts = [wrap(row.get(c, ""), room, subsequent_indent="    ") for c in columns]
        for line in zip_longest(*parts, fillvalue=""):
            cells_ = (part.ljust(min(widths[c], room)) for c, part in zip(columns, line, strict=True))
            lines.append("  " + " | ".join(cells_).rstrip())
    return lines
