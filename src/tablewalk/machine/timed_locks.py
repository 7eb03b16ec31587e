# SPDX-License-Identifier: GPL-2.0-only
"""Locks that take time: whether one is free, and who gets it next, the scheduler says."""

from __future__ import annotations

from .memory import lock_classes, lockstat, mem
from .timing import clock, now


def lock_class(lock: int) -> str:
    """The name of a lock's class: struct.field."""
    return lock_classes[mem[lock]]


def spin_lock(lock: int) -> None:
    lockstat[mem[lock]] += 1
    clock[0] += now.lock
    now.on.lock(lock)


spin_lock_nested = spin_lock


def spin_trylock(lock: int) -> bool:
    lockstat[mem[lock]] += 1
    clock[0] += now.lock
    return now.on.trylock(lock)


def spin_unlock(lock: int) -> None:
    clock[0] += now.lock
    now.on.unlock(lock)


def down_read(sem: int) -> None:
    lockstat[mem[sem]] += 1
    clock[0] += now.lock
    now.on.down_read(sem)


def down_read_trylock(sem: int) -> bool:
    lockstat[mem[sem]] += 1
    clock[0] += now.lock
    return now.on.down_read_trylock(sem)


def up_read(sem: int) -> None:
    clock[0] += now.lock
    now.on.up_read(sem)


def down_write(sem: int) -> None:
    lockstat[mem[sem]] += 1
    clock[0] += now.lock
    now.on.down_write(sem)


down_write_nested = down_write


def down_write_trylock(sem: int) -> bool:
    lockstat[mem[sem]] += 1
    clock[0] += now.lock
    return now.on.down_write_trylock(sem)


def up_write(sem: int) -> None:
    clock[0] += now.lock
    now.on.up_write(sem)


def downgrade_write(sem: int) -> None:
    clock[0] += now.lock
    now.on.downgrade_write(sem)


def mutex_lock(lock: int) -> None:
    lockstat[mem[lock]] += 1
    clock[0] += now.lock
    now.on.mutex_lock(lock)


def mutex_trylock(lock: int) -> bool:
    lockstat[mem[lock]] += 1
    clock[0] += now.lock
    return now.on.mutex_trylock(lock)


def wait_unlocked(lock: int) -> None:
    now.on.mutex_lock(lock)
    now.on.mutex_unlock(lock)


def mutex_unlock(lock: int) -> None:
    clock[0] += now.lock
    now.on.mutex_unlock(lock)


def is_locked(lock: int) -> bool:
    """Not tracked here."""
    return True


def wait_until(address: int, value: int) -> None:
    if mem[address] != value:
        now.on.wait_until(address, value)


def read_seqcount_begin(address: int) -> int:
    clock[0] += now.load
    return mem[address]


def read_seqcount_retry(address: int, seq: int) -> bool:
    clock[0] += now.load
    return mem[address] != seq


def write_seqcount(address: int) -> None:
    clock[0] += now.store
    mem[address] += 1
