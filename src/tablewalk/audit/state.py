# SPDX-License-Identifier: GPL-2.0-only
"""What is known at one place of one path through a function."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from tablewalk.audit.flow import Constant

MAPPED, UNMAPPED, LOCK, PAGE = (
    "mapped",
    "unmapped",
    "lock",
    "page",
)  # LOCK: one without a table; PAGE: kmap_local_page()'s
HELD, FREE, NEVER, ASSUMED, ALIAS = "held", "free", "never", "assumed", "alias"


class Ref(NamedTuple):
    """What a place holds: a pointer into table `table`, its lock, or the failure of its map."""

    # "map", "null", "err", "lock", "kernel", "huge", "live" (a lock found by a second look), "pml", "nolock" (where the
    # map failed), "same" (a comparison), "entry" (an entry's value), "page" (of kmap_local_page())
    kind: str
    table: int
    # Of a pointer: as mapped; "used" there; "past" its last use; "inside".  Of an entry: "stale" once locked after.
    where: str = "start"


class Table(NamedTuple):
    """A page table that was mapped at operation `id` (negative: mapped by a caller)."""

    status: str
    lock: str
    kind: str
    line: int
    ptl: str = ""  # the place that holds its lock
    pmdval: str = ""
    recheck: str = ""  # for "rw": "", "weak" (pte_same of an entry that was none), "done"


_BY_NAME = itemgetter(0)
Frozen = tuple[
    tuple[tuple[str, Ref], ...], tuple[tuple[int, Table], ...], tuple[tuple[str, Constant | bool], ...], tuple[int, ...]
]


class State:
    """Mutable; `freeze` gives what compares and hashes."""

    __slots__ = ("dead", "env", "facts", "order", "tables")

    def __init__(self, frozen: Frozen = ((), (), (), ())) -> None:
        self.env: dict[str, Ref] = dict(frozen[0])
        self.tables: dict[int, Table] = dict(frozen[1])
        self.facts: dict[str, Constant | bool] = dict(frozen[2])
        self.order: tuple[int, ...] = frozen[3]
        self.dead = False  # nothing more happens on this path

    def freeze(self) -> Frozen:
        return (
            tuple(sorted(self.env.items())),
            tuple(sorted(self.tables.items())),
            tuple(sorted(self.facts.items(), key=_BY_NAME)),
            self.order,
        )

    def copy(self) -> State:
        new = State()
        new.env, new.tables, new.facts, new.order = dict(self.env), dict(self.tables), dict(self.facts), self.order
        return new

    def pointer(self, place: str) -> tuple[Ref, Table] | None:
        """The table that `place` points into."""
        ref = self.env.get(place)
        if ref is None or ref.kind != "map" or ref.table not in self.tables:
            return None
        return ref, self.tables[ref.table]

    def change(
        self, table: int, status: str | None = None, lock: str | None = None, recheck: str | None = None
    ) -> None:
        old = self.tables[table]
        self.tables[table] = old._replace(
            status=old.status if status is None else status,
            lock=old.lock if lock is None else lock,
            recheck=old.recheck if recheck is None else recheck,
        )

    def leave(self, table: int) -> None:
        """`table` is none of those that are mapped now."""
        self.order = tuple(i for i in self.order if i != table)

    def forget(self, place: str) -> None:
        """`place` is about to get another value."""
        self.env.pop(place, None)
        prefix = (place + "->", place + ".", "*" + place)
        for other in [p for p in self.env if p.startswith(prefix) and (p[0] != "*" or p == "*" + place)]:
            del self.env[other]
