# SPDX-License-Identifier: GPL-2.0-only
"""What a suspended frame of the model still knows: where it stands, and the local variables that it may yet use.

That is less than all it has seen.  A frame's value stack cannot be looked at from outside, so what is on it is worked
out from the byte code (CPython 3.11 to 3.13); where that is not certain (an iterator, a half-evaluated expression, a C
function that calls back, a local that is no plain value, another Python), nothing is said, and the frame's history
stands for it.
"""

from __future__ import annotations

import dis
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

_CERTAIN = sys.version_info[:2] in ((3, 11), (3, 12), (3, 13))
_GENERATOR = 0x20 | 0x80 | 0x100 | 0x200
_CONST, _UNKNOWN = ("const", ""), ("unknown", "")  # on the value stack; or ("local" | "global" | "method", name)

# what they take from the stack and put on it, besides those that `_effect` knows
_STACK = {
    "NOP": (0, 0), "RESUME": (0, 0), "COPY_FREE_VARS": (0, 0), "PRECALL": (0, 0), "KW_NAMES": (0, 0),
    "EXTENDED_ARG": (0, 0), "POP_TOP": (1, 0), "STORE_FAST": (1, 0), "STORE_ATTR": (2, 0), "STORE_SUBSCR": (3, 0),
    "DELETE_SUBSCR": (2, 0), "LOAD_ATTR": (1, 1), "BINARY_OP": (2, 1), "COMPARE_OP": (2, 1), "CONTAINS_OP": (2, 1),
    "IS_OP": (2, 1), "BINARY_SUBSCR": (2, 1), "UNARY_NEGATIVE": (1, 1), "UNARY_NOT": (1, 1), "UNARY_INVERT": (1, 1),
    "GET_ITER": (1, 1), "LIST_TO_TUPLE": (1, 1), "LIST_EXTEND": (1, 0), "LIST_APPEND": (1, 0), "RETURN_VALUE": (1, 0),
    "JUMP_FORWARD": (0, 0), "JUMP_BACKWARD": (0, 0), "RETURN_CONST": (0, 0), "BINARY_SLICE": (3, 1),
    "STORE_SLICE": (4, 0), "CALL_INTRINSIC_1": (1, 1), "TO_BOOL": (1, 1), "FORMAT_SIMPLE": (1, 1),
    "FORMAT_WITH_SPEC": (2, 1), "CONVERT_VALUE": (1, 1), "END_FOR": (2 if sys.version_info < (3, 13) else 1, 0),
}  # fmt: skip
_JUMPS_POPPING = ("POP_JUMP_FORWARD_IF_", "POP_JUMP_BACKWARD_IF_", "POP_JUMP_IF_")
_CALLS = {"CALL": 2, "CALL_KW": 3}  # what they take besides arguments
_DIRECT = ("LOAD_ATTR", "STORE_ATTR", "BINARY_SUBSCR", "STORE_SUBSCR")  # these call a method of their operand's class

Stack = tuple[tuple[str, str], ...]


class Place(NamedTuple):
    """A place where a frame can be suspended: what it calls (None: no function that is known), locals live after it."""

    callee: tuple[str, str] | None
    live: tuple[str, ...]


def knowledge(frames: Sequence[FrameType], called: CodeType | None) -> Any:
    """What some frames, innermost first, each called by the next one, still know; None if that is not certain.

    `called`: of the function that the first of them calls, if there is one whose frame stands for itself.
    """
    known = []
    for frame in frames:
        starts, places = _places(frame.f_code)
        at = bisect_right(starts, frame.f_lasti) - 1
        place = places[at] if at >= 0 else None
        if place is None or not (called is None or _calls(frame, place, called)):
            return None
        values = frame.f_locals
        live = [values.get(name) for name in place.live]
        if not all(map(_plain, live)):
            return None
        known.append((frame.f_code, at, tuple(map(_typed, live))))
        called = frame.f_code
    return tuple(known)


def _calls(frame: FrameType, place: Place, code: CodeType) -> bool:
    if place.callee is None:
        return False
    how, name = place.callee
    if how == "global":
        function = frame.f_globals.get(name)
        return getattr(getattr(function, "__wrapped__", function), "__code__", None) is code
    return how == "direct" or (how == "method" and code.co_name == name)


def _plain(value: Any) -> bool:
    """Whether equal values are alike whichever run they come from."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    if value is None or isinstance(value, type):
        return True
    return "__eq__" in {name for c in type(value).__mro__[:-1] for name in vars(c)} and type(value).__hash__ is not None


def _typed(value: Any) -> Any:
    """A value that differs from equal ones of other types, as True does from 1."""
    return (tuple, *map(_typed, value)) if type(value) is tuple else (type(value), value)


@cache
def _places(code: CodeType) -> tuple[list[int], list[Place | None]]:
    """(offsets of a code's instructions, the place that each is)."""
    instructions = list(_instructions(code))
    starts = [i.offset for i in instructions]
    nothing: list[Place | None] = [None] * len(starts)
    if not _CERTAIN or code.co_flags & _GENERATOR or code.co_exceptiontable or code.co_cellvars:
        return starts, nothing
    index = {offset: i for i, offset in reversed(list(enumerate(starts)))}
    stacks: list[Stack | None] = [None] * len(starts)
    todo: list[tuple[int, Stack]] = [(0, ())]
    follows: list[set[int]] = [set() for _ in starts]
    below: list[tuple[Stack, Stack]] = [((), ())] * len(starts)  # (operands, what lies below them)
    while todo:
        i, stack = todo.pop()
        before = stacks[i]
        if before is not None:
            stack = tuple(a if a == b else _UNKNOWN for a, b in zip(before, stack, strict=True))
            if stack == before:
                continue
        stacks[i] = stack
        effect = _effect(instructions[i], stack)
        if effect is None:
            return starts, nothing
        taken, ways = effect
        below[i] = (stack[len(stack) - taken :], stack[: len(stack) - taken])
        for to, after in ways:
            target = index[to] if to >= 0 else i + 1
            follows[i].add(target)
            todo.append((target, after))
    live = _live(instructions, follows)
    free = frozenset(code.co_freevars)
    return starts, [
        _place(instruction, *below[i], live[i] | free) if stacks[i] is not None else None
        for i, instruction in enumerate(instructions)
    ]


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """Those of a code; what 3.13 does to two locals in one is two."""
    for i in dis.get_instructions(code):
        two = re.findall("(?:LOAD|STORE)_FAST", i.opname)
        if len(two) == 2:
            yield from (i._replace(opname=name, argval=local) for name, local in zip(two, i.argval, strict=True))
        else:
            yield i


def _place(instruction: dis.Instruction, operands: Stack, below: Stack, live: frozenset[str]) -> Place | None:
    """The place that an instruction is; a name on the stack is as alive as if it were used later."""
    if any(how in ("unknown", "method") for how, _ in below):
        return None
    callee = None
    if instruction.opname in _CALLS:
        callee = next((e for e in operands[:2] if e[0] in ("method", "global")), None)
    elif instruction.opname in _DIRECT:
        callee = ("direct", "")
    names = live | {name for how, name in below if how == "local"}
    return Place(callee, tuple(sorted(names)))


def _effect(i: dis.Instruction, stack: Stack) -> tuple[int, list[tuple[int, Stack]]] | None:
    """(how many entries an instruction uses up, [(offset of what may follow or -1 for the next, stack there)]); None
    if that is not known."""
    name, arg = i.opname, i.arg or 0
    if name in ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF"):
        return 0, [(-1, (*stack, ("local", str(i.argval))))]
    if name in ("LOAD_CONST", "PUSH_NULL", "LOAD_ASSERTION_ERROR"):
        return 0, [(-1, (*stack, _CONST))]
    if name == "LOAD_GLOBAL":
        null: Stack = (_CONST,) if arg & 1 else ()
        value: Stack = (("global", str(i.argval)),)
        return 0, [(-1, stack + (null + value if sys.version_info < (3, 13) else value + null))]
    if name == "LOAD_METHOD" or (name == "LOAD_ATTR" and sys.version_info >= (3, 12) and arg & 1):
        return 1, [(-1, (*stack[:-1], ("method", str(i.argval)), _UNKNOWN))]
    if name in _CALLS:
        taken = arg + _CALLS[name]
        return taken, [(-1, (*stack[: len(stack) - taken], _UNKNOWN))]
    if name == "COPY":
        return 0, [(-1, (*stack, stack[-arg]))]
    if name == "SWAP":
        return 0, [(-1, (*stack[:-arg], stack[-1], *stack[1 - arg : -1], stack[-arg]))]
    if name in ("BUILD_TUPLE", "BUILD_LIST", "BUILD_STRING", "BUILD_SLICE"):
        return arg, [(-1, (*stack[: len(stack) - arg], _UNKNOWN))]
    if name == "FORMAT_VALUE":
        taken = 2 if arg & 4 else 1
        return taken, [(-1, (*stack[:-taken], _UNKNOWN))]
    if name == "UNPACK_SEQUENCE":
        return 1, [(-1, (*stack[:-1], *[_UNKNOWN] * arg))]
    if name == "RAISE_VARARGS":
        return arg, []
    if name == "FOR_ITER":
        ended = stack[:-1] if sys.version_info < (3, 12) else (*stack, _UNKNOWN)
        return 0, [(-1, (*stack, _UNKNOWN)), (int(i.argval), ended)]
    if name.startswith(_JUMPS_POPPING):
        return 1, [(-1, stack[:-1]), (int(i.argval), stack[:-1])]
    if name in ("JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"):
        return 0, [(-1, stack[:-1]), (int(i.argval), stack)]
    if name not in _STACK:
        return None
    taken, put = _STACK[name]
    after = (*stack[: len(stack) - taken], *[_UNKNOWN] * put)
    if name == "STORE_FAST":
        after = tuple(_UNKNOWN if entry == ("local", str(i.argval)) else entry for entry in after)
    if name in ("RETURN_VALUE", "RETURN_CONST"):
        return taken, []
    return taken, [(int(i.argval) if name.startswith("JUMP_") else -1, after)]


def _live(instructions: list[dis.Instruction], follows: list[set[int]]) -> list[frozenset[str]]:
    """The locals that may be used after each instruction."""
    before: list[frozenset[str]] = [frozenset()] * len(instructions)
    after = list(before)
    changed = True
    while changed:
        changed = False
        for i in reversed(range(len(instructions))):
            name = str(instructions[i].argval)
            after[i] = frozenset().union(*(before[j] for j in follows[i]))
            new = after[i]
            if instructions[i].opname == "STORE_FAST":
                new = new - {name}
            elif instructions[i].opname in ("LOAD_FAST", "LOAD_FAST_CHECK", "DELETE_FAST"):
                new = new | {name}
            if new != before[i]:
                before[i], changed = new, True
    return after
