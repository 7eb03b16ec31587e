# SPDX-License-Identifier: GPL-2.0-only
"""Thread automata, learned by running the model's Python on the results that the search has seen.

A node is an operation that a thread is about to do.  Its key is the stack of activations of the model's functions, for
each the function, its arguments and what it has seen itself: results of its operations, and return values of functions
that did some.  When a function returns, all that happened inside is its return value; `forget` drops what a loop need
not know.  Model functions are pure but for their operations, so equal keys behave alike; where one does not, that is
found as soon as the operation differs (`Nondeterministic`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import ROOT, Model

from .liveness import knowledge
from .tables import Bound

OP, CALL = 0, 1
MAX_RUN = 50_000  # operations of one run
MAX_CALLS = 250  # of a scenario's thread; one that goes round a loop for ever makes any number


class Stop(BaseException):
    """The run has seen all that is known; no unlock runs on it."""


class Nondeterministic(TablewalkError):
    """A thread did different things after the same history."""


@dataclass(slots=True)
class Activation:
    """A running function of the model; `recorded` is what it saw the last time, in order, `full` this time.

    What it knows is `since`, its arguments or what its frame knew at some time, and `seen` from then on.
    """

    name: str
    args: tuple[Any, ...]
    ordinal: int
    recorded: tuple[tuple[Any, ...], ...] = ()
    on_path: bool = False
    pos: int = 0
    calls: int = 0
    consumed: bool = False
    rounds: int = 0
    seen: list[Any] = field(default_factory=list)
    full: list[tuple[Any, ...]] = field(default_factory=list)
    since: Any = None

    def __post_init__(self) -> None:
        self.since = self.args


@dataclass(slots=True)
class Node:
    """An operation that a thread is about to do, or its end (`exit`, `error`)."""

    number: int
    thread: int
    name: str
    address: int
    operands: tuple[Any, ...]
    path: tuple[tuple[str, tuple[Any, ...], int, tuple[tuple[Any, ...], ...]], ...]
    where: tuple[tuple[str, str, int], ...]  # (function, file, line), innermost first
    known: tuple[tuple[Any, tuple[Any, ...]], ...] = ()  # `since` and `seen` of each function of the path
    next: dict[Any, int] = field(default_factory=dict)  # by the result

    def place(self) -> str:
        """Function, file and line, without the path."""
        if not self.where:
            return ""
        function, file, line = self.where[0]
        return f"{function} {file.rpartition('/')[2]}:{line}"


_active: list[Learner | None] = [None]


def instrument(model: Model) -> None:
    """Put a wrapper around each function of the model, which tells the learner of its activations."""
    if getattr(model.machine, "instrumented", False):
        return
    prefixes = tuple(f"{model.package}.{part}" for part in ("kernel", "arch", "patches"))
    modules = [m for name, m in list(sys.modules.items()) if name.startswith(prefixes)]
    wrapped: dict[FunctionType, Callable[..., Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, FunctionType) and value.__module__.startswith(prefixes):
                wrapped.setdefault(value, activation(value))
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value in wrapped:
                setattr(module, name, wrapped[value])
    model.machine.instrumented = True


def activation(function: Any) -> Callable[..., Any]:
    """A function whose activations the learner knows of."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        learner = _active[0]
        if learner is None:
            return function(*args, **kwargs)
        return learner.call(function, args, kwargs)

    return wrapper


class Learner:
    """The automata of some threads.  `on_node` is told of each new node, and may refuse by raising `Bound`.

    `paranoid`: where another history leads to a known node, that history is gone on with too, to see that it does the
    same.
    """

    paranoid = False
    merged = True  # otherwise a node's key is all that came before
    rounds = 0  # of a loop that forgets, after which a thread does not go on; 0 is no limit

    def __init__(
        self, machine: Any, is_void: Callable[[str], bool], on_node: Callable[[Node], None], max_nodes: int
    ) -> None:
        self._machine, self._is_void, self._on_node, self._max = machine, is_void, on_node, max_nodes
        self.nodes: list[Node] = [Node(0, 0, "none", 0, (), (), ())]  # 0 is no node
        self.runs = self.operations = 0
        self._keys: dict[Any, Node] = {}
        self._stack: list[Activation] = []
        self._path: tuple[Any, ...] = ()
        self._pending: Node | None = None
        self._feed: Any = None
        self._last: tuple[Node, Any] | None = None
        self._first: Node | None = None
        self._thread = 0
        self._budget = 0
        self._crossed: list[tuple[Node, tuple[Any, ...]]] = []
        self._others: dict[int, tuple[Any, ...]] = {}  # another history of a node
        self.checked = 0

    # --- runs --------------------------------------------------------------------------------------------

    def start(self, thread: int, body: Callable[[], Any]) -> Node:
        """The first node of a thread."""
        return self._run(thread, body, None, None)

    def after(self, node: Node, result: Any, body: Callable[[], Any]) -> Node:
        """The node that follows `node` when its operation gives `result`."""
        known = node.next.get(result)
        if known is not None:
            return self.nodes[known]
        first = self._run(node.thread, body, node, result)
        if self.paranoid and node.number in self._others:
            self._go_on(node, self._others[node.number], body, (result,))
        return first

    def _run(self, thread: int, body: Callable[[], Any], node: Node | None, result: Any) -> Node:
        self.runs += 1
        self._thread, self._pending, self._feed = thread, node, result
        self._path = node.path if node else ()
        self._first, self._last = None, None
        self._budget = MAX_RUN
        recorded = self._path[0][3] if node else ()
        self._stack = [Activation("thread", (thread,), 0, recorded, on_path=True)]
        self._machine.attach(self.perform, thread)
        _active[0] = self
        try:
            value = body()
        except Stop:
            pass
        except (Bound, Nondeterministic):
            raise
        except Exception as e:
            self._end("error", (type(e).__name__, str(e), self._where(e)))
        else:
            if not _hashable(value):
                raise Nondeterministic(f"a thread returned {value!r}; what it returns has to be immutable")
            self._end("exit", (value,))
        finally:
            _active[0] = None
            self._machine.attach(None)
        first = self._first
        assert first is not None
        if self.paranoid:
            crossed, self._crossed = self._crossed, []
            for found, path in crossed:
                self._others[found.number] = path
                self._go_on(found, path, body, tuple(found.next))
        return first

    def _go_on(self, node: Node, path: tuple[Any, ...], body: Callable[[], Any], results: tuple[Any, ...]) -> None:
        """Go on from a node with another history that has its key; it has to lead to the same nodes."""
        self.paranoid = False
        for result in results:
            self.checked += 1
            other = replace(node, path=path, next={})
            if self._run(node.thread, body, other, result).number != node.next[result]:
                raise Nondeterministic(f"after {self._say(node)} with result {result!r} two histories part")
        self.paranoid = True

    def _where(self, e: Exception) -> tuple[tuple[str, str, int], ...]:
        traceback = e.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        return _model_frames(traceback.tb_frame, traceback.tb_lineno) if traceback else ()

    def _end(self, name: str, operands: tuple[Any, ...]) -> None:
        if self._pending is not None:
            raise Nondeterministic(f"{self._say(self._pending)} was not done again: the thread ended before")
        key = self._key(name, operands)
        node = self._keys.get(key)
        if node is None:
            node = self._new(key, name, 0, operands, operands[2] if name == "error" else ())
        self._reach(node)

    # --- what the model calls ----------------------------------------------------------------------------

    def call(self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of the model is called."""
        parent = self._stack[-1]
        parent.calls += 1
        name = function.__qualname__
        act = Activation(name, args + tuple(kwargs.items()), parent.calls)
        if parent.pos < len(parent.recorded):
            item = parent.recorded[parent.pos]
            if item[0] == CALL and item[1] == parent.calls:
                if item[2] != name:
                    raise Nondeterministic(f"{parent.name} called {name} where it had called {item[2]}")
                parent.pos += 1
                self._saw(parent, (name, item[3]), item)
                return item[3]
        elif parent.on_path and len(self._stack) < len(self._path):
            _, _, ordinal, recorded = self._path[len(self._stack)]
            if ordinal == parent.calls:
                act.recorded, act.on_path = recorded, True
        self._stack.append(act)
        value = function(*args, **kwargs)
        self._stack.pop()
        if act.consumed:
            self._saw(parent, (name, value), (CALL, act.ordinal, name, value))
        return value

    def _saw(self, act: Activation, what: Any, item: tuple[Any, ...]) -> None:
        act.seen.append(what)
        act.full.append(item)
        act.consumed = True

    def perform(self, name: str, address: int, *operands: Any) -> Any:
        """An operation is done: its result comes from the history, or nothing is known beyond this point."""
        act = self._stack[-1]
        if name == "forget":
            act.rounds += 1
            if self.rounds and act.rounds > self.rounds:
                self._end("rounds", (act.name,))
                raise Stop
            act.since, act.seen[:] = act.args, [("forget", operands[0], act.rounds if self.rounds else 0)]
            return None
        self.operations += 1
        if act.pos < len(act.recorded):
            item = act.recorded[act.pos]
            if item[0] != OP or item[1:4] != (name, address, operands):
                raise Nondeterministic(
                    f"{act.name} did {name} of {self._machine.name_of(address)} {operands} "
                    f"where it had done {item[1:4]} after the same history"
                )
            act.pos += 1
            self._saw(act, item[4], item)
            return item[4]
        if self._pending is not None:
            node, self._pending = self._pending, None
            if (node.name, node.address, node.operands) != (name, address, operands):
                raise Nondeterministic(
                    f"{act.name} did {name} of {self._machine.name_of(address)} {operands} "
                    f"where it had done {self._say(node)}, after the same history"
                )
            self._last = (node, self._feed)
            result = self._feed
            for running, (since, seen) in zip(self._stack, node.known, strict=True):
                running.since, running.seen[:] = since, seen
        else:
            self._beyond(name, address, operands)
            result = None
        self._saw(act, result, (OP, name, address, operands, result))
        return result

    def _beyond(self, name: str, address: int, operands: tuple[Any, ...]) -> None:
        """An operation that was not known to follow: a node, which the run goes on from if it has no result."""
        key = self._key(self._known((name, address, operands)))
        try:
            node = self._keys.get(key)
        except TypeError:
            mutable = next(a.name for a in self._stack if not _hashable((a.args, tuple(a.seen))))
            raise Nondeterministic(f"{mutable}: arguments and return values have to be immutable") from None
        if node is not None:
            if (node.name, node.address, node.operands) != (name, address, operands):
                raise Nondeterministic(
                    f"{self._stack[-1].name} did {name} of {self._machine.name_of(address)} {operands} "
                    f"where it had done {self._say(node)}, after the same history"
                )
            self._reach(node)
            if self.paranoid:
                self._crossed.append((node, self._path_here()))
            raise Stop
        node = self._new(key, name, address, operands, _model_frames(sys._getframe(1), 0))
        self._reach(node)
        self._budget -= 1
        if not self._is_void(name) or self._budget == 0:
            raise Stop
        self._last = (node, None)

    def _known(self, pending: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the running functions know, innermost first: what their frames say, or all that they have seen.

        `pending`: the operation about to be done, whose operands a frame need not know any more.
        """
        known: list[Any] = []
        called = None
        for act, frames in zip(reversed(self._stack), _frames(sys._getframe(1)), strict=True):
            # an override that is one of the model's own functions is known twice, and has one frame
            knows = knowledge(frames, called) if frames and act is not self._stack[0] else None
            if knows is not None:
                act.since = knows, act.rounds if self.rounds else 0
                act.seen.clear()
            known.append((act.name, act.since, tuple(act.seen), pending if knows is not None and not known else ()))
            called = frames[-1].f_code if frames else called
        return tuple(known)

    def _key(self, *what: Any) -> Any:
        """What tells a node from others: by default all that the thread still knows."""
        if self.merged or self._last is None:
            return (self._thread, *what)
        before, result = self._last
        return before.number, result

    def _new(
        self, key: Any, name: str, address: int, operands: tuple[Any, ...], where: tuple[tuple[str, str, int], ...]
    ) -> Node:
        if len(self.nodes) >= self._max:
            raise Bound(f"{self._max} automaton nodes (a loop without forget in {where[0][0] if where else '?'}?)")
        known = tuple((a.since, tuple(a.seen)) for a in self._stack)
        if len(known[0][1]) > MAX_CALLS:
            last = f" ({where[-1][1]}:{where[-1][2]})" if where else ""
            raise Bound(f"{MAX_CALLS} calls that a thread makes{last}; a loop without end?")
        node = Node(len(self.nodes), self._thread, name, address, operands, self._path_here(), where, known)
        self._on_node(node)
        self.nodes.append(node)
        self._keys[key] = node
        return node

    def _path_here(self) -> tuple[tuple[str, tuple[Any, ...], int, tuple[tuple[Any, ...], ...]], ...]:
        return tuple((a.name, a.args, a.ordinal, tuple(a.full)) for a in self._stack)

    def _reach(self, node: Node) -> None:
        if self._first is None:
            self._first = node
        if self._last is not None:
            before, result = self._last
            before.next[result] = node.number

    def _say(self, node: Node) -> str:
        return f"{node.name} of {self._machine.name_of(node.address)} {node.operands}"


def _frames(frame: FrameType | None) -> list[list[FrameType]]:
    """The frames of each running function, with those of what it calls that the learner does not know of."""
    found: list[list[FrameType]] = [[]]
    while frame is not None and frame.f_code is not Learner._run.__code__:
        if frame.f_code is Learner.call.__code__:
            found.append([])
        elif frame.f_code.co_filename != __file__:
            found[-1].append(frame)
        frame = frame.f_back
    return found


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


_PARTS = tuple(str(ROOT / part) for part in ("kernel", "patches", "arch"))
_HIDDEN = (str(ROOT / "machine"), str(Path(__file__).resolve().parent))


def _model_frames(frame: FrameType | None, lineno: int) -> tuple[tuple[str, str, int], ...]:
    """(function, file, line) of the model's functions on the Python stack, and of the scenario's, innermost first."""
    found: list[tuple[str, str, int]] = []
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_HIDDEN):
            if found and frame.f_code.co_name == "_run":
                break
        else:
            file = str(Path(name).relative_to(ROOT)) if name.startswith(_PARTS) else Path(name).name
            found.append((frame.f_code.co_name, file, lineno or frame.f_lineno))
        lineno = 0
        frame = frame.f_back
    return tuple(found)
