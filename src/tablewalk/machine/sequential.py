# SPDX-License-Identifier: GPL-2.0-only
"""The sequential driver: one thread of control, every primitive a direct operation on flat memory.

This is the fast path for replay.  Nothing can interleave, so a lock only counts how often it was taken, a
lockless read is a read, and a grace period ends when the model returns to user space (`quiescent`).  Guards,
use after free and sleeping in atomic context are looked at by the driver `checked`, which offers the same names.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final

from .layout import Cell, Layout
from .stat import NR_STATS, RCU_CALLBACKS, SYNCHRONIZE_RCU

# --- flat memory -----------------------------------------------------------------------------------------

mem: Final[list[int]] = []
FIRST_ADDRESS: Final = 64  # what lies below is NULL and its neighbourhood

layouts: Final[list[Layout]] = []
lock_classes: Final[list[str]] = ["none"]
lockstat: Final[list[int]] = [0]  # acquisitions by lock class
stats: Final[list[int]] = [0] * NR_STATS

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


def reset() -> None:
    """Forget everything: an empty memory, no container, all counts zero."""
    mem.clear()
    mem.extend([0] * FIRST_ADDRESS)
    for i in range(len(layouts)):
        _templates[i].clear()
        _pools[i].clear()
        live[i] = 0
    _trees.clear()
    _xarrays.clear()
    _intervals.clear()
    _vectors.clear()
    _callbacks.clear()
    for i in range(len(lockstat)):
        lockstat[i] = 0
    for i in range(NR_STATS):
        stats[i] = 0


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


def forget(live: object) -> None:
    """Of what this function has seen only `live` matters from here on (head of a retry loop)."""


# --- locks -----------------------------------------------------------------------------------------------


def spin_lock(lock: int) -> None:
    """Take a spinlock."""
    lockstat[mem[lock]] += 1


def spin_lock_nested(lock: int) -> None:
    """Take a spinlock inside another of its class (SINGLE_DEPTH_NESTING)."""
    lockstat[mem[lock]] += 1


def spin_trylock(lock: int) -> bool:
    """Take a spinlock if it is free; whether it was."""
    lockstat[mem[lock]] += 1
    return True


def spin_unlock(lock: int) -> None:
    """Release a spinlock."""


def down_read(sem: int) -> None:
    """Take a rwsem shared; may sleep."""
    lockstat[mem[sem]] += 1


def down_read_trylock(sem: int) -> bool:
    """Take a rwsem shared if no writer is there; whether it was done."""
    lockstat[mem[sem]] += 1
    return True


def up_read(sem: int) -> None:
    """Release a rwsem held shared."""


def down_write(sem: int) -> None:
    """Take a rwsem exclusively; may sleep."""
    lockstat[mem[sem]] += 1


def down_write_nested(sem: int) -> None:
    """Take a rwsem exclusively inside another of its class (SINGLE_DEPTH_NESTING); may sleep."""
    lockstat[mem[sem]] += 1


def down_write_trylock(sem: int) -> bool:
    """Take a rwsem exclusively if it is free; whether it was."""
    lockstat[mem[sem]] += 1
    return True


def up_write(sem: int) -> None:
    """Release a rwsem held exclusively."""


def downgrade_write(sem: int) -> None:
    """From exclusive to shared, without a gap."""


def mutex_lock(lock: int) -> None:
    """Take a sleeping lock; may sleep."""
    lockstat[mem[lock]] += 1


def mutex_trylock(lock: int) -> bool:
    """Take a sleeping lock if it is free; whether it was."""
    lockstat[mem[lock]] += 1
    return True


def mutex_unlock(lock: int) -> None:
    """Release a sleeping lock."""


def lock_map_acquire_read(lock: int) -> None:
    """A lock built by the model itself is now held shared (lockdep)."""
    lockstat[mem[lock]] += 1


def lock_map_acquire(lock: int) -> None:
    """A lock built by the model itself is now held exclusively (lockdep)."""
    lockstat[mem[lock]] += 1


def lock_map_tryacquire(lock: int) -> None:
    """The same where nothing could have made it wait: no lock order follows."""
    lockstat[mem[lock]] += 1


def lock_map_release(lock: int) -> None:
    """A lock built by the model itself is no longer held."""


def lock_map_release_writes() -> None:
    """All exclusively held model-built locks of this task end (vma_end_write_all)."""


def is_locked(lock: int) -> bool:
    """Whether the caller holds the lock in any way, for the model's own assertions; true where not tracked."""
    return True


def wait_until(address: int, value: int) -> None:
    """Sleep until the cell holds `value`.  Raises RuntimeError: nobody else can change it here."""
    if mem[address] != value:
        raise RuntimeError(f"would sleep for ever: cell {address} holds {mem[address]}, not {value}")


def might_sleep() -> None:
    """The caller may sleep here."""


# --- seqcounts -------------------------------------------------------------------------------------------


def read_seqcount_begin(address: int) -> int:
    """The sequence number, even while no writer is active."""
    return mem[address]


def read_seqcount_retry(address: int, seq: int) -> bool:
    """Whether a writer was active since `seq` was read."""
    return mem[address] != seq


def write_seqcount(address: int) -> None:
    """Begin or end a write section: the number goes odd, or even again."""
    mem[address] += 1


# --- RCU, interrupts -------------------------------------------------------------------------------------

_callbacks: Final[list[tuple[Callable[[int], None], int]]] = []


def rcu_read_lock() -> None:
    """Enter a read section (they nest)."""


def rcu_read_unlock() -> None:
    """Leave a read section."""


def call_rcu(func: Callable[[int], None], obj: int) -> None:
    """Call `func(obj)` after a grace period."""
    stats[RCU_CALLBACKS] += 1
    _callbacks.append((func, obj))


def synchronize_rcu() -> None:
    """Wait for a grace period; may sleep."""
    stats[SYNCHRONIZE_RCU] += 1


def quiescent() -> None:
    """The task is back in user space: grace periods end, callbacks run."""
    while _callbacks:
        func, obj = _callbacks.pop(0)
        func(obj)


def local_irq_save() -> int:
    """Disable interrupts on this CPU; returns the flags to restore."""
    return 0


def local_irq_restore(flags: int) -> None:
    """Restore what `local_irq_save` returned."""


def smp_call_function(nr: int) -> None:
    """Interrupt `nr` other CPUs and wait until each has taken it with interrupts enabled."""


def count(stat: int, n: int = 1) -> None:
    """Count an event (`stat.py`)."""
    stats[stat] += n


# --- maple tree: disjoint ranges of an address space, each with a value ---------------------------------


class _Tree:
    __slots__ = ("ends", "starts", "values")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.values: list[int] = []


_trees: Final[dict[int, _Tree]] = {}


def mt_init(tree: int) -> None:
    """An empty tree."""
    _trees[tree] = _Tree()


def mt_destroy(tree: int) -> None:
    """The tree is gone."""
    del _trees[tree]


def mtree_load(tree: int, index: int) -> int:
    """Value of the range that contains `index`, or 0; under RCU or the tree's lock."""
    t = _trees[tree]
    i = bisect_right(t.starts, index) - 1
    if i >= 0 and index < t.ends[i]:
        return t.values[i]
    return 0


def mt_find(tree: int, index: int) -> int:
    """Value of the first range that ends above `index`, or 0."""
    t = _trees[tree]
    i = bisect_right(t.ends, index)
    return t.values[i] if i < len(t.values) else 0


def mt_prev(tree: int, index: int) -> int:
    """Value of the last range that begins below `index`, or 0."""
    t = _trees[tree]
    i = bisect_left(t.starts, index) - 1
    return t.values[i] if i >= 0 else 0


def mt_range(tree: int, start: int, end: int) -> list[int]:
    """Values of the ranges that overlap [start, end), in order."""
    t = _trees[tree]
    return t.values[bisect_right(t.ends, start) : bisect_left(t.starts, end)]


def mt_values(tree: int) -> list[int]:
    """All values, in order."""
    return list(_trees[tree].values)


def mt_store(tree: int, start: int, end: int, value: int) -> None:
    """Map [start, end) to `value`, replacing what the tree had there; neighbours that overlap are cut."""
    t = _trees[tree]
    i = bisect_right(t.ends, start)
    j = bisect_left(t.starts, end)
    left: list[tuple[int, int, int]] = []
    right: list[tuple[int, int, int]] = []
    if i < j:
        if t.starts[i] < start:
            left = [(t.starts[i], start, t.values[i])]
        if t.ends[j - 1] > end:
            right = [(end, t.ends[j - 1], t.values[j - 1])]
    new = [*left, (start, end, value), *right] if value else [*left, *right]
    t.starts[i:j] = [n[0] for n in new]
    t.ends[i:j] = [n[1] for n in new]
    t.values[i:j] = [n[2] for n in new]


def mt_erase(tree: int, start: int, end: int) -> None:
    """Unmap [start, end)."""
    mt_store(tree, start, end, 0)


# --- xarray: values by index -----------------------------------------------------------------------------

_xarrays: Final[dict[int, dict[int, int]]] = {}


def xa_init(xa: int) -> None:
    """An empty array."""
    _xarrays[xa] = {}


def xa_destroy(xa: int) -> None:
    """The array is gone."""
    del _xarrays[xa]


def xa_load(xa: int, index: int) -> int:
    """The value at `index`, or 0."""
    return _xarrays[xa].get(index, 0)


def xa_store(xa: int, index: int, value: int) -> None:
    """Set the value at `index`; 0 erases it."""
    if value:
        _xarrays[xa][index] = value
    else:
        _xarrays[xa].pop(index, None)


def xa_range(xa: int, first: int, last: int) -> list[tuple[int, int]]:
    """(index, value) of all entries with first <= index <= last, in order."""
    array = _xarrays[xa]
    if last - first < len(array):
        return [(i, array[i]) for i in range(first, last + 1) if i in array]
    return sorted((i, v) for i, v in array.items() if first <= i <= last)


# --- interval tree: values by overlapping range ----------------------------------------------------------

_intervals: Final[dict[int, dict[int, tuple[int, int]]]] = {}


def interval_tree_init(root: int) -> None:
    """An empty tree."""
    _intervals[root] = {}


def interval_tree_destroy(root: int) -> None:
    """The tree is gone."""
    del _intervals[root]


def interval_tree_insert(root: int, first: int, last: int, value: int) -> None:
    """Add `value` with the range first..last (inclusive)."""
    _intervals[root][value] = (first, last)


def interval_tree_remove(root: int, value: int) -> None:
    """Remove `value`.  Raises KeyError if it is not there."""
    del _intervals[root][value]


def interval_tree_overlapping(root: int, first: int, last: int) -> list[int]:
    """Values whose range overlaps first..last, in order of insertion."""
    return [v for v, (low, high) in _intervals[root].items() if low <= last and high >= first]


def interval_tree_empty(root: int) -> bool:
    """Whether nothing is in the tree."""
    return not _intervals[root]


# --- vector: a growing array that one task fills -------------------------------------------------------

_vectors: Final[dict[int, list[int]]] = {}


def vec_init(vec: int) -> None:
    """An empty vector."""
    _vectors[vec] = []


def vec_push(vec: int, value: int) -> int:
    """Append; returns the new length."""
    v = _vectors[vec]
    v.append(value)
    return len(v)


def vec_take(vec: int) -> list[int]:
    """All values; the vector is empty afterwards."""
    values = _vectors[vec]
    _vectors[vec] = []
    return values


# --- TLBs ------------------------------------------------------------------------------------------------


def tlb_invalidate(mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    """Drop this CPU's translations of [start, end), with `freed_tables` also its paging-structure caches.

    `others`: 0 this CPU only, 1 every CPU by interrupt (returns when all have done it), 2 every CPU by broadcast.
    """


def tlb_lookup(mm: int, va: int, write: bool) -> int:
    """Content cell of the page that this CPU's cached translation of `va` gives, or 0."""
    return 0


def tlb_fill(mm: int, va: int, walk: tuple[tuple[int, int], ...], cell: int, writable: bool) -> None:
    """This CPU remembers the tables of its walk for `va`, (log2 of bytes covered, address) each, and the page."""


class locked:
    """`with locked(lock):` a spinlock held."""

    def __init__(self, lock: int) -> None:
        self.lock = lock

    def __enter__(self) -> None:
        spin_lock(self.lock)

    def __exit__(self, *exc: object) -> None:
        spin_unlock(self.lock)


def snapshot() -> list[int]:
    """A copy of the flat memory."""
    return list(mem)


def objects() -> Iterator[tuple[str, int]]:
    """(struct, live instances)."""
    return ((layout.name, n) for layout, n in zip(layouts, live, strict=True))


reset()
