# SPDX-License-Identifier: GPL-2.0-only
"""The replay of a recording: its rows, one after the other, as calls of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence
from typing import Any, Final

from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.drivers import Model
from tablewalk.record.recording import Kind, Recording, Rows
from tablewalk.replay import calls
from tablewalk.replay.calls import name_of
from tablewalk.replay.files import Files
from tablewalk.replay.results import Accuracy, Holder, Holders, Mismatch, Site
from tablewalk.replay.spaces import AddressSpace, Meter, Process
from tablewalk.replay.stream import EXECS, Chunk, Event, How, chunks
from tablewalk.replay.syscalls import Calls, CannotFit
from tablewalk.replay.walk import HOLDERS_SHOWN, Walker

CLONE_VM: Final = 0x100
FIRST_SHOWN: Final = 5  # examples kept of what went wrong
WALK_STEP: Final = 32  # tables are walked again when VmPTE passed the last walk's by this part
BYTES_PER_CELL: Final = 40  # a list's slot and an int object
THP_DISABLED: Final = 3  # the bits of mm.flags that survive an exec: prctl(PR_SET_THP_DISABLE)
_FORKS: Final = (56, 57, 58, 435)

Row = tuple[int, int, int, int]


class Engine:
    """Replays a recording on a configured model; afterwards `processes` and `accuracy` tell what happened.

    `board` is shared with whoever shows progress: rows done go to `board[slot]`; `board[-1]` other than 0 asks
    to stop at the next row. Raises TablewalkError for a bad recording or one that cannot be replayed here.
    """

    def __init__(
        self, recording: Recording, model: Model, board: MutableSequence[int], slot: int, memory: int
    ) -> None:
        self._recording, self._model, self._board, self._slot = recording, model, board, slot
        self._cells = memory // BYTES_PER_CELL
        self.files = Files(model)
        self.calls = Calls(model, self.files)
        self.meter = Meter(model)
        self.accuracy = Accuracy()
        self.processes: list[Process] = []
        self.harmless: dict[str, int] = {}
        self.rows = 0
        self.last_t = recording.meta.start
        self.interrupted = False
        self._walker = Walker(model, self.files)
        self._machine = model.machine
        self._alive: dict[int, Process] = {}
        self._generations: dict[int, int] = {}
        self._current: AddressSpace | None = None
        self._mismatches: dict[str, Mismatch] = {}
        self._dups: dict[int, Any] = {}  # copies made by a fork that has no child yet, by thread
        mm_init, fault, flags = model.kernel("mm_init"), model.kernel("fault"), model.kernel("vm_flags")
        self._mm_alloc, self._mmput, self._dup_mm = mm_init.mm_alloc, mm_init.mmput, model.kernel("fork").dup_mm
        self._fault, self._access_error = fault.do_user_addr_fault, fault.access_error
        self._error: int = flags.VM_FAULT_ERROR
        self._sigbus: int = flags.VM_FAULT_SIGBUS
        self._write_flags: int = flags.VM_WRITE
        self._walk_to_pmd = model.kernel("pgtable_generic").walk_to_pmd
        self._reclaims: bool = model.kernel("config").config.pt_reclaim
        self._task_size: int = model.module("arch").arch.task_size
        self._handlers: dict[int, Callable[[Event], None]] = {
            Kind.SYSCALL: self._syscall,
            Kind.MMAP: self._mmap,
            Kind.COMM: self._comm,
            Kind.FORK: self._fork,
            Kind.EXIT: self._exit,
            Kind.LOST: self._lost,
        }

    def run(self, look: Callable[[Rows], None] | None = None) -> None:
        """Replay all rows, or until asked to stop; `look` sees each batch of rows first."""
        for chunk in chunks(self._recording, look):
            self._chunk(chunk)
            if self.interrupted:
                break
            self.rows += chunk.rows
            self.last_t = chunk.last_t
            self._board[self._slot] = self.rows
        self._enter(None)
        for process in self._alive.values():
            if process.space and process.space.stopped is None:
                self._last_look(process.space, self.last_t)
        self.accuracy.mismatches = sorted(self._mismatches.values(), key=lambda m: -m.times)

    def _chunk(self, chunk: Chunk) -> None:
        faults = zip(chunk.t, chunk.pid, chunk.address, chunk.how, strict=True)
        done = 0
        for e, before in zip(chunk.events, chunk.before, strict=True):
            if before > done:
                self._faults(faults, before - done)
                done = before
            if self._board[-1]:
                self.interrupted, self.last_t = True, e.t
                return
            self._handlers[e.kind](e)
        self._faults(faults, len(chunk.t) - done)
        self._check_memory(f"row {self.rows + chunk.rows}")

    # --- page faults -------------------------------------------------------------------------------------

    def _faults(self, rows: Iterator[Row], n: int) -> None:
        """The next `n` faults; one that the model cannot serve stops its process."""
        while n > 0:
            n -= self._serve(rows, n)

    def _serve(self, rows: Iterator[Row], n: int) -> int:
        """Serve up to `n` faults, fewer where one stops a process; returns how many were taken."""
        fault, load, error = self._fault, self._machine.load, self._error
        last_pid = -1
        space: AddressSpace | None = None
        mm: Any = None
        ptes = pmds = puds = tables = done = first = 0
        t = address = 0
        try:
            for t, pid, address, how in rows:
                done += 1
                if pid != last_pid:
                    if space is not None:
                        space.faults += done - 1 - first
                    first = done - 1
                    last_pid = pid
                    space = self._enter(self._alive.get(pid))
                    if space is not None:
                        mm = space.mm
                        ptes, pmds, puds = mm.nr_ptes, mm.nr_pmds, mm.nr_puds
                        tables = load(ptes) + load(pmds) + load(puds)
                if space is None:
                    self.accuracy.faults_unattributed += 1
                elif how > 1:
                    self._odd_fault(space, t, address, how)
                elif fault(mm, address, how == 1) & error:
                    self._refused(space, t, pid, address, how == 1)
                if space is not None:
                    now = load(ptes) + load(pmds) + load(puds)
                    if now != tables:
                        tables = now
                        self._grown(space, t, address)
                if done == n:
                    break
        except CannotFit:
            raise
        except TablewalkError as e:
            assert space is not None
            self._stop(space, t, f"{e} (page fault at {address:#x})")
        if space is not None:
            space.faults += done - first
        return done

    def _odd_fault(self, space: AddressSpace, t: int, address: int, how: int) -> None:
        """A fault whose write bit or success is not as usual."""
        mm, accuracy = space.mm, self.accuracy
        vma = self.calls.vma_at(mm, address)
        if how == How.UNKNOWN:
            accuracy.write_unknown += 1
            write = bool(vma) and not vma.vm_file and vma.vm_flags & self._write_flags != 0
            if self._fault(mm, address, write) & self._error:
                self._refused(space, t, 0, address, write)
            return
        accuracy.faults_failed += 1
        if how == How.FAILED and vma and not self._access_error(vma.vm_flags, False):
            # The VMA allows it and yet it failed (end of file, a guard, a signal): the upper tables were made first.
            accuracy.faults_failed_odd += 1
            self._walk_to_pmd(mm, address)

    def _refused(self, space: AddressSpace, t: int, pid: int, address: int, write: bool) -> None:
        """The model refuses what was served in reality. Past the end of a file, the file must have grown."""
        mm, accuracy = space.mm, self.accuracy
        vma = self.calls.vma_at(mm, address)
        if vma and vma.vm_file and vma.vm_file.f_mapping.i_size >= 0:
            vma.vm_file.f_mapping.i_size = -1
            if self._fault(mm, address, write) & self._error == 0:
                self.calls.unknowns.setdefault("files that grew by calls that are not recorded", 0)
                self.calls.unknowns["files that grew by calls that are not recorded"] += 1
                return
        if address >= self._task_size and address < 1 << 47:
            raise CannotFit(
                f"the recording uses address {address:#x}, past the end of user space of the architecture"
            )
        accuracy.faults_refused += 1
        if len(accuracy.faults_refused_first) < FIRST_SHOWN:
            why = "no mapping there" if not vma else "the mapping does not allow it"
            kind = "write" if write else "read"
            accuracy.faults_refused_first.append(f"{t} ns, pid {pid or '?'}: {kind} of {address:#x}: {why}")

    def _grown(self, space: AddressSpace, t: int, address: int) -> None:
        """A fault changed the number of tables."""
        before = space.kbs[-1]
        change = self.meter.note(space, t) - before
        site = self._site(space, "page fault", address)
        site.calls += 1
        if change > 0:
            site.allocated_kb += change
        else:
            site.freed_kb -= change

    # --- system calls ------------------------------------------------------------------------------------

    def _syscall(self, e: Event) -> None:
        process = self._alive.get(e.pid)
        if e.nr in EXECS:
            if process and e.ret == 0:
                self._exec_done(process, e)
            return
        if process is None or process.space is None:
            return
        self._end_of_exec(process, e.t)
        space = self._enter(process)
        if e.nr in _FORKS:
            self._dup(space, e)
        if not self.calls.knows(e.nr):
            key = name_of(e.nr, e.a)
            if e.nr not in calls.HARMLESS:
                key += " (not looked at)"
            self.harmless[key] = self.harmless.get(key, 0) + 1
        elif space is not None:
            self._run(space, e)

    def _run(self, space: AddressSpace, e: Event) -> None:
        """Run a call that may change the address space, and account for it."""
        meter, mm = self.meter, space.mm
        meter.note_rss(space, e.t)
        may_free = e.nr != 28 or self._reclaims
        if may_free:
            self._walk_if_new_peak(space)
        site = self._site(space, name_of(e.nr, e.a), e.ret if e.nr in (9, 30) else e.a[0])
        before, work = space.kbs[-1], meter.work()
        tables = self._made_and_freed()
        try:
            ret = self.calls.apply(mm, e)
        except CannotFit:
            raise
        except TablewalkError as error:
            self._stop(space, e.t, f"{error} ({name_of(e.nr, e.a)})")
            return
        finally:
            self._machine.quiescent()
        change = meter.note(space, e.t) - before
        made, freed = (now - was for now, was in zip(self._made_and_freed(), tables, strict=True))
        if made and freed:
            space.transients[e.t] = (before - 4 * freed, before + 4 * made)
        self._charge_site(site, change, work)
        self._compare(e, ret)
        if e.nr in (9, 12) and e.inside and ret == e.ret:
            self._check_extent(space, e)
        if e.nr in (9, 25, 28, 149, 150, 325):
            self._check_memory(f"row {e.no}")

    def _made_and_freed(self) -> tuple[int, int]:
        """Tables allocated and freed so far."""
        s = self._machine.stats
        return s[7] + s[9], s[8] + s[10]

    def _charge_site(self, site: Site, change: int, work: tuple[int, int, int, int]) -> None:
        now = self.meter.work()
        site.calls += 1
        if change > 0:
            site.allocated_kb += change
        else:
            site.freed_kb -= change
        site.flushes += now[0] - work[0]
        site.ipis += now[1] - work[1]
        site.rcu_callbacks += now[2] - work[2]
        site.locks += now[3] - work[3]

    def _site(self, space: AddressSpace, call: str, address: int) -> Site:
        """Where costs of such calls on the mapping at `address` are added up."""
        vma = self.calls.vma_at(space.mm, address)
        key = (call, vma.vm_start if vma else -1)
        site = space.sites.get(key)
        if site is None:
            where = f"{self._walker.what(vma)} at {vma.vm_start:#x}" if vma else "new or no mapping"
            site = space.sites[key] = Site(call, where)
        return site

    def _compare(self, e: Event, ret: int | None) -> None:
        """Count a return value that is not the recorded one."""
        if ret is None:
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
        row = e.inside[-1]
        vma = self.calls.vma_at(space.mm, row.a[0])
        accuracy = self.accuracy
        accuracy.vma_extents += 1
        start, end = row.a[0], row.a[0] + row.a[1]
        if vma and (vma.vm_start, vma.vm_end) == (start, end):
            return
        accuracy.vma_mismatches += 1
        if len(accuracy.vma_first) < FIRST_SHOWN:
            model = f"{vma.vm_start:#x}-{vma.vm_end:#x}" if vma else "none"
            accuracy.vma_first.append(
                f"{e.t} ns, pid {e.pid}: {name_of(e.nr, e.a)}: recorded {start:#x}-{end:#x}, model {model}"
            )

    # --- processes ---------------------------------------------------------------------------------------

    def _mmap(self, e: Event) -> None:
        """A mapping: inside a call it has been seen to, else execve made it, or something that no row tells."""
        process = self._alive.get(e.pid)
        if process is None or e.paired:
            return
        space = self._enter(process)
        if space is None:
            return
        if process.exec_since is None:
            vma = self.calls.vma_at(space.mm, e.a[0] + e.a[1] - 1)
            if vma:
                return  # a stack that grew, a protection that changed: the extent is not news
            self._unknown("mappings made by calls that are not recorded")
        try:
            self.calls.map_exec(space.mm, e)
            if e.name == "[stack]" and process.exec_since is not None:
                self._fault(space.mm, e.a[0] + e.a[1] - 8, True)  # arguments were put there without a fault
        except CannotFit:
            raise
        except TablewalkError as error:
            self._stop(space, e.t, f"{error} (mapping of {escape(e.name or '')})")
            return
        self.meter.note(space, e.t)

    def _comm(self, e: Event) -> None:
        process = self._alive.get(e.pid)
        name = e.name or ""
        if e.nr != 1:
            if process and e.tid == e.pid:
                process.name = name
            return
        if process is None:
            process = self._new_process(e.pid, name, e.t)
        old = process.space
        mm = self._mm_alloc()
        mm.rlimit_stack = (1 << 64) - 1  # it is not recorded: what grew in reality grows here
        if old and old.mm is not None:
            mm.flags = old.mm.flags & THP_DISABLED
        self._leave_space(process, e.t)
        process.name = name
        process.tids = {e.pid}
        process.exec_since = e.t
        self._attach(process, AddressSpace(mm, e.t), e.t, own=True)

    def _exec_done(self, process: Process, e: Event) -> None:
        since = process.exec_since
        if since is not None:
            process.execs.append((min(since, e.begin), e.end))
            process.exec_since = None

    def _end_of_exec(self, process: Process, t: int) -> None:
        """An exec whose return was not recorded has ended by its process' next call."""
        if process.exec_since is not None:
            process.execs.append((process.exec_since, t))
            process.exec_since = None

    def _dup(self, space: AddressSpace | None, e: Event) -> None:
        """A fork copies the address space when it takes mmap_lock, which is before its child is announced."""
        fork = next((row for row in e.inside if row.kind == Kind.FORK), None)
        if space is None or fork is None or fork.t < e.t or _shares(fork):
            return
        self._dups[e.tid] = self._copy(space, e)

    def _copy(self, space: AddressSpace, e: Event) -> Any:
        """A copy of the address space, None where the model cannot make one."""
        try:
            self._check_memory(f"row {e.no}")
            return self._dup_mm(space.mm)
        except CannotFit:
            raise
        except TablewalkError as error:
            self._stop(space, e.t, f"{error} (fork)")
            return None
        finally:
            self._machine.quiescent()

    def _fork(self, e: Event) -> None:
        parent = self._alive.get(e.pid)
        child_pid, child_tid = e.a[0], e.a[1]
        if child_pid == e.pid:
            if parent:
                parent.tids.add(child_tid)
            return
        if parent is None or parent.space is None:
            return
        child = self._new_process(child_pid, parent.name, e.t)
        space = self._enter(parent)
        if space is None:
            self._attach(child, _stopped_copy(parent.space, e.t), e.t, own=True)
        elif _shares(e):
            space.users += 1
            self._attach(child, space, e.t, own=False)
        else:
            mm = self._dups.pop(e.tid, None) or self._copy(space, e)
            copy = AddressSpace(mm, e.t) if mm else _stopped_copy(space, e.t)
            self._attach(child, copy, e.t, own=True)

    def _exit(self, e: Event) -> None:
        process = self._alive.get(e.pid)
        if process is None:
            return
        process.tids.discard(e.tid)
        if not process.tids:
            self._bury(process, e.t)

    def _lost(self, e: Event) -> None:
        self._unknown("gaps in the recording (events lost)")

    def _new_process(self, pid: int, name: str, t: int) -> Process:
        old = self._alive.get(pid)
        if old:
            self._bury(old, t)
        generation = self._generations.get(pid, 0)
        self._generations[pid] = generation + 1
        process = Process(pid, generation, name, t)
        self._alive[pid] = process
        self.processes.append(process)
        return process

    def _attach(self, process: Process, space: AddressSpace, t: int, own: bool) -> None:
        process.spaces.append((t, space, own))
        space.pids.append(process.pid)
        if space.mm is not None:
            self._enter(process)
            self.meter.note(space, t)

    def _bury(self, process: Process, t: int) -> None:
        self._leave_space(process, t)
        process.end = t
        del self._alive[process.pid]

    def _leave_space(self, process: Process, t: int) -> None:
        """The process no longer uses its address space; with the last user it goes."""
        space = process.space
        if space is None:
            return
        space.users -= 1
        if space.users == 0 and space.mm is not None:
            if space.stopped is None:
                self._enter(process)
                self._last_look(space, t)
                try:
                    self._mmput(space.mm)
                except TablewalkError as error:
                    self._stop(space, t, f"{error} (exit)")
                self._machine.quiescent()
            self._enter(None)
            space.mm = None

    def _last_look(self, space: AddressSpace, t: int) -> None:
        self.meter.note_rss(space, t)
        self._walk_if_new_peak(space)
        space.end = self.meter.tables(space.mm, t, space.kbs[-1])
        space.end.empty = sum(h.empty for h in self._walker.holders(space.mm))

    def _walk_if_new_peak(self, space: AddressSpace) -> None:
        """Before tables may go: remember which mappings hold them, if there were never so many."""
        kb, last = space.kbs[-1], space.holders.vmpte_kb if space.holders else 0
        if kb <= last + last // WALK_STEP or kb < space.peak.vmpte_kb:
            return
        found = self._walker.holders(space.mm)
        space.peak.empty = sum(h.empty for h in found)
        found.sort(key=lambda h: -h.pte)
        shown: list[Holder] = found[:HOLDERS_SHOWN]
        rest = found[HOLDERS_SHOWN:]
        space.holders = Holders(space.peak.t, kb, shown, len(rest), sum(h.pte for h in rest))

    # --- bookkeeping -------------------------------------------------------------------------------------

    def _enter(self, process: Process | None) -> AddressSpace | None:
        """What the machine counts from here on is for this process; None if it is not followed (any more)."""
        space = process.space if process else None
        if space is not self._current:
            self.meter.charge(self._current)
            self._current = space
        if space is None or space.stopped is not None or space.mm is None:
            return None
        return space

    def _stop(self, space: AddressSpace, t: int, why: str) -> None:
        """From `t` on the model does not know this address space."""
        space.stopped, space.stopped_t = why, t
        space.end = self.meter.tables(space.mm, t, space.kbs[-1])

    def _unknown(self, what: str) -> None:
        self.calls.unknowns[what] = self.calls.unknowns.get(what, 0) + 1

    def _check_memory(self, where: str) -> None:
        if len(self._machine.mem) > self._cells:
            raise TablewalkError(
                f"{escape(str(self._recording.path))}: {where}: the model needs more memory than there is here"
                f" ({self._cells * BYTES_PER_CELL >> 20:,} MiB)"
            )


def _shares(fork: Event) -> bool:
    """Whether the child of a FORK row uses its parent's address space; where the flags are not known it does not."""
    return fork.a[3] == 1 and fork.a[2] & CLONE_VM != 0


def _stopped_copy(parent: AddressSpace, t: int) -> AddressSpace:
    """The address space of a child whose parent the model does not know."""
    space = AddressSpace(None, t)
    space.stopped = f"its parent's memory is not known: {parent.stopped}"
    space.stopped_t = t
    return space
