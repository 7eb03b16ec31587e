# SPDX-License-Identifier: GPL-2.0-only
"""The text of a struct's accessors, made from its layout: one for plain Python, one for mypyc.

In plain Python a view is an `int` (its address), so a pointer field holds the view itself and costs one list
access.  mypyc has no native subclass of `int`: there a view is an object with the address in `a`, and a
pointer field is wrapped when it is read.  Model code does no arithmetic on views, so it cannot tell.
"""

from __future__ import annotations

from .layout import Cell, Layout, Slot

ADDRESSES = frozenset({Cell.ATOMIC, Cell.COUNTER, Cell.LOCK, Cell.ENTRIES, Cell.CONTAINER})


def plain_accessors(layout: Layout) -> str:
    """Functions `get_<field>` and `set_<field>` over the list `mem`, for a view that is an int."""
    lines = []
    for slot in layout.slots:
        if slot.field.cell in ADDRESSES:
            lines.append(f"def get_{slot.name}(self): return self + {slot.offset}")
        else:
            lines.append(f"def get_{slot.name}(self): return mem[self + {slot.offset}]")
            lines.append(f"def set_{slot.name}(self, value): mem[self + {slot.offset}] = value")
    return "\n".join(lines)


def native_class(layout: Layout, class_id: str) -> str:
    """The whole class as mypyc compiles it."""
    lines = [
        "@_mypyc_attr(acyclic=True, free_list_len=1)",
        f"class {layout.name}(struct):",
        "    def __init__(self, a: int = 0) -> None:",
        "        self.a = a",
        "    @staticmethod",
        f"    def alloc(nr: int = 0) -> '{layout.name}':",
        f"        return {layout.name}(alloc_cells({class_id}, nr))",
        "    def free(self, nr: int = 0) -> None:",
        f"        free_cells({class_id}, self.a, nr)",
    ]
    for slot in layout.slots:
        lines += _native_field(slot)
    return "\n".join(lines) + "\n"


def _native_field(slot: Slot) -> list[str]:
    kind = slot.points_to or "int"
    place = f"self.a + {slot.offset}"
    getter = ["    @property", f"    def {slot.name}(self) -> '{kind}':"]
    if slot.field.cell in ADDRESSES:
        return [*getter, f"        return {place}"]
    read, written = (f"{kind}(mem[{place}])", "value.a") if slot.points_to else (f"mem[{place}]", "value")
    return [
        *getter,
        f"        return {read}",
        f"    @{slot.name}.setter",
        f"    def {slot.name}(self, value: '{kind}') -> None:",
        f"        mem[{place}] = {written}",
    ]
