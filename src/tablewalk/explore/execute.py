# SPDX-License-Identifier: GPL-2.0-only
"""The effect of an operation on a packed state, and the rules that it can break."""

from __future__ import annotations

import numpy as np

from .endings import (
    BROKEN,
    M_EDGE,
    M_FREER,
    MISS,
    OK,
    V_ATTACHED_TWICE,
    V_BAD_FREE,
    V_DEAD_TABLE,
    V_DETACHED,
    V_FREED_LOCKED,
    V_IPI_OFF,
    V_MESSAGE,
    V_NOT_EMPTY,
    V_POOL,
    V_RCU,
    V_SLOTS,
    V_UNORDERED,
    WAITS,
)
from .held import WRITER_SHIFT, may_sleep
from .jit import jit
from .packed import LEAF, PFN_SHIFT, PRESENT, PROTNONE, get_node, put, put_code, set_node, table_of, value
from .tables import (
    ADDRESS,
    ALLOC,
    ARGUMENT,
    ARGUMENT2,
    AT_REST,
    ATTACHED,
    BASE,
    BLOCKED,
    CALL_RCU,
    CELL,
    CELLS,
    CLASS_LOCKS,
    CLS,
    COL,
    DECODE,
    DETACHED,
    E_CODE,
    E_LINK,
    E_NEW,
    E_TO,
    EDGE,
    EMPTY_TABLES,
    ENTRY,
    FIRST_COLUMN,
    FLAGS,
    FREE,
    FREER,
    GHOST,
    HEAD,
    INSN,
    INSN_END,
    IPI_SNAPSHOT,
    IPI_WAIT,
    IRQ,
    IRQ_RESTORE,
    KIND,
    LOCKS,
    LOCKTYPE,
    MAP,
    MAX_CELLS,
    MAX_TODO,
    NR_LOCKS,
    NR_SLOTS,
    NR_THREADS,
    OP,
    PER_THREAD,
    POINTERS,
    POOLS,
    PRIVATE,
    PUBLISH,
    PUBLISHES,
    RCU,
    RCU_SNAPSHOT,
    RCU_UNLOCK,
    RCU_WAIT,
    RELEASE_WRITES,
    SHARED,
    SIZE,
    SLEEP,
    TABLE_CLASS,
    TABLE_ENTRY,
    TODO,
    UNPUBLISH,
    VIOLATION,
)


@jit
def publish(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, base: int) -> bool:
    """The object is nobody's own any more, nor what its fields point to."""
    n = 1
    m[TODO] = base
    while n:
        n -= 1
        b = A[CELLS + m[TODO + n] * 16 + BASE]
        if b == 0:
            continue
        owner = value(A, st, A[CELLS + b * 16 + GHOST])
        if owner < PRIVATE or owner >= DETACHED:
            continue
        if not put(A, st, h, m, A[CELLS + b * 16 + GHOST], SHARED):
            return False
        cls = A[CELLS + b * 16 + CLS]
        for i in range(A[POINTERS + cls * 32 + 0]):
            v = value(A, st, b + A[POINTERS + cls * 32 + 1 + i])
            if v > 0 and n < MAX_TODO - 1:
                m[TODO + n] = v
                n += 1
    return True


@jit
def reader_mask(A: np.ndarray, st: np.ndarray, t: int) -> int:
    """Threads, but for `t`, that a grace period beginning now waits for: in an RCU section or with interrupts off."""
    mask = 0
    for u in range(A[NR_THREADS] + A[NR_SLOTS]):
        if u != t and value(A, st, 1 + u * PER_THREAD + RCU) + value(A, st, 1 + u * PER_THREAD + IRQ) > 0:
            mask |= 1 << u
    return mask


@jit
def clear_waits(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, which: int, t: int) -> bool:
    """Nobody waits for `t` any more."""
    for u in range(A[NR_THREADS] + A[NR_SLOTS]):
        cell = 1 + u * PER_THREAD + which
        v = value(A, st, cell)
        if v >> t & 1 and not put(A, st, h, m, cell, v & ~(1 << t)):
            return False
    return True


@jit
def execute(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, node: int, t: int) -> int:
    """Do the operation; returns how it ended, with the thread at the next node if OK."""
    kind = A[OP + node * 8 + KIND]
    address = A[OP + node * 8 + ADDRESS]
    code = 0
    m[1] = node
    if kind == CELL:
        c = A[CELLS + address * 16 + COL]
        if c >= 0:
            code = st[A[FIRST_COLUMN] + c]
    elif kind == ALLOC:
        pool = A[OP + node * 8 + ARGUMENT]
        code = -1
        for i in range(A[POOLS + pool * 32 + 0]):
            if value(A, st, A[CELLS + (A[POOLS + pool * 32 + 1 + i]) * 16 + GHOST]) == 0:
                code = i
                break
        if code < 0:
            m[0] = V_POOL
            return BROKEN
        if not put(A, st, h, m, A[CELLS + (A[POOLS + pool * 32 + 1 + code]) * 16 + GHOST], PRIVATE + t):
            return MISS
    elif kind == CALL_RCU:
        code = -1
        for i in range(A[NR_SLOTS]):
            if get_node(st, A[NR_THREADS] + i) == 0:
                code = i
                break
        if code < 0:
            m[0] = V_SLOTS
            return BROKEN
    else:
        status = special(A, st, h, m, node, t)
        if status != OK:
            return status
    e = A[OP + node * 8 + HEAD]
    while e >= 0 and A[EDGE + e * 4 + E_CODE] != code:
        e = A[EDGE + e * 4 + E_LINK]
    if e < 0:
        m[0] = M_EDGE
        m[1] = node
        m[2] = code
        return MISS
    to = A[EDGE + e * 4 + E_TO]
    if to == BLOCKED:
        return WAITS
    if to <= VIOLATION:
        m[0] = V_MESSAGE
        m[2] = VIOLATION - to
        return BROKEN
    if kind == CELL:
        if A[OP + node * 8 + FLAGS] & ENTRY and A[EDGE + e * 4 + E_NEW] >= 0:
            status = entry_write(A, st, h, m, address, A[EDGE + e * 4 + E_NEW])
            if status != OK:
                return status
        if A[EDGE + e * 4 + E_NEW] >= 0:
            put_code(A, st, h, A[CELLS + address * 16 + COL], A[EDGE + e * 4 + E_NEW])
        if A[OP + node * 8 + FLAGS] & PUBLISHES:
            v = value(A, st, address)
            base = A[CELLS + address * 16 + BASE]
            if v > 0 and value(A, st, A[CELLS + base * 16 + GHOST]) != PRIVATE + t and not publish(A, st, h, m, v):
                return MISS
    elif kind == CALL_RCU:
        slot = A[NR_THREADS] + code
        set_node(st, h, slot, A[EDGE + e * 4 + E_NEW])
        if not put(A, st, h, m, 1 + slot * PER_THREAD + RCU_WAIT, reader_mask(A, st, -1)):
            return MISS
    set_node(st, h, t, to)
    return OK


@jit
def entry_write(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, address: int, code: int) -> int:
    """Before an entry changes: which tables that attaches and detaches, whether its own is still attached, and whether
    what it shows was published."""
    old = value(A, st, address)
    new = A[DECODE + A[CELLS + address * 16 + COL] * 256 + code]
    base = A[CELLS + address * 16 + BASE]
    m[2] = address
    if new != 0 and value(A, st, A[CELLS + base * 16 + GHOST]) == DETACHED:
        m[0] = V_DETACHED
        return BROKEN
    if new & (PRESENT | LEAF) == PRESENT and new >> PFN_SHIFT == 0:
        m[0] = V_DEAD_TABLE
        return BROKEN
    shown = new >> PFN_SHIFT if new & (PRESENT | PROTNONE) else 0
    base = A[CELLS + shown * 16 + BASE] if 0 < shown < MAX_CELLS else 0
    if base and PRIVATE <= value(A, st, A[CELLS + base * 16 + GHOST]) < DETACHED:
        m[0] = V_UNORDERED
        return BROKEN
    left = table_of(A, old)
    to = table_of(A, new)
    if left == to:
        return OK
    if left:
        ghost = A[CELLS + left * 16 + GHOST]
        if value(A, st, ghost) == ATTACHED and not put(A, st, h, m, ghost, DETACHED):
            return MISS
    if to:
        ghost = A[CELLS + to * 16 + GHOST]
        owner = value(A, st, ghost)
        if owner == 0 or owner == ATTACHED:
            m[0] = V_ATTACHED_TWICE if owner else V_DEAD_TABLE
            return BROKEN
        if not put(A, st, h, m, ghost, ATTACHED):
            return MISS
    return OK


@jit
def special(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, node: int, t: int) -> int:
    """Operations on more than one cell."""
    kind = A[OP + node * 8 + KIND]
    address = A[OP + node * 8 + ADDRESS]
    cell = 1 + t * PER_THREAD
    if kind == FREE:
        return free(A, st, h, m, address, t)
    if kind == PUBLISH:
        return OK if publish(A, st, h, m, address) else MISS
    if kind == UNPUBLISH:
        return OK if put(A, st, h, m, A[CELLS + (A[CELLS + address * 16 + BASE]) * 16 + GHOST], PRIVATE + t) else MISS
    if kind in (RCU_UNLOCK, IRQ_RESTORE):
        which = RCU if kind == RCU_UNLOCK else IRQ
        nest = value(A, st, cell + which)
        if nest == 0:
            m[0] = V_RCU
            return BROKEN
        if not put(A, st, h, m, cell + which, nest - 1):
            return MISS
        if kind == IRQ_RESTORE and nest == 1 and not clear_waits(A, st, h, m, IPI_WAIT, t):
            return MISS
        idle = value(A, st, cell + RCU) == 0 and value(A, st, cell + IRQ) == 0
        return OK if not idle or clear_waits(A, st, h, m, RCU_WAIT, t) else MISS
    if kind == INSN_END:
        return OK if put(A, st, h, m, cell + INSN, 0) and clear_waits(A, st, h, m, IPI_WAIT, t) else MISS
    if kind == RCU_SNAPSHOT:
        return OK if put(A, st, h, m, cell + RCU_WAIT, reader_mask(A, st, t)) else MISS
    if kind == IPI_SNAPSHOT:
        return ipi_snapshot(A, st, h, m, node, t)
    if kind == RELEASE_WRITES:
        for i in range(A[NR_LOCKS]):
            lock = A[LOCKS + i]
            if A[CELLS + lock * 16 + LOCKTYPE] == MAP:
                v = value(A, st, lock)
                if v >> WRITER_SHIFT == t + 1 and not put(A, st, h, m, lock, v & (1 << WRITER_SHIFT) - 1):
                    return MISS
        return OK
    if kind == SLEEP:
        return may_sleep(A, st, m, t)
    return OK


@jit
def free(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, base: int, t: int) -> int:
    """Free an object: nobody may hold a lock in it, and its cells are 0 from here on."""
    m[2] = base
    ghost = A[CELLS + base * 16 + GHOST]
    owner = value(A, st, ghost)
    if owner == 0:
        m[0] = V_BAD_FREE
        return BROKEN
    if owner != PRIVATE + t and A[CELLS + base * 16 + FREER] >> t & 1 == 0:
        m[0] = M_FREER
        m[1] = base
        m[2] = t
        return MISS
    cls = A[CELLS + base * 16 + CLS]
    for i in range(A[CLASS_LOCKS + cls * 16 + 0]):
        lock = base + A[CLASS_LOCKS + cls * 16 + 1 + i]
        v = value(A, st, lock)
        if v != 0 and not (A[CELLS + lock * 16 + LOCKTYPE] == MAP and v == t + 1 << WRITER_SHIFT):
            m[0] = V_FREED_LOCKED
            return BROKEN
    if cls == A[TABLE_CLASS] and A[EMPTY_TABLES]:
        for a in range(base + A[TABLE_ENTRY], base + A[CELLS + base * 16 + SIZE]):
            if value(A, st, a) != 0:
                m[0] = V_NOT_EMPTY
                m[2] = a
                return BROKEN
    for a in range(base, base + A[CELLS + base * 16 + SIZE]):
        if not put(A, st, h, m, a, A[CELLS + a * 16 + AT_REST]):
            return MISS
    return OK if put(A, st, h, m, ghost, 0) else MISS


@jit
def ipi_snapshot(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, node: int, t: int) -> int:
    """Note which CPUs cannot answer now: within an instruction, and for an interrupt with interrupts off."""
    cell = 1 + t * PER_THREAD
    mm = A[OP + node * 8 + ARGUMENT]
    interrupt = A[OP + node * 8 + ARGUMENT2] == 1
    if interrupt and value(A, st, cell + IRQ):
        m[0] = V_IPI_OFF
        return BROKEN
    mask = 0
    for u in range(A[NR_THREADS]):
        if u == t:
            continue
        insn = value(A, st, 1 + u * PER_THREAD + INSN)
        if insn and (mm == 0 or insn == mm):
            mask |= 1 << u
        if interrupt and value(A, st, 1 + u * PER_THREAD + IRQ):
            mask |= 1 << u
    return OK if put(A, st, h, m, cell + IPI_WAIT, mask) else MISS
