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
    return sorted([(i, v) for i, v in array.items() if first <= i <= last])


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
    """Values whose range overlaps first..last, by where they begin; of those that begin at one place the older first.

    include/linux/interval_tree_generic.h
    """
    tree = _intervals[root]
    found = [v for v, (low, high) in tree.items() if low <= last and high >= first]
    if len(found) > 1:
        found.sort(key=lambda v: tree[v][0])
    return found


def interval_tree_empty(root: int) -> bool:
    """Whether nothing is in the tree."""
    return not _intervals[root]


# --- red-black tree: values in an order that its user knows; shaped as lib/rbtree.c shapes it -------------

LEFT: Final = 0
RIGHT: Final = 1


class _Node:
    __slots__ = ("below", "parent", "red")

    def __init__(self, parent: int) -> None:
        self.below = [0, 0]
        self.parent = parent
        self.red = True


class _RbTree:
    __slots__ = ("nodes", "root")

    def __init__(self) -> None:
        self.root = 0
        self.nodes: dict[int, _Node] = {}

    def link(self, parent: int, old: int, new: int) -> None:
        """Let `new` (or nothing) hang where `old` hung below `parent`, or be the root."""
        if parent == 0:
            self.root = new
        else:
            below = self.nodes[parent].below
            below[below.index(old)] = new
        if new:
            self.nodes[new].parent = parent

    def rotate(self, value: int, side: int) -> int:
        """Let the child on the other side take the place of `value`, which goes down to `side`; returns that child."""
        node = self.nodes[value]
        up = node.below[1 - side]
        inner = self.nodes[up].below[side]
        self.link(node.parent, value, up)
        node.below[1 - side] = inner
        if inner:
            self.nodes[inner].parent = value
        self.nodes[up].below[side] = value
        node.parent = up
        return up

    def is_red(self, value: int) -> bool:
        """Whether there is such a node and it is red."""
        return value != 0 and self.nodes[value].red

    def balance_inserted(self, value: int) -> None:
        """No red node has a red child, after `value` was inserted as a red leaf."""
        nodes = self.nodes
        while self.is_red(nodes[value].parent):
            parent = nodes[value].parent
            above = nodes[parent].parent
            side = nodes[above].below.index(parent)
            uncle = nodes[above].below[1 - side]
            if self.is_red(uncle):
                nodes[parent].red = nodes[uncle].red = False
                nodes[above].red = True
                value = above
                continue
            if nodes[parent].below[1 - side] == value:
                parent = self.rotate(parent, side)
            nodes[parent].red = False
            nodes[above].red = True
            self.rotate(above, 1 - side)
            break
        nodes[self.root].red = False

    def balance_erased(self, parent: int) -> None:
        """Each path has as many black nodes again, after a black one below `parent` has gone and left nothing."""
        nodes, value = self.nodes, 0
        while parent:
            side = nodes[parent].below.index(value)
            sibling = nodes[parent].below[1 - side]
            if nodes[sibling].red:
                self.rotate(parent, side)
                nodes[sibling].red, nodes[parent].red = False, True
                sibling = nodes[parent].below[1 - side]
            near, far = nodes[sibling].below[side], nodes[sibling].below[1 - side]
            if not self.is_red(near) and not self.is_red(far):
                nodes[sibling].red = True
                if nodes[parent].red:
                    nodes[parent].red = False
                    return
                value, parent = parent, nodes[parent].parent
                continue
            if not self.is_red(far):
                far, sibling = sibling, self.rotate(sibling, 1 - side)
            nodes[sibling].red, nodes[parent].red, nodes[far].red = nodes[parent].red, False, False
            self.rotate(parent, side)
            return

    def erase(self, value: int) -> None:
        """Take `value` out."""
        nodes = self.nodes
        node = nodes[value]
        if node.below[LEFT] and node.below[RIGHT]:
            self._swap_with_next(value)
        child = node.below[LEFT] or node.below[RIGHT]
        parent, black = node.parent, not node.red
        self.link(parent, value, child)
        del nodes[value]
        if child:
            nodes[child].red = False
        elif black and parent:
            self.balance_erased(parent)

    def _swap_with_next(self, value: int) -> None:
        """Let `value` and the one that follows in order change places and colours."""
        nodes = self.nodes
        node = nodes[value]
        right = next_ = node.below[RIGHT]
        while nodes[next_].below[LEFT]:
            next_ = nodes[next_].below[LEFT]
        other = nodes[next_]
        parent, child = other.parent, other.below[RIGHT]
        self.link(node.parent, value, next_)
        other.below[LEFT] = node.below[LEFT]
        nodes[other.below[LEFT]].parent = next_
        if next_ == right:
            other.below[RIGHT] = value
            node.parent = next_
        else:
            other.below[RIGHT] = right
            nodes[right].parent = next_
            nodes[parent].below[LEFT] = value
            node.parent = parent
        node.below = [0, child]
        if child:
            nodes[child].parent = value
        node.red, other.red = other.red, node.red


_rb_trees: Final[dict[int, _RbTree]] = {}


def rb_init(tree: int) -> None:
    """An empty tree, whatever was in it."""
    _rb_trees[tree] = _RbTree()


def rb_root(tree: int) -> int:
    """The value at the root, or 0."""
    return _rb_trees[tree].root


def rb_child(tree: int, value: int, side: int) -> int:
    """The value below `value` on a side (LEFT or RIGHT), or 0."""
    return _rb_trees[tree].nodes[value].below[side]


def rb_insert(tree: int, value: int, parent: int, side: int) -> None:
    """Add `value` below `parent` (0: to an empty tree) on a side where nothing is."""
    t = _rb_trees[tree]
    t.nodes[value] = _Node(parent)
    if parent:
        t.nodes[parent].below[side] = value
    else:
        t.root = value
    t.balance_inserted(value)


def rb_erase(tree: int, value: int) -> None:
    """Remove `value`.  Raises KeyError if it is not there."""
    _rb_trees[tree].erase(value)


def rb_replace(tree: int, old: int, new: int) -> None:
    """Let `new` be where `old` is."""
    t = _rb_trees[tree]
    node = t.nodes.pop(old)
    t.nodes[new] = node
    t.link(node.parent, old, new)
    for child in node.below:
        if child:
            t.nodes[child].parent = new


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
    _rb_trees.clear()
    _vectors.clear()
