# SPDX-License-Identifier: GPL-2.0-only
"""The native loop over states, breadth first or depth first."""

from __future__ import annotations

import numpy as np

from .jit import jit
from .native import BROKEN, IDLE, MISS, OK, get_node, step, toggle
from .tables import EXIT, KIND, NR_SLOTS, NR_THREADS, OP

V_DEADLOCK = 100
DONE, MISSED, FOUND, GROW, PAUSED = range(5)
HEAD, TAIL, STATES, TRANSITIONS, OPERATIONS, FINALS, RULES = range(7)  # columns of `io`
MAX_RULES = 1000
ACTOR_BITS = 4
MAX_WALK = 3000  # steps


@jit
def insert(table: np.ndarray, second: np.ndarray, h: np.ndarray) -> bool:
    """Put a hash into the visited set; false if it was there."""
    key = h[0] if h[0] else np.uint64(1)
    mask = np.uint64(table.shape[0] - 1)
    i = np.int64(key & mask)
    wide = second.shape[0] > 1
    while table[i]:
        if table[i] == key and (not wide or second[i] == h[1]):
            return False
        i = np.int64(np.uint64(i + 1) & mask)
    table[i] = key
    if wide:
        second[i] = h[1]
    return True


@jit
def note_rule(rules: np.ndarray, io: np.ndarray, rule: int, node: int, extra: int, state: int, actor: int) -> None:
    """Count a broken rule, one row for each rule and place."""
    for i in range(io[RULES]):
        if rules[i, 0] == rule and rules[i, 1] == node:
            rules[i, 5] += 1
            return
    i = io[RULES]
    if i < rules.shape[0]:
        rules[i, 0] = rule
        rules[i, 1] = node
        rules[i, 2] = extra
        rules[i, 3] = state
        rules[i, 4] = actor
        rules[i, 5] = 1
        io[RULES] = i + 1


@jit
def search(
    A: np.ndarray,
    queue: np.ndarray,
    hashes: np.ndarray,
    index: np.ndarray,
    table: np.ndarray,
    second: np.ndarray,
    parent: np.ndarray,
    finals: np.ndarray,
    rules: np.ndarray,
    io: np.ndarray,
    m: np.ndarray,
    reduction: int,
    depth_first: bool,
    stop: bool,
    budget: int,
) -> int:
    """Expand states until none is left, something is missed or found, an array is full, or `budget` are done."""
    threads = A[NR_THREADS] + A[NR_SLOTS]
    cap = queue.shape[0] - 1
    width = queue.shape[1]
    buf = np.zeros((threads, width), np.uint8)
    hb = np.zeros((threads, 2), np.uint64)
    who = np.zeros(threads, np.int64)
    log = np.zeros(2, np.int64)
    bad = np.zeros((threads, 4), np.int64)
    while io[HEAD] < io[TAIL]:
        if budget == 0:
            return PAUSED
        budget -= 1
        if io[TAIL] - io[HEAD] + threads > cap + 1 or io[STATES] + threads > parent.shape[0]:
            return GROW
        if (io[STATES] + threads) * 10 > table.shape[0] * 7 or io[FINALS] >= finals.shape[0]:
            return GROW
        pos = (io[TAIL] - 1 if depth_first else io[HEAD]) & cap
        n = waiting = nbad = operations = 0
        for t in range(threads):
            node = get_node(queue[pos], t)
            if node == 0 or A[OP + node * 8 + KIND] == EXIT:
                continue
            buf[n] = queue[pos]
            hb[n] = hashes[pos]
            status = step(A, buf[n], hb[n], m, t, reduction, log, False)
            if status == MISS:
                return MISSED
            if status == BROKEN:
                bad[nbad, 0] = m[0]
                bad[nbad, 1] = m[1]
                bad[nbad, 2] = m[2]
                bad[nbad, 3] = t
                nbad += 1
            elif status == OK:
                operations += log[0]
                who[n] = t
                n += 1
            elif status != IDLE:
                waiting += 1
        here = index[pos]
        if depth_first:
            io[TAIL] -= 1
        else:
            io[HEAD] += 1
        for i in range(nbad):
            note_rule(rules, io, bad[i, 0], bad[i, 1], bad[i, 2], here, bad[i, 3])
        if n == 0 and nbad == 0:
            if waiting:
                for t in range(threads):
                    node = get_node(queue[pos], t)
                    if node and A[OP + node * 8 + KIND] != EXIT:
                        note_rule(rules, io, V_DEADLOCK, node, 0, here, t)
                        break
            else:
                finals[io[FINALS], :width] = queue[pos]
                io[FINALS] += 1
        io[TRANSITIONS] += n
        io[OPERATIONS] += operations
        for i in range(n):
            if insert(table, second, hb[i]):
                to = io[TAIL] & cap
                queue[to] = buf[i]
                hashes[to] = hb[i]
                index[to] = io[STATES]
                parent[io[STATES]] = here << ACTOR_BITS | who[i]
                io[TAIL] += 1
                io[STATES] += 1
        if stop and io[RULES]:
            return FOUND
    return DONE


@jit
def walk(A: np.ndarray, start: np.ndarray, h0: np.ndarray, m: np.ndarray, reduction: int, seed: int) -> int:
    """Take steps of threads chosen at random until nobody can go on; MISSED if something is missing."""
    np.random.seed(seed)
    threads = A[NR_THREADS] + A[NR_SLOTS]
    state = start.copy()
    after = start.copy()
    h = h0.copy()
    log = np.zeros(2, np.int64)
    stay = np.random.random()
    t = 0
    tries = steps = 0
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
            tries = 0
    return DONE


@jit
def rehash(table: np.ndarray, second: np.ndarray, new: np.ndarray, new_second: np.ndarray) -> None:
    """Put all of a visited set into a larger one."""
    h = np.zeros(2, np.uint64)
    for i in range(table.shape[0]):
        if table[i]:
            h[0] = table[i]
            if second.shape[0] > 1:
                h[1] = second[i]
            insert(new, new_second, h)


@jit
def hash_state(st: np.ndarray, threads: int, h: np.ndarray) -> None:
    """The hash of a state, from nothing."""
    h[:] = 0
    for t in range(threads):
        toggle(h, t, get_node(st, t))
    for i in range(2 * threads, st.shape[0]):
        toggle(h, 1000 + i - 2 * threads, int(st[i]))


