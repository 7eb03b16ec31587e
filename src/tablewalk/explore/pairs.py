# SPDX-License-Identifier: GPL-2.0-only
"""Which kinds of things scenarios do at the same time: each pair of kinds, by the threads that scenarios have."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement
from typing import Any

from .run import Program, prepare, searched

Pair = tuple[str, str]


def kinds() -> dict[str, Any]:
    """The kinds of `scenarios/pairs.py` by name, in order."""
    found: dict[str, Any] = _module().KINDS
    return found


def _module() -> Any:
    return searched().module("scenarios.pairs")


def covered(programs: dict[str, Program]) -> dict[Pair, list[str]]:
    """The scenarios in which each pair of kinds meets: a thread's name is its kind."""
    order = list(kinds())
    found: dict[Pair, list[str]] = {pair: [] for pair in combinations_with_replacement(order, 2)}
    for name, program in programs.items():
        threads = [thread.removesuffix(_module().AGAIN) for thread, _ in prepare(program).threads]
        for a, b in combinations(sorted([t for t in threads if t in order], key=order.index), 2):
            found[a, b].append(name)
    return found


def as_markdown(programs: dict[str, Program]) -> str:
    """A table of kinds: what each is, with how many of them it meets, and with which it does not."""
    pairs = covered(programs)
    lines = ["| kind | what it is | meets | does not meet |", "| --- | --- | --- | --- |"]
    for name, kind in kinds().items():
        of = {(b if a == name else a): names for (a, b), names in pairs.items() if name in (a, b)}
        missing = ", ".join(other for other, names in of.items() if not names)
        lines.append(f"| {name} | {kind.what} | {sum(map(bool, of.values()))} | {missing} |")
    return "\n".join(lines)


def triples(programs: dict[str, Program]) -> str:
    """The scenarios in which three kinds meet, as Markdown."""
    return "\n".join(f"- `{name}`" for name in programs if len(name.split("-x-")) == 3)
