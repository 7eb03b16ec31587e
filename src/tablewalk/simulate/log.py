# SPDX-License-Identifier: GPL-2.0-only
"""A world that also keeps what happened when: for timelines.  Threads get on as in one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .locks import Holder, Waiter
from .threads import Cpu, Thread
from .waits import OTHERS, WAKEUP, function
from .world import VMA_LOCK, World


class Operation(NamedTuple):
    """A system call, a fault or a round of interrupts, by a thread; times in picoseconds, as everywhere here."""

    thread: int
    name: str
    function: str
    begin: int
    end: int


class Blame(NamedTuple):
    """A part of a wait, and whom it was for; holder -1: nobody, the lock was free or on its way."""

    holder: int
    function: str
    begin: int
    end: int


class Wait(NamedTuple):
    """A thread waited for a lock."""

    thread: int
    lock: str
    function: str
    begin: int
    end: int
    blame: list[Blame]


class Run(NamedTuple):
    """A thread had a CPU."""

    thread: int
    cpu: int
    begin: int
    end: int


@dataclass(slots=True)
class Log:
    """What happened when."""

    threads: list[str] = field(default_factory=list)
    daemons: set[int] = field(default_factory=set)
    operations: list[Operation] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    interrupts: list[tuple[int, int]] = field(default_factory=list)  # CPU, time
    memory: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by mm: bytes of VmPTE at each change


class LoggedWorld(World):
    """A world with a log."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.log = Log()
        self._since: dict[int, int] = {}  # by thread: it has its CPU
        self._blames: dict[int, list[Blame]] = {}  # by thread: of the wait that lasts
        self._bytes = self.model.kernel("pgtable_generic").mm_pgtables_bytes
        self._mm_struct = self.model.kernel("mm_types").mm_struct

    def __exit__(self, *args: object) -> None:
        for cpu in self.cpus:
            if cpu.thread is not None:
                self._ran(cpu.thread)
        self.log.threads = [thread.name for thread in self.threads]  # a recorded one gets its name on its way
        super().__exit__(*args)

    def spawn(self, name: str, body: Callable[[], object], mm: int = 0, daemon: bool = False) -> Thread:
        if daemon:
            self.log.daemons.add(len(self.threads))
        return super().spawn(name, body, mm, daemon)

    def _completed(self, name: str, call: Callable[..., Any], begun: int) -> None:
        super()._completed(name, call, begun)
        me = self.current
        self.log.operations.append(Operation(me.number, name, getattr(call, "__name__", name), begun, self.clock[0]))
        if me.mm:
            self._note_memory(me.mm)

    def _note_memory(self, mm: int) -> None:
        now = self.clock[0]
        size = int(self._bytes(self._mm_struct(mm)))
        self.clock[0] = now  # to look takes no time
        known = self.log.memory.setdefault(mm, [])
        if not known or known[-1][1] != size:
            known.append((now, size))

    # --- CPUs --------------------------------------------------------------------------------------------

    def _place(self, thread: Thread, cpu: Cpu, time: int) -> None:
        self._since[thread.number] = time
        super()._place(thread, cpu, time)

    def _leave(self, thread: Thread) -> None:
        self._ran(thread)
        super()._leave(thread)

    def _ran(self, thread: Thread) -> None:
        since, now = self._since.pop(thread.number, None), self.clock[0]
        if thread.cpu is not None and since is not None and now > since:
            self.log.runs.append(Run(thread.number, thread.cpu.index, since, now))

    def _send(self, targets: list[Cpu], flush: int) -> None:
        who, begun = function(1), self.clock[0]
        super()._send(targets, flush)
        if targets:
            name = f"IPIs to {len(targets)} CPUs" if len(targets) > 1 else "IPI to a CPU"
            self.log.operations.append(Operation(self.current.number, name, who, begun, self.clock[0]))
            self.log.interrupts += [(cpu.index, begun + self.profile.ps("ipi_latency")) for cpu in targets]

    # --- waits -------------------------------------------------------------------------------------------

    def _tell(self, address: int, w: Waiter, holder: Holder | None, now: int) -> None:
        who, where = (holder[0].number, holder[1]) if holder else (-1, WAKEUP[1])
        self._blames.setdefault(w.thread.number, []).append(Blame(who, where, w.told, now))
        super()._tell(address, w, holder, now)

    def _got(self, address: int, w: Waiter) -> None:
        super()._got(address, w)
        self._waited(w.thread, self.name_of(address), w.function, w.since)

    def wait_until(self, address: int, value: int) -> None:
        self.sync()
        me, begun = self.current, self.clock[0]
        super().wait_until(address, value)
        self._waited(me, VMA_LOCK, me.waits_in, begun)

    def changed(self, address: int) -> None:
        now = self.machine.mem[address]
        by = (self.current.number, self.current.operation)
        for thread, value, since in self._sleepers.get(address, []):
            if value == now and self.clock[0] > since:
                self._blames.setdefault(thread.number, []).append(Blame(*by, since, self.clock[0]))
        super().changed(address)

    def _answered(self, what: str, since: int) -> None:
        super()._answered(what, since)
        me = self.current
        self._blames[me.number] = [Blame(-1, OTHERS[1], since, self.clock[0])]
        self._waited(me, what, function(2), since)

    def _waited(self, thread: Thread, lock: str, where: str, begun: int) -> None:
        blame, now = self._blames.pop(thread.number, []), self.clock[0]
        if now > begun:
            self.log.waits.append(Wait(thread.number, lock, where, begun, now, blame))

