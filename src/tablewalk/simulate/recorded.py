# SPDX-License-Identifier: GPL-2.0-only
"""A recording as a workload: its threads do what they did, with the times between in which they thought.

What a thread waits for outside the kernel is in no recording.  A gap between two of its events is time that its code
ran if it is short, and else time that it slept.  Where its next event is about memory that another thread has mapped,
or is to take away memory that others have used, it comes after what was recorded before it there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tablewalk.record.recording import Kind, Recording
from tablewalk.replay.calls import MMAP, SHMAT, name_of
from tablewalk.replay.engine import Engine
from tablewalk.replay.results import Holder
from tablewalk.replay.run import refuse_unreadable, replay_memory
from tablewalk.replay.spaces import AddressSpace, Meter
from tablewalk.replay.stream import Event, chunks
from tablewalk.replay.walk import Walker

from .threads import Thread
from .world import World

ASLEEP: Final = 1_000_000  # nanoseconds between two events of a thread from which on it is taken for asleep
BRK: Final = 12
MREMAP: Final = 25
CHANGES: Final = {10: 1, 11: 1, 216: 1, 329: 1, MREMAP: 1}  # calls by number: which argument is the length at args[0]
END: Final = 1 << 64

Fault = tuple[int, int, int]  # pid, address, How
Need = tuple["Stream", int]  # so many steps of a stream


class Stream:
    """What a thread does from its beginning to its end, step by step; times in nanoseconds."""

    __slots__ = ("children", "done", "free_at", "name", "needs", "steps", "think", "waiting")

    def __init__(self, name: str, begin: int) -> None:
        self.name = name
        self.free_at = begin  # when its last step so far has ended
        self.think: list[int] = []  # before each step
        self.steps: list[Fault | Event] = []
        self.needs: dict[int, list[Need]] = {}  # by step: what is to be done before it
        self.children: dict[int, Stream] = {}  # by step: the thread that it makes
        self.done = 0
        self.waiting: list[tuple[int, Thread]] = []  # who waits for so many steps of this one

    def add(self, step: Fault | Event, begin: int, end: int) -> int:
        """The thread's next step; returns its number, from 1 on."""
        self.think.append(max(0, begin - self.free_at))
        self.free_at = max(self.free_at, end)
        self.steps.append(step)
        return len(self.steps)


@dataclass(slots=True)
class Extent:
    """Addresses up to the next extent: which step has mapped them, and the last steps that used them."""

    start: int
    mapped: Need | None = None
    used: dict[Stream, int] = field(default_factory=dict)


class Extents:
    """An address space, as far as the order of its threads' steps is concerned."""

    def __init__(self) -> None:
        self._starts = [0]
        self._extents = [Extent(0)]

    def use(self, address: int, stream: Stream, step: int) -> list[Need]:
        """A step uses an address; returns what has to be done before it."""
        extent = self._extents[bisect_right(self._starts, address) - 1]
        extent.used[stream] = step
        return [extent.mapped] if extent.mapped and extent.mapped[0] is not stream else []

    def change(self, start: int, end: int, stream: Stream, step: int) -> list[Need]:
        """A step maps addresses, or takes them away; returns what has to be done before it."""
        self._split(start)
        self._split(end)
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, end)
        needs: dict[Stream, int] = {}
        for extent in self._extents[first:last]:
            for other, n in (*extent.used.items(), *([extent.mapped] if extent.mapped else [])):
                needs[other] = max(n, needs.get(other, 0))
        self._starts[first:last] = [start]
        self._extents[first:last] = [Extent(start, (stream, step))]
        return [need for need in needs.items() if need[0] is not stream]

    def _split(self, at: int) -> None:
        i = bisect_right(self._starts, at) - 1
        if at < END and self._starts[i] != at:
            old = self._extents[i]
            self._starts.insert(i + 1, at)
            self._extents.insert(i + 1, Extent(at, old.mapped, dict(old.used)))


class Plan:
    """The threads of a recording and the order that their steps have to keep; `roots` are there at the beginning."""

    def __init__(self, recording: Recording, engine: Engine) -> None:
        self.roots: list[tuple[Stream, int]] = []  # and in which process
        self._begin = recording.meta.start
        self._streams: dict[int, Stream] = {}
        self._spaces: dict[int, Extents] = {}
        for chunk in chunks(recording, None, engine.all_served):
            if engine.start_t >= 0:
                engine.take(chunk.until(engine.start_t))
            self._add(chunk, engine.start_t)
        engine.finish_start()

    def _add(self, chunk: Any, after: int) -> None:
        rows = chunk.faults
        faults = zip(chunk.pid, rows.tid.tolist(), chunk.address, chunk.how, rows.begin.tolist(), rows.end.tolist(),
                     strict=True)  # fmt: skip
        done = 0
        for e, before in zip((*chunk.events, None), (*chunk.before, len(chunk.t)), strict=True):
            for t, (pid, tid, address, how, begin, end) in zip(chunk.t[done:before], faults, strict=False):
                if t > after:
                    self._fault(pid, tid, (pid, address, how), begin, end)
            done = before
            if e is not None and e.t > after:
                self._event(e)

    def _stream(self, pid: int, tid: int) -> Stream:
        stream = self._streams.get(tid)
        if stream is None:
            stream = self._streams[tid] = Stream(str(tid), self._begin)
            self.roots.append((stream, pid))
        return stream

    def _fault(self, pid: int, tid: int, fault: Fault, begin: int, end: int) -> None:
        stream = self._stream(pid, tid)
        step = stream.add(fault, begin, end)
        self._need(stream, step, self._space(pid).use(fault[1], stream, step))

    def _space(self, pid: int) -> Extents:
        return self._spaces.setdefault(pid, Extents())

    def _need(self, stream: Stream, step: int, needs: list[Need]) -> None:
        if needs:
            stream.needs[step] = needs

    def _event(self, e: Event) -> None:
        stream = self._stream(e.pid, e.tid)
        begin, end = (e.call.begin, e.t) if e.call else (e.begin, e.end)
        step = stream.add(e, begin, end)
        if e.kind == Kind.FORK:
            self._forked(e, stream, step)
        elif e.kind == Kind.EXIT:
            self._streams.pop(e.tid, None)
        elif e.kind == Kind.COMM and e.nr == 1:
            self._spaces.pop(e.pid, None)
        needs = [need for span in _changed(e) for need in self._space(e.pid).change(*span, stream, step)]
        self._need(stream, step, needs)

    def _forked(self, e: Event, stream: Stream, step: int) -> None:
        child = Stream(str(e.a[1]), e.t)
        stream.children[step] = self._streams[e.a[1]] = child
        if e.a[0] != e.pid:
            self._spaces.pop(e.a[0], None)
            self._need(stream, step, self._space(e.pid).change(0, END, stream, step))  # all of it is copied


def _changed(e: Event) -> Iterable[tuple[int, int]]:
    """The addresses that a row maps or takes away: (start, end)."""
    if e.kind == Kind.MMAP:
        yield e.a[0], e.a[0] + e.a[1]
    elif e.kind == Kind.SYSCALL and e.nr in (MMAP, SHMAT, MREMAP, BRK) and e.ret > 0:
        if e.nr != BRK:
            size = e.a[2] if e.nr == MREMAP else e.a[1] if e.nr == MMAP else 4096
            yield e.ret, e.ret + max(size, 1)
        for row in e.inside:
            yield row.a[0], row.a[0] + row.a[1]
    if e.kind == Kind.SYSCALL and e.nr in CHANGES:
        yield e.a[0], min(e.a[0] + max(e.a[CHANGES[e.nr]], 1), END)


class _Blind(Walker):
    """A walk would take time, and tells nothing that is asked for here."""

    def holders(self, mm: Any) -> list[Holder]:
        return []


class _Clocked(Meter):
    """VmPTE over virtual time."""

    clock: list[int]

    def note(self, space: AddressSpace, t: int) -> int:
        return super().note(space, max(self.clock[0] // 1000, space.times[-1]))


class _Engine(Engine):
    """The engine of a replay, by whose calls time passes; what it keeps of them takes none."""

    walker_type = _Blind

    def __init__(self, recording: Recording, world: World) -> None:
        super().__init__(recording, world.model, [0, 0], 0, replay_memory())
        self._world = world
        self._apply = self.calls.apply
        self.calls.apply = self._timed_apply  # type: ignore[method-assign]
        self.calls.map_exec = partial(timed, world, "mapping by execve", self.calls.map_exec)  # type: ignore[method-assign]
        meter = _Clocked(world.model)
        meter.clock = world.clock
        self.population.meter = meter
        self.population.cpus = len(world.cpus)

    def _timed_apply(self, mm: Any, e: Event) -> int | None:
        result: int | None = timed(self._world, name_of(e.nr, e.a), self._apply, mm, e)
        return result

    def step(self, step: Fault | Event) -> None:
        """Do it now."""
        clock, me = self._world.clock, self._world.current
        me.ended = clock[0]
        now = clock[0] // 1000
        if not isinstance(step, Event):
            self.fault(now, *step)
        else:
            step.t = now
            self.handle(step)
            if step.kind == Kind.COMM:
                me.name = f"{step.name} {step.tid}"
        clock[0] = me.ended


def timed(world: World, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """An operation that begins where the thread's last one ended: what was looked up for it takes no time."""
    world.clock[0] = world.current.ended
    return world.syscall(name, call, *arguments)


def run(path: Path, world: World) -> list[str]:
    """Let the threads of a recording run.  Returns what is to be said of it.

    Raises TablewalkError for a bad recording, or one that cannot be replayed.
    """
    recording = Recording.open(path)
    refuse_unreadable(path, recording.meta)
    world.prepare()
    for site, name in (("fork.dup_mm", "fork"), ("mm_init.mmput", "exit")):
        module, _, function = site.partition(".")
        world.model.replace(site, partial(timed, world, name, getattr(world.model.kernel(module), function)))
    engine = _Engine(recording, world)
    plan = Plan(recording, engine)
    with world:
        for stream, pid in plan.roots:
            _spawn(world, engine, stream, pid, stream.name)
        world.run()
        engine.last_t = world.clock[0] // 1000
    engine.finish()
    for p in sorted(engine.population.processes, key=lambda p: -p.peak_kb):
        if p.spaces:
            times, kbs = p.history()
            world.memory[f"{p.name} {p.pid}"] = [(t * 1000, kb) for t, kb in zip(times, kbs, strict=True)]
    return _notes(engine)


def _spawn(world: World, engine: _Engine, stream: Stream, pid: int, name: str) -> None:
    def body() -> None:
        me = world.current
        for number, (think, step) in enumerate(zip(stream.think, stream.steps, strict=True), 1):
            if think >= ASLEEP:
                world.sleep(think * 1000)
            elif think:
                world.think(think * 1000)
            for other, n in stream.needs.get(number, ()):
                world.sync()
                while other.done < n:
                    other.waiting.append((n, me))
                    world.block()
            _use(world, engine, pid)
            engine.step(step)
            stream.done = number
            _wake(world, stream)
            if child := stream.children.get(number):
                assert isinstance(step, Event)
                _spawn(world, engine, child, step.a[0], f"{me.name.rpartition(' ')[0]} {child.name}".lstrip())

    world.spawn(name, body)


def _use(world: World, engine: _Engine, pid: int) -> None:
    """See that the thread's CPU has its process's address space loaded."""
    process = engine.population.alive.get(pid)
    mm = process.space.mm if process and process.space else None
    me = world.current
    if mm is not None and me.mm != mm.addr:
        me.mm = mm.addr
        assert me.cpu
        me.cpu.mm = me.mm


def _wake(world: World, stream: Stream) -> None:
    """Let those go on who have waited for the steps that are done."""
    ready = [thread for n, thread in stream.waiting if n <= stream.done]
    if ready:
        stream.waiting = [(n, thread) for n, thread in stream.waiting if n > stream.done]
        for thread in ready:
            world.wake(thread, world.clock[0])


def _notes(engine: Engine) -> list[str]:
    """What the model could not do as it was recorded."""
    accuracy, calls, processes = engine.accuracy, engine.calls, engine.population.processes
    stopped = [(p, space) for p in processes for _, space, own in p.spaces if own and space.stopped]
    counts = {
        "calls of which the model returned something else": sum(m.times for m in accuracy.mismatches),
        "page faults that the model refused": accuracy.faults_refused,
        "page faults of processes that are not known": accuracy.faults_unattributed,
        "calls that failed for a reason that is not known": sum(calls.unapplied.values()),
    }
    return [
        *(f"{p.name} {p.pid} is not followed further: {space.stopped}" for p, space in stopped),
        *(f"{n:,} {what}" for what, n in counts.items() if n),
        *(f"not known: {what} ({n:,})" for what, n in calls.unknowns.items()),
    ]
