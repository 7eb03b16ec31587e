# SPDX-License-Identifier: GPL-2.0-only
"""Flat memory: allocation of structs in cells, and the accesses to a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from .layout import Cell, Layout

mem: Final[list[int]] = []
FIRST_ADDRESS: Final = 64  # what lies below is NULL and its neighbourhood

layouts: Final[list[Layout]] = []
lock_classes: Final[list[str]] = ["none"]
lockstat: Final[list[int]] = [0]  # acquisitions by lock class

_templates: Final[list[dict[int, list[int]]]] = []
_pools: Final[list[dict[int, list[int]]]] = []
live: Final[list[int]] = []  # objects allocated and not freed, by struct


def register(layout: Layout) -> int:
    """Give a struct its class id; its locks become lock classes named `struct.field`."""
    for i, known in enumerate(layouts):
        if known.name == layout.name:
            layouts[i] = layout
            return i
    layouts.append(layout)
    _templates.append({})
    _pools.append({})
    live.append(0)
    for slot in layout.slots:
        if slot.field.cell is Cell.LOCK:
            lock_classes.append(f"{layout.name}.{slot.name}")
            lockstat.append(0)
    return len(layouts) - 1


def offset_of(struct: str, field: str) -> int:
    """Cells from the address of an instance to a field."""
    return next(
        slot.offset for layout in layouts if layout.name == struct for slot in layout.slots if slot.name == field
    )


def _template(class_id: int, nr: int) -> list[int]:
    layout = layouts[class_id]
    cells = [0] * layout.cells(nr)
    for slot in layout.slots:
        if slot.field.cell is Cell.LOCK:
            cells[slot.offset] = lock_classes.index(f"{layout.name}.{slot.name}")
    _templates[class_id][nr] = cells
    return cells


def alloc_cells(class_id: int, nr: int) -> int:
    """Address of a zeroed instance with `nr` trailing elements; freed cells are used again first."""
    template = _templates[class_id].get(nr)
    if template is None:
        template = _template(class_id, nr)
    live[class_id] += 1
    pool = _pools[class_id].get(nr)
    if pool:
        address = pool.pop()
        mem[address : address + len(template)] = template
        return address
    address = len(mem)
    mem.extend(template)
    return address


def free_cells(class_id: int, address: int, nr: int) -> None:
    """Give an instance back."""
    live[class_id] -= 1
    pool = _pools[class_id].get(nr)
    if pool is None:
        pool = []
        _pools[class_id][nr] = pool
    pool.append(address)


def reset_memory() -> None:
    """An empty memory, nothing counted."""
    mem.clear()
    mem.extend([0] * FIRST_ADDRESS)
    for i in range(len(layouts)):
        _templates[i].clear()
        _pools[i].clear()
        live[i] = 0
    for i in range(len(lockstat)):
        lockstat[i] = 0


def objects() -> Iterator[tuple[str, int]]:
    """(struct, live instances)."""
    return ((layout.name, n) for layout, n in zip(layouts, live, strict=True))


# --- memory accesses -------------------------------------------------------------------------------------


def load(address: int) -> int:
    """Marked read of a cell."""
    return mem[address]


def store(address: int, value: int) -> None:
    """Marked write of a cell."""
    mem[address] = value


def clear_unreachable(address: int) -> None:
    """Clear an entry without its lock: nobody else can reach it any more (free_pgtables)."""
    mem[address] = 0


def load_range(address: int, nr: int) -> list[int]:
    """Read `nr` consecutive cells, one after the other, under their guard."""
    return mem[address : address + nr]


def store_range(address: int, values: list[int]) -> None:
    """Write consecutive cells, one after the other, under their guard."""
    mem[address : address + len(values)] = values


def xchg(address: int, value: int) -> int:
    """Atomically write `value`; returns what was there."""
    old = mem[address]
    mem[address] = value
    return old


def cmpxchg(address: int, old: int, new: int) -> int:
    """Atomically write `new` if the cell holds `old`; returns what was there."""
    was = mem[address]
    if was == old:
        mem[address] = new
    return was


def add(address: int, n: int) -> None:
    """Atomic add without a result (additions commute)."""
    mem[address] += n


def add_return(address: int, n: int) -> int:
    """Atomic add; returns the new value."""
    value = mem[address] + n
    mem[address] = value
    return value


def inc_not_zero(address: int) -> bool:
    """Atomic increment unless zero; whether it was done."""
    if mem[address] == 0:
        return False
    mem[address] += 1
    return True


def inc_not_zero_limited(address: int, limit: int) -> bool:
    """Atomic increment unless zero or not below `limit`; whether it was done."""
    if 0 < mem[address] < limit:
        mem[address] += 1
        return True
    return False


READ_ONCE: Callable[..., Any] = getattr
WRITE_ONCE: Callable[..., None] = setattr


def publish(address: int) -> None:
    """The object at `address` becomes reachable by others with the next store."""


def unpublish(address: int) -> None:
    """The object at `address` can no longer be reached by others: it is the caller's own again."""


def atomic_or(view: Any, name: str, bits: int) -> None:
    """Atomically set bits of a marked field, under whatever lock keeps the object alive."""
    setattr(view, name, getattr(view, name) | bits)


def lives(address: int) -> bool:
    """Whether the object at `address` has not been freed, for what may be looked at even then, as struct pages may.

    True where freed memory shows what it held last, or what it holds now as another object of the same struct.
    What is made dependent on it follows without a gap.
    """
    return True


def forget(live: object) -> None:
    """Of what this function has seen only `live` matters from here on (head of a retry loop)."""
