# SPDX-License-Identifier: GPL-2.0-only
"""What a suspended frame still knows, and where that is not certain."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tablewalk.explore.liveness import knowledge

here: list[Any] = []


def stop(value: int = 0) -> int:
    """Where the frames are looked at: what the caller's frame knows."""
    caller = sys._getframe(1)
    here.append(knowledge([caller], stop.__code__))
    return value


def dead(a: int, b: int) -> int:
    c = a + 1
    stop(c)
    return b


def alive(a: int, b: int) -> int:
    stop()
    return a + b


def tail(a: int) -> int:
    return stop(a)


def argument(a: int, b: int) -> int:
    return max(b, stop(a))


def half_evaluated(a: int) -> int:
    return a * 2 + stop()


def iterating(a: int) -> int:
    for _ in range(a):
        stop()
    return 0


def called_back(a: int) -> int:
    return max((a, a), key=stop)


def going_round(a: int) -> int:
    i = 0
    while i < a:
        stop()
        i += 1
    return 0


def mutable(a: int) -> int:
    b = [a]
    stop()
    return len(b)


def branch(a: int, b: int) -> int:
    if stop(a):
        return b
    return 0


def known(f: Callable[..., int], *args: Any) -> Any:
    here.clear()
    f(*args)
    return list(here)


@pytest.mark.parametrize(
    ("f", "one", "other", "alike"),
    [
        (dead, (1, 2), (5, 2), True),
        (dead, (1, 2), (1, 3), False),
        (alive, (1, 2), (3, 2), False),
        (alive, (1, 2), (True, 2), False),
        (tail, (1,), (2,), True),
        (argument, (1, 2), (3, 2), True),
        (argument, (1, 2), (1, 3), False),
        (branch, (0, 2), (1, 2), True),
        (branch, (0, 2), (0, 3), False),
    ],
)
def test_locals_that_may_be_used_are_known(f: Any, one: tuple[int, ...], other: tuple[int, ...], alike: bool) -> None:
    assert None not in known(f, *one)
    assert (known(f, *one) == known(f, *other)) is alike


@pytest.mark.parametrize("f", [half_evaluated, iterating, mutable])
def test_what_is_hidden_is_not_guessed(f: Any) -> None:
    assert known(f, 1) == [None]


def test_c_functions_that_call_back_hide_something() -> None:
    assert known(called_back, 1) == [None, None]


def test_rounds_of_a_loop_differ_by_what_counts_them() -> None:
    first, second = known(going_round, 2)
    assert first is not None and first != second
    assert known(going_round, 2)[0] == known(going_round, 2)[0]
