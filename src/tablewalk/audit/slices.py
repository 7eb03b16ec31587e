# SPDX-License-Identifier: GPL-2.0-only
"""Leaves of a graph what matters to page tables, and says which facts are still of use where."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from tablewalk.audit.flow import Call, Graph, Op, Return, Select, Set, Step, Stop, Test, Use, is_name, paths
from tablewalk.audit.names import PURE

_CALL = re.compile(r"(\w+)\(([^()]*)\)")
_UNSTABLE = re.compile(r"\*|\[|\$|\?|\+\+|--")


def tracked(graph: Graph, seeds: Iterable[str], gives: Callable[[Call], Iterable[str]]) -> frozenset[str]:
    """The places that may come to hold something of interest, order disregarded."""
    found = set(seeds)
    for op in graph.ops:
        if isinstance(op, Call):
            found.update(gives(op))
    copies = [(op.place, op.value.place) for op in graph.ops if isinstance(op, Set) and op.value.place]
    while True:
        new = {to for to, source in copies if source in found and to not in found}
        if not new:
            return frozenset(found)
        found |= new


def compress(graph: Graph, matters: Callable[[Op], bool]) -> None:
    """Take out operations that do not matter, and tests whose ways lead to the same place."""
    skip: list[int | None] = [None] * len(graph.ops)
    for i, op in enumerate(graph.ops):
        if i and not isinstance(op, Test | Select | Return | Stop) and not matters(op):
            skip[i] = graph.next[i][0]
    while True:
        for i, ways in enumerate(graph.next):
            for k, to in enumerate(ways):
                seen = set()
                while to >= 0 and skip[to] is not None and to not in seen:
                    seen.add(to)
                    to = skip[to] or 0
                graph.next[i][k] = to
        again = False
        for i, op in enumerate(graph.ops):
            if isinstance(op, Test | Select) and skip[i] is None and len(set(graph.next[i])) == 1 and i:
                skip[i] = graph.next[i][0]
                again = graph.next[i][0] != i or again
                if graph.next[i][0] == i:
                    skip[i] = None
        if not again:
            return


@functools.lru_cache(maxsize=8192)
def stable(text: str) -> bool:
    """Whether a condition says the same when it is asked again with nothing assigned between."""
    if _UNSTABLE.search(text):
        return False
    return all(PURE.match(name) and all(map(_simple, args.split(","))) for name, args in _CALL.findall(text)) and (
        "(" not in _CALL.sub("", text) or _CALL.search(text) is None
    )


def _simple(argument: str) -> bool:
    return is_name(argument) or argument.isdigit() or not argument


@functools.lru_cache(maxsize=8192)
def named(text: str) -> frozenset[str]:
    return paths(text)


def used(op: Op) -> Iterable[str]:
    """The places whose value `op` reads."""
    if isinstance(op, Call):
        return [a.place for a in op.args if a.place]
    if isinstance(op, Set):
        return [op.value.place] if op.value.place else []
    if isinstance(op, Use | Step):
        return [op.place] if op.place else []  # of what has no name, as in text that is no C
    if isinstance(op, Test):
        return [v.place for v in (op.left, op.right) if v is not None and v.place]
    if isinstance(op, Select | Return):
        return [op.value.place] if op.value is not None and op.value.place else []
    return []


def changed(op: Op) -> Iterable[str]:
    """The places that `op` gives another value."""
    if isinstance(op, Set | Step):
        return (op.place,)
    if isinstance(op, Call):
        return [a.place for a in op.args if a.address and a.place]
    return ()


def liveness(graph: Graph) -> list[frozenset[str]]:
    """For each operation, what is still asked for after it has been done: places, `?` conditions, `=` constants."""
    before: list[frozenset[str]] = [frozenset()] * len(graph.ops)
    after: list[frozenset[str]] = [frozenset()] * len(graph.ops)
    predecessors: list[list[int]] = [[] for _ in graph.ops]
    for i, ways in enumerate(graph.next):
        for to in ways:
            if to >= 0:
                predecessors[to].append(i)
    pending = list(range(len(graph.ops)))
    queued = set(pending)
    while pending:
        i = pending.pop()
        queued.discard(i)
        after[i] = frozenset().union(*(before[to] for to in graph.next[i] if to >= 0))
        new = _live_before(graph.ops[i], after[i])
        if new != before[i]:
            before[i] = new
            for p in predecessors[i]:
                if p not in queued:
                    queued.add(p)
                    pending.append(p)
    return after


def _live_before(op: Op, after: frozenset[str]) -> frozenset[str]:
    live = set(after)
    for place in changed(op):
        if isinstance(op, Set) and op.how == "=":
            live.discard(place)
        constant_lives = "=" + place in live
        live.discard("=" + place)
        if constant_lives and isinstance(op, Set) and op.value.place:
            live.add("=" + op.value.place)
        for key in [k for k in live if k[0] == "?" and place in named(k[1:])]:
            live.discard(key)
    live.update(used(op))
    if isinstance(op, Test):
        if stable(op.text):
            live.add("?" + op.text)
        for v in (op.left, op.right):
            if v is not None and v.place:
                live.add("=" + v.place)
    elif isinstance(op, Select | Return) and op.value is not None and op.value.place:
        live.add("=" + op.value.place)
    return frozenset(live)
