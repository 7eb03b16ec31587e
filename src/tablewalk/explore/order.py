# SPDX-License-Identifier: GPL-2.0-only
"""The order in which threads take locks: which class while another is held, as lockdep keeps it.

It is read off the learned automata when a search is over: each of their edges was gone in some schedule.  So a wrong
order is found even if no schedule of the scenario deadlocks, or none does because of a third lock.
Locks of one class inside each other are left to the driver `checked`, which knows what was taken as nested.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from .engine import Engine
from .learn import Node

TAKES: Final = frozenset({"lock", "down_read", "down_write", "map_write"})
WAITS: Final = TAKES | {"wait_unlocked"}
TAKES_AT_ONCE: Final = frozenset({"map_read", "map_try"})  # like a trylock: who does not wait does not deadlock
TRIES: Final = frozenset({"trylock", "down_read_trylock", "down_write_trylock"})
GIVES: Final = frozenset({"unlock", "up_read", "up_write", "map_release"})

Held = frozenset[int]
Order = dict[tuple[str, str], "Taken"]  # (class held, class taken) -> the first that was found to do so


@dataclass(frozen=True, slots=True)
class Taken:
    """Who takes a lock while another is held, and where."""

    thread: str
    place: str


def order_of(engine: Engine, threads: list[str]) -> Order:
    """What the automata of a search do; `threads` are the names of those that are no RCU callbacks."""
    nodes, found = engine.learner.nodes, Order()
    todo: list[tuple[Node, Held]] = [(node, Held()) for node in _first(nodes[1:])]
    seen = set[tuple[int, Held]]()
    while todo:
        node, held = todo.pop()
        if (node.number, held) in seen:
            continue
        seen.add((node.number, held))
        if node.name in WAITS and engine.machine.cell_of(node.address):  # what is no lock breaks another rule
            taken = Taken(threads[node.thread] if node.thread < len(threads) else "RCU", node.place())
            for lock in held:
                found.setdefault((_class(engine, lock), _class(engine, node.address)), taken)
        todo += [(nodes[after], _held_after(engine, node, held, result)) for result, after in node.next.items()]
    return {pair: taken for pair, taken in found.items() if pair[0] != pair[1]}


def _first(nodes: list[Node]) -> Iterable[Node]:
    later = {after for node in nodes for after in node.next.values()}
    return [node for node in nodes if node.number not in later]


def _held_after(engine: Engine, node: Node, held: Held, result: object) -> Held:
    if node.name in TAKES | TAKES_AT_ONCE or (node.name in TRIES and result):
        return held | {node.address}
    if node.name in GIVES:
        return held - {node.address}
    if node.name == "free":
        return Held(lock for lock in held if engine.machine.base_of[lock] != node.address)
    if node.name == "map_release_writes":
        return held - set(engine.machine.maps())
    return held


def _class(engine: Engine, lock: int) -> str:
    machine = engine.machine
    base, slot = machine.cell_of(lock)
    return f"{machine.layouts[machine.class_of[base]].name}.{slot.name}"


def joined(orders: Iterable[Order]) -> Order:
    """What several searches have found."""
    return {pair: taken for order in orders for pair, taken in order.items()}


def inversion(order: Order) -> str:
    """A sentence about locks that are taken in a circle, the shortest there is; empty if there is none."""
    circles = [way for first in sorted({held for held, _ in order}) if (way := _circle(order, first))]
    if not circles:
        return ""
    shortest = min(circles, key=lambda way: len(way))
    said = [
        f"{order[pair].thread} takes {pair[1]} while it holds {pair[0]} ({order[pair].place})"
        for pair in pairwise(shortest)
    ]
    return f"locks are taken in a circle: {', '.join(said)}"


def _circle(order: Order, first: str) -> list[str]:
    """The shortest way from a class back to it, both ends included; empty if there is none."""
    ways, seen = [[first]], {first}
    for way in ways:
        for held, taken in order:
            if held == way[-1] and taken == first:
                return [*way, first]
            if held == way[-1] and taken not in seen:
                seen.add(taken)
                ways.append([*way, taken])
    return []
