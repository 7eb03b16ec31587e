# SPDX-License-Identifier: GPL-2.0-only
"""The native loop over states, breadth first or depth first."""

from __future__ import annotations

import numpy as np

from .jit import jit
from .native import BROKEN, IDLE, MISS, OK, V_POOL, V_ROUNDS, V_SLOTS, get_node, note_turn, step, toggle
from .tables import (
    ACTOR_BITS,
    EXIT,
    FIRST_COLUMN,
    KIND,
    LINK_BITS,
    MAX_CODES,
    MAX_COLUMNS,
    MAX_NODES,
    NR_COLUMNS,
    NR_SLOTS,
    NR_SYMMETRIES,
    NR_THREADS,
    OP,
    SYM_CODE,
    SYM_COLUMN,
    SYM_NODE,
    SYM_THREAD,
)

V_DEADLOCK, V_END = 100, 101  # the latter: something is wrong when all threads have ended
DONE, MISSED, FOUND, GROW, PAUSED = range(5)
# columns of `io`; VIOLATIONS: rules broken that are no bounds; CUT: steps left out as beyond the bound on switches
HEAD, TAIL, STATES, TRANSITIONS, OPERATIONS, FINALS, RULES, VIOLATIONS, CUT = range(9)
MAX_RULES = 1000
MAX_WALK = 3000  # steps


@jit
def insert(
    table: np.ndarray, second: np.ndarray, kept: np.ndarray, h: np.ndarray, state: np.ndarray, number: int
) -> bool:
    """Put a state into the visited set; false if it was there.

    It is known by 64 bits of its hash, or 128, the others in `second`; or by itself, in `kept` by its number, which is
    in `second` then.
    """
    key = h[0] if h[0] else np.uint64(1)
    mask = np.uint64(table.shape[0] - 1)
    i = np.int64(key & mask)
    exact = kept.shape[0] > 1
    wide = second.shape[0] > 1
    while table[i]:
        if table[i] == key:
            if exact:
                if np.array_equal(kept[second[i]], state):
                    return False
            elif not wide or second[i] == h[1]:
                return False
        i = np.int64(np.uint64(i + 1) & mask)
    table[i] = key
    if exact:
        second[i] = number
        kept[number] = state
    elif wide:
        second[i] = h[1]
    return True


@jit
def hash_all(A: np.ndarray, st: np.ndarray, h: np.ndarray) -> None:
    """The hash of a state."""
    h[:] = 0
    for t in range(A[NR_THREADS] + A[NR_SLOTS]):
        toggle(h, t, get_node(st, t))
    for c in range(A[NR_COLUMNS]):
        toggle(h, 1000 + c, int(st[A[FIRST_COLUMN] + c]))


@jit
def image(A: np.ndarray, g: int, st: np.ndarray, to: np.ndarray) -> None:
    """The state in which threads have changed places in way `g`."""
    to[:] = st
    for t in range(A[NR_THREADS] + A[NR_SLOTS]):
        u = A[SYM_THREAD + g * 16 + t] if t < A[NR_THREADS] else t
        node = A[SYM_NODE + g * (MAX_NODES + 1) + get_node(st, t)]
        to[2 * u] = node & 255
        to[2 * u + 1] = node >> 8
    start = A[FIRST_COLUMN]
    for c in range(A[NR_COLUMNS]):
        at = (g * MAX_COLUMNS + c) * (MAX_CODES + 1)
        to[start + A[SYM_COLUMN + g * MAX_COLUMNS + c]] = A[SYM_CODE + at + int(st[start + c])]


@jit
def least(A: np.ndarray, st: np.ndarray, h: np.ndarray) -> int:
    """Let the state be the least of those in which threads have changed places; in which way, or 0."""
    way = 0
    if A[NR_SYMMETRIES]:
        old = st.copy()
        other = st.copy()
        for g in range(A[NR_SYMMETRIES]):
            image(A, g, old, other)
            for i in range(st.shape[0]):
                if other[i] != st[i]:
                    if other[i] < st[i]:
                        st[:] = other
                        way = g + 1
                    break
        if way:
            hash_all(A, st, h)
    return way


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
    who: np.ndarray,
    bad: np.ndarray,
    found: np.ndarray,
) -> bool:
    """All steps from a state, into `buf`; `found`: steps, broken rules (in `bad`), threads that wait, operations.

    False if something is missing.
    """
    log = np.zeros(2, np.int64)
    n = nbad = waiting = operations = 0
    for t in range(A[NR_THREADS] + A[NR_SLOTS]):
        node = get_node(state, t)
        if node == 0 or A[OP + node * 8 + KIND] == EXIT:
            continue
        buf[n] = state
        hb[n] = h
        status = step(A, buf[n], hb[n], m, t, reduction, log, False)
        if status == MISS:
            return False
        if status == BROKEN:
            bad[nbad, 0] = m[0]
            bad[nbad, 1] = m[1]
            bad[nbad, 2] = m[2]
            bad[nbad, 3] = t
            nbad += 1
        elif status == OK:
            operations += log[0]
            who[n] = t | least(A, buf[n], hb[n]) << ACTOR_BITS
            n += 1
        elif status != IDLE:
            waiting += 1
    found[0] = n
    found[1] = nbad
    found[2] = waiting
    found[3] = operations
    return True


@jit
def keep_turn(
    A: np.ndarray, state: np.ndarray, buf: np.ndarray, hb: np.ndarray, who: np.ndarray, found: np.ndarray, bound: int
) -> int:
    """Leave out of the steps from a state those that preempt a thread once too often; how many those are."""
    threads = A[NR_THREADS]
    last = int(state[A[FIRST_COLUMN] - 2]) - 1
    goes_on = False
    for i in range(found[0]):
        goes_on = goes_on or who[i] == last
    n = 0
    for i in range(found[0]):
        preempts = goes_on and who[i] != last and who[i] < threads
        if preempts and state[A[FIRST_COLUMN] - 1] == bound:
            continue
        if who[i] < threads:  # callbacks need no CPU
            note_turn(A, buf[i], hb[i], who[i], preempts)
        buf[n] = buf[i]
        hb[n] = hb[i]
        who[n] = who[i]
        n += 1
    cut = found[0] - n
    found[0] = n
    return cut


@jit
def note_state(
    A: np.ndarray,
    state: np.ndarray,
    here: int,
    bad: np.ndarray,
    found: np.ndarray,
    finals: np.ndarray,
    ends: np.ndarray,
    rules: np.ndarray,
    io: np.ndarray,
) -> None:
    """Count a state's steps, note what broke a rule, a deadlock, or that all is at its end."""
    for i in range(found[1]):
        note_rule(rules, io, bad[i, 0], bad[i, 1], bad[i, 2], here, bad[i, 3])
    if found[0] == 0 and found[1] == 0:
        if found[2]:
            for t in range(A[NR_THREADS] + A[NR_SLOTS]):
                node = get_node(state, t)
                if node and A[OP + node * 8 + KIND] != EXIT:
                    note_rule(rules, io, V_DEADLOCK, node, 0, here, t)
                    break
        else:
            finals[io[FINALS]] = state
            ends[io[FINALS]] = here
            io[FINALS] += 1
    io[TRANSITIONS] += found[0]
    io[OPERATIONS] += found[3]


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
    queue[to] = state
    hashes[to] = h
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


@jit
def search(
    A: np.ndarray,
    queue: np.ndarray,
    hashes: np.ndarray,
    index: np.ndarray,
    table: np.ndarray,
    second: np.ndarray,
    kept: np.ndarray,
    parent: np.ndarray,
    finals: np.ndarray,
    ends: np.ndarray,
    rules: np.ndarray,
    io: np.ndarray,
    m: np.ndarray,
    reduction: int,
    switches: int,
    depth_first: bool,
    stop: bool,
    budget: int,
) -> int:
    """Expand states until none is left, something is missed or found, an array is full, or `budget` are done."""
    threads = A[NR_THREADS] + A[NR_SLOTS]
    buf = np.zeros((threads, queue.shape[1]), np.uint8)
    hb = np.zeros((threads, 2), np.uint64)
    who = np.zeros(threads, np.int64)
    bad = np.zeros((threads, 4), np.int64)
    found = np.zeros(4, np.int64)
    while io[HEAD] < io[TAIL]:
        if budget == 0:
            return PAUSED
        budget -= 1
        if not room(queue, table, parent, finals, io, threads):
            return GROW
        pos = (io[TAIL] - 1 if depth_first else io[HEAD]) & queue.shape[0] - 1
        if not successors(A, queue[pos], hashes[pos], m, reduction, buf, hb, who, bad, found):
            return MISSED
        here = index[pos]
        if depth_first:
            io[TAIL] -= 1
        else:
            io[HEAD] += 1
        note_state(A, queue[pos], here, bad, found, finals, ends, rules, io)
        if switches >= 0:
            io[CUT] += keep_turn(A, queue[pos], buf, hb, who, found, switches)
        for i in range(found[0]):
            if insert(table, second, kept, hb[i], buf[i], io[STATES]):
                enqueue(queue, hashes, index, parent, io, buf[i], hb[i], here << LINK_BITS | who[i])
        if stop and io[VIOLATIONS]:
            return FOUND
    return DONE


@jit
def expand(
    A: np.ndarray,
    queue: np.ndarray,
    hashes: np.ndarray,
    index: np.ndarray,
    finals: np.ndarray,
    ends: np.ndarray,
    rules: np.ndarray,
    io: np.ndarray,
    out: np.ndarray,
    out_hashes: np.ndarray,
    out_links: np.ndarray,
    out_counts: np.ndarray,
    m: np.ndarray,
    reduction: int,
    switches: int,
    shard: int,
) -> int:
    """As `search`, breadth first, for one of several shards: what it finds goes to the shards that own it."""
    threads = A[NR_THREADS] + A[NR_SLOTS]
    shards = out.shape[0]
    buf = np.zeros((threads, queue.shape[1]), np.uint8)
    hb = np.zeros((threads, 2), np.uint64)
    who = np.zeros(threads, np.int64)
    bad = np.zeros((threads, 4), np.int64)
    found = np.zeros(4, np.int64)
    while io[HEAD] < io[TAIL]:
        for owner in range(shards):
            if out_counts[owner] + threads > out.shape[1]:
                return PAUSED
        if io[FINALS] >= finals.shape[0]:
            return GROW
        pos = io[HEAD] & queue.shape[0] - 1
        if not successors(A, queue[pos], hashes[pos], m, reduction, buf, hb, who, bad, found):
            return MISSED
        here = index[pos] * shards + shard
        io[HEAD] += 1
        note_state(A, queue[pos], here, bad, found, finals, ends, rules, io)
        if switches >= 0:
            io[CUT] += keep_turn(A, queue[pos], buf, hb, who, found, switches)
        for i in range(found[0]):
            to = np.int64((hb[i, 0] >> np.uint64(40)) % np.uint64(shards))
            n = out_counts[to]
            out[to, n] = buf[i]
            out_hashes[to, n] = hb[i]
            out_links[to, n] = here << LINK_BITS | who[i]
            out_counts[to] = n + 1
    return DONE


@jit
def absorb(
    queue: np.ndarray,
    hashes: np.ndarray,
    index: np.ndarray,
    table: np.ndarray,
    second: np.ndarray,
    kept: np.ndarray,
    parent: np.ndarray,
    io: np.ndarray,
    new: np.ndarray,
    new_hashes: np.ndarray,
    new_links: np.ndarray,
    count: int,
) -> None:
    """Take over states that another shard found and this one owns; there is room for them."""
    for i in range(count):
        if insert(table, second, kept, new_hashes[i], new[i], io[STATES]):
            enqueue(queue, hashes, index, parent, io, new[i], new_hashes[i], new_links[i])


@jit
def walk(
    A: np.ndarray, start: np.ndarray, h0: np.ndarray, m: np.ndarray, reduction: int, seed: int, steps_of: np.ndarray
) -> int:
    """Take steps of threads chosen at random until nobody can go on; MISSED if something is missing.

    `steps_of`: how many each thread took.
    """
    np.random.seed(seed)
    threads = A[NR_THREADS] + A[NR_SLOTS]
    state = start.copy()
    after = start.copy()
    h = h0.copy()
    log = np.zeros(2, np.int64)
    stay = np.random.random()
    t = 0
    tries = steps = 0
    steps_of[:] = 0
    while tries < threads and steps < MAX_WALK:
        if tries or np.random.random() > stay:
            t = np.random.randint(threads) if tries == 0 else (t + 1) % threads
        tries += 1
        node = get_node(state, t)
        if node == 0 or A[OP + node * 8 + KIND] == EXIT:
            continue
        after[:] = state
        status = step(A, after, h, m, t, reduction, log, False)
        if status == MISS:
            return MISSED
        if status == BROKEN:
            return DONE
        if status == OK:
            state[:] = after
            steps += 1
            steps_of[t] += 1
            tries = 0
    return DONE


@jit
def rehash(table: np.ndarray, second: np.ndarray, new: np.ndarray, new_second: np.ndarray) -> None:
    """Put all of a visited set into a larger one."""
    mask = np.uint64(new.shape[0] - 1)
    for i in range(table.shape[0]):
        if table[i]:
            to = np.int64(table[i] & mask)
            while new[to]:
                to = np.int64(np.uint64(to + 1) & mask)
            new[to] = table[i]
            if second.shape[0] > 1:
                new_second[to] = second[i]
