# SPDX-License-Identifier: GPL-2.0-only
"""Reduces a program on which kernel and model differ to a small one on which they still do.

Operations are left out, first many at a time (delta debugging), then sizes, places and values become simple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .ops import ARGUMENTS, Family, Geometry, Op

Program = Sequence[Op]
Judge = Callable[[Sequence[Program]], list[bool]]  # which of these programs still disagree
BATCH = 8  # programs that are tried in one run of the kernel


def shrink(program: Program, disagree: Judge, geometry: Geometry) -> list[Op]:
    """The smallest program found; `disagree` judges candidates."""
    ops = _drop_operations(list(program), disagree)
    ops = _simplify(ops, disagree, geometry)
    return _drop_operations(ops, disagree)


def valid(ops: Sequence[Op]) -> list[Op]:
    """The operations of processes that live, after a reset."""
    family = Family()
    kept = [Op(0, "reset")]
    for op in ops:
        if op.kind == "reset" or not family.allows(op):
            continue
        family.after(op)
        kept.append(op)
    return kept


def _first(candidates: Iterator[list[Op]], disagree: Judge) -> list[Op] | None:
    """The first candidate that still disagrees, or None."""
    batch: list[list[Op]] = []
    for candidate in candidates:
        batch.append(candidate)
        if len(batch) == BATCH:
            for tried, still in zip(batch, disagree(batch), strict=True):
                if still:
                    return tried
            batch = []
    if batch:
        for tried, still in zip(batch, disagree(batch), strict=True):
            if still:
                return tried
    return None


def _drop_operations(ops: list[Op], disagree: Judge) -> list[Op]:
    size = max(len(ops) // 2, 1)
    while True:
        smaller = _first(_without(ops, size), disagree)
        if smaller is not None:
            ops = smaller
            size = min(size, max(len(ops) // 2, 1))
        elif size == 1:
            return ops
        else:
            size = max(size // 2, 1)


def _without(ops: list[Op], size: int) -> Iterator[list[Op]]:
    """The program without each `size` operations in a row, the last first; never without the reset."""
    for end in range(len(ops), 1, -size):
        shorter = valid([*ops[: max(end - size, 1)], *ops[end:]])
        if len(shorter) < len(ops):
            yield shorter


def _simplify(ops: list[Op], disagree: Judge, geometry: Geometry) -> list[Op]:
    """Arguments made simple one by one, as long as that is possible."""
    while True:
        simpler = _first(_simpler(ops, geometry), disagree)
        if simpler is None:
            return ops
        ops = simpler


def _simpler(ops: list[Op], geometry: Geometry) -> Iterator[list[Op]]:
    for i, op in enumerate(ops):
        if op.thread:
            yield [*ops[:i], op._replace(thread=0), *ops[i + 1 :]]
        for k, name in enumerate(ARGUMENTS[op.kind].split()):
            for value in _values(name, op.args[k], geometry):
                args = (*op.args[:k], value, *op.args[k + 1 :])
                yield [*ops[:i], op._replace(args=args), *ops[i + 1 :]]


def _values(name: str, value: int, geometry: Geometry) -> list[int]:
    """Simpler values than this one, the simplest first."""
    page, table = geometry.page, geometry.page * geometry.table
    if "addr" in name and geometry.start <= value < geometry.end:
        found = [geometry.start + (value - geometry.start) // table * table]
    elif name in ("length", "old_length", "new_length", "step", "offset"):
        found = [page, table] if name != "offset" else [0]
    elif name == "value":
        found = [1]
    elif name in ("features", "mode"):
        found = [value & ~(1 << bit) for bit in range(value.bit_length()) if value >> bit & 1]
    else:
        found = []
    return [f for f in found if f < value]
