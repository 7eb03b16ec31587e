# SPDX-License-Identifier: GPL-2.0-only
"""Between the model's Python and the native search: what the search misses is learned here, and put into the tables."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tablewalk.machine.drivers import Model
from tablewalk.machine.layout import Guard

from . import endings
from .futures import Futures
from .learn import Learner, Node, instrument
from .packed import table_of
from .symmetry import Asymmetric, Symmetry
from .tables import (
    ACQUIRE,
    ADD,
    ADDRESS,
    ALLOC,
    ARGUMENT2,
    AT_REST,
    ATTACHED,
    BASE,
    BLOCKED,
    CALL_RCU,
    CELL,
    CLS,
    COL,
    ENTRY,
    ERROR,
    EXCLUSIVE,
    EXIT,
    F_FREE,
    F_READ,
    F_TRY,
    F_WRITE,
    FLAGS,
    FREE,
    FREER,
    GHOST,
    GUARD,
    HEAD,
    INDEX,
    INIT,
    INSN,
    INSN_END,
    IPI_SNAPSHOT,
    IPI_WAIT,
    IRQ,
    IRQ_RESTORE,
    KIND,
    LICENCE,
    LICENSED,
    LOCK_TYPES,
    LOCKTYPE,
    MAPPED,
    MAX_CELLS,
    MAX_CODES,
    MAX_COLUMNS,
    MAX_EDGES,
    MAX_NODES,
    MAX_THREADS,
    NO_INDEX,
    OWN,
    PUBLISH,
    PUBLISHES,
    RCU,
    RCU_SNAPSHOT,
    RCU_UNLOCK,
    RCU_WAIT,
    RD,
    READ,
    RELEASE,
    RELEASE_WRITES,
    RIGHT,
    SIZE,
    SLEEP,
    STABLE,
    SUB,
    TOLERANT,
    TRIED,
    TRY,
    UNPUBLISH,
    VIOLATION,
    WR,
    WRITE,
    Bound,
    Tables,
    thread_cell,
)

SUBS = {
    "get": READ, "load": READ, "wait_until": ACQUIRE, "wait_even": ACQUIRE, "is_locked": OWN, "rwsem_is_locked": OWN,
    "lock": ACQUIRE, "wait_unlocked": ACQUIRE, "down_read": ACQUIRE, "down_write": ACQUIRE,
    "trylock": TRY, "down_read_trylock": TRY, "down_write_trylock": TRY,
    "unlock": RELEASE, "up_read": RELEASE, "up_write": RELEASE, "downgrade_write": RELEASE,
    "map_read": OWN, "map_write": OWN, "map_try": OWN, "map_release": OWN,
}  # fmt: skip

# operations on a thread's own cells: (cell, effect, sub)
OWN_CELL = {
    "rcu_read_lock": (RCU, "enter", RIGHT),
    "irq_save": (IRQ, "enter", RIGHT),
    "instruction_begin": (INSN, "store", RIGHT),
    "kmap_local": (MAPPED, "kmap_local", RIGHT),
    "kunmap_local": (MAPPED, "kunmap_local", RIGHT),
    "rcu_wait": (RCU_WAIT, "wait_until", ACQUIRE),
    "ipi_wait": (IPI_WAIT, "wait_until", ACQUIRE),
}
KINDS = {
    "free": FREE, "publish": PUBLISH, "unpublish": UNPUBLISH, "rcu_read_unlock": RCU_UNLOCK,
    "irq_restore": IRQ_RESTORE, "instruction_end": INSN_END, "rcu_snapshot": RCU_SNAPSHOT,
    "ipi_snapshot": IPI_SNAPSHOT, "map_release_writes": RELEASE_WRITES, "might_sleep": SLEEP,
}  # fmt: skip


WIDE = 1 << 62


# Fields that may be looked at without a reference: struct pages are always there, VMAs and anon_vmas are
# SLAB_TYPESAFE_BY_RCU.  Who waits for a folio's lock to be free is woken, and does not look at the folio again.
STABLE_FIELDS = {
    ("anon_vma", "refcount"): {"inc_not_zero"},
    ("folio", "lock"): {"wait_unlocked"},
    ("folio", "_refcount"): {"inc_not_zero"},
    ("folio", "page"): {"load"},  # the folio of a struct page
    ("vm_area_struct", "vm_lock_seq"): {"load"},
    ("vm_area_struct", "vm_refcnt"): {"inc_not_zero_limited"},
}


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
        self.threads, self.slots, self._pool_size = len(threads), slots, pool
        if self.threads + slots > MAX_THREADS:
            raise Bound(f"{MAX_THREADS} threads and pending RCU callbacks")
        self._bodies = threads
        self._callbacks: dict[str, Callable[[int], None]] = {}
        self.tables = Tables(self.threads, slots)
        self.symmetry = Symmetry(self.tables, self.machine, self.threads, alike)
        self.messages: list[str] = [""]
        self._edge_to: dict[tuple[int, int], tuple[int, int]] = {}  # (node, code) -> (next node, new code)
        self.columns = self.edges = self._nr_guards = self._nr_paths = 0
        self._guards: dict[tuple[str, Guard], int] = {}
        self._futures = Futures(self.tables)
        self.counted: list[Any] = []  # scratch arrays of the search that goes on
        self.mistaken = False  # whether it counted on what is not so
        self.pools: dict[tuple[int, int, int], int] = {}
        self._siblings: dict[int, list[int]] = {}  # objects of a pool
        self._codes: dict[tuple[int, int], int] = {}
        self._wide: list[int] = []  # values that don't fit a cell of the tables
        self._column_of: dict[int, int] = {}
        self.accesses = 0
        self.misses: list[tuple[int, ...]] = []  # all that was learned, in order
        self._cells = 1
        self.effects = self.machine.effects.EFFECTS
        self.value_names = frozenset({"store", "set", "xchg", "cmpxchg", "add", "add_return", "clear_unreachable"})
        self._sync()
        self._attached(model)
        self.tables.dims[6] = empty_tables
        void = self.machine.effects.NO_RESULT | {"set", "clear_unreachable", "call_rcu", *OWN_CELL, *KINDS}
        me = weakref.proxy(self)  # in no cycle: the collector counts objects, and would leave the tables for long
        self.learner = Learner(
            self.machine, void.__contains__, lambda node: me._add_node(node), min(max_nodes, MAX_NODES)
        )
        self.learner.paranoid, self.learner.rounds, self.learner.merged = paranoid, rounds, merged
        roots = [self.learner.start(t, body) for t, body in enumerate(threads)]
        self.roots = [root.number for root in roots]
        for t in range(self.threads):
            self._alike([roots[self.symmetry.thread(g, t)] for g in range(len(self.symmetry.ways))])
        self._futures.publish([])

    def _sync(self) -> None:
        """Take over cells and objects that are new in the machine's memory."""
        a, machine = self.tables, self.machine
        end = len(machine.mem)
        if end > MAX_CELLS:
            raise Bound(f"{MAX_CELLS} cells of memory")
        a.cell[self._cells : end, COL] = -1
        a.cell[self._cells : end, INDEX] = NO_INDEX
        for address in range(self._cells, end):
            base = machine.base_of[address]
            a.cell[address, BASE] = base
            if base == address:
                self._object(base)
            a.cell[address, INIT] = self._narrow(machine.mem[address])
        self._cells = end

    def _attached(self, model: Model) -> None:
        """Which page tables are in a slot to begin with."""
        machine, a = self.machine, self.tables
        cls = next(i for i, layout in enumerate(machine.layouts) if layout.name == "ptdesc")
        first = machine.layouts[cls].slots[-1].offset
        a.dims[4:6] = cls, first
        pgtable = self.pgtable = model.kernel("pgtable")
        for base, class_id in machine.class_of.items():
            if class_id == cls and machine.mem[machine.ghost_of(base)]:
                for entry in machine.mem[base + first : machine.ghost_of(base)]:
                    table = entry >> pgtable.PFN_SHIFT
                    if pgtable.pmd_is_table(entry) and machine.class_of.get(table) == cls:
                        a.cell[machine.ghost_of(table), INIT] = ATTACHED

    def _object(self, base: int) -> None:
        a, machine = self.tables, self.machine
        cls = machine.class_of[base]
        layout = machine.layouts[cls]
        a.cell[base, GHOST] = machine.ghost_of(base)
        a.cell[base, SIZE] = layout.cells(machine.nr_of[base])
        a.cell[base, CLS] = cls
        pointers = [s.offset for s in layout.slots if s.points_to]
        locks = [s for s in layout.slots if s.field.cell.name == "LOCK"]
        a.pointers[cls, : len(pointers) + 1] = [len(pointers), *pointers]
        a.class_locks[cls, : len(locks) + 1] = [len(locks), *(s.offset for s in locks)]
        if layout.name == "folio":  # a free struct page belongs to its folio too
            for page in range(base + layout.slots[-1].offset, machine.ghost_of(base), layout.each):
                machine.mem[page] = base
                a.cell[page, AT_REST] = base
        for slot in locks:
            a.cell[base + slot.offset, LOCKTYPE] = LOCK_TYPES[slot.field.lock]
            a.lock[a.dims[2]] = base + slot.offset
            a.dims[2] += 1

    # --- codes -------------------------------------------------------------------------------------------

    def _narrow(self, value: int) -> int:
        """A value as the tables hold it: itself, but for one of 63 bits and more."""
        if -WIDE < value < WIDE:
            return value
        if value not in self._wide:
            self._wide.append(value)
        return -WIDE - self._wide.index(value)

    def widen(self, value: int) -> int:
        """A value of the tables as the model knows it."""
        return value if value > -WIDE else self._wide[-WIDE - value]

    def code_of(self, address: int, value: int) -> int:
        """The code of a value of a cell; the cell has a column from here on."""
        value = self._narrow(value)
        code = self._codes.get((address, value))
        if code is not None:
            return code
        a = self.tables
        column = self._column_of.get(address)
        if column is None:
            column = self._column_of[address] = self.columns
            if column == MAX_COLUMNS:
                raise Bound(f"{MAX_COLUMNS} cells that vary")
            self.columns += 1
            a.dims[8] = self.columns
            a.decode[column, 0] = a.cell[address, INIT]
            a.ncode[column] = 1
            a.cell[address, COL] = column
            self._codes[address, int(a.cell[address, INIT])] = 0
            self._images(address, int(a.cell[address, INIT]), 0)
            if value == a.cell[address, INIT]:
                return 0
        code = int(a.ncode[column])
        if code > MAX_CODES:
            raise Bound(f"{MAX_CODES} values of {self.machine.name_of(address)}")
        a.decode[column, code] = value
        a.ncode[column] += 1
        self._codes[address, value] = code
        self._images(address, value, code)
        return code

    def _images(self, address: int, value: int, code: int) -> None:
        """Where threads change places, another cell holds another value."""
        a, symmetry = self.tables, self.symmetry
        for g in range(1, len(symmetry.ways)):
            other = symmetry.address(g, address)
            image = self.code_of(other, symmetry.value(g, address, self.widen(value)))
            a.sym_column[g - 1, self._column_of[address]] = self._column_of[other]
            a.sym_code[(g - 1) * MAX_COLUMNS + self._column_of[address], code] = image

    def value_of(self, address: int, code: int) -> int:
        """The value that a code of a cell stands for."""
        column = self.tables.cell[address, COL]
        return self.widen(int(self.tables.cell[address, INIT] if column < 0 else self.tables.decode[column, code]))

    def cells(self, state: Any) -> list[int]:
        """A packed state as the machine's memory."""
        memory = [self.widen(int(v)) for v in self.tables.cell[: self._cells, INIT]]
        start = int(self.tables.dims[3])
        for address, column in self._column_of.items():
            memory[address] = self.widen(int(self.tables.decode[column, state[start + column]]))
        return memory

    def result_of(self, state: Any, thread: int) -> Any:
        """What a thread that has ended returned."""
        node = self.learner.nodes[int(state[2 * thread]) | int(state[2 * thread + 1]) << 8]
        return node.operands[0]

    # --- guards ------------------------------------------------------------------------------------------

    def _guard(self, layout_name: str, guard: Guard) -> int:
        """Number of a guard of a struct, 0 for none."""
        if not guard.locks:
            return 0
        key = (layout_name, guard)
        if key not in self._guards:
            a = self.tables
            number = self._guards[key] = len(self._guards) + 1
            a.guard[number, :3] = (0 if guard.any else 1, len(guard.locks), self._nr_paths)
            for lock in guard.locks:
                path, _, mode = lock.partition(":")
                offsets = self._offsets(layout_name, path.split("."))
                a.path[self._nr_paths, : len(offsets) + 2] = [int(mode == "w"), len(offsets), *offsets]
                self._nr_paths += 1
        return self._guards[key]

    def _offsets(self, struct: str, names: list[str]) -> list[int]:
        offsets = []
        for name in names:
            layout = next(x for x in self.machine.layouts if x.name == struct)
            slot = next(s for s in layout.slots if s.name == name)
            offsets.append(slot.offset)
            struct = slot.points_to or ""
        return offsets

    def guard_text(self, node: int) -> str:
        """The guard that an operation asks for, in words."""
        number = int(self.tables.op[node, GUARD])
        return next((str(guard) for (_, guard), n in self._guards.items() if n == number), "a lock")

    # --- nodes -------------------------------------------------------------------------------------------

    def _add_node(self, node: Node) -> None:
        """The row of a new node."""
        row = self.tables.op[node.number]
        row[HEAD] = -1
        if node.name in OWN_CELL:
            which, _, sub = OWN_CELL[node.name]
            row[:7] = (CELL, thread_cell(node.thread, which), 0, sub, 0, 0, 0)
        elif node.name in self.effects:
            row[:7] = self._cell_row(node)
        elif node.name == "alloc":
            row[:7] = (ALLOC, 0, self.pool(node.thread, *node.operands), 0, 0, 0, 0)
        elif node.name == "call_rcu":
            row[KIND] = CALL_RCU
        elif node.name == "exit":
            row[KIND] = EXIT
        elif node.name == "error":
            row[:3] = (ERROR, 0, self._message(f"{node.operands[0]}: {node.operands[1]}"))
        elif node.name == "rounds":
            row[KIND], row[ARGUMENT2] = ERROR, 1
        else:
            operands = [*(int(o) for o in node.operands), 0, 0]
            row[:3] = (KINDS[node.name], node.address, operands[0])
            row[ARGUMENT2] = operands[1]
        self._footprint(node.number)

    def _footprint(self, node: int) -> None:
        """What a node does that others could notice."""
        a, futures = self.tables, self._futures
        kind, address, sub = (int(v) for v in a.op[node, [KIND, ADDRESS, SUB]])
        if kind == FREE and address:
            futures.uses(node, int(a.cell[address, GHOST]), F_FREE)
        if kind != CELL or sub in (OWN, RIGHT):
            return
        if sub == READ:
            futures.uses(node, address, F_READ)
        elif sub == ADD:
            futures.uses(node, address, F_WRITE)
        else:
            futures.uses(node, address, F_READ, F_WRITE, *([F_TRY] if sub == TRY else []))
        if a.op[node, FLAGS] & ENTRY:
            futures.uses(node, int(a.cell[a.cell[address, BASE], GHOST]), F_READ)

    def _message(self, text: str) -> int:
        if text not in self.messages:
            self.messages.append(text)
        return self.messages.index(text)

    def _cell_row(self, node: Node) -> tuple[int, ...]:
        name, address = node.name, node.address
        found = self.machine.cell_of(address)
        container = name in self.machine.effects.CONTAINER
        sub = SUBS.get(name, WRITE)
        if container and name in self.machine.effects.CONTAINER_READS:
            sub = READ
        if found is None:
            self.messages.append(f"wild access: {name} of cell {address}")
            return ERROR, 0, len(self.messages) - 1, 0, 0, 0, 0
        base, slot = found
        layout = self.machine.layouts[self.machine.class_of[base]].name
        f = slot.field
        check, flags = Guard(()), 0
        write_guard = f.write
        if name == "get":
            check = f.read
            if f.cell.name == "MARKED" and not f.read.locks:
                check = Guard(tuple(lock.removesuffix(":w") for lock in f.write.locks))
        elif name == "set" or (f.cell.name == "ENTRIES" and sub == WRITE and name != "clear_unreachable"):
            check = f.write
        elif container and not name.endswith(("_init", "_destroy")):
            check = f.read if sub == READ else f.write
        if sub == WRITE and check.locks and check.any and len(check.locks) > 1:
            flags |= LICENSED
        if f.cell.name == "ENTRIES" and layout == "ptdesc" and sub == WRITE:
            flags |= ENTRY
        if name == "set" and slot.points_to:
            flags |= PUBLISHES
        if name == "set" and f.cell.name == "PLAIN" and _excludes(f.write, f.read):
            flags |= EXCLUSIVE
        stable = STABLE_FIELDS.get((layout, slot.name))
        if stable is not None and (slot.name != "page" or (address - base - slot.offset) % f.each == 0):
            flags |= STABLE | (TOLERANT if name in stable else 0)
        if f.cell.name == "COUNTER" and name == "add":
            sub = ADD
        return CELL, address, 0, sub, self._guard(layout, check), self._guard(layout, write_guard), flags

    def pool(self, thread: int, class_id: int, nr: int) -> int:
        """Number of the room that a thread's objects of a kind have."""
        key = (thread, class_id, nr)
        if key not in self.pools:
            slots = [self.machine.place(class_id, nr) for _ in range(self._pool_size)]
            self._sync()
            for base in slots:
                self._siblings[base] = slots
            number = self.pools[key] = len(self.pools)
            self.tables.pool[number, : len(slots) + 1] = [len(slots), *slots]
            for g in range(1, len(self.symmetry.ways)):
                other = self.pool(self.symmetry.thread(g, thread), class_id, nr)
                self.symmetry.pools[g].update(zip(slots, self._slots_of(other), strict=True))
        return self.pools[key]

    def _slots_of(self, pool: int) -> list[int]:
        return [int(base) for base in self.tables.pool[pool, 1 : self.tables.pool[pool, 0] + 1]]

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
            self.code_of(x, y)
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
        for other in self._siblings.get(base, ()):
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
            for other in self._cells_like(self.symmetry.address(g, address)):
                yield other, bits

    def _cells_like(self, address: int) -> list[int]:
        """Cells that will be treated alike: those at the same place in the objects of a pool."""
        base = self.machine.base_of[address]
        return [other + address - base for other in self._siblings.get(base, ())] or [address]

    def _edges(self, node: Node, code: int) -> None:
        """Learn an edge, and those of the threads that may change places with this one."""
        symmetry, nodes = self.symmetry, self.learner.nodes
        if len(symmetry.ways) == 1:
            self._edge(node, code)
            return
        images = [(nodes[symmetry.node(g, node.number)], code) for g in range(len(symmetry.ways))]
        if self.tables.op[node.number, KIND] == CELL:
            address = int(self.tables.op[node.number, ADDRESS])
            value = self.value_of(address, code)
            values = [symmetry.value(g, address, value) for g in range(len(images))]
            images = [
                (other, self.code_of(symmetry.address(g, address), v) if code else 0)
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
            value = self.value_of(int(row[1]), code)
            try:
                stored, result = self._effect(node, value)
            except self.machine.Blocked:
                self._add_edge(node.number, code, BLOCKED, -1)
                return
            except self.machine.Broken as e:
                self._add_edge(node.number, code, VIOLATION - self._message(str(e)), -1)
                return
            if stored != value:
                new = self.code_of(int(row[1]), stored)
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
        return int(table_of(self.tables.all, self._narrow(entry)))

    def _add_edge(self, node: int, code: int, to: int, new: int) -> None:
        a, e = self.tables, self.edges
        if to > 0:
            self._futures.follows(node, to)
        if a.op[node, KIND] == CALL_RCU:
            self._futures.follows(node, new, late=True)
        if e == MAX_EDGES:
            raise Bound(f"{MAX_EDGES} automaton edges")
        a.edge[e] = code, to, new, a.op[node, HEAD]
        self._edge_to[node, code] = to, new
        a.op[node, HEAD] = e
        self.edges += 1

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

    def initial(self) -> Any:
        """The packed state in which every thread stands at its beginning."""
        state = np.zeros(int(self.tables.dims[3]), np.uint8)
        for t, root in enumerate(self.roots):
            state[2 * t], state[2 * t + 1] = root & 255, root >> 8
        return state


def _excludes(write: Guard, read: Guard) -> bool:
    """Whether holding the write guard means that nobody holds the read guard."""
    if not read.locks or not write.locks or (write.any and len(write.locks) > 1):
        return False
    return {lock.removesuffix(":w") for lock in read.locks} <= {lock.removesuffix(":w") for lock in write.locks}
