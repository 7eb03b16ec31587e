# SPDX-License-Identifier: GPL-2.0-only
"""What the native search looks things up in: automata, cells and guards as flat arrays of ints.

A cell that never changes has no column.  One that does has a column of one byte in each state: the code of its value,
0 for the initial one.  So states stay narrow, and those found before a column came up need no change.
"""

from __future__ import annotations

import numpy as np

from tablewalk.errors import TablewalkError

# kinds of operations
CELL, ALLOC, FREE, PUBLISH, UNPUBLISH, CALL_RCU, RCU_UNLOCK, IRQ_RESTORE, INSN_END = range(9)
RCU_SNAPSHOT, IPI_SNAPSHOT, RELEASE_WRITES, SLEEP, EXIT, ERROR = range(9, 15)

# what an operation on a cell is to others (`sub`)
READ, WRITE, ADD, ACQUIRE, TRY, RELEASE, OWN, RIGHT = range(8)

# columns of `op`
KIND, ADDRESS, ARGUMENT, SUB, GUARD, EXCLUDES, FLAGS, HEAD = range(8)
ARGUMENT2 = GUARD  # of operations that are not on a cell

# flags
PUBLISHES = 1  # the stored value is a pointer
EXCLUSIVE = 2  # a plain write: its guard shuts readers out too
LICENSED = 4  # a write under one of several locks
ENTRY = 8  # a write of a page table's entry
STABLE = 16  # of a field that others may look at while the object is free, or somebody's own again
TOLERANT = 32  # one who does so

# what the cell behind an object holds: 0 where nothing lives, 2 + the thread that it is private to, or
SHARED, PRIVATE, DETACHED, ATTACHED = 1, 2, 61, 62  # the last two of page tables that were in a slot

# of an edge's target
BLOCKED = -2
VIOLATION = -3  # and below: index of the message

# What a thread may yet do from a node on (`future`): bits of cells, for reading, writing, trying a lock, freeing the
# object that the cell is the ghost of, and letting an RCU callback free it.
F_READ, F_WRITE, F_TRY, F_FREE, F_LATE = range(5)
INDICES = 128
FUTURE_WORDS = INDICES // 64
FUTURE_ROW = 5 * FUTURE_WORDS

# cells of each thread, from address 1 on
PER_THREAD = 6
RCU, IRQ, INSN, RCU_WAIT, IPI_WAIT, MAPPED = range(PER_THREAD)
MAX_THREADS = 10  # their cells come before the first object (machine/memory.py)

# of a step: who took it, and above that in which way threads then changed places
ACTOR_BITS = 4
LINK_BITS = ACTOR_BITS + 5
MAX_SYMMETRIES = 23

MAX_NODES = 65_535
MAX_EDGES = 1 << 19
MAX_CELLS = 1 << 14
MAX_COLUMNS = 1000
MAX_CODES = 255

SPINLOCK, RWSEM, MUTEX, MAP = 1, 2, 3, 4
LOCK_TYPES = {"spinlock": SPINLOCK, "rwsem": RWSEM, "mutex": MUTEX, "lockdep_map": MAP}


def thread_cell(thread: int, which: int) -> int:
    """Address of a thread's own cell."""
    return 1 + thread * PER_THREAD + which


# One array holds all tables, so that a native function has one argument for them: each table at an offset, in rows.
_SHAPES = {
    # threads, slots, locks, bytes before the columns; of page tables: class, first entry, a rule; symmetries, columns
    "dims": (1, 16),
    "op": (MAX_NODES + 1, 8),
    "edge": (MAX_EDGES, 4),
    "cell": (MAX_CELLS, 16),
    "decode": (MAX_COLUMNS, MAX_CODES + 1),
    "ncode": (MAX_COLUMNS, 1),
    "pointers": (128, 32),
    "class_locks": (128, 16),
    "guard": (1024, 4),
    "path": (4096, 8),
    "pool": (512, 32),
    "lock": (4096, 1),
    "future": (MAX_NODES + 1, FUTURE_ROW),
    "sym_thread": (MAX_SYMMETRIES, 16),
    "sym_node": (MAX_SYMMETRIES, MAX_NODES + 1),
    "sym_column": (MAX_SYMMETRIES, MAX_COLUMNS),
    "sym_code": (MAX_SYMMETRIES * MAX_COLUMNS, MAX_CODES + 1),
}


def _offsets() -> dict[str, int]:
    found, at = {}, 0
    for name, (rows, columns) in _SHAPES.items():
        found[name] = at
        at += rows * columns
    return found


_AT = _offsets()
DIMS, OP, EDGE, CELLS, DECODE, NCODE = (_AT[n] for n in ("dims", "op", "edge", "cell", "decode", "ncode"))
POINTERS, CLASS_LOCKS, GUARDS, PATHS, POOLS, LOCKS, FUTURE = (
    _AT[n] for n in ("pointers", "class_locks", "guard", "path", "pool", "lock", "future")
)
SYM_THREAD, SYM_NODE, SYM_COLUMN, SYM_CODE = (_AT[n] for n in ("sym_thread", "sym_node", "sym_column", "sym_code"))
NR_THREADS, NR_SLOTS, NR_LOCKS, FIRST_COLUMN, TABLE_CLASS, TABLE_ENTRY, EMPTY_TABLES, NR_SYMMETRIES, NR_COLUMNS = (
    DIMS + i for i in range(9)
)

# columns of `edge`
E_CODE, E_TO, E_NEW, E_LINK = range(4)

# columns of `cell`; GHOST to FREER are of the object that begins there; AT_REST: the value when it is free; WR, RD and
# TRIED: threads that write, read, or try to lock it; INDEX: its bit in the rows of `future`
COL, INIT, BASE, LOCKTYPE, RD, WR, LICENCE, GHOST, SIZE, CLS, FREER, AT_REST, TRIED, INDEX = range(14)
NO_INDEX, WITHOUT_INDEX = -1, -2  # none yet; none, since there are too many


class Tables:
    """The array `all` with a view of each table in it."""

    def __init__(self, threads: int, slots: int) -> None:
        self.all = np.zeros(sum(rows * columns for rows, columns in _SHAPES.values()), np.int64)
        views = {
            name: self.all[_AT[name] : _AT[name] + rows * columns].reshape(rows, columns)
            for name, (rows, columns) in _SHAPES.items()
        }
        self.dims, self.op, self.edge, self.cell = views["dims"][0], views["op"], views["edge"], views["cell"]
        self.decode, self.ncode = views["decode"], views["ncode"][:, 0]
        self.pointers, self.class_locks = views["pointers"], views["class_locks"]
        self.future = views["future"]
        self.sym_thread, self.sym_node = views["sym_thread"], views["sym_node"]
        self.sym_column, self.sym_code = views["sym_column"], views["sym_code"]
        self.guard, self.path, self.pool, self.lock = views["guard"], views["path"], views["pool"], views["lock"][:, 0]
        self.cell[0, COL] = -1
        self.dims[:4] = threads, slots, 0, 2 * (threads + slots) + 2


# of a scratch array, beside a miss: the steps from a state, what broke a rule, who waits, operations; of each step who
# takes it; of each broken rule what it is; a log that nobody reads; a list; and in rows like those of `future` what is
# counted on not to be there
NR_STEPS, NR_BAD, NR_WAITING, NR_OPERATIONS = range(4, 8)
WHO = 8
BAD = WHO + MAX_THREADS
LOG = BAD + 4 * MAX_THREADS
TODO = LOG + 2
MAX_TODO = 64
COUNTED = TODO + MAX_TODO


def scratch() -> np.ndarray:
    """What a step notes: what it misses, or breaks; and what it counts on."""
    return np.zeros(COUNTED + (MAX_NODES + 1) * FUTURE_ROW, np.int64)


class Bound(TablewalkError):
    """The search cannot go on within a limit; `what` names it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"bounded by {what}")
        self.what = what
