# SPDX-License-Identifier: GPL-2.0-only
"""What a function does to page tables that it gets from its caller or gives to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tablewalk.audit.flow import Constant, Value
from tablewalk.audit.text import Function


class Effect(NamedTuple):
    """What has become of one slot when the function returns.

    A slot is `ret`, or a parameter's number and what is behind it: `0`, `0->pte`, `2*` (what parameter 2 points to).
    """

    slot: str
    what: str  # "mapped", "null", "err", "unmapped", "unlocked", "zero", "other" (what nobody follows)
    kind: str = ""
    locked: bool = False
    ptls: tuple[str, ...] = ()  # the slots of the lock


class Outcome(NamedTuple):
    """One way the function may end; `result` is 0, "!0" or None for not known."""

    result: Constant | None
    effects: frozenset[Effect]
    without: frozenset[str] = frozenset()  # slots that were NULL when it was called


@dataclass(frozen=True, slots=True)
class Contract:
    takes: frozenset[str] = frozenset()  # slots that are mapped when it is called
    outcomes: frozenset[Outcome] = frozenset()
    writes: frozenset[int] = frozenset()  # parameters through which entries are written
    locks_and_writes: frozenset[int] = frozenset()  # likewise, under the lock that it takes itself
    recheck: str = ""  # "pte" or "pmd": it compares entries, or the pmd, with saved values
    stores: frozenset[tuple[str, int]] = frozenset()  # slots that another parameter is put into

    def matters(self) -> bool:
        said = self.takes or self.writes or self.recheck or self.stores
        return bool(said) or any(o.effects for o in self.outcomes)

    def ends(self) -> frozenset[str]:
        """Slots whose table it unmaps, or whose lock it releases."""
        return self.takes | {e.slot for o in self.outcomes for e in o.effects if e.what == "unlocked"}

    def gives(self) -> frozenset[str]:
        """Slots that may be mapped when it returns and were not before."""
        return frozenset(e.slot for o in self.outcomes for e in o.effects if e.what == "mapped")


class Lookup(Protocol):
    """What is known of other functions, by name."""

    def __call__(self, name: str, /) -> Contract | None: ...

    def sleeps(self, name: str, /) -> tuple[str, ...]:
        """The calls from `name` to what may sleep; nothing where it does not."""
        ...


_SLOT = re.compile(r"(\d+)(.*)")


def place_of(slot: str, args: Sequence[Value], result: str) -> str | None:
    """The caller's place for a callee's slot."""
    if slot == "ret":
        return result
    m = _SLOT.match(slot)
    if not m or int(m[1]) >= len(args):
        return None
    arg, rest = args[int(m[1])], m[2]
    if rest == "*":
        return arg.place if arg.address else "*" + arg.text
    if rest.startswith("->"):
        return f"{arg.place}.{rest[2:]}" if arg.address else f"{arg.text}{rest}"
    return arg.place or None


def slot_of(place: str, function: Function) -> str | None:
    """The slot for one of the function's own places."""
    for i, parameter in enumerate(function.parameters):
        if not parameter.name:
            continue
        if place == "*" + parameter.name:
            return f"{i}*"
        if place.startswith(parameter.name + "->"):
            return f"{i}{place[len(parameter.name) :]}"
        if place == parameter.name:
            return f"{i}"
    return None


def describe(contract: Contract, function: Function) -> list[str]:
    """The contract in words, a line for each thing that it says."""

    def name(slot: str) -> str:
        m = _SLOT.match(slot)
        if not m:
            return "the pointer that it returns"
        parameter = function.parameters[int(m[1])].name if int(m[1]) < len(function.parameters) else f"#{m[1]}"
        return f"*{parameter}" if m[2] == "*" else parameter + m[2]

    said = [f"is given {name(s)} mapped" for s in sorted(contract.takes)]
    words = {"mapped": "mapped", "unmapped": "unmapped", "null": "NULL", "err": "an error", "unlocked": "unlocked"}
    words |= {"zero": "NULL", "other": "something else"}
    for o in sorted(contract.outcomes, key=repr):
        when = {None: "", 0: "returning 0: ", "!0": "returning nonzero: "}.get(o.result, f"returning {o.result}: ")
        for e in sorted(o.effects):
            said.append(f"{when}{name(e.slot)} {words[e.what]}{' and locked' if e.locked else ''}")
    if contract.writes:
        said.append("writes entries through " + ", ".join(name(str(i)) for i in sorted(contract.writes)))
    return list(dict.fromkeys(said))
