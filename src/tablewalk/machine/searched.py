# SPDX-License-Identifier: GPL-2.0-only
"""The driver under which the model is explored: each primitive is an operation that somebody else performs.

An operation is a name, the address of a cell, and operands.  `perform` is who performs it: by default `direct`, at
once on `mem`, which is how a scenario sets up its processes and looks at what is left in the end; or a learner
(`tablewalk.explore`), which feeds results of its own to see what a thread does next.

Each object has one cell more than its struct, behind it: FREE, SHARED, or PRIVATE + the thread that owns it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tablewalk.errors import TablewalkError

from . import effects
from .containers import LEFT as LEFT
from .containers import RIGHT as RIGHT
from .effects import Blocked, Broken
from .layout import Cell, Field, Layout, Slot, layout_of
from .layout import all_of as all_of
from .layout import any_of as any_of
from .layout import atomic as atomic
from .layout import const as const
from .layout import container as container
from .layout import counter as counter
from .layout import entries as entries
from .layout import lockdep_map as lockdep_map
from .layout import marked as marked
from .layout import mutex as mutex
from .layout import plain as plain
from .layout import rwsem as rwsem
from .layout import spinlock as spinlock
from .memory import FIRST_ADDRESS
from .stat import *  # noqa: F403
from .stat import NR_STATS, STAT_NAMES

FREE, SHARED, PRIVATE = 0, 1, 2

mem: Final[list[int]] = []
base_of: Final[list[int]] = []  # of each cell the object it belongs to, 0 for none
class_of: Final[dict[int, int]] = {}  # object -> class id
nr_of: Final[dict[int, int]] = {}  # object -> trailing elements
layouts: Final[list[Layout]] = []
views: Final[dict[str, type]] = {}
stats: Final[list[int]] = [0] * NR_STATS
reached: Final[set[str]] = set()  # events counted (`stat.py`), of any thread
_callbacks: Final[list[tuple[Callable[[int], None], int]]] = []

Perform = Callable[..., Any]


def cell_of(address: int) -> tuple[int, Slot] | None:
    """(object, field) that a cell belongs to, or None for a cell of no object."""
    base = base_of[address] if 0 <= address < len(base_of) else 0
    if base == 0:
        return None
    layout = layouts[class_of[base]]
    for slot in reversed(layout.slots):
        if slot.offset <= address - base:
            return base, slot
    return None


def name_of(address: int) -> str:
    """A cell by the names of its struct and field."""
    found = cell_of(address)
    if found is None:
        return f"cell {address}"
    base, slot = found
    layout = layouts[class_of[base]]
    if slot.field.cell is Cell.ENTRIES:
        index, part = divmod(address - base - slot.offset, layout.each)
        return f"{layout.name}@{base}.{slot.name}[{index}]" + (f".{part}" if layout.each > 1 else "")
    return f"{layout.name}@{base}.{slot.name}"


def offset_of(struct: str, field: str) -> int:
    """Cells from the address of an instance to a field."""
    return next(
        slot.offset for layout in layouts if layout.name == struct for slot in layout.slots if slot.name == field
    )


def ghost_of(base: int) -> int:
    """The cell that tells whether the object lives."""
    return base + layouts[class_of[base]].cells(nr_of[base])


def place(class_id: int, nr: int) -> int:
    """Address of room for an instance with `nr` trailing elements; nothing lives there yet."""
    base = len(mem)
    size = layouts[class_id].cells(nr) + 1
    mem.extend([0] * size)
    base_of.extend([base] * size)
    class_of[base] = class_id
    nr_of[base] = nr
    return base


def reset() -> None:
    """An empty memory, all operations direct."""
    global perform
    perform = direct
    mem[:] = [0] * FIRST_ADDRESS
    base_of[:] = [0] * FIRST_ADDRESS
    class_of.clear()
    nr_of.clear()
    reached.clear()
    _callbacks.clear()


def rewind(cells: list[int]) -> None:
    """Let memory hold `cells`; objects that were placed beyond are forgotten."""
    mem[:] = cells
    del base_of[len(cells) :]
    for base in [b for b in class_of if b >= len(cells)]:
        del class_of[base], nr_of[base]
    _callbacks.clear()


# --- who performs ----------------------------------------------------------------------------------------


def direct(name: str, address: int, *operands: Any) -> Any:
    """Perform an operation on `mem`, alone."""
    effect = effects.EFFECTS.get(name)
    if effect is not None:
        try:
            mem[address], result = effect(mem[address], *operands)
        except Blocked:
            raise Broken(f"would wait for ever: {name} of {name_of(address)}") from None
        return result
    if name == "alloc":
        base = place(*operands)
        mem[ghost_of(base)] = SHARED
        return base
    if name == "free":
        mem[ghost_of(address)] = FREE
    elif name == "call_rcu":
        _callbacks.append(operands)
    elif name == "map_release_writes":
        for lock in maps():
            mem[lock] &= (1 << effects.WRITER_SHIFT) - 1
    return None


def maps() -> list[int]:
    """The locks that the model builds itself."""
    return [
        base + slot.offset
        for base, class_id in class_of.items()
        for slot in layouts[class_id].slots
        if slot.field.lock == "lockdep_map"
    ]


perform: Perform = direct


def attach(performer: Perform | None, thread: int = 0) -> None:
    """Let `performer` perform from here on what `thread` does; None: directly."""
    global perform, me
    perform = performer or direct
    me = thread


me = 0  # the running thread: who takes locks


# --- views -----------------------------------------------------------------------------------------------


class struct(int):
    """The view of an instance: the address, its fields as attributes."""

    __slots__ = ()
    addr = int.real

    def __init_subclass__(cls) -> None:
        fields = {k: v for k, v in vars(cls).items() if isinstance(v, Field)}
        layout = layout_of(cls.__name__, fields, cls.__annotations__)
        class_id = len(layouts)
        layouts.append(layout)
        views[layout.name] = cls
        for slot in layout.slots:
            setattr(cls, slot.name, _accessor(slot))

        def alloc(nr: int = 0) -> Any:
            return cls(perform("alloc", 0, class_id, nr))

        def free(self: struct, nr: int = 0) -> None:
            perform("free", self.real)

        cls.alloc = staticmethod(alloc)  # type: ignore[attr-defined]
        cls.free = free  # type: ignore[attr-defined]


ADDRESSES: Final = (Cell.LOCK, Cell.ATOMIC, Cell.COUNTER, Cell.ENTRIES, Cell.CONTAINER)


def _accessor(slot: Slot) -> property:
    offset, kind = slot.offset, slot.points_to
    if slot.field.cell in ADDRESSES:
        return property(lambda self: self.real + offset)

    def get(self: int) -> Any:
        value = perform("get", self.real + offset)
        return views[kind](value) if kind else value

    def put(self: int, value: int) -> None:
        perform("set", self.real + offset, int(value))

    return property(get, put)


effects.EFFECTS["get"] = effects.load
effects.EFFECTS["set"] = effects.store


def _slot(view: Any, name: str) -> Slot:
    return next(s for s in layouts_by_view[type(view)] if s.name == name)


class _SlotsByView(dict[type, tuple[Slot, ...]]):
    def __missing__(self, view: type) -> tuple[Slot, ...]:
        self[view] = next(layout.slots for layout in layouts if layout.name == view.__name__)
        return self[view]


layouts_by_view: Final = _SlotsByView()


def READ_ONCE(view: Any, name: str) -> Any:
    """Marked read of a field."""
    slot = _slot(view, name)
    value = perform("load", view.real + slot.offset)
    return views[slot.points_to](value) if slot.points_to else value


def WRITE_ONCE(view: Any, name: str, value: Any) -> None:
    """Marked write of a field, under its write guard."""
    perform("set", view.real + _slot(view, name).offset, int(value))


def atomic_or(view: Any, name: str, bits: int) -> None:
    """Set bits of a marked field."""
    perform("atomic_or", view.real + _slot(view, name).offset, bits)


# --- accesses to cells -----------------------------------------------------------------------------------


def load(address: int) -> int:
    return perform("load", address)  # type: ignore[no-any-return]


def store(address: int, value: int) -> None:
    perform("store", address, int(value))


def clear_unreachable(address: int) -> None:
    perform("clear_unreachable", address, 0)


effects.EFFECTS["clear_unreachable"] = effects.store


def load_range(address: int, nr: int) -> tuple[int, ...]:
    return tuple(perform("load", address + i) for i in range(nr))


def store_range(address: int, values: list[int]) -> None:
    for i, value in enumerate(values):
        perform("store", address + i, int(value))


def xchg(address: int, value: int) -> int:
    return perform("xchg", address, int(value))  # type: ignore[no-any-return]


def cmpxchg(address: int, old: int, new: int) -> int:
    return perform("cmpxchg", address, int(old), int(new))  # type: ignore[no-any-return]


def add(address: int, n: int) -> None:
    perform("add", address, n)


def add_return(address: int, n: int) -> int:
    return perform("add_return", address, n)  # type: ignore[no-any-return]


def inc_not_zero(address: int) -> bool:
    return perform("inc_not_zero", address)  # type: ignore[no-any-return]


def inc_not_zero_limited(address: int, limit: int) -> bool:
    return perform("inc_not_zero_limited", address, limit)  # type: ignore[no-any-return]


def publish(address: int) -> None:
    perform("publish", address)


def unpublish(address: int) -> None:
    perform("unpublish", address)


def lives(address: int) -> bool:
    """Raises TablewalkError: what is looked at though it may be freed is not followed by the search."""
    raise TablewalkError("passes of ksmd (KSM) cannot be explored: they look at pages that may be freed")


def forget(live: object) -> None:
    perform("forget", 0, live)


def count(stat: int, n: int = 1) -> None:
    """The event was reached."""
    reached.add(STAT_NAMES[stat])


# --- locks -----------------------------------------------------------------------------------------------


def spin_lock(lock: int) -> None:
    perform("lock", lock, me)


def spin_lock_nested(lock: int) -> None:
    perform("lock", lock, me)


def spin_trylock(lock: int) -> bool:
    return perform("trylock", lock, me)  # type: ignore[no-any-return]


def spin_unlock(lock: int) -> None:
    perform("unlock", lock, me)


def down_read(sem: int) -> None:
    might_sleep()
    perform("down_read", sem, me)


def down_read_trylock(sem: int) -> bool:
    return perform("down_read_trylock", sem, me)  # type: ignore[no-any-return]


def up_read(sem: int) -> None:
    perform("up_read", sem, me)


def down_write(sem: int) -> None:
    might_sleep()
    perform("down_write", sem, me)


down_write_nested = down_write


def down_write_trylock(sem: int) -> bool:
    return perform("down_write_trylock", sem, me)  # type: ignore[no-any-return]


def up_write(sem: int) -> None:
    perform("up_write", sem, me)


def downgrade_write(sem: int) -> None:
    perform("downgrade_write", sem, me)


def mutex_lock(lock: int) -> None:
    might_sleep()
    perform("lock", lock, me)


mutex_trylock = spin_trylock
mutex_unlock = spin_unlock


def wait_unlocked(lock: int) -> None:
    might_sleep()
    perform("wait_unlocked", lock, me)


def lock_map_acquire_read(lock: int) -> None:
    perform("map_read", lock, me)


def lock_map_acquire(lock: int) -> None:
    might_sleep()
    perform("map_write", lock, me)


def lock_map_tryacquire(lock: int) -> None:
    perform("map_try", lock, me)


def lock_map_release(lock: int) -> None:
    perform("map_release", lock, me)


def lock_map_release_writes() -> None:
    perform("map_release_writes", 0, me)


def is_locked(lock: int) -> bool:
    found = cell_of(lock)
    exclusive = found is not None and found[1].field.lock in ("spinlock", "mutex")
    return perform("is_locked" if exclusive else "rwsem_is_locked", lock, me)  # type: ignore[no-any-return]


def wait_until(address: int, value: int) -> None:
    might_sleep()
    perform("wait_until", address, value)


def might_sleep() -> None:
    perform("might_sleep", 0)


def read_seqcount_begin(address: int) -> int:
    return perform("load", address)  # type: ignore[no-any-return]


def read_seqcount_retry(address: int, seq: int) -> bool:
    return load(address) != seq


def write_seqcount(address: int) -> None:
    perform("add", address, 1)


# --- RCU, interrupts, TLBs -------------------------------------------------------------------------------


def rcu_read_lock() -> None:
    perform("rcu_read_lock", 0)


def rcu_read_unlock() -> None:
    perform("rcu_read_unlock", 0)


def kmap_local(pte: int) -> None:
    perform("kmap_local", 0, base_of[pte])


def kunmap_local(pte: int) -> None:
    perform("kunmap_local", 0, base_of[pte])


def call_rcu(func: Callable[[int], None], obj: int) -> None:
    perform("call_rcu", 0, func, int(obj))


def synchronize_rcu() -> None:
    might_sleep()
    perform("rcu_snapshot", 0)
    perform("rcu_wait", 0)


def local_irq_save() -> int:
    perform("irq_save", 0)
    return 0


def local_irq_restore(flags: int) -> None:
    perform("irq_restore", 0)


def instruction_begin(mm: int) -> None:
    """User code's instruction begins: no interrupt is taken, and no broadcast acknowledged, until it ends."""
    perform("instruction_begin", 0, int(mm))


def instruction_end() -> None:
    perform("instruction_end", 0)


def smp_call_function(nr: int) -> None:
    perform("ipi_snapshot", 0, 0, 1)
    perform("ipi_wait", 0)


def tlb_invalidate(mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    """Wait until no other CPU is within an instruction that began with what it had cached."""
    if others:
        perform("ipi_snapshot", 0, int(mm), others)
        perform("ipi_wait", 0)


def tlb_lookup(mm: int, va: int, write: bool) -> int:
    return 0


def tlb_fill(
    mm: int, va: int, walk: tuple[tuple[int, int], ...], cell: int, writable: bool, size: int
) -> None:
    """TLBs remember nothing from one instruction to the next."""


def quiescent() -> None:
    """Direct only: grace periods end, callbacks run."""
    while _callbacks:
        func, obj = _callbacks.pop(0)
        func(obj)


def _container(name: str, address: int, *operands: Any) -> Any:
    return perform(name, address, *(int(o) for o in operands))


for _name in effects.CONTAINER:
    globals()[_name] = partial(_container, _name)

reset()
