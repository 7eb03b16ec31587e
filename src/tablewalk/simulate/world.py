# SPDX-License-Identifier: GPL-2.0-only
"""A machine with N CPUs on which the model runs in virtual time: locks, RCU, interrupts, and what things cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tablewalk.machine.drivers import Model

from .locks import Locks
from .profile import Profile
from .threads import Cpu, Thread
from .waits import OTHERS, WAKEUP, function

FULL_FLUSH: Final = 33  # pages: x86's tlb_single_page_flush_ceiling
IPI, BROADCAST = 1, 2
VMA_LOCK: Final = "vm_area_struct.vm_refcnt"
EAGAIN: Final = 11
IN_VAIN: Final = ", in vain"  # of the name of an operation that is to be tried again
LARGE_MAPCOUNTS: Final = (6, 2)  # a huge pmd counts once; before, one of a file counted in each of its small pages
UNCLEARED: Final = ("collapse_file", "collapse_huge_page")  # who allocates folios to copy into all of them


class GracePeriod:
    """One that began: the readers that it waits for, and what comes after it."""

    __slots__ = ("after", "passed", "readers")

    def __init__(self, readers: set[Thread], after: list[Callable[[], object]]) -> None:
        self.readers, self.after, self.passed = readers, after, False


class World(Locks):
    """The scheduler that `machine.timed` asks, for a configured model."""

    def __init__(self, model: Model, cpus: int, profile: Profile, release: tuple[int, int] = (7, 2)) -> None:
        machine = model.machine
        super().__init__(machine.clock, cpus, profile, name_of=machine.lock_class)
        self.model, self.machine, self.release = model, machine, release
        self.latencies: dict[str, list[int]] = {}
        self.waited: dict[str, int] = {}  # by operation: of its latencies, picoseconds of waiting
        self.flushes = 0
        self.memory: dict[str, list[tuple[int, int]]] = {}  # by process: time, kB of VmPTE, at each change
        self._watched: list[tuple[list[tuple[int, int]], tuple[tuple[int, int], ...]]] = []
        self._page = int(model.arch.page_size)
        self._sleepers: dict[int, list[tuple[Thread, int, int]]] = {}  # cell -> thread, value wanted, since
        self._after: list[Callable[[], object]] = []  # for the grace period after this one
        self._grace: GracePeriod | None = None
        self._callbacks: list[Callable[[], object]] = []
        self._rcu_thread: Thread | None = None
        self._rcu_sleeps = False
        self._prepared = False

    @property
    def time_is_on(self) -> bool:
        """Whether threads run; before that a workload sets up."""
        return self._rcu_thread is not None

    def prepare(self) -> None:
        """Let operations that are called from here on be timed ones, once time is on."""
        if not self._prepared:
            self._prepared = True
            self._charge_what_the_text_leaves_out()

    def __enter__(self) -> World:
        self.prepare()
        self.machine.attach(self, {name: self.profile.ps(name) for name in self.machine.COSTS})
        self.clock[0] = 0
        self._rcu_thread = self.spawn("rcu", self._run_callbacks, daemon=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.attach(None, {})
        for thread in self.threads:
            if not thread.done:
                thread.greenlet.throw()

    # --- operations --------------------------------------------------------------------------------------

    def spend(self, cost: str) -> None:
        """The running thread's time goes on."""
        self.clock[0] += self.profile.ps(cost)

    def operation(self, name: str, entry: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Do a system call or a fault, and note how long it took."""
        if not self.time_is_on:
            return call(*arguments)
        self.sync()
        me, begun, outer, waited = self.current, self.clock[0], self.current.operation, self.current.waited
        me.operation = name
        self.spend(entry)
        result = call(*arguments)
        self.sync()
        me.operation = outer
        me.ended = self.clock[0]
        told = name + IN_VAIN if result == -EAGAIN else name
        self.waited[told] = self.waited.get(told, 0) + me.waited - waited
        self._completed(told, call, begun)
        return result

    def _completed(self, name: str, call: Callable[..., Any], begun: int) -> None:
        """The running thread is through with an operation."""
        self.latencies.setdefault(name, []).append(self.clock[0] - begun)
        self.retries = 0
        self._look_at_memory()

    def watch_memory(self, name: str, mm: Any) -> None:
        """Note how the VmPTE of a process changes, operation by operation."""
        arch = self.model.arch
        levels = ((mm.nr_ptes, arch.pte_bytes), (mm.nr_pmds, arch.pmd_bytes), (mm.nr_puds, arch.pud_bytes))
        self._watched.append((self.memory.setdefault(name, []), levels))
        self._look_at_memory()

    def _look_at_memory(self) -> None:
        mem = self.machine.mem
        for history, levels in self._watched:
            kb = sum(mem[counter] * size for counter, size in levels) >> 10
            if not history or history[-1][1] != kb:
                history.append((self.clock[0], kb))

    def syscall(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """A system call."""
        return self.operation(name, "syscall", call, *arguments)

    def _charge_what_the_text_leaves_out(self) -> None:
        """Exceptions, and copying of pages: the model's text has one cell for what a page holds.

        And collapse_file() collects flushes for all pages (TTU_BATCH_FLUSH); the model's text has one for each.
        """
        fault = self.model.kernel("fault").do_user_addr_fault

        def page_fault(*arguments: Any) -> Any:
            return self.operation("page fault", "exception", fault, *arguments)

        copy = self.model.kernel("page_alloc").copy_page
        copying = self.profile.of_bytes("copy", self._page)

        def copy_page(to: int, from_: int) -> None:
            self.clock[0] += copying
            copy(to, from_)

        self.model.replace("fault.do_user_addr_fault", page_fault)
        self.model.replace("page_alloc.copy_page", copy_page)
        self._charge("page_alloc.folio_free", "free")
        self._charge("collapse_file:collapse_unmap_folio", "isolate")
        self._charge("collapse_huge_page:isolate_pte", "isolate")
        self._charge("mmu_gather.tlb_remove_table", "table")
        if self.release < LARGE_MAPCOUNTS:
            self._count_small_pages("rmap.folio_add_rmap_pmd")
            self._count_small_pages("rmap.folio_remove_rmap_pmd")
        alloc = self.model.kernel("page_alloc").folio_alloc
        clearing = self.profile.of_bytes("zero", self._page)

        def folio_alloc_uncleared(order: int) -> Any:
            new = alloc(order)
            self.clock[0] -= clearing << order
            return new

        for module in UNCLEARED:
            self.model.replace(f"{module}:folio_alloc", folio_alloc_uncleared)
        gather = self.model.kernel("collapse_file").gather_pages

        def gather_pages(*arguments: Any) -> Any:
            batch = self.current.batch = set()
            result = gather(*arguments)
            self.current.batch = None
            for mm in batch:
                self.interrupt(mm, 0, (FULL_FLUSH + 1) * self._page, False, IPI)
            return result

        self.model.replace("collapse_file:gather_pages", gather_pages)

    def _charge(self, site: str, cost: str) -> None:
        """Let each call of a site of `Model.replace` take a cost's time, besides its own."""
        module, function = self.model.resolve(site)
        original = getattr(module, function)

        def charged(*arguments: Any) -> Any:
            self.spend(cost)
            return original(*arguments)

        self.model.replace(site, charged)

    def _count_small_pages(self, site: str) -> None:
        """Let a huge pmd of a file, mapped or unmapped, cost what counting it in each small page does."""
        rmap, page_alloc = self.model.kernel("rmap"), self.model.kernel("page_alloc")
        original = getattr(rmap, site.partition(".")[2])
        each = self.profile.ps("atomic") + self.profile.ps("load")

        def counted(f: Any, vma: Any) -> None:
            if not page_alloc.folio_test_anon(f):
                self.clock[0] += each << f.order
            original(f, vma)

        self.model.replace(site, counted)

    def allocated(self, struct: str, nr: int) -> None:
        self.spend("alloc")
        if struct == "folio":
            self.clock[0] += self.profile.of_bytes("zero", self._page * nr)
        elif struct == "ptdesc":
            self.spend("table")
            self.clock[0] += self.profile.of_bytes("zero", 8 * nr)

    # --- sleeping on a cell ------------------------------------------------------------------------------

    def wait_until(self, address: int, value: int) -> None:
        self.sync()
        w = self._waiter(address, True)
        while self.machine.mem[address] != value:
            self.machine.watched.add(address)
            self._sleepers.setdefault(address, []).append((w.thread, value, self.clock[0]))
            self.block()
        if self.clock[0] > w.told:
            self._add_wait(w.thread, VMA_LOCK, w.function, WAKEUP, self.clock[0] - w.told)
        w.thread.waits_for = 0

    def changed(self, address: int) -> None:
        now = self.machine.mem[address]
        left = []
        for thread, value, since in self._sleepers.pop(address, []):
            if value == now:
                holder = (self.current.name, self.current.operation)
                time = max(0, self.clock[0] - since)
                self._add_wait(thread, VMA_LOCK, thread.waits_in, holder, time)
                self.wake(thread, self.clock[0])
            else:
                left.append((thread, value, since))
        if left:
            self._sleepers[address] = left
        else:
            self.machine.watched.discard(address)

    # --- RCU ---------------------------------------------------------------------------------------------

    def rcu_read(self, change: int) -> None:
        me = self.current
        me.rcu += change
        grace = self._grace
        if me.rcu == 0 and grace and me in grace.readers:
            grace.readers.discard(me)
            self._end_grace_period(grace)

    def call_rcu(self, func: Callable[[int], None], obj: int) -> None:
        self._defer(lambda: self._callbacks.append(lambda: func(obj)))

    def synchronize_rcu(self) -> None:
        self.sync()
        me, begun = self.current, self.clock[0]
        self._defer(lambda: self.wake(me, self.clock[0]))
        self.block()
        self._answered("RCU grace period", begun)

    def _answered(self, what: str, since: int) -> None:
        """The running thread has waited for what is no lock."""
        self._add_wait(self.current, what, function(2), OTHERS, self.clock[0] - since)

    def _defer(self, what: Callable[[], object]) -> None:
        self._after.append(what)
        if self._grace is None:
            self._begin_grace_period()

    def _begin_grace_period(self) -> None:
        grace = self._grace = GracePeriod({t for t in self.threads if t.rcu}, self._after)
        self._after = []

        def passed() -> None:
            grace.passed = True
            self._end_grace_period(grace)

        self.at(self.clock[0] + self.profile.ps("grace_period"), passed)

    def _end_grace_period(self, grace: GracePeriod) -> None:
        if not grace.passed or grace.readers or self._grace is not grace:
            return
        self._grace = None
        for what in grace.after:
            what()
        if self._callbacks and self._rcu_sleeps:
            self._rcu_sleeps = False
            assert self._rcu_thread
            self.wake(self._rcu_thread, self.clock[0])
        if self._after:
            self._begin_grace_period()

    def _run_callbacks(self) -> None:
        """The thread that calls what waited for a grace period."""
        while True:
            while self._callbacks:
                self._callbacks.pop(0)()
                self.sync()
            self._rcu_sleeps = True
            self.block()

    # --- interrupts --------------------------------------------------------------------------------------

    def irqs(self, change: int) -> None:
        self.current.irqs_off += change

    def interrupt(self, mm: int, start: int, end: int, freed_tables: bool, others: int) -> None:
        if self.current.batch is not None and others == IPI:
            self.current.batch.add(mm)
            return
        self.flushes += 1
        pages = (end - start) // self._page
        flush = self.profile.ps("flush_all") if pages > FULL_FLUSH else max(1, pages) * self.profile.ps("flush_page")
        self.clock[0] += flush
        if others == BROADCAST:
            self.spend("broadcast")
        elif others == IPI:
            mine = self.current.cpu
            running = [c for c in self.cpus if c.mm == mm and c is not mine]
            for cpu in running:
                if cpu.thread is None and not freed_tables:
                    cpu.mm = 0  # lazy: it drops everything before it uses the mm again
            self._send([c for c in running if c.mm == mm], flush)

    def interrupt_all(self) -> None:
        self._send([c for c in self.cpus if c is not self.current.cpu], 0)

    def _send(self, targets: list[Cpu], flush: int) -> None:
        """Interrupt CPUs, and wait until all have done `flush`."""
        if not targets:
            return
        self.sync()
        profile = self.profile
        self.clock[0] += profile.ps("ipi_send") + profile.ps("ipi_each") * len(targets)
        handler, sent = profile.ps("ipi_handler") + flush, self.clock[0]
        acknowledged = sent + profile.ps("ipi_latency") + handler
        for cpu in targets:
            cpu.ipis += 1
            if cpu.thread is not None:
                self.interrupt_thread(cpu.thread, sent + profile.ps("ipi_latency"), handler)
        self.current.spinning = True
        self.clock[0] = acknowledged
        self.sync()
        while any(cpu.thread is not None and cpu.thread.irqs_off for cpu in targets):
            self.again()
        self.spun()
        self._answered("IPIs", sent)
