# SPDX-License-Identifier: GPL-2.0-only
"""What a thread may yet do from a node on: the union over all that may follow, as far as it has been learned.

A search may leave out orders of operations because nobody else can come in between any more.  What it counts on there
is noted by the native side; if something learned later is against it, the search begins anew.  At the end of one that
does not, nothing that it reached is against it, and that is enough: the first operation that were would be of a node
that is known, in an order that was seen.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .tables import (
    COUNTED,
    F_FREE,
    F_LATE,
    FUTURE_ROW,
    INDEX,
    INDICES,
    NO_INDEX,
    WITHOUT_INDEX,
    Tables,
)

_ALL = (1 << INDICES) - 1


class Futures:
    """The rows of `future`, kept up to date as nodes and edges are added."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._of: defaultdict[int, int] = defaultdict(int)  # node -> bits
        self._before: defaultdict[int, list[tuple[int, bool]]] = defaultdict(list)
        self._users: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # cell -> (node, what it does)
        self._grown: defaultdict[int, int] = defaultdict(int)
        self._indices = 0

    def uses(self, node: int, address: int, *kinds: int) -> None:
        """A node does something to a cell."""
        self._users[address].append((node, sum(1 << kind * INDICES for kind in kinds)))
        index = int(self._tables.cell[address, INDEX])
        if index >= 0:
            self._grow(node, self._users[address][-1][1] << index)

    def follows(self, node: int, after: int, late: bool = False) -> None:
        """`after` may come after a node; `late`: in an RCU callback that the node asks for."""
        self._before[after].append((node, late))
        self._grow(node, _as_late(self._of[after]) if late else self._of[after])

    def index(self, address: int) -> None:
        """Tell a cell apart from others."""
        cell = self._tables.cell[address]
        if cell[INDEX] != NO_INDEX:
            return
        if self._indices == INDICES:
            cell[INDEX] = WITHOUT_INDEX
            return
        index = self._indices
        cell[INDEX] = index
        self._indices += 1
        for node, what in self._users[address]:
            self._grow(node, what << index)

    def _grow(self, node: int, bits: int) -> None:
        todo = [(node, bits)]
        while todo:
            node, bits = todo.pop()
            new = bits & ~self._of[node]
            if new:
                self._of[node] |= new
                self._grown[node] |= new
                todo += [(n, _as_late(new) if late else new) for n, late in self._before[node]]

    def publish(self, counted: list[Any]) -> bool:
        """Let the native side know; whether a search counted (in these scratch arrays) on what is not so."""
        wrong = False
        for node, grown in self._grown.items():
            at = COUNTED + node * FUTURE_ROW
            wrong = wrong or any(int.from_bytes(m[at : at + FUTURE_ROW].tobytes(), "little") & grown for m in counted)
            row = self._of[node].to_bytes(8 * FUTURE_ROW, "little")
            self._tables.future[node].view("u1")[:] = list(row)
        self._grown.clear()
        return wrong


def _as_late(bits: int) -> int:
    """What is freed is freed by a callback."""
    freed = bits >> F_FREE * INDICES & _ALL
    return bits & ~(_ALL << F_FREE * INDICES) | freed << F_LATE * INDICES
