# SPDX-License-Identifier: GPL-2.0-only
"""How a step ends, what it then says in a scratch array `m`, and how steps may be joined."""

from __future__ import annotations

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
