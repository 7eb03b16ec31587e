# SPDX-License-Identifier: GPL-2.0-only
"""The driver under which the model takes time: each primitive costs what a machine's profile says.

A thread of control runs on `mem` at once and moves its clock on.  What others could make wait, interrupt or wake is
asked of the scheduler: by default `timing.Alone`, for whom nobody else is there and nothing takes time, which is how a
workload sets up; or one of `tablewalk.simulate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import memory as _memory
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
from .memory import alloc_cells, free_cells, mem, register
from .memory import lives as lives
from .memory import lock_classes as lock_classes
from .memory import lockstat as lockstat
from .memory import objects as objects
from .memory import offset_of as offset_of
from .memory import publish as publish
from .memory import unpublish as unpublish
from .sequential import count as count
from .sequential import kmap_local as kmap_local
from .sequential import kunmap_local as kunmap_local
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
from .timed_locks import down_read as down_read
from .timed_locks import down_read_trylock as down_read_trylock
from .timed_locks import down_write as down_write
from .timed_locks import down_write_nested as down_write_nested
from .timed_locks import down_write_trylock as down_write_trylock
from .timed_locks import downgrade_write as downgrade_write
from .timed_locks import is_locked as is_locked
from .timed_locks import lock_class as lock_class
from .timed_locks import mutex_lock as mutex_lock
from .timed_locks import mutex_trylock as mutex_trylock
from .timed_locks import mutex_unlock as mutex_unlock
from .timed_locks import read_seqcount_begin as read_seqcount_begin
from .timed_locks import read_seqcount_retry as read_seqcount_retry
from .timed_locks import spin_lock as spin_lock
from .timed_locks import spin_lock_nested as spin_lock_nested
from .timed_locks import spin_trylock as spin_trylock
from .timed_locks import spin_unlock as spin_unlock
from .timed_locks import up_read as up_read
from .timed_locks import up_write as up_write
from .timed_locks import wait_unlocked as wait_unlocked
from .timed_locks import wait_until as wait_until
from .timed_locks import write_seqcount as write_seqcount
from .timing import COSTS as COSTS
from .timing import attach as attach
from .timing import clock as clock
from .timing import now as now
from .timing import quiescent as quiescent
from .timing import reset as reset
from .timing import watched as watched

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
            now.on.allocated(layout.name, nr)
            return cls(alloc_cells(class_id, nr))

        def free(self: struct, nr: int = 0) -> None:
            clock[0] += now.atomic
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
            "    clock[0] += now.field",
            f"    return mem[{place}]",
            f"def set_{slot.name}(self, value):",
            "    clock[0] += now.field",
            f"    mem[{place}] = value",
        ]
    return "\n".join(lines)


READ_ONCE: Callable[..., Any] = getattr
WRITE_ONCE: Callable[..., None] = setattr


def atomic_or(view: Any, name: str, bits: int) -> None:
    """Set bits of a marked field."""
    clock[0] += now.atomic
    _memory.atomic_or(view, name, bits)


# --- accesses to cells -----------------------------------------------------------------------------------


def load(address: int) -> int:
    clock[0] += now.load
    return mem[address]


def store(address: int, value: int) -> None:
    clock[0] += now.store
    mem[address] = value
    if address in watched:
        now.on.changed(address)


def clear_unreachable(address: int) -> None:
    store(address, 0)


def load_range(address: int, nr: int) -> list[int]:
    clock[0] += now.load * nr
    return mem[address : address + nr]


def store_range(address: int, values: list[int]) -> None:
    clock[0] += now.store * len(values)
    mem[address : address + len(values)] = values


def xchg(address: int, value: int) -> int:
    clock[0] += now.atomic
    old = mem[address]
    mem[address] = value
    return old


def cmpxchg(address: int, old: int, new: int) -> int:
    clock[0] += now.atomic
    was = mem[address]
    if was == old:
        mem[address] = new
    return was


def add(address: int, n: int) -> None:
    clock[0] += now.atomic
    mem[address] += n
    if address in watched:
        now.on.changed(address)


def add_return(address: int, n: int) -> int:
    clock[0] += now.atomic
    value = mem[address] + n
    mem[address] = value
    if address in watched:
        now.on.changed(address)
    return value


def inc_not_zero(address: int) -> bool:
    clock[0] += now.atomic
    return _memory.inc_not_zero(address)


def inc_not_zero_limited(address: int, limit: int) -> bool:
    clock[0] += now.atomic
    return _memory.inc_not_zero_limited(address, limit)


def forget(live: object) -> None:
    """The head of a retry loop: others must get on, or it would spin for ever at one time."""
    now.on.again()


# --- containers that kernel code looks into often ---------------------------------------------------------


def mtree_load(tree: int, index: int) -> int:
    clock[0] += now.tree
    return _mtree_load(tree, index)


def mt_find(tree: int, index: int) -> int:
    clock[0] += now.tree
    return _mt_find(tree, index)


def mt_prev(tree: int, index: int) -> int:
    clock[0] += now.tree
    return _mt_prev(tree, index)


def mt_range(tree: int, start: int, end: int) -> list[int]:
    clock[0] += now.tree
    return _mt_range(tree, start, end)


def mt_store(tree: int, start: int, end: int, value: int) -> None:
    clock[0] += now.tree_store
    _mt_store(tree, start, end, value)


def mt_erase(tree: int, start: int, end: int) -> None:
    mt_store(tree, start, end, 0)


def xa_load(xa: int, index: int) -> int:
    clock[0] += now.tree
    return _xa_load(xa, index)


def xa_store(xa: int, index: int, value: int) -> None:
    clock[0] += now.tree_store
    _xa_store(xa, index, value)


def xa_range(xa: int, first: int, last: int) -> list[tuple[int, int]]:
    found = _xa_range(xa, first, last)
    clock[0] += now.tree + now.load * len(found)
    return found


# --- RCU, interrupts, TLBs -------------------------------------------------------------------------------


def rcu_read_lock() -> None:
    clock[0] += now.barrier
    now.on.rcu_read(1)


def rcu_read_unlock() -> None:
    clock[0] += now.barrier
    now.on.rcu_read(-1)


def call_rcu(func: Callable[[int], None], obj: int) -> None:
    stats[_RCU_CALLBACKS] += 1
    clock[0] += now.atomic
    now.on.call_rcu(func, obj)


def synchronize_rcu() -> None:
    stats[_SYNCHRONIZE_RCU] += 1
    now.on.synchronize_rcu()


def local_irq_save() -> int:
    clock[0] += now.barrier
    now.on.irqs(1)
    return 0


def local_irq_restore(flags: int) -> None:
    clock[0] += now.barrier
    now.on.irqs(-1)


def instruction_begin(mm: int) -> None:
    """User code's instruction: the walk that follows takes its own time."""


def instruction_end() -> None:
    """It has made its accesses, or faults."""


def smp_call_function(nr: int) -> None:
    now.on.interrupt_all()


def tlb_invalidate(mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    now.on.interrupt(mm, start, end, freed_tables, others)
