# SPDX-License-Identifier: GPL-2.0-only
"""What a suspended frame still knows, and where that is not certain."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest

from tablewalk.explore import liveness
from tablewalk.explore.liveness import knowledge
from tablewalk.explore.run import Options, built_in, explore
from tablewalk.machine.drivers import ROOT

here: list[Any] = []


def stop(value: int = 0) -> int:
    """Where the frames are looked at: what the caller's frame knows."""
    caller = sys._getframe(1)
    here.append(knowledge([caller], stop.__code__))
    return value


class Method:
    stop = staticmethod(stop)


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


def half_evaluated_method(a: int) -> int:
    return a * 2 + Method.stop()


def method(a: int, b: int) -> int:
    return a + max(b, Method.stop(value=b))


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
        (method, (1, 2), (2, 2), False),
        (branch, (0, 2), (1, 2), True),
        (branch, (0, 2), (0, 3), False),
    ],
)
def test_locals_that_may_be_used_are_known(f: Any, one: tuple[int, ...], other: tuple[int, ...], alike: bool) -> None:
    assert None not in known(f, *one)
    assert (known(f, *one) == known(f, *other)) is alike


@pytest.mark.parametrize("f", [half_evaluated, half_evaluated_method, iterating, mutable])
def test_what_is_hidden_is_not_guessed(f: Any) -> None:
    assert known(f, 1) == [None]


def test_c_functions_that_call_back_hide_something() -> None:
    assert known(called_back, 1) == [None, None]


def test_rounds_of_a_loop_differ_by_what_counts_them() -> None:
    first, second = known(going_round, 2)
    assert first is not None and first != second
    assert known(going_round, 2)[0] == known(going_round, 2)[0]


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for c in code.co_consts:
        if isinstance(c, CodeType):
            yield from codes(c)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="nothing is worked out from the byte code of this Python")
def test_stacks_are_as_deep_as_this_python_says() -> None:
    """Of all instructions of the model; and with few exceptions its functions are worked out."""
    all_of_them = [
        code
        for file in sorted((ROOT / "kernel").glob("*.py"))
        for code in codes(compile(file.read_text(), str(file), "exec"))
        if code.co_name != "<module>"
    ]
    certain = 0
    stack = (("unknown", ""),) * 30
    for code in all_of_them:
        certain += any(liveness._places(code)[1])
        for i in dis.get_instructions(code):
            effect = liveness._effect(i, stack)
            if effect is None or (sys.version_info < (3, 12) and i.opname in ("PRECALL", "CALL")):  # one by the other
                continue
            for to, after in effect[1]:
                arg = i.arg if i.opcode >= dis.HAVE_ARGUMENT else None
                assert len(after) - len(stack) == dis.stack_effect(i.opcode, arg, jump=to >= 0), i.opname
    assert certain > 0.8 * len(all_of_them)


@pytest.mark.parametrize("name", ["mremap-x-smaps", "shmem-collapse-guard"])
def test_a_python_whose_byte_code_is_not_known_costs_states_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, options = built_in()[name], Options(stop=False)
    some = explore(program, options=options)
    liveness._places.cache_clear()
    monkeypatch.setattr(liveness, "_CERTAIN", False)
    more = explore(program, options=options)
    liveness._places.cache_clear()
    assert (more.verdict, more.broken, more.finals) == (some.verdict, some.broken, some.finals)
    assert more.result.states > some.result.states and more.nodes > some.nodes
