# SPDX-License-Identifier: GPL-2.0-only
"""Typed views of memory in plain Python: a view is an int, its fields are properties over the flat list.

Under mypyc this module is replaced by a native base class (`native.py`), and each struct by generated text.
"""

from __future__ import annotations

from typing import Any

from . import memory, sequential
from .generate import plain_accessors
from .layout import Field, layout_of
from .memory import alloc_cells, free_cells, mem, register


class struct(int):
    """A typed view of an instance in memory: the address, with the declared fields as attributes."""

    __slots__ = ()
    addr = int.real  # the address as a plain int

    def __init_subclass__(cls) -> None:
        fields = {k: v for k, v in vars(cls).items() if isinstance(v, Field)}
        layout = layout_of(cls.__name__, fields, cls.__annotations__)
        class_id = register(layout)
        text: dict[str, Any] = {"mem": mem}
        exec(plain_accessors(layout), text)
        for name in fields:
            setattr(cls, name, property(text[f"get_{name}"], text.get(f"set_{name}")))

        def alloc(nr: int = 0) -> Any:
            return cls(alloc_cells(class_id, nr))

        def free(self: struct, nr: int = 0) -> None:
            free_cells(class_id, self.real, nr)

        cls.alloc = staticmethod(alloc)  # type: ignore[method-assign]
        cls.free = free  # type: ignore[method-assign]

    @classmethod
    def alloc(cls, nr: int = 0) -> Any:
        """Allocate an instance, all zero, with `nr` trailing elements."""
        raise NotImplementedError

    def free(self, nr: int = 0) -> None:
        """Free it; `nr` as it was allocated with."""
        raise NotImplementedError


NO_RESULT = (
    "spin_unlock",
    "up_read",
    "up_write",
    "downgrade_write",
    "mutex_unlock",
    "lock_map_release",
    "lock_map_release_writes",
    "rcu_read_lock",
    "rcu_read_unlock",
    "kmap_local",
    "kunmap_local",
    "might_sleep",
    "publish",
    "unpublish",
    "forget",
    "local_irq_restore",
    "instruction_begin",
    "instruction_end",
    "tlb_invalidate",
    "tlb_fill",
)


def _nothing(*_: object) -> None:
    return None


def specialise() -> None:
    """The hottest primitives become the list's own methods, those without effect one empty function."""
    vars(memory)["load"] = mem.__getitem__
    vars(memory)["store"] = mem.__setitem__
    for module in (memory, sequential):
        for name in NO_RESULT:
            if name in vars(module):
                vars(module)[name] = _nothing


specialise()
