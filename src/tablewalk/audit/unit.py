# SPDX-License-Identifier: GPL-2.0-only
"""A function that can be followed."""

from __future__ import annotations

from dataclasses import dataclass

from tablewalk.audit.flow import Call, Graph
from tablewalk.audit.grammar import errors
from tablewalk.audit.lower import lower
from tablewalk.audit.text import Function


@dataclass(slots=True)
class Unit:
    function: Function
    graph: Graph  # as written
    calls: tuple[Call, ...]
    broken: list[int]  # offsets in the body that the grammar did not understand

    @classmethod
    def of(cls, function: Function) -> Unit | None:
        lowered = lower(function)
        if lowered is None:
            return None
        calls = tuple(op for op in lowered.graph.ops if isinstance(op, Call))
        return cls(function, lowered.graph, calls, errors(lowered.tree))
