# SPDX-License-Identifier: GPL-2.0-only
"""Automata's nodes in tables: operations of the machine as the native search sees them."""

from __future__ import annotations

from typing import Any

from tablewalk.machine.layout import Guard

from .futures import Futures
from .learn import Node
from .memory import Memory
from .tables import (
    ACQUIRE,
    ADD,
    ADDRESS,
    ALLOC,
    ARGUMENT2,
    BASE,
    CALL_RCU,
    CELL,
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
    GHOST,
    GUARD,
    HEAD,
    INSN,
    INSN_END,
    IPI_SNAPSHOT,
    IPI_WAIT,
    IRQ,
    IRQ_RESTORE,
    KIND,
    LICENSED,
    MAPPED,
    OWN,
    PUBLISH,
    PUBLISHES,
    RCU,
    RCU_SNAPSHOT,
    RCU_UNLOCK,
    RCU_WAIT,
    READ,
    RELEASE,
    RELEASE_WRITES,
    RIGHT,
    SLEEP,
    STABLE,
    SUB,
    TOLERANT,
    TRY,
    UNPUBLISH,
    WRITE,
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


class Rows:
    """The rows of automata's nodes in the tables: what an operation does to what, and under which guard."""

    def __init__(self, tables: Tables, machine: Any, memory: Memory, futures: Futures) -> None:
        self._tables, self._machine, self._memory, self._futures = tables, machine, memory, futures
        self._effects = machine.effects.EFFECTS
        self.messages: list[str] = [""]
        self._guards: dict[tuple[str, Guard], int] = {}
        self._nr_paths = 0

    def add(self, node: Node) -> None:
        """The row of a new node."""
        row = self._tables.op[node.number]
        row[HEAD] = -1
        if node.name in OWN_CELL:
            which, _, sub = OWN_CELL[node.name]
            row[:7] = (CELL, thread_cell(node.thread, which), 0, sub, 0, 0, 0)
        elif node.name in self._effects:
            row[:7] = self._cell_row(node)
        elif node.name == "alloc":
            row[:7] = (ALLOC, 0, self._memory.pool(node.thread, *node.operands), 0, 0, 0, 0)
        elif node.name == "call_rcu":
            row[KIND] = CALL_RCU
        elif node.name == "exit":
            row[KIND] = EXIT
        elif node.name == "error":
            row[:3] = (ERROR, 0, self.message(f"{node.operands[0]}: {node.operands[1]}"))
        elif node.name == "rounds":
            row[KIND], row[ARGUMENT2] = ERROR, 1
        else:
            operands = [*(int(o) for o in node.operands), 0, 0]
            row[:3] = (KINDS[node.name], node.address, operands[0])
            row[ARGUMENT2] = operands[1]
        self._footprint(node.number)

    def _cell_row(self, node: Node) -> tuple[int, ...]:
        name, address = node.name, node.address
        found = self._machine.cell_of(address)
        container = name in self._machine.effects.CONTAINER
        sub = SUBS.get(name, WRITE)
        if container and name in self._machine.effects.CONTAINER_READS:
            sub = READ
        if found is None:
            self.messages.append(f"wild access: {name} of cell {address}")
            return ERROR, 0, len(self.messages) - 1, 0, 0, 0, 0
        base, slot = found
        layout = self._machine.layouts[self._machine.class_of[base]].name
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

    def _footprint(self, node: int) -> None:
        """What a node does that others could notice."""
        a, futures = self._tables, self._futures
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

    def message(self, text: str) -> int:
        """Number of what a node says is wrong."""
        if text not in self.messages:
            self.messages.append(text)
        return self.messages.index(text)

    # --- guards ------------------------------------------------------------------------------------------

    def _guard(self, layout_name: str, guard: Guard) -> int:
        """Number of a guard of a struct, 0 for none."""
        if not guard.locks:
            return 0
        key = (layout_name, guard)
        if key not in self._guards:
            a = self._tables
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
            layout = next(x for x in self._machine.layouts if x.name == struct)
            slot = next(s for s in layout.slots if s.name == name)
            offsets.append(slot.offset)
            struct = slot.points_to or ""
        return offsets

    def guard_text(self, node: int) -> str:
        """The guard that an operation asks for, in words."""
        number = int(self._tables.op[node, GUARD])
        return next((str(guard) for (_, guard), n in self._guards.items() if n == number), "a lock")


def _excludes(write: Guard, read: Guard) -> bool:
    """Whether holding the write guard means that nobody holds the read guard."""
    if not read.locks or not write.locks or (write.any and len(write.locks) > 1):
        return False
    return {lock.removesuffix(":w") for lock in read.locks} <= {lock.removesuffix(":w") for lock in write.locks}
