# SPDX-License-Identifier: GPL-2.0-only
"""The native loop over states, breadth first or depth first."""

from __future__ import annotations

import numpy as np

from .endings import BROKEN, IDLE, MISS, OK, V_POOL, V_ROUNDS, V_SLOTS
from .jit import ByteBlocks, ByteRows, HashBlocks, Hashes, HashRows, IntRows, Ints, entry, jit
from .packed import copy, get_node, least, note_turn
from .step import step
from .tables import (
    ACTOR_BITS,
    BAD,
    EXIT,
    FIRST_COLUMN,
    KIND,
    LINK_BITS,
    LOG,
    NR_BAD,
    NR_OPERATIONS,
    NR_SLOTS,
    NR_STEPS,
    NR_THREADS,
    NR_WAITING,
    OP,
    WHO,
)
from .visited import insert

V_DEADLOCK, V_END = 100, 101  # the latter: something is wrong when all threads have ended
DONE, MISSED, FOUND, GROW, PAUSED = range(5)
# columns of `io`; VIOLATIONS: rules broken that are no bounds; CUT: steps left out as beyond the bound on switches
HEAD, TAIL, STATES, TRANSITIONS, OPERATIONS, FINALS, RULES, VIOLATIONS, CUT = range(9)
MAX_RULES = 1000


@jit
def note_rule(rules: np.ndarray, io: np.ndarray, rule: int, node: int, extra: int, state: int, actor: int) -> None:
    """Count a broken rule, one row for each rule and place."""
    for i in range(io[RULES]):
        if rules[i, 0] == rule and rules[i, 1] == node:
            rules[i, 5] += 1
            return
    i = io[RULES]
    if rule not in (V_POOL, V_SLOTS, V_ROUNDS):
        io[VIOLATIONS] += 1
    if i < rules.shape[0]:
        rules[i, 0] = rule
        rules[i, 1] = node
        rules[i, 2] = extra
        rules[i, 3] = state
        rules[i, 4] = actor
        rules[i, 5] = 1
        io[RULES] = i + 1


@jit
def successors(
    A: np.ndarray,
    state: np.ndarray,
    h: np.ndarray,
    m: np.ndarray,
    reduction: int,
    buf: np.ndarray,
    hb: np.ndarray,
) -> bool:
    """All steps from a state, into `buf`, and how many there are, and what else was found, into `m`.

    False if something is missing.
    """
    log = m[LOG : LOG + 2]
    last = buf.shape[0] - 1
    n = nbad = waiting = operations = 0
    for t in range(A[NR_THREADS] + A[NR_SLOTS]):
        node = get_node(state, t)
        if node == 0 or A[OP + node * 8 + KIND] == EXIT:
            continue
        copy(buf[n], state)
        copy(hb[n], h)
        status = step(A, buf[n], hb[n], m, t, reduction, log, False)
        if status == MISS:
            return False
        if status == BROKEN:
            for i in range(3):
                m[BAD + nbad * 4 + i] = m[i]
            m[BAD + nbad * 4 + 3] = t
            nbad += 1
        elif status == OK:
            operations += log[0]
            m[WHO + n] = t | least(A, buf[n], hb[n], buf[last - 1], buf[last]) << ACTOR_BITS
            n += 1
        elif status != IDLE:
            waiting += 1
    m[NR_STEPS] = n
    m[NR_BAD] = nbad
    m[NR_WAITING] = waiting
    m[NR_OPERATIONS] = operations
    return True


@jit
def keep_turn(
    A: np.ndarray, state: np.ndarray, m: np.ndarray, buf: np.ndarray, hb: np.ndarray, bound: int
) -> int:
    """Leave out of the steps from a state those that preempt a thread once too often; how many those are."""
    threads = A[NR_THREADS]
    last = int(state[A[FIRST_COLUMN] - 2]) - 1
    goes_on = False
    for i in range(m[NR_STEPS]):
        goes_on = goes_on or m[WHO + i] == last
    n = 0
    for i in range(m[NR_STEPS]):
        who = m[WHO + i]
        preempts = goes_on and who != last and who < threads
        if preempts and state[A[FIRST_COLUMN] - 1] == bound:
            continue
        if who < threads:  # callbacks need no CPU
            note_turn(A, buf[i], hb[i], who, preempts)
        copy(buf[n], buf[i])
        copy(hb[n], hb[i])
        m[WHO + n] = who
        n += 1
    cut = m[NR_STEPS] - n
    m[NR_STEPS] = n
    return cut


@jit
def note_state(
    A: np.ndarray,
    state: np.ndarray,
    here: int,
    m: np.ndarray,
    finals: np.ndarray,
    ends: np.ndarray,
    rules: np.ndarray,
    io: np.ndarray,
) -> None:
    """Count a state's steps, note what broke a rule, a deadlock, or that all is at its end."""
    for i in range(m[NR_BAD]):
        bad = BAD + i * 4
        note_rule(rules, io, m[bad], m[bad + 1], m[bad + 2], here, m[bad + 3])
    if m[NR_STEPS] == 0 and m[NR_BAD] == 0:
        if m[NR_WAITING]:
            for t in range(A[NR_THREADS] + A[NR_SLOTS]):
                node = get_node(state, t)
                if node and A[OP + node * 8 + KIND] != EXIT:
                    note_rule(rules, io, V_DEADLOCK, node, 0, here, t)
                    break
        else:
            copy(finals[io[FINALS]], state)
            ends[io[FINALS]] = here
            io[FINALS] += 1
    io[TRANSITIONS] += m[NR_STEPS]
    io[OPERATIONS] += m[NR_OPERATIONS]


@jit
def enqueue(
    queue: np.ndarray,
    hashes: np.ndarray,
    index: np.ndarray,
    parent: np.ndarray,
    io: np.ndarray,
    state: np.ndarray,
    h: np.ndarray,
    link: int,
) -> None:
    """Put a new state at the end of the queue."""
    to = io[TAIL] & queue.shape[0] - 1
    copy(queue[to], state)
    copy(hashes[to], h)
    index[to] = io[STATES]
    parent[io[STATES]] = link
    io[TAIL] += 1
    io[STATES] += 1


@jit
def room(
    queue: np.ndarray, table: np.ndarray, parent: np.ndarray, finals: np.ndarray, io: np.ndarray, new: int
) -> bool:
    """Whether so many new states fit."""
    if io[TAIL] - io[HEAD] + new > queue.shape[0] or io[STATES] + new > parent.shape[0]:
        return False
    return (io[STATES] + new) * 10 <= table.shape[0] * 7 and io[FINALS] < finals.shape[0]


@entry
def search(
    A: Ints,
    queue: ByteRows,
    hashes: HashRows,
    index: Ints,
    table: Hashes,
    second: Hashes,
    kept: ByteRows,
    parent: Ints,
    finals: ByteRows,
    ends: Ints,
    rules: IntRows,
    io: Ints,
    m: Ints,
    buf: ByteRows,
    hb: HashRows,
    reduction: int,
    switches: int,
    depth_first: bool,
    stop: bool,
    budget: int,
) -> int:
    """Expand states until none is left, something is missed or found, an array is full, or `budget` are done."""
    threads = A[NR_THREADS] + A[NR_SLOTS]
    while io[HEAD] < io[TAIL]:
        if budget == 0:
            return PAUSED
        budget -= 1
        if not room(queue, table, parent, finals, io, threads):
            return GROW
        pos = (io[TAIL] - 1 if depth_first else io[HEAD]) & queue.shape[0] - 1
        if not successors(A, queue[pos], hashes[pos], m, reduction, buf, hb):
            return MISSED
        here = index[pos]
        if depth_first:
            io[TAIL] -= 1
        else:
            io[HEAD] += 1
        note_state(A, queue[pos], here, m, finals, ends, rules, io)
        if switches >= 0:
            io[CUT] += keep_turn(A, queue[pos], m, buf, hb, switches)
        for i in range(m[NR_STEPS]):
            if insert(table, second, kept, hb[i], buf[i], io[STATES]):
                enqueue(queue, hashes, index, parent, io, buf[i], hb[i], here << LINK_BITS | m[WHO + i])
        if stop and io[VIOLATIONS]:
            return FOUND
    return DONE


@entry
def expand(
    A: Ints,
    queue: ByteRows,
    hashes: HashRows,
    index: Ints,
    finals: ByteRows,
    ends: Ints,
    rules: IntRows,
    io: Ints,
    out: ByteBlocks,
    out_hashes: HashBlocks,
    out_links: IntRows,
    out_counts: Ints,
    m: Ints,
    buf: ByteRows,
    hb: HashRows,
    reduction: int,
    switches: int,
    shard: int,
) -> int:
    """As `search`, breadth first, for one of several shards: what it finds goes to the shards that own it."""
    threads = A[NR_THREADS] + A[NR_SLOTS]
    shards = out.shape[0]
    while io[HEAD] < io[TAIL]:
        for owner in range(shards):
            if out_counts[owner] + threads > out.shape[1]:
                return PAUSED
        if io[FINALS] >= finals.shape[0]:
            return GROW
        pos = io[HEAD] & queue.shape[0] - 1
        if not successors(A, queue[pos], hashes[pos], m, reduction, buf, hb):
            return MISSED
        here = index[pos] * shards + shard
        io[HEAD] += 1
        note_state(A, queue[pos], here, m, finals, ends, rules, io)
        if switches >= 0:
            io[CUT] += keep_turn(A, queue[pos], m, buf, hb, switches)
        for i in range(m[NR_STEPS]):
            to = np.int64((hb[i, 0] >> np.uint64(40)) % np.uint64(shards))
            n = out_counts[to]
            copy(out[to, n], buf[i])
            copy(out_hashes[to, n], hb[i])
            out_links[to, n] = here << LINK_BITS | m[WHO + i]
            out_counts[to] = n + 1
    return DONE


@entry
def absorb(
    queue: ByteRows,
    hashes: HashRows,
    index: Ints,
    table: Hashes,
    second: Hashes,
    kept: ByteRows,
    parent: Ints,
    io: Ints,
    new: ByteRows,
    new_hashes: HashRows,
    new_links: Ints,
    count: int,
) -> None:
    """Take over states that another shard found and this one owns; there is room for them."""
    for i in range(count):
        if insert(table, second, kept, new_hashes[i], new[i], io[STATES]):
            enqueue(queue, hashes, index, parent, io, new[i], new_hashes[i], new_links[i])
