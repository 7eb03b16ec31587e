# SPDX-License-Identifier: GPL-2.0-only
"""Between the model's Python and the native search: what the search misses is learned here, and put into the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tablewalk.machine.drivers import Model

from . import endings
from .futures import Futures
from .learn import Learner, Node, instrument
from .memory import Memory
from .packed import table_of
from .rows import KINDS, OWN_CELL, Rows
from .symmetry import Asymmetric, Symmetry
from .tables import (
    ADDRESS,
    ALLOC,
    BLOCKED,
    CALL_RCU,
    CELL,
    ENTRY,
    F_WRITE,
    FLAGS,
    FREER,
    GHOST,
    HEAD,
    KIND,
    LICENCE,
    MAX_EDGES,
    MAX_NODES,
    MAX_THREADS,
    RD,
    TRIED,
    VIOLATION,
    WR,
    Bound,
    Tables,
)


class Restart(Exception):
    """What was taken to be a thread's own is not: states found so far may lack schedules."""


class Engine:
    """The automata of `threads` over the memory as it is now, in tables.  `pool` is how many objects of a kind a thread
    can have allocated at a time, `slots` how many RCU callbacks can be pending; `empty_tables`: tables are empty when
    they are freed, as they are since 6.6; `rounds`: how often a loop may go round; `merged`: histories that leave a
    thread with the same knowledge are one node; `alike`: threads that do the same, in groups."""

    def __init__(
        self,
        model: Model,
        threads: list[Callable[[], Any]],
        pool: int,
        slots: int,
        max_nodes: int,
        empty_tables: bool = True,
        paranoid: bool = False,
        rounds: int = 0,
        merged: bool = True,
        alike: Iterable[Sequence[int]] = (),
    ) -> None:
        instrument(model)
        self.machine = model.machine
        self.threads, self.slots = len(threads), slots
        if self.threads + slots > MAX_THREADS:
            raise Bound(f"{MAX_THREADS} threads and pending RCU callbacks")
        self._bodies = threads
        self._callbacks: dict[str, Callable[[int], None]] = {}
        self.tables = Tables(self.threads, slots)
        self.symmetry = Symmetry(self.tables, self.machine, self.threads, alike)
        self._edge_to: dict[tuple[int, int], tuple[int, int]] = {}  # (node, code) -> (next node, new code)
        self._nr_edges = 0
        self._futures = Futures(self.tables)
        self.counted: list[Any] = []  # scratch arrays of the search that goes on
        self.mistaken = False  # whether it counted on what is not so
        self.accesses = 0
        self.misses: list[tuple[int, ...]] = []  # all that was learned, in order
        self.effects = self.machine.effects.EFFECTS
        self.value_names = frozenset({"store", "set", "xchg", "cmpxchg", "add", "add_return", "clear_unreachable"})
        self.pgtable = model.kernel("pgtable")
        self.memory = Memory(self.tables, model, self.symmetry, pool)
        self.rows = Rows(self.tables, self.machine, self.memory, self._futures)
        self.tables.dims[6] = empty_tables
        void = self.machine.effects.NO_RESULT | {"set", "clear_unreachable", "call_rcu", *OWN_CELL, *KINDS}
        # no cycle of objects here: the collector counts objects, and would leave the tables for long
        self.learner = Learner(self.machine, void.__contains__, self.rows.add, min(max_nodes, MAX_NODES))
        self.learner.paranoid, self.learner.rounds, self.learner.merged = paranoid, rounds, merged
        roots = [self.learner.start(t, body) for t, body in enumerate(threads)]
        self.roots = [root.number for root in roots]
        for t in range(self.threads):
            self._alike([roots[self.symmetry.thread(g, t)] for g in range(len(self.symmetry.ways))])
        self._futures.publish([])

    def initial(self) -> Any:
        """The packed state in which every thread stands at its beginning."""
        state = np.zeros(int(self.tables.dims[3]), np.uint8)
        for t, root in enumerate(self.roots):
            state[2 * t], state[2 * t + 1] = root & 255, root >> 8
        return state

    def result_of(self, state: Any, thread: int) -> Any:
        """What a thread that has ended returned."""
        node = self.learner.nodes[int(state[2 * thread]) | int(state[2 * thread + 1]) << 8]
        return node.operands[0]

    # --- what the search misses --------------------------------------------------------------------------

    def learn(self, miss: Any) -> None:
        """Learn again what a search missed once."""
        with suppress(Restart):
            self.resolve(miss, True)

    def resolve(self, miss: Any, reduced: bool) -> None:
        """Learn what a step missed.  Raises Restart if it makes what the search did so far incomplete."""
        try:
            self._resolve(miss, reduced)
        except Asymmetric as e:
            self.symmetry.end()
            raise Restart(f"not symmetric: {e}") from None
        finally:
            self.mistaken |= self._futures.publish(self.counted)

    def _resolve(self, miss: Any, reduced: bool) -> None:
        a = self.tables
        self.misses.append(tuple(int(v) for v in miss[:4]))
        what, x, y, z = (int(v) for v in miss[:4])
        if what == endings.M_EDGE:
            self._edges(self.learner.nodes[x], y)
        elif what == endings.M_VALUE:
            self.memory.code_of(x, y)
        elif what == endings.M_ACCESS:
            column = (RD, WR, TRIED)[z]
            others = int(a.cell[x, WR] | a.cell[x, RD] * (z > 0)) & ~(1 << y)
            for address, bits in self._likes(x, y):
                a.cell[address, column] |= bits
            if others and reduced:
                for g in range(len(self.symmetry.ways)):
                    self._shared(self.symmetry.address(g, x), self._threads_like(self.symmetry.thread(g, y)))
                raise Restart(f"{self.machine.name_of(x)} is shared")
        elif what == endings.M_FREER:
            for address, bits in self._likes(x, y):
                a.cell[address, FREER] |= bits
            if reduced:
                raise Restart(f"{self.machine.name_of(x)} is freed by others")
        elif what == endings.M_INDEX:
            self._futures.index(x)
        elif what == endings.M_LICENCE:
            before = int(a.cell[x, LICENCE])
            for address, _ in self._likes(x, 0):
                a.cell[address, LICENCE] |= 1 << y
            if before and reduced:
                raise Restart(f"{self.machine.name_of(x)} is written under different locks")

    def _shared(self, address: int, bits: int) -> None:
        """Who uses one cell of an allocated object will use its locks and entries: fewer restarts."""
        machine, a = self.machine, self.tables
        base = machine.base_of[address]
        layout = machine.layouts[machine.class_of[base]] if base else None
        for other in self.memory.siblings(base):
            for slot in layout.slots if layout else ():
                if slot.field.cell.name in ("LOCK", "ENTRIES"):
                    end = machine.ghost_of(other) if slot.field.cell.name == "ENTRIES" else other + slot.offset + 1
                    a.cell[other + slot.offset : end, RD : WR + 1] |= bits

    def _threads_like(self, thread: int) -> int:
        """Bits of the threads that will do alike: all RCU callbacks, or one thread."""
        if thread < self.threads:
            return 1 << thread
        return (1 << self.slots) - 1 << self.threads

    def _likes(self, address: int, thread: int) -> Iterator[tuple[int, int]]:
        """Cells with bits of threads, that will be treated like a cell by a thread."""
        for g in range(len(self.symmetry.ways)):
            bits = self._threads_like(self.symmetry.thread(g, thread))
            for other in self.memory.like(self.symmetry.address(g, address)):
                yield other, bits

    def _edges(self, node: Node, code: int) -> None:
        """Learn an edge, and those of the threads that may change places with this one."""
        symmetry, nodes = self.symmetry, self.learner.nodes
        if len(symmetry.ways) == 1:
            self._edge(node, code)
            return
        images = [(nodes[symmetry.node(g, node.number)], code) for g in range(len(symmetry.ways))]
        if self.tables.op[node.number, KIND] == CELL:
            address = int(self.tables.op[node.number, ADDRESS])
            value = self.memory.value_of(address, code)
            values = [symmetry.value(g, address, value) for g in range(len(images))]
            images = [
                (other, self.memory.code_of(symmetry.address(g, address), v) if code else 0)
                for g, ((other, _), v) in enumerate(zip(images, values, strict=True))
            ]
            with suppress(self.machine.Blocked, self.machine.Broken):
                stored = [self._effect(other, v)[0] for (other, _), v in zip(images, values, strict=True)]
                symmetry.stores(address, stored)
        for other, its_code in images:
            if (other.number, its_code) not in self._edge_to:
                self._edge(other, its_code)
        to = [self._edge_to[other.number, its_code] for other, its_code in images]
        if to[0][0] > 0:
            symmetry.leads([nodes[after] for after, _ in to])
        if node.name == "call_rcu":
            symmetry.leads([nodes[callback] for _, callback in to])

    def _effect(self, node: Node, value: int) -> tuple[int, Any]:
        """(what a node's operation leaves in its cell, what it returns)."""
        effect, operands = self.effects.get(node.name), node.operands
        if node.name in OWN_CELL:
            effect = self.effects[OWN_CELL[node.name][1]]
            operands = node.operands or (0,) * ("wait" in node.name)
        return effect(value, *operands)  # type: ignore[no-any-return]

    def _edge(self, node: Node, code: int) -> None:
        a = self.tables
        row = a.op[node.number]
        new, result = -1, None
        if row[0] == CELL:
            value = self.memory.value_of(int(row[1]), code)
            try:
                stored, result = self._effect(node, value)
            except self.machine.Blocked:
                self._add_edge(node.number, code, BLOCKED, -1)
                return
            except self.machine.Broken as e:
                self._add_edge(node.number, code, VIOLATION - self.rows.message(str(e)), -1)
                return
            if stored != value:
                new = self.memory.code_of(int(row[1]), stored)
                if row[FLAGS] & ENTRY:
                    for table in (self._table_of(value), self._table_of(stored)):
                        if table:
                            self._futures.uses(node.number, int(a.cell[table, GHOST]), F_WRITE)
        elif row[0] == ALLOC:
            result = int(a.pool[row[2], 1 + code])
        elif row[0] == CALL_RCU:
            new = self._callback(self.threads + code, *node.operands)
        self._add_edge(node.number, code, self._follow(node, result), new)

    def _table_of(self, entry: int) -> int:
        """The page table that an entry points to, or 0."""
        return int(table_of(self.tables.all, self.memory.narrow(entry)))

    def _add_edge(self, node: int, code: int, to: int, new: int) -> None:
        a, e = self.tables, self._nr_edges
        if to > 0:
            self._futures.follows(node, to)
        if a.op[node, KIND] == CALL_RCU:
            self._futures.follows(node, new, late=True)
        if e == MAX_EDGES:
            raise Bound(f"{MAX_EDGES} automaton edges")
        a.edge[e] = code, to, new, a.op[node, HEAD]
        self._edge_to[node, code] = to, new
        a.op[node, HEAD] = e
        self._nr_edges += 1

    def _alike(self, nodes: list[Node]) -> None:
        """Where threads that change places begin."""
        try:
            self.symmetry.leads(nodes)
        except Asymmetric:
            self.symmetry.end()

    def _callback(self, thread: int, function: Callable[[int], None], obj: int) -> int:
        self._callbacks[function.__qualname__] = function
        return self.learner.start(thread, lambda: function(obj)).number

    def _follow(self, node: Node, result: Any) -> int:
        if node.thread < self.threads:
            return self.learner.after(node, result, self._bodies[node.thread]).number
        name, args, _, _ = node.path[1]
        function = self._callbacks[name]
        return self.learner.after(node, result, lambda: function(args[0])).number
