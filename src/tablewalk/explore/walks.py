# SPDX-License-Identifier: GPL-2.0-only
"""Random walks, from which a search learns before it begins."""

from __future__ import annotations

import numpy as np

from .endings import BROKEN, MISS, OK
from .jit import ByteRows, Bytes, HashRows, Ints, entry, jit
from .loop import DONE, MISSED
from .packed import copy, get_node, mix
from .step import step
from .tables import EXIT, KIND, LOG, NR_SLOTS, NR_THREADS, OP, WHO

MAX_WALK = 3000  # steps


@jit
def chance(random: np.ndarray) -> float:
    """The next number of a sequence, from 0 to 1."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    return float(mix(random[0]) >> np.uint64(11)) / (1 << 53)


@jit
def walk(
    A: np.ndarray, start: np.ndarray, m: np.ndarray, buf: np.ndarray, hb: np.ndarray, reduction: int, seed: int
) -> int:
    """Take steps of threads chosen at random until nobody can go on; MISSED if something is missing.

    `m` has at WHO how many each thread took.
    """
    threads = A[NR_THREADS] + A[NR_SLOTS]
    state, after = buf[0], buf[1]
    copy(state, start)
    h, random = hb[0], hb[1]  # the hash is not looked at
    random[0] = seed
    for t in range(threads):
        m[WHO + t] = 0
    log = m[LOG : LOG + 2]
    stay = chance(random)
    t = 0
    tries = steps = 0
    while tries < threads and steps < MAX_WALK:
        if tries or chance(random) > stay:
            t = int(chance(random) * threads) if tries == 0 else (t + 1) % threads
        tries += 1
        node = get_node(state, t)
        if node == 0 or A[OP + node * 8 + KIND] == EXIT:
            continue
        copy(after, state)
        status = step(A, after, h, m, t, reduction, log, False)
        if status == MISS:
            return MISSED
        if status == BROKEN:
            return DONE
        if status == OK:
            copy(state, after)
            steps += 1
            m[WHO + t] += 1
            tries = 0
    return DONE


@entry
def walks(
    A: Ints, start: Bytes, m: Ints, buf: ByteRows, hb: HashRows, reduction: int, seeds: Ints, steps: Ints
) -> int:
    """Take walks with seeds from seeds[0], which goes on, up to seeds[1]; MISSED if something is missing.

    `steps`: how many each thread took in those that came to their end.
    """
    while seeds[0] < seeds[1]:
        if walk(A, start, m, buf, hb, reduction, seeds[0]) == MISSED:
            return MISSED
        for t in range(steps.shape[0]):
            steps[t] += m[WHO + t]
        seeds[0] += 1
    return DONE
