# SPDX-License-Identifier: GPL-2.0-only
"""Virtual time: the running thread's clock, what a primitive costs, and the scheduler that orders threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final, Protocol

from . import sequential as _seq

clock: Final[list[int]] = [0]  # the running thread's time in picoseconds
watched: Final[set[int]] = set()  # cells that somebody sleeps on (`wait_until`)


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


@dataclass(slots=True)
class Now:
    """Picoseconds that each primitive costs, and who orders threads."""

    field: int = 0  # a field of a struct, read or written
    load: int = 0  # a marked read
    store: int = 0  # a marked write
    atomic: int = 0  # an atomic operation on a cache line that this CPU has
    tree: int = 0  # a look-up in a tree
    tree_store: int = 0
    lock: int = 0  # an acquisition or release of a free lock
    barrier: int = 0  # rcu_read_lock, interrupts off, and their ends
    on: Scheduler = _ALONE


COSTS: Final = tuple(f.name for f in fields(Now) if f.name != "on")
now: Final = Now()


def attach(scheduler: Scheduler | None, costs: dict[str, int]) -> None:
    """Let `scheduler` order threads and primitives cost what `costs` says; None and {}: one thread, and no time."""
    now.on = scheduler or _ALONE
    for name in COSTS:
        setattr(now, name, costs.get(name, 0))
    watched.clear()


def reset() -> None:
    """An empty memory, nobody else there, time 0."""
    _seq.reset()
    _callbacks.clear()
    clock[0] = 0
    attach(None, {})


def quiescent() -> None:
    """Set-up only: grace periods end, callbacks run."""
    while _callbacks:
        func, obj = _callbacks.pop(0)
        func(obj)


reset()
