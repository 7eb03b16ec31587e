# SPDX-License-Identifier: GPL-2.0-only
"""The sequential driver: one thread of control, every primitive a direct operation on flat memory.

This is the fast path for replay.  Nothing can interleave, so a lock only counts how often it was taken, and a
grace period ends when the model returns to user space (`quiescent`).  Guards, use after free and sleeping in atomic
context are looked at by the driver `checked`, which offers the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .containers import reset_containers
from .memory import lockstat, mem, reset_memory
from .stat import NR_STATS, RCU_CALLBACKS, SYNCHRONIZE_RCU

stats: Final[list[int]] = [0] * NR_STATS


def reset() -> None:
    """Forget everything: an empty memory, no container, all counts zero."""
    reset_memory()
    reset_containers()
    _callbacks.clear()
    for i in range(NR_STATS):
        stats[i] = 0


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


def wait_unlocked(lock: int) -> None:
    """Sleep until a sleeping lock is free, without taking it; what it lies in may be freed meanwhile.

    Raises RuntimeError: nobody else can release it here.
    """
    raise RuntimeError(f"would sleep for ever: lock {lock} is held")


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


def kmap_local(pte: int) -> None:
    """Map the PTE table in high memory that a PTE lies in; the last that a task has mapped is the first to go."""


def kunmap_local(pte: int) -> None:
    """Unmap it."""


def local_irq_save() -> int:
    """Disable interrupts on this CPU; returns the flags to restore."""
    return 0


def local_irq_restore(flags: int) -> None:
    """Restore what `local_irq_save` returned."""


def instruction_begin(mm: int) -> None:
    """User code's next instruction, in address space `mm`: interrupts are taken between two of them only."""


def instruction_end() -> None:
    """It has made its accesses, or faults."""


def smp_call_function(nr: int) -> None:
    """Interrupt `nr` other CPUs and wait until each has taken it with interrupts enabled."""


def count(stat: int, n: int = 1) -> None:
    """Count an event (`stat.py`)."""
    stats[stat] += n


# --- TLBs ------------------------------------------------------------------------------------------------


def tlb_invalidate(mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
    """Drop this CPU's translations of [start, end), with `freed_tables` also its paging-structure caches.

    `others`: 0 this CPU only, 1 every CPU by interrupt (returns when all have done it), 2 every CPU by broadcast.
    """


def tlb_lookup(mm: int, va: int, write: bool) -> int:
    """Content cell of the page that this CPU's cached translation of `va` gives, or 0."""
    return 0


def tlb_fill(
    mm: int, va: int, walk: tuple[tuple[int, int], ...], cell: int, writable: bool, size: int
) -> None:
    """This CPU remembers the tables of its walk for `va`, (log2 of bytes covered, address) each, and the page.

    `size` is log2 of the bytes that the entry maps.
    """


reset()
