# SPDX-License-Identifier: GPL-2.0-only
"""Whom the timed driver asks what others could make wait, interrupt or wake: the scheduler, and the threads' clock."""

from __future__ import annotations

from collections.abc import Callable
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

    def __init__(self) -> None:
        self.callbacks: list[tuple[Callable[[int], None], int]] = []

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
        self.callbacks.append((func, obj))


class Asked:
    """Who is asked: `now`."""

    __slots__ = ("alone", "lock_cost", "now")

    def __init__(self) -> None:
        self.alone = Alone()
        self.now: Scheduler = self.alone
        self.lock_cost = 0  # picoseconds of an acquisition or release of a free lock


on: Final = Asked()
