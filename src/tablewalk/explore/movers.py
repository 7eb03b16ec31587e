# SPDX-License-Identifier: GPL-2.0-only
"""How operations commute with those of others: what may be joined to one step, and what is in the way."""

from __future__ import annotations

import numpy as np

from .endings import FUTURES, M_ACCESS, M_INDEX, M_LICENCE, V_FREED, V_GUARD
from .held import guard_held, holds_lock_in, path_held, writers_excluded
from .jit import jit
from .packed import get_node, table_of, value
from .tables import (
    ACQUIRE,
    ADD,
    ADDRESS,
    ALLOC,
    ARGUMENT,
    BASE,
    CELL,
    CELLS,
    COUNTED,
    ENTRY,
    ERROR,
    EXCLUDES,
    EXCLUSIVE,
    F_FREE,
    F_LATE,
    F_READ,
    F_TRY,
    F_WRITE,
    FLAGS,
    FREE,
    FREER,
    FUTURE,
    FUTURE_ROW,
    FUTURE_WORDS,
    GHOST,
    GUARD,
    GUARDS,
    INDEX,
    INSN,
    INSN_END,
    IPI_SNAPSHOT,
    IRQ,
    IRQ_RESTORE,
    KIND,
    LICENCE,
    LICENSED,
    NO_INDEX,
    NR_SLOTS,
    NR_THREADS,
    OP,
    OWN,
    PER_THREAD,
    POOLS,
    PRIVATE,
    PUBLISH,
    RCU,
    RCU_UNLOCK,
    RCU_WAIT,
    RD,
    READ,
    RELEASE,
    RELEASE_WRITES,
    RIGHT,
    SLEEP,
    STABLE,
    SUB,
    TOLERANT,
    TRIED,
    TRY,
    UNPUBLISH,
    WITHOUT_INDEX,
    WR,
    WRITE,
)

# whether others may yet do something, as `others_may` says
NO, MAYBE, ASK = range(3)

# what an operation is to the others, as `classify` says
BOTH, LEFT, RIGHT_MOVER, ACQUIRES, NEITHER, UNSAFE, UNKNOWN, TRIED_ACQUIRE = range(8)


@jit
def others_may(
    A: np.ndarray, st: np.ndarray, m: np.ndarray, address: int, t: int, ever: int, what: int, reduction: int
) -> int:
    """Whether threads but for `t` may yet do `what` (bits of F_*) to a cell; `ever`: those that do in the whole search.

    What the answer NO counts on is noted; ASK is a miss.  A callback that waits for `t` can do nothing before.
    """
    if ever & ~(1 << t) == 0:
        return NO
    if reduction & FUTURES == 0:
        return MAYBE
    k = A[CELLS + address * 16 + INDEX]
    if k == NO_INDEX:
        m[0] = M_INDEX
        m[1] = address
        return ASK
    if k == WITHOUT_INDEX:
        return MAYBE
    word = k >> 6
    bit = np.int64(1) << (k & 63)
    for note in range(2):
        for u in range(A[NR_THREADS] + A[NR_SLOTS]):
            node = get_node(st, u)
            if u == t or node == 0 or (u >= A[NR_THREADS] and value(A, st, 1 + u * PER_THREAD + RCU_WAIT) >> t & 1):
                continue
            for kind in range(5):
                if what >> kind & 1:
                    at = node * FUTURE_ROW + kind * FUTURE_WORDS + word
                    if note:
                        m[COUNTED + at] |= bit
                    elif A[FUTURE + at] & bit:
                        return MAYBE
    return NO


@jit
def others_may_free(A: np.ndarray, st: np.ndarray, m: np.ndarray, base: int, t: int, reduction: int) -> int:
    """The same of freeing an object; callbacks that come up while `t` keeps a grace period from ending wait for it."""
    what = 1 << F_FREE
    if value(A, st, 1 + t * PER_THREAD + RCU) + value(A, st, 1 + t * PER_THREAD + IRQ) == 0:
        what |= 1 << F_LATE
    ghost = A[CELLS + base * 16 + GHOST]
    return others_may(A, st, m, ghost, t, A[CELLS + base * 16 + FREER], what, reduction)


@jit
def others_may_detach(A: np.ndarray, st: np.ndarray, m: np.ndarray, address: int, base: int, t: int) -> int:
    """Whether a write to a table's entry can be told from one before or after what others may yet do: they detach the
    table, or use the one that the write detaches."""
    ghost = A[CELLS + base * 16 + GHOST]
    answer = others_may(A, st, m, ghost, t, -1, 1 << F_WRITE, FUTURES)
    left = table_of(A, value(A, st, address))
    if answer != NO or left == 0:
        return answer
    return others_may(A, st, m, A[CELLS + left * 16 + GHOST], t, -1, 1 << F_READ | 1 << F_WRITE, FUTURES)


@jit
def note_access(A: np.ndarray, m: np.ndarray, address: int, t: int, write: bool) -> bool:
    """Whether it is known that `t` accesses the cell; a miss if not."""
    known = A[CELLS + address * 16 + WR] if write else A[CELLS + address * 16 + RD]
    if known >> t & 1:
        return True
    m[0] = M_ACCESS
    m[1] = address
    m[2] = t
    m[3] = 1 if write else 0
    return False


@jit
def note_licence(A: np.ndarray, st: np.ndarray, m: np.ndarray, node: int, address: int, base: int, t: int) -> bool:
    """Whether it is known under which of its guard's locks the cell is written; a miss if not."""
    guard = A[OP + node * 8 + GUARD]
    for i in range(A[GUARDS + guard * 4 + 1]):
        if path_held(A, st, A[GUARDS + guard * 4 + 2] + i, base, t, False):
            if A[CELLS + address * 16 + LICENCE] >> i & 1:
                return True
            m[0] = M_LICENCE
            m[1] = address
            m[2] = i
            return False
    return True


@jit
def quiet_snapshot(A: np.ndarray, t: int) -> bool:
    """Whether no other thread ever disables interrupts or runs user instructions."""
    for u in range(A[NR_THREADS] + A[NR_SLOTS]):
        cell = 1 + u * PER_THREAD
        if u != t and (A[CELLS + (cell + IRQ) * 16 + WR] | A[CELLS + (cell + INSN) * 16 + WR]):
            return False
    return True


@jit
def classify(A: np.ndarray, st: np.ndarray, m: np.ndarray, node: int, t: int, reduction: int) -> int:
    """How the operation at `node` commutes with those of others; UNSAFE if it breaks a rule, UNKNOWN for a miss."""
    kind = A[OP + node * 8 + KIND]
    if kind == CELL:
        return classify_cell(A, st, m, node, t, reduction)
    if kind == ALLOC:
        pool = A[OP + node * 8 + ARGUMENT]
        for i in range(A[POOLS + pool * 32 + 0]):
            if A[CELLS + (A[POOLS + pool * 32 + 1 + i]) * 16 + FREER] & ~(1 << t):
                return NEITHER
        return BOTH
    if kind in (PUBLISH, UNPUBLISH, SLEEP, ERROR):
        return BOTH
    if kind in (RCU_UNLOCK, IRQ_RESTORE, INSN_END, RELEASE_WRITES):
        return LEFT
    if kind == FREE:
        base = A[OP + node * 8 + ADDRESS]
        return BOTH if value(A, st, A[CELLS + base * 16 + GHOST]) == PRIVATE + t else NEITHER
    if kind == IPI_SNAPSHOT and quiet_snapshot(A, t):
        return BOTH
    return NEITHER


@jit
def classify_cell(A: np.ndarray, st: np.ndarray, m: np.ndarray, node: int, t: int, reduction: int) -> int:
    """The same for an operation on a cell."""
    address = A[OP + node * 8 + ADDRESS]
    sub = A[OP + node * 8 + SUB]
    base = A[CELLS + address * 16 + BASE]
    if base:
        owner = value(A, st, A[CELLS + base * 16 + GHOST])
        flags = A[OP + node * 8 + FLAGS]
        if owner == 0 and flags & TOLERANT == 0:
            m[0] = V_FREED
            m[2] = address
            return UNSAFE
        if owner == PRIVATE + t and flags & STABLE == 0:
            return BOTH
        guard = A[OP + node * 8 + GUARD]
        if guard and owner != PRIVATE + t and not guard_held(A, st, guard, base, t):
            m[0] = V_GUARD
            m[2] = address
            return UNSAFE
    write = sub != READ
    if sub != OWN and not note_access(A, m, address, t, write):
        return UNKNOWN
    tried = A[CELLS + address * 16 + TRIED]
    if sub == TRY and tried >> t & 1 == 0:
        m[0] = M_ACCESS
        m[1] = address
        m[2] = t
        m[3] = 2
        return UNKNOWN
    if A[OP + node * 8 + FLAGS] & LICENSED and not note_licence(A, st, m, node, address, base, t):
        return UNKNOWN
    kind = commutes(A, st, m, node, address, base, t, reduction)
    if kind == UNKNOWN or base == 0 or not (kind == BOTH or (kind == LEFT and reduction & FUTURES)):
        return kind
    answer = NO
    if kind == LEFT or not holds_lock_in(A, st, base, t):  # a lock that is held when it is freed is noticed
        answer = others_may_free(A, st, m, base, t, reduction)
    if answer == NO and A[OP + node * 8 + FLAGS] & ENTRY and reduction & FUTURES:
        answer = others_may_detach(A, st, m, address, base, t)
    if answer == ASK:
        return UNKNOWN
    return kind if answer == NO else NEITHER


@jit
def commutes(
    A: np.ndarray, st: np.ndarray, m: np.ndarray, node: int, address: int, base: int, t: int, reduction: int
) -> int:
    """How an operation on a cell commutes with those of others on the same cell."""
    sub = A[OP + node * 8 + SUB]
    tried, written, read = (
        A[CELLS + address * 16 + TRIED], A[CELLS + address * 16 + WR], A[CELLS + address * 16 + RD]
    )  # fmt: skip
    if sub == OWN:
        return BOTH
    if sub == RIGHT:
        return RIGHT_MOVER
    if sub == RELEASE:  # who tries in between fails
        answer = others_may(A, st, m, address, t, tried, 1 << F_TRY, reduction)
        return UNKNOWN if answer == ASK else LEFT if answer == NO else NEITHER
    if sub == ADD:
        answer = others_may(A, st, m, address, t, read, 1 << F_READ, reduction)
    elif sub == READ:
        answer = others_may(A, st, m, address, t, written, 1 << F_WRITE, reduction)
    else:
        answer = others_may(A, st, m, address, t, written | read, 1 << F_READ | 1 << F_WRITE, reduction)
    if answer != MAYBE:
        return UNKNOWN if answer == ASK else BOTH
    if sub == READ:
        excludes = A[OP + node * 8 + EXCLUDES]
        if excludes and writers_excluded(A, st, excludes, address, base, t):
            return BOTH
    elif sub == WRITE:
        if A[OP + node * 8 + FLAGS] & EXCLUSIVE:
            return BOTH
    elif sub == ACQUIRE:
        return TRIED_ACQUIRE if tried & ~(1 << t) else ACQUIRES
    return NEITHER
