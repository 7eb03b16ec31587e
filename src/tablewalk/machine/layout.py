# SPDX-License-Identifier: GPL-2.0-only
"""How a struct of shared memory is declared: its cells, and the guard that each field asks for.

A field of a `struct` is declared by one of the functions below; the class body is the struct's layout, in
order.  The declaration is all there is: each driver makes its own accessors from it (`generate`), and the
table of guards is printed from it.  Guards follow Documentation/mm/process_addrs.rst (7.x).

A guard names a lock by its path from the instance (`"vm_mm.mmap_lock"`); `":w"` asks for it exclusively.
`any_of` is held if one of its locks is, `all_of` if all are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Cell(Enum):
    """What a field is, and so what an access to it means."""

    CONST = "const"  # set once before the object is published
    PLAIN = "plain"  # accessed under its guard only
    MARKED = "marked"  # may be read locklessly (READ_ONCE), written under its guard (WRITE_ONCE)
    ATOMIC = "atomic"  # accessed by atomic operations only
    COUNTER = "counter"  # only added to: additions commute
    LOCK = "lock"  # a spinlock, rwsem, mutex or lockdep map: the lock operations only
    ENTRIES = "entries"  # the entries of a page table, or the pages of a folio: as many as `alloc` asks for
    CONTAINER = "container"  # a maple tree, an xarray, an interval tree: its own operations only

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Guard:
    """Locks that protect a field: one of them (`any`) or all of them."""

    locks: tuple[str, ...]
    any: bool = True

    def __str__(self) -> str:
        return (" or " if self.any else " and ").join(self.locks) or "none"


NO_GUARD = Guard(())


def any_of(*locks: str) -> Guard:
    """Held when any of `locks` is held."""
    return Guard(locks, True)


def all_of(*locks: str) -> Guard:
    """Held when every one of `locks` is held."""
    return Guard(locks, False)


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field of a struct; `lock` is the kind of a lock field (`spinlock`, `rwsem`, ...)."""

    cell: Cell
    read: Guard = NO_GUARD
    write: Guard = NO_GUARD
    lock: str = ""
    each: int = 1  # cells an element of ENTRIES has


def const() -> Any:
    """A field set before the object is published, and read freely."""
    return Field(Cell.CONST)


def plain(read: Guard = NO_GUARD, write: Guard | None = None) -> Any:
    """A field read under `read` and written under `write` (the same guard where not given)."""
    return Field(Cell.PLAIN, read, read if write is None else write)


def marked(write: Guard, read: Guard = NO_GUARD) -> Any:
    """A field that anybody may read locklessly by `READ_ONCE`, and that is written under `write`."""
    return Field(Cell.MARKED, read, write)


def atomic() -> Any:
    """The address of a cell for atomic operations."""
    return Field(Cell.ATOMIC)


def counter() -> Any:
    """The address of a cell that is only added to (its final value is what counts)."""
    return Field(Cell.COUNTER)


def spinlock() -> Any:
    """The address of a spinlock."""
    return Field(Cell.LOCK, lock="spinlock")


def rwsem() -> Any:
    """The address of a reader-writer semaphore."""
    return Field(Cell.LOCK, lock="rwsem")


def mutex() -> Any:
    """The address of a sleeping exclusive lock (mutex, or the lock bit of a folio)."""
    return Field(Cell.LOCK, lock="mutex")


def lockdep_map() -> Any:
    """The address of a lock that the model builds itself from atomics (the per-VMA lock)."""
    return Field(Cell.LOCK, lock="lockdep_map")


def entries(*locks: str, each: int = 1) -> Any:
    """The address of the trailing elements of `each` cells, written under one of `locks`, read locklessly too."""
    return Field(Cell.ENTRIES, write=any_of(*locks), each=each)


def container(write: Guard = NO_GUARD, read: Guard = NO_GUARD) -> Any:
    """The address of a container (maple tree, xarray, interval tree)."""
    return Field(Cell.CONTAINER, read, write)


@dataclass(frozen=True, slots=True)
class Slot:
    """A field with its place in the struct: `offset` in cells, and the struct its value points to, or None."""

    name: str
    offset: int
    field: Field
    points_to: str | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of a struct lie; `size` in cells without the trailing elements."""

    name: str
    slots: tuple[Slot, ...]
    size: int
    each: int  # cells of one trailing element, 0 where there are none

    def cells(self, nr: int) -> int:
        """Size in cells of an instance with `nr` trailing elements."""
        return self.size + nr * self.each


INTEGER_TYPES = frozenset(
    {"int", "bool", "spinlock_t", "rwsem_t", "mutex_t", "atomic_t", "counter_t", "entries_t"}
    | {"maple_tree_t", "vector_t", "xarray_t", "rb_root_t", "lockdep_map_t"}
)


def layout_of(name: str, fields: dict[str, Field], annotations: dict[str, str]) -> Layout:
    """Lay `fields` out in order; the annotation of a field that is not an integer type names a struct.

    Raises TypeError for a declaration that cannot be laid out.
    """
    slots: list[Slot] = []
    offset = each = 0
    for field_name, field in fields.items():
        if each:
            raise TypeError(f"{name}.{field_name}: nothing can follow trailing entries")
        annotation = annotations.get(field_name)
        if annotation is None:
            raise TypeError(f"{name}.{field_name}: a field needs a type annotation")
        points_to = None if annotation in INTEGER_TYPES else annotation.removesuffix("_t")
        slots.append(Slot(field_name, offset, field, points_to))
        if field.cell is Cell.ENTRIES:
            each = field.each
        else:
            offset += 1
    return Layout(name, tuple(slots), offset, each)
