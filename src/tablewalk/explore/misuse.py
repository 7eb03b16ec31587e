# SPDX-License-Identifier: GPL-2.0-only
"""What a scenario may do wrong: raise, never come back, not do the same again, or use up the memory.

Each is told with the scenario's line, and leaves other scenarios alone.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tablewalk.errors import TablewalkError
from tablewalk.memory import available

from .learn import Node
from .tables import Bound

ENDLESS = 30.0  # seconds in which a function of a scenario comes back


class Told(TablewalkError):
    """Names the scenario and its line."""


class _Endless(BaseException):
    """A function of the scenario does not come back; no `except Exception` of its own stops this."""

    def __str__(self) -> str:
        return f"does not come back within {ENDLESS:g} seconds"


@contextmanager
def told(what: str, file: str, line: int = 0) -> Iterator[None]:
    """Whatever is raised is told with `what` was going on, and the line of `file` that did it, by default `line`.

    Bounds are left alone: they are a verdict.
    """
    try:
        with _watched(file):
            yield
    except (Bound, Told):
        raise
    except (Exception, SystemExit, _Endless) as e:
        if os.environ.get("TABLEWALK_DEBUG"):
            raise
        raise Told(f"{what} ({_where(e, file, line)}): {_said(e)}") from e


def _where(e: BaseException, file: str, line: int) -> str:
    """The innermost line of `file`, and where that called something else that broke, that line."""
    frames = []
    traceback = e.__traceback__
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    places = [frame for frame in frames if frame[0] == file][-1:] or [(file, line)] * (line > 0)
    if frames[-1] not in places and not isinstance(e, TablewalkError | _Endless):
        places.append(frames[-1])
    return ", ".join(f"{Path(name).name}:{number}" for name, number in places)


def _said(e: BaseException) -> str:
    if isinstance(e, MemoryError):
        return "out of memory"
    said = str(e) if isinstance(e, TablewalkError | _Endless) else f"{type(e).__name__}: {e}"
    return said.removesuffix(": ")


@contextmanager
def _watched(file: str) -> Iterator[None]:
    """A function of `file` that runs on and on is ended; what runs is looked at now and then."""
    running: list[FrameType | None] = [None]

    def look(_signal: int, frame: FrameType | None) -> None:
        outermost = None
        while frame is not None:
            outermost = frame if frame.f_code.co_filename == file else outermost
            frame = frame.f_back
        if outermost is not None and outermost is running[0]:
            raise _Endless
        running[0] = outermost

    main = threading.current_thread() is threading.main_thread()  # to which signals go
    if not main or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, ENDLESS, ENDLESS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Beginning(NamedTuple):
    """What a scenario did at first: the memory that it set up, and the nodes of a search's first walks."""

    memory: list[int]
    nodes: list[Node]
    machine: Any

    def same(self, again: Beginning) -> None:
        """Raise TablewalkError with what differs."""
        for address, (one, other) in enumerate(zip_longest(self.memory, again.memory)):
            if one != other:
                name = again.machine.name_of(address)
                raise TablewalkError(f"run twice, it sets {name} to {one} at first, to {other} the second time")
        for one, other in zip_longest(map(self._did, self.nodes), map(again._did, again.nodes)):
            if one != other:
                raise TablewalkError(f"run twice, {one or 'nothing'} at first, {other or 'nothing'} the second time")

    def _did(self, node: Node) -> str:
        place = f" ({node.where[-1][1]}:{node.where[-1][2]})" if node.where else ""
        operands = ", ".join(getattr(o, "__qualname__", repr(o)) for o in node.operands)
        of = f" of {self.machine.name_of(node.address)}" if node.address else ""
        return re.sub(" at 0x[0-9a-f]+", "", f"CPU{node.thread} does {node.name}{of} ({operands}){place}")


@contextmanager
def sparing_the_machine() -> Iterator[None]:
    """Let this process run out of memory before the machine does, so that what it has found is not lost with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + available()
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
