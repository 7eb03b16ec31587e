# SPDX-License-Identifier: GPL-2.0-only
"""What a thread holds: locks, guards, sections; and what it must not do, or end, with."""

from __future__ import annotations

import numpy as np

from .endings import BROKEN, OK, V_HELD, V_SLEEP
from .jit import jit
from .packed import value
from .tables import (
    CELLS,
    CLASS_LOCKS,
    CLS,
    COL,
    GUARDS,
    IRQ,
    LICENCE,
    LOCKS,
    LOCKTYPE,
    MUTEX,
    NR_LOCKS,
    PATHS,
    PER_THREAD,
    RCU,
    SPINLOCK,
)

WRITER_SHIFT = 40


@jit
def lock_held(A: np.ndarray, st: np.ndarray, lock: int, t: int, exclusive: bool) -> bool:
    """Whether thread `t` holds a lock, in any way or exclusively."""
    v = value(A, st, lock)
    kind = A[CELLS + lock * 16 + LOCKTYPE]
    if kind in (SPINLOCK, MUTEX):
        return v == t + 1
    if v == t + 1 << WRITER_SHIFT:
        return True
    if exclusive:
        return False
    return v >> WRITER_SHIFT == t + 1 or v >> t & 1 == 1


@jit
def path_held(A: np.ndarray, st: np.ndarray, path: int, base: int, t: int, any_mode: bool) -> bool:
    """Whether the lock that a guard's path leads to is held as the guard says."""
    n = A[PATHS + path * 8 + 1]
    for i in range(n - 1):
        base = value(A, st, base + A[PATHS + path * 8 + 2 + i])
        if base == 0:
            return False
    return lock_held(A, st, base + A[PATHS + path * 8 + 1 + n], t, A[PATHS + path * 8 + 0] == 1 and not any_mode)


@jit
def guard_held(A: np.ndarray, st: np.ndarray, guard: int, base: int, t: int) -> bool:
    """Whether a guard is held."""
    start = A[GUARDS + guard * 4 + 2]
    n = A[GUARDS + guard * 4 + 1]
    for i in range(n):
        held = path_held(A, st, start + i, base, t, False)
        if held and A[GUARDS + guard * 4 + 0] == 0:
            return True
        if not held and A[GUARDS + guard * 4 + 0] == 1:
            return False
    return A[GUARDS + guard * 4 + 0] == 1 or n == 0


@jit
def writers_excluded(A: np.ndarray, st: np.ndarray, guard: int, address: int, base: int, t: int) -> bool:
    """Whether a lock that `t` holds in any way shuts out whoever may write under the guard."""
    start = A[GUARDS + guard * 4 + 2]
    n = A[GUARDS + guard * 4 + 1]
    for i in range(n):
        if path_held(A, st, start + i, base, t, True):
            if A[GUARDS + guard * 4 + 0] == 1 or n == 1:
                return True
            if A[CELLS + address * 16 + LICENCE] & ~(1 << i) == 0:
                return True
    return False


@jit
def holds_lock_in(A: np.ndarray, st: np.ndarray, base: int, t: int) -> bool:
    """Whether `t` holds a lock that lies in the object, so that freeing it would be noticed."""
    cls = A[CELLS + base * 16 + CLS]
    for i in range(A[CLASS_LOCKS + cls * 16 + 0]):
        if lock_held(A, st, base + A[CLASS_LOCKS + cls * 16 + 1 + i], t, False):
            return True
    return False


@jit
def may_sleep(A: np.ndarray, st: np.ndarray, m: np.ndarray, t: int) -> int:
    """Sleeping is for those who hold no spinlock, are in no RCU section and have interrupts on."""
    cell = 1 + t * PER_THREAD
    if value(A, st, cell + RCU) or value(A, st, cell + IRQ):
        m[0] = V_SLEEP
        m[2] = 0
        return BROKEN
    for i in range(A[NR_LOCKS]):
        lock = A[LOCKS + i]
        spins = A[CELLS + lock * 16 + LOCKTYPE] == SPINLOCK and A[CELLS + lock * 16 + COL] >= 0
        if spins and value(A, st, lock) == t + 1:
            m[0] = V_SLEEP
            m[2] = lock
            return BROKEN
    return OK


@jit
def at_end(A: np.ndarray, st: np.ndarray, m: np.ndarray, t: int) -> int:
    """A thread that ends holds nothing."""
    cell = 1 + t * PER_THREAD
    m[2] = 0
    if value(A, st, cell + RCU) or value(A, st, cell + IRQ):
        m[0] = V_HELD
        return BROKEN
    for i in range(A[NR_LOCKS]):
        lock = A[LOCKS + i]
        if A[CELLS + lock * 16 + COL] >= 0 and lock_held(A, st, lock, t, False):
            m[0] = V_HELD
            m[2] = lock
            return BROKEN
    return OK
