# SPDX-License-Identifier: GPL-2.0-only
"""The locks of the timed driver: what each acquisition and release costs, and what the scheduler is asked then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .memory import lock_classes, lockstat, mem
from .timed_scheduler import clock, on


def lock_class(lock: int) -> str:
    """The name of a lock's class: struct.field."""
    return lock_classes[mem[lock]]


def _acquires(name: str) -> Callable[[int], Any]:
    def acquire(lock: int) -> Any:
        lockstat[mem[lock]] += 1
        clock[0] += on.lock_cost
        return getattr(on.now, name)(lock)

    return acquire


def _releases(name: str) -> Callable[[int], None]:
    def release(lock: int) -> None:
        clock[0] += on.lock_cost
        getattr(on.now, name)(lock)

    return release


spin_lock: Final = _acquires("lock")
spin_lock_nested: Final = spin_lock
spin_trylock: Final = _acquires("trylock")
spin_unlock: Final = _releases("unlock")
down_read: Final = _acquires("down_read")
down_read_trylock: Final = _acquires("down_read_trylock")
up_read: Final = _releases("up_read")
down_write: Final = _acquires("down_write")
down_write_nested: Final = down_write
down_write_trylock: Final = _acquires("down_write_trylock")
up_write: Final = _releases("up_write")
downgrade_write: Final = _releases("downgrade_write")
mutex_lock: Final = _acquires("mutex_lock")
mutex_trylock: Final = _acquires("mutex_trylock")
mutex_unlock: Final = _releases("mutex_unlock")


def is_locked(lock: int) -> bool:
    """Not tracked here."""
    return True
