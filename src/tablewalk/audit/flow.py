# SPDX-License-Identifier: GPL-2.0-only
"""A function as a graph of small operations on named places.

A place is a variable, a field or what a pointer leads to, written as in C without blanks (`pte`, `vmf->pte`,
`*ptep`), or the result of a call (`$` and its offset).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Constant = int | str  # a name that is not known as a number is itself; "-E..." is an error
_PATH = re.compile(r"\*?[A-Za-z_]\w*(?:(?:->|\.)\w+)*")
_CONSTANT = re.compile(r"\(*(-?\d\w*|NULL|true|false|-?[A-Z][A-Z0-9_]*)\)*$")
_NAME = re.compile(r"[A-Za-z_]\w*$")


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression is, as far as it can be named."""

    text: str
    place: str = ""  # where it comes from, casts and pointer arithmetic left out
    shift: str = ""  # "+" or "-": pointer arithmetic on the place
    address: bool = False  # of the place
    constant: Constant | None = None


@dataclass(frozen=True, slots=True)
class Call:
    line: int
    name: str
    args: tuple[Value, ...]
    result: str


@dataclass(frozen=True, slots=True)
class Set:
    line: int
    place: str
    value: Value
    how: str = "="  # or "+", "-" and the like: the operator of a compound assignment


@dataclass(frozen=True, slots=True)
class Use:
    """The place is dereferenced."""

    line: int
    place: str


@dataclass(frozen=True, slots=True)
class Step:
    """The pointer in a place goes forward or back: it was `place++`, say."""

    line: int
    place: str
    forward: bool


@dataclass(frozen=True, slots=True)
class Test:
    """Two ways on: the first where `left op right` holds.  `op` is "true" (of `left` alone), "==", "<" or "<="."""

    line: int
    text: str
    left: Value
    op: str = "true"
    right: Value | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """A switch: a way on for each case (several values, or none for the default)."""

    line: int
    value: Value
    cases: tuple[tuple[Constant, ...], ...]


@dataclass(frozen=True, slots=True)
class Return:
    line: int
    value: Value | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Does not come back: BUG(), panic()."""

    line: int


@dataclass(frozen=True, slots=True)
class Nop:
    line: int


Op = Call | Set | Use | Step | Test | Select | Return | Stop | Nop


@dataclass(slots=True)
class Graph:
    """Operations and, for each, the numbers of those that may follow.  The first is number 0."""

    ops: list[Op] = field(default_factory=list)
    next: list[list[int]] = field(default_factory=list)

    def add(self, op: Op, ways: int = 1) -> int:
        self.ops.append(op)
        self.next.append([-1] * ways)
        return len(self.ops) - 1


def paths(text: str) -> frozenset[str]:
    """The places named in `text`, and what they are fields of."""
    found = set()
    for path in _PATH.findall(text):
        found.add(path)
        path = path.lstrip("*")
        while True:
            found.add(path)
            m = re.search(r"(?:->|\.)\w+$", path)
            if not m:
                break
            path = path[: m.start()]
    return frozenset(found)


def is_name(text: str) -> bool:
    return _NAME.match(text) is not None


def is_error(constant: Constant | None) -> bool:
    """Whether it is a number below 0, or the name of one."""
    return constant.startswith("-") if isinstance(constant, str) else constant is not None and constant < 0


def constant(text: str) -> Constant | None:
    """The constant that `text` is: a number, or a name in capitals."""
    m = _CONSTANT.match(text)
    if not m:
        return None
    word = m[1]
    if word in ("NULL", "false"):
        return 0
    if word == "true":
        return 1
    try:
        return int(word.rstrip("uUlL"), 0)
    except ValueError:
        return word if not word.lstrip("-")[:1].isdigit() else None
