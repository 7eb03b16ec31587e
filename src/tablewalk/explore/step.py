# SPDX-License-Identifier: GPL-2.0-only
"""One step of one thread on a packed state: operations that commute are joined, as the reduction says.

What is not known natively (an edge, the code of a value, who accesses what) ends the step with a miss, which Python
looks after.
"""

from __future__ import annotations

import numpy as np

from .endings import BROKEN, FUTURES, IDLE, JOINS, M1, MISS, NONE, OK, V_LIVELOCK, V_MESSAGE, V_ROUNDS, WAITS
from .execute import execute
from .held import at_end
from .jit import Bytes, Hashes, Ints, entry, jit
from .movers import ACQUIRES, BOTH, LEFT, NEITHER, RIGHT_MOVER, TRIED_ACQUIRE, UNKNOWN, UNSAFE, classify
from .packed import get_node, set_node, value
from .tables import ARGUMENT, ARGUMENT2, CELL, ERROR, EXIT, KIND, NR_SLOTS, NR_THREADS, OP, PER_THREAD, RCU_WAIT

MAX_STEPS = 5000


@entry
def step(A: Ints, st: Bytes, h: Hashes, m: Ints, t: int, reduction: int, log: Ints, one: bool) -> int:
    """Let thread `t` take a step on the state, and with FUTURES all threads what commutes with all that can come.

    `log` has the nodes passed from log[1] on, their number in log[0].
    """
    status = joined(A, st, h, m, t, reduction, log, one)
    if status == OK and reduction & FUTURES:
        return settle(A, st, h, m, reduction, log)
    return status


@jit
def joined(
    A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, t: int, reduction: int, log: np.ndarray, one: bool
) -> int:
    """Let thread `t` do an operation, and with a reduction what commutes around it."""
    phase = 0
    n = 0
    log[0] = 0
    while True:
        node = get_node(st, t)
        kind = A[OP + node * 8 + KIND]
        m[1] = node
        if node == 0 or kind == EXIT:
            return OK if n else IDLE
        if n == 0 and t >= A[NR_THREADS] and value(A, st, 1 + t * PER_THREAD + RCU_WAIT):
            return WAITS
        mover = NEITHER
        if reduction & JOINS != NONE or kind == CELL:
            mover = classify(A, st, m, node, t, reduction)
        if mover == UNKNOWN:
            return MISS
        if n and ends_before(mover, phase, reduction):
            return OK
        if mover == UNSAFE:
            return BROKEN
        if kind == ERROR:
            m[0] = V_ROUNDS if A[OP + node * 8 + ARGUMENT2] else V_MESSAGE
            m[2] = A[OP + node * 8 + ARGUMENT]
            return BROKEN
        status = advance(A, st, h, m, node, t, log)
        if status == WAITS:
            return OK if n else WAITS
        if status != OK:
            return status
        n += 1
        if one:
            return OK
        if mover in (NEITHER, LEFT, TRIED_ACQUIRE) or (mover == ACQUIRES and reduction & JOINS == M1):
            phase = 1
        if n > MAX_STEPS:
            m[0] = V_LIVELOCK
            m[1] = node
            return BROKEN


@jit
def ends_before(mover: int, phase: int, reduction: int) -> bool:
    """Whether a step ends before an operation that commutes so."""
    if reduction & JOINS == NONE:
        return True
    if mover in (BOTH, LEFT):
        return False
    if reduction & JOINS == M1 and mover in (ACQUIRES, TRIED_ACQUIRE, RIGHT_MOVER):
        return True
    return phase != 0


@jit
def settle(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, reduction: int, log: np.ndarray) -> int:
    """Let every thread do what can be told from nothing that others may yet do: no other order needs to be seen."""
    again = True
    while again:
        again = False
        for t in range(A[NR_THREADS] + A[NR_SLOTS]):
            while True:
                node = get_node(st, t)
                kind = A[OP + node * 8 + KIND]
                if node == 0 or kind in (EXIT, ERROR):
                    break
                if t >= A[NR_THREADS] and value(A, st, 1 + t * PER_THREAD + RCU_WAIT):
                    break
                m[1] = node
                mover = classify(A, st, m, node, t, reduction)
                if mover == UNKNOWN:
                    return MISS
                if mover != BOTH and mover != LEFT:
                    break
                status = advance(A, st, h, m, node, t, log)
                if status == WAITS:
                    break
                if status != OK:
                    return status
                again = True
                if log[0] > MAX_STEPS:
                    m[0] = V_LIVELOCK
                    m[1] = node
                    return BROKEN
    return OK


@jit
def advance(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, node: int, t: int, log: np.ndarray) -> int:
    """Do the operation at `node`, which thread `t` stands at, and look at its end if that was its last."""
    status = execute(A, st, h, m, node, t)
    if status != OK:
        return status
    log[0] += 1
    if log[0] < log.shape[0]:
        log[log[0]] = node
    if A[OP + get_node(st, t) * 8 + KIND] == EXIT:
        m[1] = node
        status = at_end(A, st, m, t)
        if status == OK and t >= A[NR_THREADS]:
            set_node(st, h, t, 0)
    return status
