# SPDX-License-Identifier: GPL-2.0-only
"""A state, packed: the node of each thread and callback slot (two bytes each), then the columns; and its hash.

Like all that is native here: Python that numba compiles (`jit`), on arrays.
"""

from __future__ import annotations

import numpy as np

from .endings import M_VALUE
from .jit import Bytes, Hashes, Ints, entry, jit
from .tables import (
    BASE,
    CELLS,
    CLS,
    COL,
    DECODE,
    FIRST_COLUMN,
    INIT,
    MAX_CELLS,
    MAX_CODES,
    MAX_COLUMNS,
    MAX_NODES,
    NCODE,
    NR_COLUMNS,
    NR_SLOTS,
    NR_SYMMETRIES,
    NR_THREADS,
    SYM_CODE,
    SYM_COLUMN,
    SYM_NODE,
    SYM_THREAD,
    TABLE_CLASS,
)

TURN = 20  # place in a state's hash of whose turn it was, and of how often threads were preempted

PRESENT, LEAF, PROTNONE, PFN_SHIFT = 1, 16, 1024, 12  # kernel/pgtable.py


@jit
def mix(x: np.uint64) -> np.uint64:
    """A 64-bit hash of a number."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@jit
def toggle(h: np.ndarray, place: int, value: int) -> None:
    """Add to, or take from, a state's hash what says that `place` has `value`; 0 says nothing."""
    if value:
        x = mix(np.uint64(place << 16 | value) * np.uint64(0x9E3779B97F4A7C15))
        h[0] ^= x
        h[1] ^= mix(x + np.uint64(0x632BE59BD9B4E019))


@jit
def copy(to: np.ndarray, st: np.ndarray) -> None:
    """Make one state the same as another."""
    for i in range(to.shape[0]):
        to[i] = st[i]


@jit
def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two states are the same."""
    i = 0
    while i < a.shape[0] and a[i] == b[i]:
        i += 1
    return i == a.shape[0]


@jit
def get_node(st: np.ndarray, t: int) -> int:
    """The node that a thread stands at."""
    return int(st[2 * t]) | int(st[2 * t + 1]) << 8


@jit
def set_node(st: np.ndarray, h: np.ndarray, t: int, node: int) -> None:
    """Let it stand at another."""
    toggle(h, t, get_node(st, t))
    toggle(h, t, node)
    st[2 * t] = node & 255
    st[2 * t + 1] = node >> 8


@jit
def note_turn(A: np.ndarray, st: np.ndarray, h: np.ndarray, t: int, preempts: bool) -> None:
    """Note in the state that it is thread `t` whose turn it was; `preempts`: another could have gone on."""
    at = A[FIRST_COLUMN] - 2
    toggle(h, TURN, int(st[at]) << 8 | int(st[at + 1]))
    st[at] = t + 1
    if preempts:
        st[at + 1] += 1
    toggle(h, TURN, int(st[at]) << 8 | int(st[at + 1]))


@jit
def value(A: np.ndarray, st: np.ndarray, address: int) -> int:
    """What a cell holds."""
    c = A[CELLS + address * 16 + COL]
    if c < 0:
        return A[CELLS + address * 16 + INIT]
    return A[DECODE + c * 256 + st[A[FIRST_COLUMN] + c]]


@jit
def put_code(A: np.ndarray, st: np.ndarray, h: np.ndarray, c: int, code: int) -> None:
    """Store a code into a column."""
    i = A[FIRST_COLUMN] + c
    old = st[i]
    if old != code:
        toggle(h, 1000 + c, old)
        toggle(h, 1000 + c, code)
        st[i] = code


@jit
def put(A: np.ndarray, st: np.ndarray, h: np.ndarray, m: np.ndarray, address: int, v: int) -> bool:
    """Store a value into a cell; false, and a miss, if it has no code yet."""
    c = A[CELLS + address * 16 + COL]
    if c < 0:
        if A[CELLS + address * 16 + INIT] == v:
            return True
    else:
        for code in range(A[NCODE + c]):
            if A[DECODE + c * 256 + code] == v:
                put_code(A, st, h, c, code)
                return True
    m[0] = M_VALUE
    m[1] = address
    m[2] = v
    return False


@jit
def table_of(A: np.ndarray, entry: int) -> int:
    """The page table that an entry of an upper level points to, or 0."""
    if entry & (PRESENT | LEAF) != PRESENT:
        return 0
    t = entry >> PFN_SHIFT
    if t >= MAX_CELLS or A[CELLS + t * 16 + BASE] != t or A[CELLS + t * 16 + CLS] != A[TABLE_CLASS]:
        return 0
    return t


@entry
def hash_all(A: Ints, st: Bytes, h: Hashes) -> None:
    """The hash of a state."""
    h[0] = 0
    h[1] = 0
    for t in range(A[NR_THREADS] + A[NR_SLOTS]):
        toggle(h, t, get_node(st, t))
    for c in range(A[NR_COLUMNS]):
        toggle(h, 1000 + c, int(st[A[FIRST_COLUMN] + c]))


@entry
def image(A: Ints, g: int, st: Bytes, to: Bytes) -> None:
    """The state in which threads have changed places in way `g`."""
    copy(to, st)
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
def least(A: np.ndarray, st: np.ndarray, h: np.ndarray, old: np.ndarray, other: np.ndarray) -> int:
    """Let the state be the least of those in which threads have changed places; in which way, or 0.

    `old` and `other` are overwritten.
    """
    way = 0
    if A[NR_SYMMETRIES]:
        copy(old, st)
        for g in range(A[NR_SYMMETRIES]):
            image(A, g, old, other)
            for i in range(st.shape[0]):
                if other[i] != st[i]:
                    if other[i] < st[i]:
                        copy(st, other)
                        way = g + 1
                    break
        if way:
            hash_all(A, st, h)
    return way
