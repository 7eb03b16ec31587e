# SPDX-License-Identifier: GPL-2.0-only
"""The processes of a recording and their address spaces: fork, exec, exit, threads, pids that are used again."""

from __future__ import annotations

from typing import Any, Final

from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.drivers import Model
from tablewalk.record.recording import Kind
from tablewalk.replay.results import Holder, Holders
from tablewalk.replay.spaces import AddressSpace, Meter, Process
from tablewalk.replay.stream import Event
from tablewalk.replay.syscalls import CannotFit
from tablewalk.replay.walk import HOLDERS_SHOWN, Walker

CLONE_VM: Final = 0x100
CLONE, VFORK, CLONE3 = 56, 58, 435
FORKS: Final = (CLONE, 57, VFORK, CLONE3)
THP_DISABLED: Final = 3  # the bits of mm.flags that survive an exec: prctl(PR_SET_THP_DISABLE)
WALK_STEP: Final = 32  # tables are walked again when VmPTE passed the last walk's by this part,
WALK_KB_A_CALL: Final = 2  # or at all, and a call or fault was replayed for so many kB: a walk costs little then
BYTES_PER_CELL: Final = 40  # of the model's memory: a list's slot and an int object


class Population:
    """All processes, dead and alive. `memory`: bytes that the model may take (TablewalkError if that is not enough)."""

    def __init__(self, model: Model, walker: Walker, memory: int, cpus: int | None) -> None:
        self.processes: list[Process] = []
        self.alive: dict[int, Process] = {}
        self.meter = Meter(model)
        self.cpus = cpus  # that threads can be spread over; None: not known
        self._walker, self._machine = walker, model.machine
        self._cells = memory // BYTES_PER_CELL
        self._generations: dict[int, int] = {}
        self._current: AddressSpace | None = None
        self._dups: dict[int, Any] = {}  # copies made by a fork whose child is not announced yet, by thread
        mm_init = model.kernel("mm_init")
        self._mm_alloc, self._mmput, self._dup_mm = mm_init.mm_alloc, mm_init.mmput, model.kernel("fork").dup_mm

    # --- who is at work --------------------------------------------------------------------------------------

    def enter(self, process: Process | None) -> AddressSpace | None:
        """What the machine counts from here on is for this process; None if it is not followed (any more)."""
        space = process.space if process else None
        if space is not self._current:
            self.meter.charge(self._current)
            self._current = space
        if space is None or space.stopped is not None or space.mm is None:
            return None
        return space

    def stop(self, space: AddressSpace, t: int, why: str) -> None:
        """From `t` on the model does not know this address space."""
        space.stopped, space.stopped_t = why, t
        space.end = self.meter.tables(space.mm, t, space.kbs[-1])

    def note_others(self, e: Event) -> None:
        """A call of one process may have changed the tables of others."""
        for process in self.alive.values():
            space = process.space
            if space and space.mm is not None and space.stopped is None:
                before = space.kbs[-1]
                if self.meter.note(space, e.t) != before:
                    space.foreign.append((e.begin, e.end, e.t))

    def finish(self, t: int) -> None:
        """The recording ends here."""
        for process in self.alive.values():
            if space := self.enter(process):
                self._last_look(space, t)
        self.enter(None)

    def check_memory(self, row: int) -> None:
        """Raise TablewalkError if the model has outgrown this machine."""
        if len(self._machine.mem) > self._cells:
            mib = self._cells * BYTES_PER_CELL >> 20
            raise TablewalkError(f"at row {row:,} the model needs more memory than there is here ({mib:,} MiB)")

    # --- beginnings ------------------------------------------------------------------------------------------

    def begin(self, pid: int, name: str, t: int) -> Process:
        """A new process without memory; one that still had this pid must have ended unseen."""
        if old := self.alive.get(pid):
            self._bury(old, t)
        generation = self._generations.get(pid, 0)
        self._generations[pid] = generation + 1
        process = Process(pid, generation, name, t)
        self.alive[pid] = process
        self.processes.append(process)
        return process

    def give_memory(self, process: Process, t: int) -> AddressSpace:
        """An empty address space instead of what the process had."""
        old = process.space
        mm = self._mm_alloc()
        if old and old.mm is not None:
            mm.flags = self._machine.READ_ONCE(old.mm, "flags") & THP_DISABLED
        self._leave(process, t)
        space = AddressSpace(mm, t)
        self._use(process, space, t, own=True)
        return space

    def comm(self, e: Event) -> None:
        """An exec (then the new program's memory begins), or a new name."""
        process = self.alive.get(e.pid)
        name = e.name or ""
        if e.nr != 1:
            if process and e.tid == e.pid:
                process.name = name
            return
        if process is None:
            process = self.begin(e.pid, name, e.t)
        process.name = name
        process.tids = {e.pid}
        process.exec_since = e.t
        self.give_memory(process, e.t)

    def exec_done(self, process: Process, begin: int, end: int) -> None:
        """An execve has returned: its mappings are there."""
        if process.exec_since is not None:
            process.execs.append((min(process.exec_since, begin), end))
            process.exec_since = None

    def copy_early(self, space: AddressSpace, e: Event) -> None:
        """A fork copies the address space when it takes mmap_lock, which is before its child is announced."""
        fork = next((row for row in e.inside if row.kind == Kind.FORK and row.a[0] != e.pid), None)
        if fork is not None and fork.t >= e.t and not _shares(fork):
            self._dups[e.tid] = self._copy(space, e)

    def fork(self, e: Event) -> None:
        """A new thread or process."""
        parent = self.alive.get(e.pid)
        if parent is None or parent.space is None:
            return
        if e.a[0] == e.pid:
            parent.tids.add(e.a[1])
            self._spread(parent)
            return
        child = self.begin(e.a[0], parent.name, e.t)
        space = self.enter(parent)
        if space is None:
            self._use(child, _unknown_memory(parent.space, e.t), e.t, own=True)
        elif _shares(e):
            space.users += 1
            self._use(child, space, e.t, own=False)
        else:
            mm = self._dups.pop(e.tid, None) or self._copy(space, e)
            self._use(child, AddressSpace(mm, e.t) if mm else _unknown_memory(space, e.t), e.t, own=True)

    def _spread(self, process: Process) -> None:
        """Where threads run is not recorded: each on a CPU of its own, as long as there are CPUs."""
        if process.space and process.space.mm is not None:
            threads = len(process.tids)
            process.space.mm.nr_cpus = min(threads, self.cpus or threads)

    def _copy(self, space: AddressSpace, e: Event) -> Any:
        """A copy of the address space, None where the model cannot make one."""
        self.check_memory(e.no)
        try:
            return self._dup_mm(space.mm)
        except CannotFit:
            raise
        except TablewalkError as error:
            self.stop(space, e.t, f"{error} (fork)")
            return None
        finally:
            self._machine.quiescent()

    def _use(self, process: Process, space: AddressSpace, t: int, own: bool) -> None:
        process.spaces.append((t, space, own))
        space.pids.append(process.pid)
        if self.enter(process):
            self.meter.note(space, t)

    # --- ends ------------------------------------------------------------------------------------------------

    def exit(self, e: Event) -> None:
        """A thread ends, and with the last one its process."""
        process = self.alive.get(e.pid)
        if process is not None:
            process.tids.discard(e.tid)
            if process.tids:
                self._spread(process)
            else:
                self._bury(process, e.t)

    def _bury(self, process: Process, t: int) -> None:
        self._leave(process, t)
        process.end = t
        del self.alive[process.pid]

    def _leave(self, process: Process, t: int) -> None:
        """The process no longer uses its address space; with the last user it goes."""
        space = process.space
        if space is None:
            return
        space.users -= 1
        if space.users:
            return
        if self.enter(process):
            self._last_look(space, t)
            try:
                self._mmput(space.mm)
            except TablewalkError as error:
                self.stop(space, t, f"{error} (exit)")
            self._machine.quiescent()
        self.enter(None)
        space.mm = None

    # --- looking at tables -----------------------------------------------------------------------------------

    def walk_if_new_peak(self, space: AddressSpace, t: int) -> None:
        """Before tables may go: look which mappings hold them, if there were never so many (or nearly)."""
        kb, last = space.kbs[-1], space.holders.vmpte_kb if space.holders else 0
        if kb <= last or kb < space.peak.vmpte_kb:
            return
        done = space.faults + space.calls
        if kb > last + last // WALK_STEP or done - space.walked > kb // WALK_KB_A_CALL:
            space.walked = done
            self._peaked(space, t, self._walker.holders(space.mm))

    def _peaked(self, space: AddressSpace, t: int, found: list[Holder]) -> None:
        """VmPTE is at its peak, and these mappings hold the tables."""
        space.peak = self.meter.tables(space.mm, t, space.kbs[-1])
        space.peak.empty = sum(h.empty for h in found)
        ranked = sorted(found, key=lambda h: -h.pte)
        rest = ranked[HOLDERS_SHOWN:]
        pte = sum(h.pte for h in rest)
        space.holders = Holders(t, space.peak.vmpte_kb, ranked[:HOLDERS_SHOWN], len(rest), pte)

    def _last_look(self, space: AddressSpace, t: int) -> None:
        self.meter.note_rss(space, t)
        found = self._walker.holders(space.mm)
        space.end = self.meter.tables(space.mm, t, space.kbs[-1])
        space.end.empty = sum(h.empty for h in found)
        if space.kbs[-1] >= space.peak.vmpte_kb:
            self._peaked(space, t, found)


def _shares(fork: Event) -> bool:
    """Whether the child of a FORK row uses its parent's memory.

    Where its flags were not recorded, the call tells: a clone3 that makes a process is taken for posix_spawn's.
    """
    if fork.a[3] == 1:
        return fork.a[2] & CLONE_VM != 0
    call = fork.call
    if call is None:
        return False
    return call.nr in (VFORK, CLONE3) or (call.nr == CLONE and call.a[0] & CLONE_VM != 0)


def _unknown_memory(parent: AddressSpace, t: int) -> AddressSpace:
    """The address space of a child whose parent the model does not know."""
    space = AddressSpace(None, t)
    space.stopped, space.stopped_t = f"its parent's memory is not known: {escape(parent.stopped or '')}", t
    return space
