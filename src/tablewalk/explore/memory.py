# SPDX-License-Identifier: GPL-2.0-only
"""The machine's memory in tables: objects, what cells can hold, and room for what threads allocate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tablewalk.machine.drivers import Model

from .symmetry import Symmetry
from .tables import (
    AT_REST,
    ATTACHED,
    BASE,
    CLS,
    COL,
    GHOST,
    INDEX,
    INIT,
    LOCK_TYPES,
    LOCKTYPE,
    MAX_CELLS,
    MAX_CODES,
    MAX_COLUMNS,
    NO_INDEX,
    SIZE,
    Bound,
    Tables,
)

WIDE = 1 << 62


class Memory:
    """The machine's memory: what objects there are, and for each cell that varies a column of codes of its values.
    `room` is how many objects of a kind a thread can have allocated at a time."""

    def __init__(self, tables: Tables, model: Model, symmetry: Symmetry, room: int) -> None:
        self._tables, self._machine, self._symmetry, self._room = tables, model.machine, symmetry, room
        self.columns = 0
        self.pools: dict[tuple[int, int, int], int] = {}
        self._siblings: dict[int, list[int]] = {}  # objects of a pool
        self._codes: dict[tuple[int, int], int] = {}
        self._wide: list[int] = []  # values that don't fit a cell of the tables
        self._column_of: dict[int, int] = {}
        self._end = 1
        self._sync()
        self._attached(model)

    def _sync(self) -> None:
        """Take over cells and objects that are new in the machine's memory."""
        a, machine = self._tables, self._machine
        end = len(machine.mem)
        if end > MAX_CELLS:
            raise Bound(f"{MAX_CELLS} cells of memory")
        a.cell[self._end : end, COL] = -1
        a.cell[self._end : end, INDEX] = NO_INDEX
        for address in range(self._end, end):
            base = machine.base_of[address]
            a.cell[address, BASE] = base
            if base == address:
                self._object(base)
            a.cell[address, INIT] = self.narrow(machine.mem[address])
        self._end = end

    def _attached(self, model: Model) -> None:
        """Which page tables are in a slot to begin with."""
        machine, a = self._machine, self._tables
        cls = next(i for i, layout in enumerate(machine.layouts) if layout.name == "ptdesc")
        first = machine.layouts[cls].slots[-1].offset
        a.dims[4:6] = cls, first
        pgtable = model.kernel("pgtable")
        for base, class_id in machine.class_of.items():
            if class_id == cls and machine.mem[machine.ghost_of(base)]:
                for entry in machine.mem[base + first : machine.ghost_of(base)]:
                    table = entry >> pgtable.PFN_SHIFT
                    if pgtable.pmd_is_table(entry) and machine.class_of.get(table) == cls:
                        a.cell[machine.ghost_of(table), INIT] = ATTACHED

    def _object(self, base: int) -> None:
        a, machine = self._tables, self._machine
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

    # --- codes of values ---------------------------------------------------------------------------------

    def narrow(self, value: int) -> int:
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
        value = self.narrow(value)
        code = self._codes.get((address, value))
        if code is not None:
            return code
        a = self._tables
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
            raise Bound(f"{MAX_CODES} values of {self._machine.name_of(address)}")
        a.decode[column, code] = value
        a.ncode[column] += 1
        self._codes[address, value] = code
        self._images(address, value, code)
        return code

    def _images(self, address: int, value: int, code: int) -> None:
        """Where threads change places, another cell holds another value."""
        a, symmetry = self._tables, self._symmetry
        for g in range(1, len(symmetry.ways)):
            other = symmetry.address(g, address)
            image = self.code_of(other, symmetry.value(g, address, self.widen(value)))
            a.sym_column[g - 1, self._column_of[address]] = self._column_of[other]
            a.sym_code[(g - 1) * MAX_COLUMNS + self._column_of[address], code] = image

    def value_of(self, address: int, code: int) -> int:
        """The value that a code of a cell stands for."""
        column = self._tables.cell[address, COL]
        return self.widen(int(self._tables.cell[address, INIT] if column < 0 else self._tables.decode[column, code]))

    def cells(self, state: Any) -> list[int]:
        """A packed state as the machine's memory."""
        memory = [self.widen(int(v)) for v in self._tables.cell[: self._end, INIT]]
        start = int(self._tables.dims[3])
        for address, column in self._column_of.items():
            memory[address] = self.widen(int(self._tables.decode[column, state[start + column]]))
        return memory

    # --- rooms for objects -------------------------------------------------------------------------------

    def pool(self, thread: int, class_id: int, nr: int) -> int:
        """Number of the room that a thread's objects of a kind have."""
        key = (thread, class_id, nr)
        if key not in self.pools:
            slots = [self._machine.place(class_id, nr) for _ in range(self._room)]
            self._sync()
            for base in slots:
                self._siblings[base] = slots
            number = self.pools[key] = len(self.pools)
            self._tables.pool[number, : len(slots) + 1] = [len(slots), *slots]
            for g in range(1, len(self._symmetry.ways)):
                other = self.pool(self._symmetry.thread(g, thread), class_id, nr)
                self._symmetry.pools[g].update(zip(slots, self._slots_of(other), strict=True))
        return self.pools[key]

    def _slots_of(self, pool: int) -> list[int]:
        return [int(base) for base in self._tables.pool[pool, 1 : self._tables.pool[pool, 0] + 1]]

    def like(self, address: int) -> list[int]:
        """Cells that will be treated alike: those at the same place in the objects of a pool."""
        base = self._machine.base_of[address]
        return [other + address - base for other in self._siblings.get(base, ())] or [address]

    def siblings(self, base: int) -> Sequence[int]:
        """The objects of an object's pool."""
        return self._siblings.get(base, ())
