# SPDX-License-Identifier: GPL-2.0-only
"""Threads as greenlets, on CPUs, ordered by a clock.

A thread runs on by itself until it meets a lock or another point where threads order themselves (`sync`); there it
lets everybody go first whose time is earlier.  So a lock is taken and released in the order of time; what is between
two such points happens at one moment, which is one of the orders that a real machine could show.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from greenlet import greenlet

from tablewalk.errors import TablewalkError

from .profile import Profile

LIVELOCK = 1_000_000  # retries without any operation coming to its end


class Stuck(TablewalkError):
    """Nobody gets on any more: a deadlock, or a livelock."""


class Cpu:
    """A CPU: who runs on it, and the address space it has loaded."""

    __slots__ = ("index", "ipis", "mm", "thread")

    def __init__(self, index: int) -> None:
        self.index = index
        self.thread: Thread | None = None
        self.mm = 0
        self.ipis = 0


class Thread:
    """A thread; `mm` is 0 for one of the kernel, which borrows whatever is loaded."""

    __slots__ = (
        "atomic", "batch", "cpu", "daemon", "debt", "done", "ended", "greenlet", "interrupted", "irqs_off", "last",
        "mm", "name", "number", "operation", "owns", "rcu", "slice_end", "spinning", "waited", "waits_for", "waits_in",
    )  # fmt: skip

    def __init__(self, number: int, name: str, mm: int, daemon: bool) -> None:
        self.number, self.name, self.mm, self.daemon = number, name, mm, daemon
        self.greenlet: Any = None
        self.cpu: Cpu | None = None
        self.last: Cpu | None = None
        self.debt = 0  # picoseconds that interrupts took
        self.batch: set[int] | None = None  # address spaces to be flushed, where it collects them
        self.spinning = False  # it has nothing to do but take interrupts
        self.interrupted = 0  # until when it does
        self.atomic = 0  # spinlocks held: not to be preempted
        self.rcu = 0
        self.irqs_off = 0
        self.slice_end = 0
        self.done = False
        self.operation = ""
        self.ended = 0  # when its last operation was over
        self.owns: set[int] = set()  # rwsems held exclusively: others may be spinning on this thread
        self.waited = 0  # picoseconds, for anything
        self.waits_for = 0  # the lock's or cell's address
        self.waits_in = ""  # the function


class Threads:
    """CPUs, the threads on them, and events in the order of time."""

    def __init__(self, clock: list[int], cpus: int, profile: Profile) -> None:
        self.clock, self.profile = clock, profile
        self.cpus = [Cpu(i) for i in range(cpus)]
        self.idle = list(self.cpus)
        self.threads: list[Thread] = []
        self.current: Thread = Thread(-1, "setup", 0, True)
        self.retries = 0
        self.switches = 0
        self._events: list[tuple[int, int, Any]] = []  # time, order of making, a thread or what to call
        self._order = 0
        self._runnable: deque[Thread] = deque()
        self._left = 0
        self._loop: Any = None  # the greenlet of `run`
        self._wakeup, self._switch = profile.ps("wakeup"), profile.ps("switch")
        self._slice = profile.ps("slice")
        self._early = max(0, self._slice - profile.ps("granularity"))

    def spawn(self, name: str, body: Callable[[], object], mm: int = 0, daemon: bool = False) -> Thread:
        """A thread that begins at time 0, or now; the run ends when all are done that are no daemons."""
        thread = Thread(len(self.threads), name, mm, daemon)

        def run() -> None:
            body()
            thread.done = True
            self._left -= not daemon
            self._leave(thread)

        thread.greenlet = greenlet(run, self._loop)
        self.threads.append(thread)
        self._left += not daemon
        self.wake(thread, self.clock[0])
        return thread

    def run(self) -> None:
        """Until all threads are done.  Raises Stuck if they cannot get there, and whatever a thread raises."""
        self._loop = greenlet.getcurrent()
        for thread in self.threads:
            thread.greenlet.parent = self._loop
        given: Thread | None = None
        while self._left:
            self.current = given or self._next()
            given = self.current.greenlet.switch()

    def at(self, time: int, what: Callable[[], None]) -> None:
        """Call `what` at a time."""
        heappush(self._events, (time, self._order, what))
        self._order += 1

    def sync(self) -> None:
        """Let everybody go first whose time is earlier, and take what interrupts cost."""
        me, clock = self.current, self.clock
        while True:
            if me.debt:
                clock[0] += me.debt
                me.debt = 0
            if self._runnable and clock[0] >= me.slice_end and not me.atomic and not me.irqs_off:
                self._preempt(me)
                continue
            if not self._events or self._events[0][0] >= clock[0]:
                return
            self.ready(me, clock[0])
            self._others()

    def again(self) -> None:
        """A retry; who only ever retries is in a livelock."""
        self.retries += 1
        if self.retries > LIVELOCK:
            raise Stuck(f"livelock at {self.clock[0] / 1e12:.6f} s: {self.chain(self.current)}")
        self.clock[0] += self.profile.ps("load")
        self.sync()

    def sleep(self, ps: int) -> None:
        """Sleep so long."""
        me = self.current
        self.at(self.clock[0] + ps, lambda: self.wake(me, self.clock[0]))
        self.block()

    def think(self, ps: int) -> None:
        """User code that touches nothing of interest."""
        self.clock[0] += ps
        self.sync()

    def block(self) -> None:
        """Give the CPU away until woken."""
        me = self.current
        self._leave(me)
        self._others()

    def spin(self) -> None:
        """Keep the CPU, and go on when `ready`."""
        me = self.current
        me.spinning = True
        self._others()
        self.spun()

    def spun(self) -> None:
        """The running thread has spun: interrupts took no time of its own, but for what is left of the last one."""
        me = self.current
        me.spinning = False
        me.debt += max(0, me.interrupted - self.clock[0])

    def interrupt_thread(self, thread: Thread, at: int, handler: int) -> None:
        """A thread that has its CPU is interrupted at a time for so long."""
        if thread.spinning:
            thread.interrupted = max(thread.interrupted, at) + handler
        else:
            thread.debt += handler

    def ready(self, thread: Thread, time: int) -> None:
        """A thread that has its CPU goes on at a time."""
        heappush(self._events, (time, self._order, thread))
        self._order += 1

    def wake(self, thread: Thread, now: int) -> None:
        """Make a sleeping thread run: at once on an idle CPU, else when its turn comes."""
        if self.idle:
            cpu = thread.last if thread.last in self.idle else self.idle[0]
            assert cpu is not None
            self.idle.remove(cpu)
            self._place(thread, cpu, now + self._wakeup)
        else:
            self._runnable.append(thread)
            victim = min((c.thread for c in self.cpus if c.thread), key=lambda t: (t.slice_end, t.number))
            victim.slice_end = max(victim.slice_end - self._early, now)

    def sleeps(self, thread: Thread) -> None:
        """A thread leaves its CPU; for who spins on it."""

    def chain(self, thread: Thread) -> str:
        """Who waits for whom, from a thread on."""
        return thread.name

    # --- inside ------------------------------------------------------------------------------------------

    def _place(self, thread: Thread, cpu: Cpu, time: int) -> None:
        cpu.thread = thread
        thread.cpu = thread.last = cpu
        if thread.mm and cpu.mm != thread.mm:
            cpu.mm = thread.mm
        thread.slice_end = time + self._slice
        self.switches += 1
        self.ready(thread, time)

    def _leave(self, thread: Thread) -> None:
        cpu = thread.cpu
        assert cpu is not None
        thread.cpu = None
        if thread.owns:
            self.sleeps(thread)
        if self._runnable:
            self._place(self._runnable.popleft(), cpu, self.clock[0] + self._switch)
        else:
            cpu.thread = None
            self.idle.append(cpu)

    def _preempt(self, me: Thread) -> None:
        self._runnable.append(me)
        self._leave(me)
        self._others()

    def _next(self) -> Thread:
        """The thread whose turn it is; what is to be called before is called."""
        events, clock = self._events, self.clock
        while events:
            time, _, what = heappop(events)
            if time > clock[0] or not isinstance(what, Thread):
                clock[0] = time
            if isinstance(what, Thread):
                clock[0] = time
                return what
            what()
        waiting = [t for t in self.threads if not t.done and not t.daemon]
        raise Stuck(f"deadlock at {clock[0] / 1e12:.6f} s: {self.chain(waiting[0])}")

    def _others(self) -> None:
        """Let others run; comes back when it is this thread's turn."""
        me = self.current
        thread = self._next()
        if thread is me:
            return
        if thread.greenlet:
            self.current = thread
            thread.greenlet.switch()
        else:  # `run` begins it, from where the stack is low: begun from here, each would be deeper than the one before
            self._loop.switch(thread)
