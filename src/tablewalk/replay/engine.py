# SPDX-License-Identifier: GPL-2.0-only
"""The replay of a recording: its rows, one after the other, as calls of the model."""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Callable, Iterator, MutableSequence
from typing import Any, ClassVar, Final

from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.drivers import Model
from tablewalk.record.recording import NEVER_RETURNED, Kind, Recording, Rows
from tablewalk.replay.attach import StartState
from tablewalk.replay.calls import HARMLESS, MADVISE, MMAP, PROCESS_VM, name_of
from tablewalk.replay.costs import Costs
from tablewalk.replay.files import Files
from tablewalk.replay.population import FORKS, Population
from tablewalk.replay.results import Accuracy, Mismatch
from tablewalk.replay.spaces import AddressSpace
from tablewalk.replay.stream import EXECS, Chunk, Event, How, chunks
from tablewalk.replay.syscalls import MADV_COLLAPSE, Calls, CannotFit
from tablewalk.replay.walk import Walker

FIRST_SHOWN: Final = 5  # examples kept of what went wrong
BRK: Final = 12
STACK_MAX: Final = 1 << 36  # bytes that a stack is believed to grow to
_MAY_ALLOCATE_MUCH: Final = (MMAP, 25, MADVISE, 149, 151, 325)

Fault = tuple[int, int, int, int]  # time, pid, address, How


class Engine:
    """Replays a recording on a configured model; afterwards the fields tell what happened.

    `board` is shared with whoever shows progress: rows done go to `board[slot]`; `board[-1]` other than 0 asks
    to stop at the next row. `memory`: bytes that the model may take.
    """

    walker_type: ClassVar = Walker

    def __init__(
        self, recording: Recording, model: Model, board: MutableSequence[int], slot: int, memory: int
    ) -> None:
        self._recording, self._board, self._slot = recording, board, slot
        files = Files(model)
        self.calls = Calls(model, files, (1 << (56 if recording.meta.levels == 5 else 47)) - 4096)
        self._peek = self.calls.peek
        walker = self.walker_type(model, files, self._peek)
        self.population = Population(model, walker, memory, recording.meta.cpus)
        self.accuracy = Accuracy()
        self.harmless: dict[str, int] = {}
        self.rows = 0
        self.last_t = recording.meta.start
        self.interrupted = False
        self._costs = Costs(model, self._peek, walker)
        self._start = StartState.of(recording, model)
        self._machine = model.machine
        events = recording.meta.events
        self.all_served = bool(events) and not {"minor-faults", "major-faults", "page-faults"} & set(events)
        if self.all_served:
            self.calls.tell("which faults were served (completions were not recorded): taken as all, at their entry")
        self._mismatches: dict[str, Mismatch] = {}
        fault, flags = model.kernel("fault"), model.kernel("vm_flags")
        self._fault, self._access_error = fault.do_user_addr_fault, fault.access_error
        self._error: int = flags.VM_FAULT_ERROR
        self._write_flag: int = flags.VM_WRITE
        self._grows: int = flags.VM_GROWSDOWN
        self._walk_to_pmd = model.kernel("pgtable_generic").walk_to_pmd
        self._reclaims: bool = model.kernel("config").config.pt_reclaim
        self._handlers: dict[int, Callable[[Event], None]] = {
            Kind.SYSCALL: self._syscall,
            Kind.MMAP: self._mmap,
            Kind.COMM: self._comm,
            Kind.FORK: self.population.fork,
            Kind.EXIT: self.population.exit,
            Kind.LOST: lambda e: self.calls.tell("gaps in the recording, where events were lost"),
        }

    def run(self, look: Callable[[Rows], None] | None = None) -> None:
        """Replay all rows, or until asked to stop; `look` sees each batch of rows first.

        Raises TablewalkError for a bad recording or one that cannot be replayed here.
        """
        gc.freeze()  # what is there stays; and nothing of a replay makes cycles that have to be looked for
        for chunk in chunks(self._recording, look, self.all_served):
            self.take(chunk)
            if self.interrupted:
                break
            self.rows += chunk.rows
            self.last_t = max(self.last_t, chunk.last_t)
            self._board[self._slot] = self.rows
            self.population.check_memory(self.rows)
        self.finish_start()
        self.finish()

    def finish(self) -> None:
        """The recording ends at `last_t`."""
        self.population.finish(self.last_t)
        self.accuracy.mismatches = sorted(self._mismatches.values(), key=lambda m: -m.times)

    @property
    def start_t(self) -> int:
        """Rows up to this time are the state of a process at the start of its recording; -1: there are none."""
        return self._start.t if self._start else -1

    def take(self, chunk: Chunk) -> None:
        """Replay a chunk, or until asked to stop."""
        faults = zip(chunk.t, chunk.pid, chunk.address, chunk.how, strict=True)
        done = 0
        for e, before in zip(chunk.events, chunk.before, strict=True):
            if self._start and e.t > self._start.t:
                done += self._end_of_start(chunk, faults, done)
            self._faults(faults, before - done)
            done = before
            if self._board[-1]:
                self.interrupted, self.last_t, self.rows = True, e.t, e.no - 1
                return
            self.handle(e)
        if self._start and chunk.last_t > self._start.t:
            done += self._end_of_start(chunk, faults, done)
        self._faults(faults, len(chunk.t) - done)

    def handle(self, e: Event) -> None:
        """Replay a row that is no page fault."""
        self._handlers[e.kind](e)

    def fault(self, t: int, pid: int, address: int, how: int) -> None:
        """Replay one page fault."""
        self._faults(iter(((t, pid, address, how),)), 1)

    def _end_of_start(self, chunk: Chunk, faults: Iterator[Fault], done: int) -> int:
        """The start state of a process attached to ends in this chunk; returns the faults of it that were left."""
        assert self._start
        left = bisect_right(chunk.t, self._start.t) - done
        self._faults(faults, left)
        self.finish_start()
        return left

    def finish_start(self) -> None:
        """What a process had at the start of its recording is all there."""
        start = self._start
        if start is None:
            return
        process = self.population.alive.get(start.pid)
        if space := self.population.enter(process):
            try:
                start.finish(self.calls, space.mm)
            except TablewalkError as error:
                self.population.stop(space, start.t, f"{error} (state at the start)")
            else:
                self.population.meter.note(space, start.t)
        if process:
            process.exec_since = None
        self._start = None

    # --- page faults -------------------------------------------------------------------------------------

    def _faults(self, rows: Iterator[Fault], n: int) -> None:
        """The next `n` faults; one that the model cannot serve stops its process."""
        while n > 0:
            n -= self._serve(rows, n)

    def _serve(self, rows: Iterator[Fault], n: int) -> int:
        """Serve up to `n` faults, fewer where one stops a process; returns how many were taken."""
        fault, error, population = self._fault, self._error, self.population
        mem: list[int] = self._machine.mem  # read directly: a call a counter would cost as much as half the fault
        last_pid = -1
        space: AddressSpace | None = None
        mm: Any = None
        ptes = pmds = puds = tables = done = first = t = address = 0
        try:
            for t, pid, address, how in rows:
                done += 1
                if pid != last_pid:
                    if space is not None:
                        space.faults += done - 1 - first
                    first, last_pid = done - 1, pid
                    space = population.enter(population.alive.get(pid))
                    if space is not None:
                        mm = space.mm
                        ptes, pmds, puds = mm.nr_ptes, mm.nr_pmds, mm.nr_puds
                        tables = mem[ptes] + mem[pmds] + mem[puds]
                if space is None:
                    self.accuracy.faults_unattributed += 1
                else:
                    if how > 1:
                        self._odd_fault(space, t, pid, address, how)
                    elif fault(mm, address, how == 1) & error:
                        self._refused(space, t, pid, address, how == 1)
                    now = mem[ptes] + mem[pmds] + mem[puds]
                    if now != tables:
                        tables = now
                        self._grown(space, t, address)
                if done == n:
                    break
        except CannotFit:
            raise
        except TablewalkError as e:
            assert space is not None
            population.stop(space, t, f"{e} (page fault at {address:#x})")
        if space is not None:
            space.faults += done - first
        return done

    def _odd_fault(self, space: AddressSpace, t: int, pid: int, address: int, how: int) -> None:
        """A fault whose write bit is not known, or that was not served."""
        vma = self._peek.vma_at(space.mm, address)
        if how == How.UNKNOWN:
            self.accuracy.write_unknown += 1
            write = vma is not None and not vma.file and vma.flags & self._write_flag != 0
            if self._fault(space.mm, address, write) & self._error:
                self._refused(space, t, pid, address, write)
            return
        self.accuracy.faults_failed += 1
        if how == How.FAILED and vma and not self._access_error(vma.flags, False):
            # The mapping allows it and yet it failed (end of file, a guard, a signal): upper tables come first.
            self.accuracy.faults_failed_odd += 1
            self._walk_to_pmd(space.mm, address)

    def _refused(self, space: AddressSpace, t: int, pid: int, address: int, write: bool) -> None:
        """The model refuses what was served in reality; if that was past the end of a file, the file has grown."""
        if self._served_after_all(space.mm, address, write):
            return
        self.calls.check_fits(address)
        self.accuracy.faults_refused += 1
        if len(self.accuracy.faults_refused_first) < FIRST_SHOWN:
            why = "the mapping does not allow it" if self._peek.vma_at(space.mm, address) else "nothing is mapped there"
            what = "write" if write else "read"
            self.accuracy.faults_refused_first.append(f"{t} ns, pid {pid}: {what} at {address:#x}: {why}")

    def _served_after_all(self, mm: Any, address: int, write: bool) -> bool:
        """Whether the model serves the fault once it is told what the fault itself tells."""
        vma = self._peek.vma_above(mm, address)
        if vma is None:
            return False
        if vma.start > address:
            if vma.flags & self._grows == 0 or vma.end - address > STACK_MAX:
                return False
            mm.rlimit_stack = STACK_MAX  # the stack may be larger than it usually may
        elif self._start:  # a page of the start state, written before its mapping was made read-only
            self._peek.set_vm_flags(mm, vma, vma.flags | self._write_flag)
            served = not self._fault(mm, address, write) & self._error
            self._peek.set_vm_flags(mm, vma, vma.flags)
            return served
        elif vma.file and self._peek.get(self._peek.get(vma.file, "f_mapping"), "i_size") >= 0:
            self._peek.get(vma.file, "f_mapping").i_size = -1
            self.calls.tell("files that grew by calls that are not recorded")
        else:
            return False
        return not self._fault(mm, address, write) & self._error

    def _grown(self, space: AddressSpace, t: int, address: int) -> None:
        """A fault changed the number of tables."""
        before = space.kbs[-1]
        change = self.population.meter.note(space, t) - before
        self._costs.site(space, "page fault", address).add(change)

    # --- system calls ------------------------------------------------------------------------------------

    def _syscall(self, e: Event) -> None:
        process = self.population.alive.get(e.pid)
        if process is None or process.space is None:
            return
        if e.nr in EXECS:
            if e.ret == 0:
                self.population.exec_done(process, e.begin, e.end)
            return
        self.population.exec_done(process, e.t, e.t)  # an exec whose return was not recorded
        space = self.population.enter(process)
        if space and e.nr in FORKS:
            self.population.copy_early(space, e)
        if e.nr in PROCESS_VM and e.ret > 0:
            self._foreign_access(e)
        elif not self.calls.knows(e.nr):
            key = name_of(e.nr, e.a) + ("" if e.nr in HARMLESS else " (not looked at)")
            self.harmless[key] = self.harmless.get(key, 0) + 1
        elif space:
            self._run(space, e)

    def _foreign_access(self, e: Event) -> None:
        """process_vm_readv and _writev fill tables of another process without a fault."""
        target = self.population.enter(self.population.alive.get(e.a[0]))
        if target:
            self.population.stop(target, e.t, f"not modelled: {name_of(e.nr, e.a)} by process {e.pid}")

    def _run(self, space: AddressSpace, e: Event) -> None:
        """Run a call that may change the address space, and account for it."""
        meter = self.population.meter
        space.calls += 1
        meter.note_rss(space, e.t)
        if e.nr != MADVISE or self._reclaims or e.a[2] == MADV_COLLAPSE:
            self.population.walk_if_new_peak(space, e.t)
        before = space.kbs[-1]
        call = self._costs.begin(space, e)
        try:
            ret = self.calls.apply(space.mm, e)
        except CannotFit:
            raise
        except TablewalkError as error:
            self.population.stop(space, e.t, f"{error} ({name_of(e.nr, e.a)})")
            return
        finally:
            self._machine.quiescent()
        made, freed = self._costs.end(call, meter.note(space, e.t) - before)
        if self._costs.reached_others(call):
            self.population.note_others(e)
        if made and freed:
            space.transients[e.t] = (before - freed, before + made)
        self._compare(e, ret)
        if e.nr in (MMAP, BRK) and e.inside and ret == e.ret:
            self._check_extent(space, e)
        if e.nr in _MAY_ALLOCATE_MUCH:
            self.population.check_memory(e.no)

    def _compare(self, e: Event, ret: int | None) -> None:
        """Count a return value that is not the recorded one."""
        if ret is None or e.ret == NEVER_RETURNED:
            return
        self.accuracy.returns += 1
        if ret == e.ret:
            return
        call = name_of(e.nr, e.a)
        known = self._mismatches.get(call)
        if known:
            known.times += 1
        else:
            detail = f"recorded {e.ret}, model {ret}; arguments {', '.join(map(hex, e.a))}"
            self._mismatches[call] = Mismatch(call, 1, e.t, e.pid, detail)

    def _check_extent(self, space: AddressSpace, e: Event) -> None:
        """The MMAP row inside the call tells the extent of the mapping after merging."""
        start, length = self.calls.span(e.inside[-1].a[0], e.inside[-1].a[1])
        end = start + length
        vma = self._peek.vma_at(space.mm, start)
        self.accuracy.vma_extents += 1
        if vma and (vma.start, vma.end) == (start, end):
            return
        self.accuracy.vma_mismatches += 1
        if len(self.accuracy.vma_first) < FIRST_SHOWN:
            model = f"{vma.start:#x}-{vma.end:#x}" if vma else "none"
            self.accuracy.vma_first.append(
                f"{e.t} ns, pid {e.pid}: {name_of(e.nr, e.a)}: recorded {start:#x}-{end:#x}, model {model}"
            )

    # --- mappings that no call makes ---------------------------------------------------------------------

    def _mmap(self, e: Event) -> None:
        """A mapping that execve made, or something that no row tells; one inside a call has been seen to."""
        process = self.population.alive.get(e.pid)
        space = self.population.enter(process) if process and not e.call else None
        if not process or not space:
            return
        if process.exec_since is None:
            if self._peek.vma_at(space.mm, e.a[0] + e.a[1] - 1):
                return  # a stack that grew, a protection that changed: the extent is not news
            self.calls.tell("mappings made by calls that are not recorded")
        try:
            if self._start:
                self._start.map(self.calls, space.mm, e)
            else:
                self.calls.map_exec(space.mm, e)
        except CannotFit:
            raise
        except TablewalkError as error:
            self.population.stop(space, e.t, f"{error} (mapping of {escape(e.name or '')})")
            return
        self.population.meter.note(space, e.t)

    def _comm(self, e: Event) -> None:
        if self._start and e.pid == self._start.pid and e.pid not in self.population.alive:
            process = self.population.begin(e.pid, e.name or "", e.t)
            process.exec_since = e.t  # its mappings follow as those of an exec do
            self.population.give_memory(process, e.t)
        else:
            self.population.comm(e)
