# SPDX-License-Identifier: GPL-2.0-only
"""Containers: shared objects with operations of their own, each named by the address of the field that holds it.

What matters to the model is which operations conflict, not how a tree is balanced.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

# --- maple tree: disjoint ranges of an address space, each with a value ---------------------------------


class _Tree:
    __slots__ = ("ends", "starts", "values")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.values: list[int] = []


_trees: Final[dict[int, _Tree]] = {}


def mt_init(tree: int) -> None:
    """An empty tree."""
    _trees[tree] = _Tree()


def mt_destroy(tree: int) -> None:
    """The tree is gone."""
    del _trees[tree]


def mtree_load(tree: int, index: int) -> int:
    """Value of the range that contains `index`, or 0; under RCU or the tree's lock."""
    t = _trees[tree]
    i = bisect_right(t.starts, index) - 1
    if i >= 0 and index < t.ends[i]:
        return t.values[i]
    return 0


def mt_find(tree: int, index: int) -> int:
    """Value of the first range that ends above `index`, or 0."""
    t = _trees[tree]
    i = bisect_right(t.ends, index)
    return t.values[i] if i < len(t.values) else 0


def mt_prev(tree: int, index: int) -> int:
    """Value of the last range that begins below `index`, or 0."""
    t = _trees[tree]
    i = bisect_left(t.starts, index) - 1
    return t.values[i] if i >= 0 else 0


def mt_range(tree: int, start: int, end: int) -> list[int]:
    """Values of the ranges that overlap [start, end), in order."""
    t = _trees[tree]
    return t.values[bisect_right(t.ends, start) : bisect_left(t.starts, end)]


def mt_values(tree: int) -> list[int]:
    """All values, in order."""
    return list(_trees[tree].values)


def mt_store(tree: int, start: int, end: int, value: int) -> None:
    """Map [start, end) to `value`, replacing what the tree had there; neighbours that overlap are cut."""
    t = _trees[tree]
    i = bisect_right(t.ends, start)
    j = bisect_left(t.starts, end)
    left: list[tuple[int, int, int]] = []
    right: list[tuple[int, int, int]] = []
    if i < j:
        if t.starts[i] < start:
            left = [(t.starts[i], start, t.values[i])]
        if t.ends[j - 1] > end:
            right = [(end, t.ends[j - 1], t.values[j - 1])]
    new = [*left, (start, end, value), *right] if value else [*left, *right]
    t.starts[i:j] = [n[0] for n in new]
    t.ends[i:j] = [n[1] for n in new]
    t.values[i:j] = [n[2] for n in new]


def mt_erase(tree: int, start: int, end: int) -> None:
    """Unmap [start, end)."""
    mt_store(tree, start, end, 0)


# --- xarray: values by index -----------------------------------------------------------------------------

_xarrays: Final[dict[int, dict[int, int]]] = {}


def xa_init(xa: int) -> None:
    """An empty array."""
    _xarrays[xa] = {}


def xa_destroy(xa: int) -> None:
    """The array is gone."""
    del _xarrays[xa]


def xa_load(xa: int, index: int) -> int:
    """The value at `index`, or 0."""
    return _xarrays[xa].get(index, 0)


def xa_store(xa: int, index: int, value: int) -> None:
    """Set the value at `index`; 0 erases it."""
    if value:
        _xarrays[xa][index] = value
    else:
        _xarrays[xa].pop(index, None)


def xa_range(xa: int, first: int, last: int) -> list[tuple[int, int]]:
    """(index, value) of all entries with first <= index <= last, in order."""
    array = _xarrays[xa]
    if last - first < len(array):
        return [(i, array[i]) for i in range(first, last + 1) if i in array]
    return sorted((i, v) for i, v in array.items() if first <= i <= last)


# --- interval tree: values by overlapping range ----------------------------------------------------------

_intervals: Final[dict[int, dict[int, tuple[int, int]]]] = {}


def interval_tree_init(root: int) -> None:
    """An empty tree."""
    _intervals[root] = {}


def interval_tree_destroy(root: int) -> None:
    """The tree is gone."""
    del _intervals[root]


def interval_tree_insert(root: int, first: int, last: int, value: int) -> None:
    """Add `value` with the range first..last (inclusive)."""
    _intervals[root][value] = (first, last)


def interval_tree_remove(root: int, value: int) -> None:
    """Remove `value`.  Raises KeyError if it is not there."""
    del _intervals[root][value]


def interval_tree_overlapping(root: int, first: int, last: int) -> list[int]:
    """Values whose range overlaps first..last, in order of insertion."""
    return [v for v, (low, high) in _intervals[root].items() if low <= last and high >= first]


def interval_tree_empty(root: int) -> bool:
    """Whether nothing is in the tree."""
    return not _intervals[root]


# --- vector: a growing array that one task fills -------------------------------------------------------

_vectors: Final[dict[int, list[int]]] = {}


def vec_init(vec: int) -> None:
    """An empty vector."""
    _vectors[vec] = []


def vec_push(vec: int, value: int) -> int:
    """Append; returns the new length."""
    v = _vectors[vec]
    v.append(value)
    return len(v)


def vec_take(vec: int) -> list[int]:
    """All values; the vector is empty afterwards."""
    values = _vectors[vec]
    _vectors[vec] = []
    return values


def reset_containers() -> None:
    """No container is left."""
    _trees.clear()
    _xarrays.clear()
    _intervals.clear()
    _vectors.clear()
