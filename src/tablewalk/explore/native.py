# SPDX-License-Identifier: GPL-2.0-only
"""One step of one thread on a packed state, compiled by numba: the operation's effect, its checks, where steps end.

A state is bytes: the node of each thread and callback slot (two bytes each), then the columns.  What is not known
natively (an edge, the code of a value, who accesses what) ends the step with a miss, which Python looks after.
"""

from __future__ import annotations

import numpy as np

from .jit import Bytes, Hashes, Ints, entry, jit
from .tables import (
    ACQUIRE,
    ADD,
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
    COUNTED,
    DECODE,
    DETACHED,
    E_CODE,
    E_LINK,
    E_NEW,
    E_TO,
    EDGE,
    EMPTY_TABLES,
    ENTRY,
    ERROR,
    EXCLUDES,
    EXCLUSIVE,
    EXIT,
    F_FREE,
    F_LATE,
    F_READ,
    F_TRY,
    F_WRITE,
    FIRST_COLUMN,
    FLAGS,
    FREE,
    FREER,
    FUTURE,
    FUTURE_ROW,
    FUTURE_WORDS,
    GHOST,
    GUARD,
    GUARDS,
    HEAD,
    INDEX,
    INIT,
    INSN,
    INSN_END,
    IPI_SNAPSHOT,
    IPI_WAIT,
    IRQ,
    IRQ_RESTORE,
    KIND,
    LICENCE,
    LICENSED,
    LOCKS,
    LOCKTYPE,
    MAP,
    MAX_CELLS,
    MAX_TODO,
    MUTEX,
    NCODE,
    NO_INDEX,
    NR_LOCKS,
    NR_SLOTS,
    NR_THREADS,
    OP,
    OWN,
    PATHS,
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
    RD,
    READ,
    RELEASE,
    RELEASE_WRITES,
    RIGHT,
    SHARED,
    SIZE,
    SLEEP,
    SPINLOCK,
    STABLE,
    SUB,
    TABLE_CLASS,
    TABLE_ENTRY,
    TODO,
    TOLERANT,
    TRIED,
    TRY,
    UNPUBLISH,
    VIOLATION,
    WITHOUT_INDEX,
    WR,
    WRITE,
)

# what a step ends with
OK, IDLE, WAITS, BROKEN, MISS = range(5)

# misses: m[0], with what is missing in m[1:]
M_EDGE, M_VALUE, M_ACCESS, M_FREER, M_LICENCE, M_INDEX = range(6)

# rules broken: m[0], with the node in m[1] and an address in m[2]
(
    V_MESSAGE,
    V_FREED,
    V_GUARD,
    V_POOL,
    V_BAD_FREE,
    V_FREED_LOCKED,
    V_SLOTS,
    V_SLEEP,
    V_HELD,
    V_RCU,
    V_LIVELOCK,
    V_IPI_OFF,
    V_DETACHED,
    V_DEAD_TABLE,
    V_ATTACHED_TWICE,
    V_NOT_EMPTY,
    V_ROUNDS,
    V_UNORDERED,
) = range(18)

NONE, M1, M2 = range(3)  # reductions: how steps are joined, and
JOINS, FUTURES = 3, 4  # the bits for that; whether what others may still do is looked at
MAX_STEPS = 5000
TURN = 20  # place in a state's hash of whose turn it was, and of how often threads were preempted
WRITER_SHIFT = 40

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


# whether others may yet do something, as `others_may` says
NO, MAYBE, ASK = range(3)


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
def quiet_snapshot(A: np.ndarray, t: int) -> bool:
    """Whether no other thread ever disables interrupts or runs user instructions."""
    for u in range(A[NR_THREADS] + A[NR_SLOTS]):
        cell = 1 + u * PER_THREAD
        if u != t and (A[CELLS + (cell + IRQ) * 16 + WR] | A[CELLS + (cell + INSN) * 16 + WR]):
            return False
    return True


# what an operation is to the others, as `classify` says
BOTH, LEFT, RIGHT_MOVER, ACQUIRES, NEITHER, UNSAFE, UNKNOWN, TRIED_ACQUIRE = range(8)


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
def table_of(A: np.ndarray, entry: int) -> int:
    """The page table that an entry of an upper level points to, or 0."""
    if entry & (PRESENT | LEAF) != PRESENT:
        return 0
    t = entry >> PFN_SHIFT
    if t >= MAX_CELLS or A[CELLS + t * 16 + BASE] != t or A[CELLS + t * 16 + CLS] != A[TABLE_CLASS]:
        return 0
    return t


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

