# SPDX-License-Identifier: GPL-2.0-only
"""What an operation on one cell does: (value, operands) -> (new value, result), pure functions by primitive's name.

`explore` learns each as a table, row by row, as values come up; so new primitives on a cell need nothing native.
Lock cells hold who has them: a spinlock or mutex its holder + 1, a rwsem or lockdep map a mask of readers and
the writer + 1 above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from . import containers

WRITER_SHIFT: Final = 40
ADDRESS_BITS: Final = 16  # of a search's memory


class Blocked(Exception):
    """The operation has to wait."""


class Broken(Exception):
    """The operation breaks a rule; the text says which."""


Effect = Callable[..., tuple[int, Any]]


def load(v: int) -> tuple[int, int]:
    return v, v


def store(v: int, x: int) -> tuple[int, None]:
    return x, None


def xchg(v: int, x: int) -> tuple[int, int]:
    return x, v


def cmpxchg(v: int, old: int, new: int) -> tuple[int, int]:
    return (new if v == old else v), v


def add(v: int, n: int) -> tuple[int, None]:
    return v + n, None


def add_return(v: int, n: int) -> tuple[int, int]:
    return v + n, v + n


def inc_not_zero(v: int) -> tuple[int, bool]:
    return (v + 1, True) if v else (v, False)


def inc_not_zero_limited(v: int, limit: int) -> tuple[int, bool]:
    return (v + 1, True) if 0 < v < limit else (v, False)


def atomic_or(v: int, bits: int) -> tuple[int, None]:
    return v | bits, None


def wait_until(v: int, value: int) -> tuple[int, None]:
    if v != value:
        raise Blocked
    return v, None


def wait_even(v: int) -> tuple[int, int]:
    if v & 1:
        raise Blocked
    return v, v


# --- locks; `me` is the thread ---------------------------------------------------------------------------


def lock(v: int, me: int) -> tuple[int, None]:
    if v == me + 1:
        raise Broken("deadlock: taken again by its holder")
    if v:
        raise Blocked
    return me + 1, None


def trylock(v: int, me: int) -> tuple[int, bool]:
    return (v, False) if v else (me + 1, True)


def unlock(v: int, me: int) -> tuple[int, None]:
    if v != me + 1:
        raise Broken("unlock: not held")
    return 0, None


def wait_unlocked(v: int, me: int) -> tuple[int, None]:
    if v == me + 1:
        raise Broken("deadlock: waited for by its holder")
    if v:
        raise Blocked
    return v, None


def down_read(v: int, me: int) -> tuple[int, None]:
    if v >> WRITER_SHIFT:
        if v >> WRITER_SHIFT == me + 1:
            raise Broken("deadlock: taken again by its holder")
        raise Blocked
    if v >> me & 1:
        raise Broken("deadlock: taken again by its holder, which a waiting writer would stop")
    return v | 1 << me, None


def down_read_trylock(v: int, me: int) -> tuple[int, bool]:
    return (v, False) if v >> WRITER_SHIFT else (v | 1 << me, True)


def up_read(v: int, me: int) -> tuple[int, None]:
    if v >> me & 1 == 0:
        raise Broken("unlock: not held for reading")
    return v & ~(1 << me), None


def down_write(v: int, me: int) -> tuple[int, None]:
    if v >> me & 1 or v >> WRITER_SHIFT == me + 1:
        raise Broken("deadlock: taken again by its holder")
    if v:
        raise Blocked
    return me + 1 << WRITER_SHIFT, None


def down_write_trylock(v: int, me: int) -> tuple[int, bool]:
    return (v, False) if v else (me + 1 << WRITER_SHIFT, True)


def up_write(v: int, me: int) -> tuple[int, None]:
    if v != me + 1 << WRITER_SHIFT:
        raise Broken("unlock: not held for writing")
    return 0, None


def downgrade_write(v: int, me: int) -> tuple[int, None]:
    if v != me + 1 << WRITER_SHIFT:
        raise Broken("unlock: not held for writing")
    return 1 << me, None


def map_read(v: int, me: int) -> tuple[int, None]:
    return v | 1 << me, None


def map_write(v: int, me: int) -> tuple[int, None]:
    return v | me + 1 << WRITER_SHIFT, None


def map_release(v: int, me: int) -> tuple[int, None]:
    if v >> me & 1:
        return v & ~(1 << me), None
    if v >> WRITER_SHIFT == me + 1:
        return v & (1 << WRITER_SHIFT) - 1, None
    raise Broken("unlock: not held")


def is_locked(v: int, me: int) -> tuple[int, bool]:
    return v, v == me + 1


def rwsem_is_locked(v: int, me: int) -> tuple[int, bool]:
    return v, v >> WRITER_SHIFT == me + 1 or v >> me & 1 == 1


# --- a count of nested sections, of one thread -----------------------------------------------------------


def enter(v: int) -> tuple[int, None]:
    return v + 1, None


# --- tables in high memory that a thread has mapped, the last in the lowest bits -------------------------


def kmap_local(v: int, table: int) -> tuple[int, None]:
    return v << ADDRESS_BITS | table, None


def kunmap_local(v: int, table: int) -> tuple[int, None]:
    if v & (1 << ADDRESS_BITS) - 1 != table:
        raise Broken("kunmap: unmaps a table that is not the last that it has mapped")
    return v >> ADDRESS_BITS, None


CELL: Final[dict[str, Effect]] = {
    f.__name__: f
    for f in (
        load, store, xchg, cmpxchg, add, add_return, inc_not_zero, inc_not_zero_limited, atomic_or, wait_until,
        wait_even, lock, trylock, unlock, wait_unlocked, down_read, down_read_trylock, up_read, down_write,
        down_write_trylock, up_write, downgrade_write, map_read, map_write, map_release, is_locked, rwsem_is_locked,
        enter, kmap_local, kunmap_local,
    )
}  # fmt: skip


# --- containers ------------------------------------------------------------------------------------------

# A container's cell holds the number of its content, an immutable value; 0 is no container.
contents: Final[list[Any]] = [None]
_numbers: Final[dict[Any, int]] = {}


def _number(content: Any) -> int:
    number = _numbers.get(content)
    if number is None:
        number = _numbers[content] = len(contents)
        contents.append(content)
    return number


def _kind(
    kind: str, places: dict[int, Any], thaw: Callable[[Any], Any], freeze: Callable[[Any], Any], names: str
) -> dict[str, Effect]:
    """The container operations `names` as effects: done by `containers` on a copy of the content."""

    def effect_of(name: str) -> Effect:
        operation = getattr(containers, name)

        def effect(v: int, *operands: Any) -> tuple[int, Any]:
            places.clear()
            if v:
                places[0] = thaw(contents[v][1])
            elif not name.endswith("_init"):
                raise Broken(f"use-after-free: {name} of a container that does not exist")
            result = operation(0, *operands)
            if isinstance(result, list):
                result = tuple(result)
            return _number((kind, freeze(places[0]))) if 0 in places else 0, result

        return effect

    return {name: effect_of(name) for name in names.split()}


def _thaw_tree(content: tuple[tuple[int, ...], ...]) -> containers._Tree:
    tree = containers._Tree()
    tree.starts, tree.ends, tree.values = (list(part) for part in content)
    return tree


def _thaw_rb_tree(content: tuple[Any, ...]) -> containers._RbTree:
    tree = containers._RbTree()
    tree.root, nodes = content
    for value, below, parent, red in nodes:
        node = tree.nodes[value] = containers._Node(parent)
        node.below, node.red = list(below), red
    return tree


def _freeze_rb_tree(tree: containers._RbTree) -> tuple[Any, ...]:
    nodes = tuple(sorted((int(v), tuple(map(int, n.below)), int(n.parent), n.red) for v, n in tree.nodes.items()))
    return int(tree.root), nodes


CONTAINER: Final[dict[str, Effect]] = {
    **_kind(
        "maple tree",
        containers._trees,
        _thaw_tree,
        lambda t: (tuple(t.starts), tuple(t.ends), tuple(int(v) for v in t.values)),
        "mt_init mt_destroy mtree_load mt_find mt_prev mt_range mt_values mt_store mt_erase",
    ),
    **_kind(
        "xarray",
        containers._xarrays,
        dict,
        lambda d: tuple(sorted((i, int(v)) for i, v in d.items())),
        "xa_init xa_destroy xa_load xa_store xa_range",
    ),
    **_kind(
        "interval tree",
        containers._intervals,
        dict,
        lambda d: tuple((int(v), r) for v, r in d.items()),
        "interval_tree_init interval_tree_destroy interval_tree_insert interval_tree_remove "
        "interval_tree_overlapping interval_tree_empty",
    ),
    **_kind(
        "red-black tree",
        containers._rb_trees,
        _thaw_rb_tree,
        _freeze_rb_tree,
        "rb_init rb_root rb_child rb_insert rb_erase rb_replace",
    ),
    **_kind("vector", containers._vectors, list, tuple, "vec_init vec_push vec_take"),
}
CONTAINER_READS: Final = frozenset(
    {"mtree_load", "mt_find", "mt_prev", "mt_range", "mt_values", "xa_load", "xa_range"}
    | {"interval_tree_overlapping", "interval_tree_empty", "rb_root", "rb_child"}
)
NO_RESULT: Final = frozenset(
    {"kmap_local", "kunmap_local"}
    | {"store", "add", "atomic_or", "wait_until", "lock", "unlock", "down_read", "up_read", "down_write", "up_write"}
    | {"wait_unlocked", "downgrade_write", "map_read", "map_write", "map_release", "enter", "mt_init", "mt_destroy"}
    | {"mt_store", "mt_erase", "xa_init", "xa_destroy", "xa_store", "interval_tree_init", "interval_tree_destroy"}
    | {"map_try", "interval_tree_insert", "interval_tree_remove", "vec_init"}
    | {"rb_init", "rb_insert", "rb_erase", "rb_replace"}
)
EFFECTS: Final = CELL | CONTAINER | {"map_try": map_write}  # which is one that does not wait
