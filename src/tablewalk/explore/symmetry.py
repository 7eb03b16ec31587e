# SPDX-License-Identifier: GPL-2.0-only
"""Threads that do the same can change places: of the states that this makes of one, the search keeps the least.

What a thread does becomes what the other does if nodes, cells and values change places too.  Which for which is not
declared but learned: an edge that is learned is learned of the threads in the others' places as well, and where the one
leads is the image of where the other leads, and what the one stores that of what the other stores.  So values need no
types, but for those that the native side stores itself.  What turns out not to be alike (code that orders objects by
address, say) raises `Asymmetric`, and the search begins anew without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from types import CodeType, FunctionType, MethodType
from typing import Any

from tablewalk.machine.effects import ADDRESS_BITS

from .learn import Node
from .tables import (
    ACTOR_BITS,
    AT_REST,
    GHOST,
    INIT,
    INSN,
    IPI_WAIT,
    LOCKTYPE,
    MAPPED,
    MAX_SYMMETRIES,
    MUTEX,
    PER_THREAD,
    PRIVATE,
    RCU_WAIT,
    SPINLOCK,
    Tables,
)

WRITER_SHIFT = 40


class Asymmetric(Exception):
    """Threads that seemed to do the same do not."""


def alike(bodies: Sequence[Callable[[], Any]]) -> list[list[int]]:
    """Numbers of the threads that do the same, in groups of two and more."""
    groups: list[list[int]] = []
    for t, body in enumerate(bodies):
        group = next((g for g in groups if _same(bodies[g[0]], body)), None)
        if group is None:
            groups.append([t])
        else:
            group.append(t)
    return [g for g in groups if len(g) > 1]


def _same(f: Any, g: Any) -> bool:
    """Whether two functions have the same text, on the same objects."""
    if isinstance(f, MethodType) and isinstance(g, MethodType):
        return f.__self__ is g.__self__ and f.__func__ is g.__func__
    if not isinstance(f, FunctionType) or not isinstance(g, FunctionType):
        return f is g
    if f.__defaults__ != g.__defaults__ or not _same_code(f.__code__, g.__code__):
        return False
    cells = zip(f.__closure__ or (), g.__closure__ or (), strict=True)
    return all(a.cell_contents is b.cell_contents for a, b in cells)


def _same_code(f: CodeType, g: CodeType) -> bool:
    names = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars")
    if any(getattr(f, name) != getattr(g, name) for name in names) or len(f.co_consts) != len(g.co_consts):
        return False
    return all(
        _same_code(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else a == b
        for a, b in zip(f.co_consts, g.co_consts, strict=True)
    )


class Symmetry:
    """The ways in which the threads of each group can change places; way 0 leaves all where they are."""

    def __init__(self, tables: Tables, machine: Any, threads: int, groups: Iterable[Sequence[int]]) -> None:
        self._tables, self._machine = tables, machine
        ways = [tuple(range(threads))]
        for group in groups:
            ways = [_placed(way, group, order) for way in ways for order in permutations(group)]
        self.asked = len(ways) > 1
        self.ways = ways if len(ways) <= MAX_SYMMETRIES + 1 else ways[:1]
        self._after = {(a, b): self.ways.index(_then(x, y)) for a, x in self._all() for b, y in self._all()}
        self._node: list[dict[int, int]] = [{} for _ in self.ways]
        self._value: list[dict[tuple[int, int], int]] = [{} for _ in self.ways]
        self.pools: list[dict[int, int]] = [{} for _ in self.ways]  # object of a pool -> object of another's
        tables.dims[7] = len(self.ways) - 1
        for g, way in self._all()[1:]:
            tables.sym_thread[g - 1, :threads] = way

    def _all(self) -> list[tuple[int, tuple[int, ...]]]:
        return list(enumerate(self.ways))

    def end(self) -> None:
        """No threads can change places any more."""
        del self.ways[1:]
        self._tables.dims[7] = 0

    # --- images: of what in way `g` ----------------------------------------------------------------------

    def thread(self, g: int, t: int) -> int:
        """Who is in the place of a thread; RCU callbacks stay where they are."""
        way = self.ways[g]
        return way[t] if t < len(way) else t

    def bits(self, g: int, mask: int) -> int:
        """A mask of threads."""
        return sum(1 << self.thread(g, t) for t in range(mask.bit_length()) if mask >> t & 1)

    def address(self, g: int, address: int) -> int:
        """A cell."""
        if 0 < address < 1 + len(self.ways[g]) * PER_THREAD:
            t, which = divmod(address - 1, PER_THREAD)
            return 1 + self.thread(g, t) * PER_THREAD + which
        base = self._machine.base_of[address] if 0 <= address < len(self._machine.base_of) else 0
        return self.pools[g].get(base, base) + address - base

    def node(self, g: int, node: int) -> int:
        """An automaton's node."""
        return self._node[g][node] if g else node

    def value(self, g: int, address: int, value: int) -> int:
        """What a cell holds."""
        if g == 0:
            return value
        known = self._value[g].get((address, value))
        if known is not None:
            return known
        cell = self._tables.cell[address]
        if 0 < address < 1 + PER_THREAD * int(self._tables.dims[0] + self._tables.dims[1]):
            which = (address - 1) % PER_THREAD
            if which in (RCU_WAIT, IPI_WAIT):
                return self.bits(g, value)
            if which == MAPPED:
                places = range(0, value.bit_length(), ADDRESS_BITS)
                return sum(self.address(g, value >> i & (1 << ADDRESS_BITS) - 1) << i for i in places)
            return self.address(g, value) if which == INSN else value
        base = self._machine.base_of[address]
        if base and address == self._tables.cell[base, GHOST]:
            t = value - PRIVATE
            return PRIVATE + self.thread(g, t) if 0 <= t < len(self.ways[g]) else value
        kind = int(cell[LOCKTYPE])
        if kind in (SPINLOCK, MUTEX):
            return self.thread(g, value - 1) + 1 if value else 0
        if kind:
            writer, readers = value >> WRITER_SHIFT, value & (1 << WRITER_SHIFT) - 1
            return self.bits(g, readers) | (self.thread(g, writer - 1) + 1 << WRITER_SHIFT if writer else 0)
        for column in (INIT, AT_REST):
            if value == cell[column]:
                return int(self._tables.cell[self.address(g, address), column])
        raise Asymmetric(f"{self._machine.name_of(address)} with {value}")

    # --- what is learned ---------------------------------------------------------------------------------

    def stores(self, address: int, values: Sequence[int]) -> None:
        """A cell may hold values[0], where its image in way g holds values[g]."""
        for a in range(len(self.ways)):
            for g in range(1, len(self.ways)):
                key = self.address(a, address), values[a]
                image = values[self._after[a, g]]
                if self._value[g].setdefault(key, image) != image:
                    raise Asymmetric(self._machine.name_of(address))

    def leads(self, nodes: Sequence[Node]) -> None:
        """A thread may come to nodes[0] where the one in its place in way g comes to nodes[g]."""
        for a, node in enumerate(nodes):
            for g in range(1, len(self.ways)):
                image = nodes[self._after[a, g]]
                known = self._node[g].setdefault(node.number, image.number)
                same = (image.name, image.address) == (node.name, self.address(g, node.address))
                if known != image.number or not same:
                    raise Asymmetric(f"{node.name} of {self._machine.name_of(node.address)}")
                self._tables.sym_node[g - 1, node.number] = image.number

    # --- schedules ---------------------------------------------------------------------------------------

    def actors(self, links: Iterable[int]) -> list[int]:
        """Who takes the steps to a state that the search kept, given who took each there and which way led on."""
        taken: list[int] = []
        way = 0  # of what really happens, to what the search kept
        back = {(g, self.thread(g, t)): t for g in range(len(self.ways)) for t in range(len(self.ways[g]))}
        for link in links:
            actor, turned = link & (1 << ACTOR_BITS) - 1, link >> ACTOR_BITS
            taken.append(back.get((way, actor), actor))
            way = self._after[way, turned] if turned else way
        return [self.thread(way, t) for t in taken]


def _placed(way: tuple[int, ...], group: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """`way`, and those of `group` in the places of those of `order`."""
    to = dict(zip(group, order, strict=True))
    return tuple(to.get(t, t) for t in way)


def _then(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(second[t] for t in first)
