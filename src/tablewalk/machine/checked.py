# SPDX-License-Identifier: GPL-2.0-only
"""The sequential driver with its eyes open: guards, use after free, lock order, sleeping while atomic, stale TLBs.

One task runs at a time, but its accesses are judged as if others could run: a field is touched under its guard or
by a marked access, a lock is held when it is released, nothing sleeps under a spinlock or in an RCU section, and
nothing is held on return to user space.  An object is private, and needs no guard, until its address is stored.
"""

from __future__ import annotations

from typing import Any

from . import memory as _memory
from . import sequential as _seq
from . import tlb as _tlb
from .containers import *  # noqa: F403
from .layout import Cell, Field, Guard, Layout, Slot, layout_of
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
from .memory import alloc_cells, free_cells, layouts, lock_classes, lockstat, mem, register
from .memory import forget as forget
from .memory import objects as objects
from .memory import offset_of as offset_of
from .sequential import call_rcu as call_rcu
from .sequential import count as count
from .sequential import instruction_begin as instruction_begin
from .sequential import instruction_end as instruction_end
from .sequential import read_seqcount_begin as read_seqcount_begin
from .sequential import read_seqcount_retry as read_seqcount_retry
from .sequential import stats as stats
from .sequential import wait_unlocked as wait_unlocked
from .sequential import wait_until as wait_until
from .sequential import write_seqcount as write_seqcount
from .stat import *  # noqa: F403


class Violation(AssertionError):
    """The model broke a rule; `rule` is a short id, the message says what and where."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule


SHARED, EXCLUSIVE = 1, 2


class _Task:
    """What the running task holds."""

    def __init__(self) -> None:
        self.locks: dict[int, int] = {}  # address -> SHARED or EXCLUSIVE
        self.atomic: list[int] = []  # spinlocks among them
        self.rcu = 0
        self.mapped: list[int] = []  # tables in high memory
        self.irqs_off = 0
        self.cpu = 0


task = _Task()
_base: list[int] = []  # of each cell the object it belongs to, 0 where none lives
_class: dict[int, int] = {}  # live object -> class id
_freed: set[int] = set()
_private: set[int] = set()
_order: dict[int, set[int]] = {}  # lock class -> classes taken while it was held
_tlbs: _tlb.Tlbs = {}


def reset() -> None:
    """Forget everything, lock order included."""
    global task
    _seq.reset()
    task = _Task()
    _base.clear()
    _class.clear()
    _freed.clear()
    _private.clear()
    _order.clear()
    _tlbs.clear()


def run_on(cpu: int, mm: int) -> None:
    """What follows runs on `cpu`, in address space `mm` (0: none)."""
    task.cpu = cpu
    _tlb.switch_mm(_tlbs, cpu, mm)


def enter_lazy() -> None:
    """A kernel thread runs on this CPU from here on; the address space stays loaded."""
    _tlb.enter_lazy(_tlbs, task.cpu)


def _name(address: int) -> str:
    base = _base[address] if address < len(_base) else 0
    if base not in _class:
        return f"cell {address}"
    layout = layouts[_class[base]]
    for slot in reversed(layout.slots):
        if slot.offset <= address - base:
            if slot.field.cell is Cell.ENTRIES:
                return f"{layout.name}@{base}.{slot.name}[{(address - base - slot.offset) // layout.each}]"
            return f"{layout.name}@{base}.{slot.name}"
    return f"{layout.name}@{base}"


def _touch(address: int) -> int:
    """The object that a cell belongs to.  Raises Violation if none lives there."""
    base = _base[address] if 0 <= address < len(_base) else 0
    if base == 0 or base in _freed:
        kind = "use-after-free" if base in _freed else "wild-access"
        raise Violation(kind, f"{_name(address)} is not allocated")
    return base


def _held(base: int, path: str) -> bool:
    """Whether the lock at `path` from an object is held, exclusively if it says `:w`."""
    path, _, mode = path.partition(":")
    *fields, lock = path.split(".")
    for name in fields:
        base = mem[base + _slot(base, name).offset]
        if base == 0:
            return False
    held = task.locks.get(base + _slot(base, lock).offset, 0)
    return held == EXCLUSIVE if mode else held != 0


def _slot(base: int, name: str) -> Slot:
    return next(s for s in layouts[_class[base]].slots if s.name == name)


def _guarded(base: int, guard: Guard) -> bool:
    if not guard.locks or base in _private:
        return True
    return (any if guard.any else all)(_held(base, lock) for lock in guard.locks)


def _check(address: int, guard: Guard, access: str) -> None:
    base = _touch(address)
    if not _guarded(base, guard):
        held = ", ".join(_name(a) for a in task.locks) or "nothing"
        raise Violation("guard", f"{access} of {_name(address)} needs {guard}; held: {held}")


class struct(int):
    """The view of an instance whose accessors check."""

    __slots__ = ()
    addr = int.real

    def __init_subclass__(cls) -> None:
        fields = {k: v for k, v in vars(cls).items() if isinstance(v, Field)}
        layout = layout_of(cls.__name__, fields, cls.__annotations__)
        class_id = register(layout)
        for slot in layout.slots:
            setattr(cls, slot.name, _accessor(slot))

        def alloc(nr: int = 0) -> Any:
            return cls(_alloc(layout, class_id, nr))

        def free(self: struct, nr: int = 0) -> None:
            _free(class_id, self.real, nr)

        cls.alloc = staticmethod(alloc)  # type: ignore[attr-defined]
        cls.free = free  # type: ignore[attr-defined]


def _accessor(slot: Slot) -> property:
    f, offset = slot.field, slot.offset
    if f.cell in (Cell.LOCK, Cell.ATOMIC, Cell.COUNTER, Cell.ENTRIES, Cell.CONTAINER):
        return property(lambda self: self.real + offset)
    read = f.read if f.cell is not Cell.MARKED or f.read.locks else Guard(tuple(
        lock.removesuffix(":w") for lock in f.write.locks), any=True)

    def get(self: int) -> int:
        _check(self.real + offset, read, "read")
        return mem[self.real + offset]

    def put(self: int, value: int) -> None:
        _check(self.real + offset, f.write, "write")
        _publish_pointer(self.real, slot, value)
        mem[self.real + offset] = value

    return property(get, put)


def _publish_pointer(base: int, slot: Slot, value: int) -> None:
    """A pointer stored into a published object publishes what it points to."""
    if slot.points_to and value and base not in _private:
        publish(int(value))


def publish(address: int) -> None:
    """The object, and what its fields point to, is no longer private."""
    if address not in _private:
        return
    _private.discard(address)
    for slot in layouts[_class[address]].slots:
        if slot.points_to:
            publish(int(mem[address + slot.offset]))


def unpublish(address: int) -> None:
    """Nobody else can reach the object any more."""
    _private.add(_touch(address))


def lives(address: int) -> bool:
    """Whether the object has not been freed."""
    return address not in _freed


def atomic_or(view: Any, name: str, bits: int) -> None:
    """Set bits of a marked field."""
    mem[view.real + _slot(_touch(view.real), name).offset] |= bits


def _alloc(layout: Layout, class_id: int, nr: int) -> int:
    address = alloc_cells(class_id, nr)
    size = layout.cells(nr)
    if address + size > len(_base):
        _base.extend([0] * (address + size - len(_base)))
    _base[address : address + size] = [address] * size
    _class[address] = class_id
    _freed.discard(address)
    _private.add(address)
    return address


def _free(class_id: int, address: int, nr: int) -> None:
    _touch(address)
    if _class[address] != class_id:
        raise Violation("bad-free", f"{_name(address)} freed as {layouts[class_id].name}")
    for lock in [a for a in task.locks if _base[a] == address]:
        if not _is_map(lock):
            raise Violation("bad-free", f"{_name(lock)} is held in what is freed")
        del task.locks[lock]
    if layouts[class_id].name == "mm_struct":
        for cpu, state in _tlbs.items():
            if state.mm == address:
                _tlb.switch_mm(_tlbs, cpu, 0)
        _tlb.drop_mm(_tlbs, address)
    for holder in _tlb.holders(_tlbs, address, address + layouts[class_id].cells(nr) - 1):
        raise Violation("stale-tlb", f"{_name(address)} is freed while {holder}")
    _freed.add(address)
    _private.discard(address)
    free_cells(class_id, address, nr)


# --- accesses --------------------------------------------------------------------------------------------


def READ_ONCE(view: Any, name: str) -> Any:
    """Marked read of a field."""
    address = view.real + _slot(_touch(view.real), name).offset
    return mem[address]


def WRITE_ONCE(view: Any, name: str, value: Any) -> None:
    """Marked write of a field, under its write guard."""
    base = _touch(view.real)
    slot = _slot(base, name)
    _check(view.real + slot.offset, slot.field.write, "write")
    _publish_pointer(base, slot, value)
    mem[view.real + slot.offset] = value


def _entry_write(address: int) -> None:
    base = _touch(address)
    last = layouts[_class[base]].slots[-1]
    if last.field.cell is Cell.ENTRIES and address >= base + last.offset:
        _check(address, last.field.write, "write")


def clear_unreachable(address: int) -> None:
    _touch(address)
    mem[address] = 0


def load(address: int) -> int:
    _touch(address)
    return mem[address]


def store(address: int, value: int) -> None:
    _entry_write(address)
    mem[address] = value


def load_range(address: int, nr: int) -> list[int]:
    _touch(address)
    _touch(address + nr - 1)
    return mem[address : address + nr]


def store_range(address: int, values: list[int]) -> None:
    _entry_write(address)
    _touch(address + len(values) - 1)
    mem[address : address + len(values)] = values


def xchg(address: int, value: int) -> int:
    _entry_write(address)
    return _memory.xchg(address, value)


def cmpxchg(address: int, old: int, new: int) -> int:
    _entry_write(address)
    return _memory.cmpxchg(address, old, new)


def add(address: int, n: int) -> None:
    _touch(address)
    mem[address] += n


def add_return(address: int, n: int) -> int:
    _touch(address)
    return _memory.add_return(address, n)


def inc_not_zero(address: int) -> bool:
    _touch(address)
    return _memory.inc_not_zero(address)


def inc_not_zero_limited(address: int, limit: int) -> bool:
    _touch(address)
    return _memory.inc_not_zero_limited(address, limit)


# --- locks -----------------------------------------------------------------------------------------------


def _acquire(lock: int, mode: int, nested: bool = False, ordered: bool = True) -> None:
    _touch(lock)
    if lock in task.locks:
        raise Violation("deadlock", f"{_name(lock)} is taken again by its holder")
    this = mem[lock]
    for other in task.locks:
        kind = mem[other]
        if kind == this and not nested and ordered:
            raise Violation("lock-order", f"{_name(lock)} inside {_name(other)} of the same class, not as nested")
        if ordered and kind != this:
            if _reaches(this, kind):
                order = f"{lock_classes[kind]} > {lock_classes[this]}"
                raise Violation("lock-order", f"{order}; the inverse was seen before")
            _order.setdefault(kind, set()).add(this)
    task.locks[lock] = mode
    lockstat[this] += 1


def _reaches(start: int, goal: int) -> bool:
    seen, todo = {start}, [start]
    while todo:
        for after in _order.get(todo.pop(), ()):
            if after == goal:
                return True
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return False


def _release(lock: int, mode: int) -> None:
    _touch(lock)
    if task.locks.get(lock) != mode:
        raise Violation("unlock", f"{_name(lock)} is not held that way")
    del task.locks[lock]


def might_sleep() -> None:
    """Raises Violation in atomic context."""
    if task.atomic or task.rcu or task.irqs_off:
        why = [_name(a) for a in task.atomic]
        why += ["an RCU section"] * bool(task.rcu) + ["interrupts off"] * bool(task.irqs_off)
        raise Violation("sleep", f"may sleep while atomic: {', '.join(why)}")


def spin_lock(lock: int) -> None:
    _acquire(lock, EXCLUSIVE)
    task.atomic.append(lock)


def spin_lock_nested(lock: int) -> None:
    _acquire(lock, EXCLUSIVE, nested=True)
    task.atomic.append(lock)


def spin_trylock(lock: int) -> bool:
    _acquire(lock, EXCLUSIVE, ordered=False)
    task.atomic.append(lock)
    return True


def spin_unlock(lock: int) -> None:
    _release(lock, EXCLUSIVE)
    task.atomic.remove(lock)


def down_read(sem: int) -> None:
    might_sleep()
    _acquire(sem, SHARED)


def down_read_trylock(sem: int) -> bool:
    _acquire(sem, SHARED, ordered=False)
    return True


def up_read(sem: int) -> None:
    _release(sem, SHARED)


def down_write(sem: int) -> None:
    might_sleep()
    _acquire(sem, EXCLUSIVE)


def down_write_nested(sem: int) -> None:
    might_sleep()
    _acquire(sem, EXCLUSIVE, nested=True)


def down_write_trylock(sem: int) -> bool:
    _acquire(sem, EXCLUSIVE, ordered=False)
    return True


def up_write(sem: int) -> None:
    _release(sem, EXCLUSIVE)


def downgrade_write(sem: int) -> None:
    _release(sem, EXCLUSIVE)
    task.locks[sem] = SHARED


def mutex_lock(lock: int) -> None:
    might_sleep()
    _acquire(lock, EXCLUSIVE, nested=True)


def mutex_trylock(lock: int) -> bool:
    _acquire(lock, EXCLUSIVE, ordered=False)
    return True


def mutex_unlock(lock: int) -> None:
    _release(lock, EXCLUSIVE)


def lock_map_acquire_read(lock: int) -> None:
    _acquire(lock, SHARED, ordered=False)


def lock_map_acquire(lock: int) -> None:
    might_sleep()
    _acquire(lock, EXCLUSIVE, nested=True)


def lock_map_tryacquire(lock: int) -> None:
    _acquire(lock, EXCLUSIVE, ordered=False)


def lock_map_release(lock: int) -> None:
    _release(lock, task.locks.get(lock, 0))


def lock_map_release_writes() -> None:
    for lock in [a for a, mode in task.locks.items() if mode == EXCLUSIVE and _is_map(a)]:
        del task.locks[lock]


def _is_map(lock: int) -> bool:
    slots = layouts[_class[_base[lock]]].slots
    return any(s.offset == lock - _base[lock] and s.field.lock == "lockdep_map" for s in slots)


def is_locked(lock: int) -> bool:
    return lock in task.locks


# --- RCU, interrupts -------------------------------------------------------------------------------------


def rcu_read_lock() -> None:
    task.rcu += 1


def rcu_read_unlock() -> None:
    if task.rcu == 0:
        raise Violation("rcu", "rcu_read_unlock without rcu_read_lock")
    task.rcu -= 1


def kmap_local(pte: int) -> None:
    """A table in high memory is mapped."""
    task.mapped.append(_touch(pte))


def kunmap_local(pte: int) -> None:
    """Raises Violation unless it was mapped last."""
    if not task.mapped or task.mapped[-1] != _base[pte]:
        raise Violation("kunmap", f"{_name(pte)} is not in the table that was mapped last")
    task.mapped.pop()


def synchronize_rcu() -> None:
    might_sleep()
    _seq.synchronize_rcu()


def local_irq_save() -> int:
    task.irqs_off += 1
    return 1


def local_irq_restore(flags: int) -> None:
    task.irqs_off -= 1


def smp_call_function(nr: int) -> None:
    if task.irqs_off:
        raise Violation("ipi", "waiting for other CPUs with interrupts off")


def tlb_lookup(mm: int, va: int, write: bool) -> int:
    """What this CPU's TLB holds for `va`, if it runs in `mm`."""
    return _tlb.translate(_tlbs, task.cpu, mm, va, write)


def tlb_fill(
    mm: int, va: int, walk: tuple[tuple[int, int], ...], cell: int, writable: bool, size: int
) -> None:
    """Remember the translation, if this CPU runs in `mm`."""
    state = _tlbs.get(task.cpu)
    if state is not None and state.mm == mm:
        for other in _tlb.of_other_size(_tlbs, task.cpu, mm, va, size):
            raise Violation("two-sizes", f"CPU {task.cpu} translates {va:#x} by 2^{size} bytes, and {other}")
        _tlb.fill(_tlbs, task.cpu, mm, va, walk, cell, writable=writable, size=size)


def tlb_invalidate(mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    """Drop translations; waiting for an interrupt's answer with interrupts off would deadlock two CPUs that flush."""
    if others == _tlb.IPI and task.irqs_off:
        raise Violation("ipi", "a flush of other CPUs with interrupts off")
    _tlb.invalidate(_tlbs, task.cpu, mm, start, end, freed_tables, others)


def quiescent() -> None:
    """Back in user space: nothing may be held."""
    if task.locks or task.rcu or task.mapped or task.irqs_off:
        held = [_name(a) for a in (*task.locks, *task.mapped)] + ["an RCU section"] * bool(task.rcu)
        raise Violation("held", f"returned to user space holding {', '.join(held)}")
    _seq.quiescent()


reset()
