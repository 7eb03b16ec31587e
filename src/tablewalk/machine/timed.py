# SPDX-License-Identifier: GPL-2.0-only
"""The driver under which the model takes time: each primitive costs what a machine's profile says.

A thread of control runs on `mem` at once and moves `clock[0]`, its own time in picoseconds, on.  What others could
make wait, interrupt or wake is asked of `on`, the scheduler: by default `Alone`, for whom nobody else is there and
nothing takes time, which is how a workload sets up; or one of `tablewalk.simulate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from . import memory as _memory
from . import sequential as _seq
from .containers import LEFT as LEFT
from .containers import RIGHT as RIGHT
from .containers import interval_tree_destroy as interval_tree_destroy
from .containers import interval_tree_empty as interval_tree_empty
from .containers import interval_tree_init as interval_tree_init
from .containers import interval_tree_insert as interval_tree_insert
from .containers import interval_tree_overlapping as interval_tree_overlapping
from .containers import interval_tree_remove as interval_tree_remove
from .containers import mt_destroy as mt_destroy
from .containers import mt_find as _mt_find
from .containers import mt_init as mt_init
from .containers import mt_prev as _mt_prev
from .containers import mt_range as _mt_range
from .containers import mt_store as _mt_store
from .containers import mt_values as mt_values
from .containers import mtree_load as _mtree_load
from .containers import rb_child as rb_child
from .containers import rb_erase as rb_erase
from .containers import rb_init as rb_init
from .containers import rb_insert as rb_insert
from .containers import rb_replace as rb_replace
from .containers import rb_root as rb_root
from .containers import vec_init as vec_init
from .containers import vec_push as vec_push
from .containers import vec_take as vec_take
from .containers import xa_destroy as xa_destroy
from .containers import xa_init as xa_init
from .containers import xa_load as _xa_load
from .containers import xa_range as _xa_range
from .containers import xa_store as _xa_store
from .generate import ADDRESSES
from .layout import Field, Layout, layout_of
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
from .memory import alloc_cells, free_cells, lock_classes, lockstat, mem, register
from .memory import lives as lives
from .memory import objects as objects
from .memory import offset_of as offset_of
from .memory import publish as publish
from .memory import unpublish as unpublish
from .sequential import count as count
from .sequential import lock_map_acquire as lock_map_acquire
from .sequential import lock_map_acquire_read as lock_map_acquire_read
from .sequential import lock_map_release as lock_map_release
from .sequential import lock_map_release_writes as lock_map_release_writes
from .sequential import lock_map_tryacquire as lock_map_tryacquire
from .sequential import might_sleep as might_sleep
from .sequential import stats as stats
from .sequential import tlb_fill as tlb_fill
from .sequential import tlb_lookup as tlb_lookup
from .stat import *  # noqa: F403
from .stat import RCU_CALLBACKS as _RCU_CALLBACKS
from .stat import SYNCHRONIZE_RCU as _SYNCHRONIZE_RCU

clock: Final[list[int]] = [0]  # the running thread's time in picoseconds
watched: Final[set[int]] = set()  # cells that somebody sleeps on (`wait_until`)

# Picoseconds of one primitive; `use_costs` sets them.
FIELD = 0  # a field of a struct, read or written
LOAD = 0  # a marked read
STORE = 0  # a marked write
ATOMIC = 0  # an atomic operation on a cache line that this CPU has
TREE = 0  # a look-up in a tree
TREE_STORE = 0
LOCK = 0  # an acquisition or release of a free lock
BARRIER = 0  # rcu_read_lock, interrupts off, and their ends
NAMES: Final = ("FIELD", "LOAD", "STORE", "ATOMIC", "TREE", "TREE_STORE", "LOCK", "BARRIER")


def use_costs(costs: dict[str, int]) -> None:
    """Let primitives cost so many picoseconds; those not named cost nothing."""
    for name in NAMES:
        globals()[name] = costs.get(name, 0)


class Scheduler(Protocol):
    """Who lets threads wait for each other."""

    def lock(self, lock: int) -> None: ...
    def trylock(self, lock: int) -> bool: ...
    def unlock(self, lock: int) -> None: ...
    def down_read(self, sem: int) -> None: ...
    def down_read_trylock(self, sem: int) -> bool: ...
    def up_read(self, sem: int) -> None: ...
    def down_write(self, sem: int) -> None: ...
    def down_write_trylock(self, sem: int) -> bool: ...
    def up_write(self, sem: int) -> None: ...
    def downgrade_write(self, sem: int) -> None: ...
    def mutex_lock(self, lock: int) -> None: ...
    def mutex_trylock(self, lock: int) -> bool: ...
    def mutex_unlock(self, lock: int) -> None: ...
    def wait_until(self, address: int, value: int) -> None: ...
    def changed(self, address: int) -> None: ...
    def again(self) -> None: ...
    def rcu_read(self, change: int) -> None: ...
    def call_rcu(self, func: Callable[[int], None], obj: int) -> None: ...
    def synchronize_rcu(self) -> None: ...
    def irqs(self, change: int) -> None: ...
    def interrupt(self, mm: int, start: int, end: int, freed_tables: bool, others: int) -> None: ...
    def interrupt_all(self) -> None: ...
    def allocated(self, struct: str, nr: int) -> None: ...


class Alone:
    """Nobody else is there, and nothing takes time."""

    def nothing(self, *_: object) -> None:
        """No effect."""

    def yes(self, *_: object) -> bool:
        """It is free."""
        return True

    lock = unlock = down_read = up_read = down_write = up_write = downgrade_write = nothing
    mutex_lock = mutex_unlock = changed = again = rcu_read = irqs = interrupt = interrupt_all = allocated = nothing
    synchronize_rcu = nothing
    trylock = down_read_trylock = down_write_trylock = mutex_trylock = yes

    def wait_until(self, address: int, value: int) -> None:
        _seq.wait_until(address, value)

    def call_rcu(self, func: Callable[[int], None], obj: int) -> None:
        """Pending until `quiescent`."""
        _callbacks.append((func, obj))


_ALONE: Final = Alone()
_callbacks: Final[list[tuple[Callable[[int], None], int]]] = []
on: Scheduler = _ALONE


def attach(scheduler: Scheduler | None) -> None:
    """Let `scheduler` order threads from here on; None: there is only one, and no time."""
    global on
    on = scheduler or _ALONE
    watched.clear()
    if scheduler is None:
        use_costs({})


def reset() -> None:
    """An empty memory, nobody else there, time 0."""
    _seq.reset()
    _callbacks.clear()
    clock[0] = 0
    attach(None)


def quiescent() -> None:
    """Set-up only: grace periods end, callbacks run."""
    while _callbacks:
        func, obj = _callbacks.pop(0)
        func(obj)


# --- views -----------------------------------------------------------------------------------------------


class struct(int):
    """The view of an instance whose accessors take time."""

    __slots__ = ()
    addr = int.real

    def __init_subclass__(cls) -> None:
        fields = {k: v for k, v in vars(cls).items() if isinstance(v, Field)}
        layout = layout_of(cls.__name__, fields, cls.__annotations__)
        class_id = register(layout)
        text: dict[str, Any] = globals()
        made: dict[str, Any] = {}
        exec(_accessors(layout), text, made)
        for name in fields:
            setattr(cls, name, property(made[f"get_{name}"], made.get(f"set_{name}")))

        def alloc(nr: int = 0) -> Any:
            on.allocated(layout.name, nr)
            return cls(alloc_cells(class_id, nr))

        def free(self: struct, nr: int = 0) -> None:
            clock[0] += ATOMIC
            free_cells(class_id, self.real, nr)

        cls.alloc = staticmethod(alloc)  # type: ignore[attr-defined]
        cls.free = free  # type: ignore[attr-defined]


def _accessors(layout: Layout) -> str:
    lines = []
    for slot in layout.slots:
        place = f"self + {slot.offset}"
        if slot.field.cell in ADDRESSES:
            lines.append(f"def get_{slot.name}(self): return {place}")
            continue
        lines += [
            f"def get_{slot.name}(self):",
            "    clock[0] += FIELD",
            f"    return mem[{place}]",
            f"def set_{slot.name}(self, value):",
            "    clock[0] += FIELD",
            f"    mem[{place}] = value",
        ]
    return "\n".join(lines)


READ_ONCE: Callable[..., Any] = getattr
WRITE_ONCE: Callable[..., None] = setattr


def atomic_or(view: Any, name: str, bits: int) -> None:
    """Set bits of a marked field."""
    clock[0] += ATOMIC
    _memory.atomic_or(view, name, bits)


# --- accesses to cells -----------------------------------------------------------------------------------


def load(address: int) -> int:
    clock[0] += LOAD
    return mem[address]


def store(address: int, value: int) -> None:
    clock[0] += STORE
    mem[address] = value
    if address in watched:
        on.changed(address)


def clear_unreachable(address: int) -> None:
    store(address, 0)


def load_range(address: int, nr: int) -> list[int]:
    clock[0] += LOAD * nr
    return mem[address : address + nr]


def store_range(address: int, values: list[int]) -> None:
    clock[0] += STORE * len(values)
    mem[address : address + len(values)] = values


def xchg(address: int, value: int) -> int:
    clock[0] += ATOMIC
    old = mem[address]
    mem[address] = value
    return old


def cmpxchg(address: int, old: int, new: int) -> int:
    clock[0] += ATOMIC
    was = mem[address]
    if was == old:
        mem[address] = new
    return was


def add(address: int, n: int) -> None:
    clock[0] += ATOMIC
    mem[address] += n
    if address in watched:
        on.changed(address)


def add_return(address: int, n: int) -> int:
    clock[0] += ATOMIC
    value = mem[address] + n
    mem[address] = value
    if address in watched:
        on.changed(address)
    return value


def inc_not_zero(address: int) -> bool:
    clock[0] += ATOMIC
    return _memory.inc_not_zero(address)


def inc_not_zero_limited(address: int, limit: int) -> bool:
    clock[0] += ATOMIC
    return _memory.inc_not_zero_limited(address, limit)


def forget(live: object) -> None:
    """The head of a retry loop: others must get on, or it would spin for ever at one time."""
    on.again()


# --- containers that kernel code looks into often ---------------------------------------------------------


def mtree_load(tree: int, index: int) -> int:
    clock[0] += TREE
    return _mtree_load(tree, index)


def mt_find(tree: int, index: int) -> int:
    clock[0] += TREE
    return _mt_find(tree, index)


def mt_prev(tree: int, index: int) -> int:
    clock[0] += TREE
    return _mt_prev(tree, index)


def mt_range(tree: int, start: int, end: int) -> list[int]:
    clock[0] += TREE
    return _mt_range(tree, start, end)


def mt_store(tree: int, start: int, end: int, value: int) -> None:
    clock[0] += TREE_STORE
    _mt_store(tree, start, end, value)


def mt_erase(tree: int, start: int, end: int) -> None:
    mt_store(tree, start, end, 0)


def xa_load(xa: int, index: int) -> int:
    clock[0] += TREE
    return _xa_load(xa, index)


def xa_store(xa: int, index: int, value: int) -> None:
    clock[0] += TREE_STORE
    _xa_store(xa, index, value)


def xa_range(xa: int, first: int, last: int) -> list[tuple[int, int]]:
    found = _xa_range(xa, first, last)
    clock[0] += TREE + LOAD * len(found)
    return found


# --- locks -----------------------------------------------------------------------------------------------


def lock_class(lock: int) -> str:
    """The name of a lock's class: struct.field."""
    return lock_classes[mem[lock]]


def spin_lock(lock: int) -> None:
    lockstat[mem[lock]] += 1
    clock[0] += LOCK
    on.lock(lock)


spin_lock_nested = spin_lock


def spin_trylock(lock: int) -> bool:
    lockstat[mem[lock]] += 1
    clock[0] += LOCK
    return on.trylock(lock)


def spin_unlock(lock: int) -> None:
    clock[0] += LOCK
    on.unlock(lock)


def down_read(sem: int) -> None:
    lockstat[mem[sem]] += 1
    clock[0] += LOCK
    on.down_read(sem)


def down_read_trylock(sem: int) -> bool:
    lockstat[mem[sem]] += 1
    clock[0] += LOCK
    return on.down_read_trylock(sem)


def up_read(sem: int) -> None:
    clock[0] += LOCK
    on.up_read(sem)


def down_write(sem: int) -> None:
    lockstat[mem[sem]] += 1
    clock[0] += LOCK
    on.down_write(sem)


down_write_nested = down_write


def down_write_trylock(sem: int) -> bool:
    lockstat[mem[sem]] += 1
    clock[0] += LOCK
    return on.down_write_trylock(sem)


def up_write(sem: int) -> None:
    clock[0] += LOCK
    on.up_write(sem)


def downgrade_write(sem: int) -> None:
    clock[0] += LOCK
    on.downgrade_write(sem)


def mutex_lock(lock: int) -> None:
    lockstat[mem[lock]] += 1
    clock[0] += LOCK
    on.mutex_lock(lock)


def mutex_trylock(lock: int) -> bool:
    lockstat[mem[lock]] += 1
    clock[0] += LOCK
    return on.mutex_trylock(lock)


def mutex_unlock(lock: int) -> None:
    clock[0] += LOCK
    on.mutex_unlock(lock)


def is_locked(lock: int) -> bool:
    """Not tracked here."""
    return True


def wait_until(address: int, value: int) -> None:
    if mem[address] != value:
        on.wait_until(address, value)


def read_seqcount_begin(address: int) -> int:
    clock[0] += LOAD
    return mem[address]


def read_seqcount_retry(address: int, seq: int) -> bool:
    clock[0] += LOAD
    return mem[address] != seq


def write_seqcount(address: int) -> None:
    clock[0] += STORE
    mem[address] += 1


# --- RCU, interrupts, TLBs -------------------------------------------------------------------------------


def rcu_read_lock() -> None:
    clock[0] += BARRIER
    on.rcu_read(1)


def rcu_read_unlock() -> None:
    clock[0] += BARRIER
    on.rcu_read(-1)


def call_rcu(func: Callable[[int], None], obj: int) -> None:
    stats[_RCU_CALLBACKS] += 1
    clock[0] += ATOMIC
    on.call_rcu(func, obj)


def synchronize_rcu() -> None:
    stats[_SYNCHRONIZE_RCU] += 1
    on.synchronize_rcu()


def local_irq_save() -> int:
    clock[0] += BARRIER
    on.irqs(1)
    return 0


def local_irq_restore(flags: int) -> None:
    clock[0] += BARRIER
    on.irqs(-1)


def instruction_begin(mm: int) -> None:
    """User code's instruction: the walk that follows takes its own time."""


def instruction_end() -> None:
    """It has made its accesses, or faults."""


def smp_call_function(nr: int) -> None:
    on.interrupt_all()


def tlb_invalidate(mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    on.interrupt(mm, start, end, freed_tables, others)


reset()
