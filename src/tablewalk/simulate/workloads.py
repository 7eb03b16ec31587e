# SPDX-License-Identifier: GPL-2.0-only
"""What is simulated: parametrised workloads, each a few threads that make system calls and touch memory.

The docstring of a workload says what its threads do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tablewalk.errors import TablewalkError
from tablewalk.explore.process import MADV_COLLAPSE, MADV_DONTNEED, MADV_HUGEPAGE, Process

from .world import EAGAIN, World

Body = Callable[[], None]
THINK: Final = 1_000_000  # picoseconds of user code between two accesses


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a workload takes."""

    default: int
    least: int
    most: int
    help: str


PARAMETERS: Final = {
    "threads": Parameter(4, 1, 1024, "threads that touch memory"),
    "mappings": Parameter(2, 1, 256, "mappings of the file"),
    "extents": Parameter(4, 1, 64, "huge pages that the memory consists of"),
    "touches": Parameter(64, 1, 512, "pages that are written of each huge page's range"),
    "rounds": Parameter(8, 1, 10_000, "how often each thread goes through its memory"),
    "batches": Parameter(1, 0, 1, "memory for batches of page tables to free; 0: each is freed by itself"),
    "sleep": Parameter(0, 0, 10_000_000, "microseconds that a thread sleeps between two writes; 0: it thinks for 1"),
    "keep": Parameter(0, 0, 511, "pages at the end of each huge page's range that MADV_DONTNEED leaves alone"),
    "khugepaged": Parameter(0, 0, 10_000_000, "microseconds that khugepaged sleeps between steps; 0: there is none"),
}
CPUS: Final = Parameter(8, 1, 256, "CPUs")


def checked(values: dict[str, int]) -> dict[str, int]:
    """All parameters.  Raises TablewalkError for a value out of its range."""
    found = {name: values.get(name, p.default) for name, p in PARAMETERS.items()}
    for name, value in found.items():
        in_range(name, value, PARAMETERS[name])
    return found


def in_range(name: str, value: int, p: Parameter) -> None:
    """Raises TablewalkError for a value that is out of range."""
    if not p.least <= value <= p.most:
        raise TablewalkError(f"{name} {value}: {p.least} to {p.most} is allowed ({p.help})")


@dataclass(slots=True)
class Setup:
    """What a workload's function is given: an empty process, the parameters, and the seed."""

    world: World
    p: Process
    seed: int
    values: dict[str, int]

    @property
    def huge(self) -> int:
        """Bytes of a huge page."""
        return self.p.huge * self.p.page

    def rng(self, thread: int) -> Random:
        """A thread's own random numbers."""
        return Random(f"{self.seed}/{thread}")

    def base(self, i: int) -> int:
        """Where the i-th mapping begins: there is a gap between two.  Raises TablewalkError where there is no room."""
        extents, arch = self.values["extents"], self.world.model.arch
        room = (arch.task_size // self.huge - 16) // (extents + 1)
        if i >= room:
            raise TablewalkError(f"{i + 1} mappings of {extents} huge pages: {arch.name} has room for {max(room, 0)}")
        return (16 + i * (extents + 1)) * self.huge

    @property
    def pages(self) -> int:
        """Pages of a mapping."""
        return self.values["extents"] * self.p.huge

    def anonymous(self, i: int) -> int:
        """Map anonymous memory as the i-th mapping; returns where."""
        return self.p.mmap(self.base(i), self.pages)

    def write(self, address: int) -> None:
        """User code writes to a page; a fault is timed."""
        if self.p.write(address, 1) < 0:
            raise TablewalkError(f"a write to {address:#x} is refused")

    def touches(self, base: int, rng: Random, nr: int) -> None:
        """Write some pages of a huge page's range, evenly spread, with thought between."""
        step = max(1, self.p.huge // nr)
        for at in range(rng.randrange(max(1, step - self.values["keep"])), self.p.huge, step):
            self.write(base + at * self.p.page)
            if self.values["sleep"]:
                self.world.sleep(self.values["sleep"] * THINK)
            else:
                self.world.think(rng.randrange(THINK // 2, 3 * THINK // 2))

    def toucher(self, number: int, base: int, give_back: bool = True) -> Body:
        """A thread that goes through a mapping, huge page by huge page, and gives each back after it."""
        rng, extents = self.rng(number), self.values["extents"]
        given = max(0, self.p.huge - self.values["keep"])

        def body() -> None:
            for _ in range(self.values["rounds"]):
                for extent in rng.sample(range(extents), extents):
                    start = base + extent * self.huge
                    self.touches(start, rng, self.values["touches"])
                    if give_back:
                        self.world.syscall("MADV_DONTNEED", self.p.madvise, start, given, MADV_DONTNEED)

        return body

    def collapser(self, base: int) -> Body:
        """A thread that makes huge pages of a mapping, one after the other, with a pause before each try."""
        def body() -> None:
            for extent in range(self.values["extents"]):
                failed = -EAGAIN
                while failed == -EAGAIN:  # a page was in use by somebody else just then
                    self.world.sleep(100 * THINK)
                    failed = self.world.syscall(
                        "MADV_COLLAPSE", self.p.madvise, base + extent * self.huge, self.p.huge, MADV_COLLAPSE
                    )

        return body

    def khugepaged(self) -> Body:
        """The kernel thread, with nothing to scan but this process; it has a pause after each huge page."""
        step, pause = self.world.model.kernel("khugepaged").khugepaged_scan_step, self.values["khugepaged"]

        def body() -> None:
            address = 0
            while True:
                self.world.sleep(pause * 1_000_000)
                address, _ = self.world.operation("khugepaged's step", "barrier", step, self.p.mm, max(address, 0))

        return body

    def collapsed_by(self, base: int) -> Bodies:
        """Who makes huge pages of a mapping, khugepaged or a thread of the process.  The mapping is filled."""
        if not self.values["khugepaged"]:
            return {"collapser": self.collapser(base)}
        self.p.madvise(base, self.pages, MADV_HUGEPAGE)
        return {}


Bodies = dict[str, Body]


def shmem_collapse(s: Setup) -> Bodies:
    """write all over mappings of a shared-memory file and give them back by MADV_DONTNEED; it is collapsed"""
    shmem, filemap = s.world.model.kernel("shmem"), s.world.model.kernel("filemap")
    file = filemap.open_file(shmem.shmem_mapping(s.pages * s.p.page, shmem.SHMEM_HUGE_ADVISE))
    bases = [s.p.mmap(s.base(i), s.pages, file) for i in range(s.values["mappings"])]
    s.p.fill(bases[0], s.pages, 1)  # all is cached when it begins
    return _touchers(s, bases) | s.collapsed_by(bases[0])


def anon_collapse(s: Setup) -> Bodies:
    """write all over anonymous memory; huge pages are made of it meanwhile"""
    bases = [s.anonymous(i) for i in range(s.values["mappings"])]
    s.p.fill(bases[0], s.pages, 1)
    return _touchers(s, bases, give_back=False) | s.collapsed_by(bases[0])


def dontneed_storm(s: Setup) -> Bodies:
    """as those of an allocator: write to anonymous memory of their own, and give it back by MADV_DONTNEED"""
    return _touchers(s, [s.anonymous(i) for i in range(s.values["threads"])])


def mmap_churn(s: Setup) -> Bodies:
    """every other one maps memory, writes to it and unmaps it; the others only write, and give back"""
    def churner(number: int, base: int) -> Body:
        rng = s.rng(number)

        def body() -> None:
            for _ in range(s.values["rounds"] * s.values["extents"] * 4):
                s.world.syscall("mmap", s.anonymous, number)
                s.touches(base, rng, max(1, s.values["touches"] // 4))
                s.world.syscall("munmap", s.p.munmap, base, s.pages)

        return body

    bodies = {}
    for i in range(s.values["threads"]):
        bodies[f"thread{i}"] = s.toucher(i, s.anonymous(i)) if i % 2 else churner(i, s.base(i))
    return bodies


def fork_large(s: Setup) -> Bodies:
    """write to memory that a fork has made copy-on-write; one forks again and again, and its children exit at once"""
    bases = [s.anonymous(i) for i in range(s.values["mappings"])]
    for base in bases:
        s.p.fill(base, s.pages, 1)
    def forker() -> None:
        for _ in range(s.values["rounds"]):
            s.world.sleep(100 * THINK)
            child = s.world.syscall("fork", s.p.fork)
            s.world.syscall("exit of the child", child.exit)

    return {**_touchers(s, bases, give_back=False), "forker": forker}


def _touchers(s: Setup, bases: list[int], give_back: bool = True) -> Bodies:
    return {f"thread{i}": s.toucher(i, bases[-1 - i % len(bases)], give_back) for i in range(s.values["threads"])}


WORKLOADS: Final[dict[str, Callable[[Setup], Bodies]]] = {
    "shmem-collapse": shmem_collapse,
    "anon-collapse": anon_collapse,
    "dontneed-storm": dontneed_storm,
    "mmap-churn": mmap_churn,
    "fork": fork_large,
}


def run(workload: str, world: World, seed: int, values: dict[str, int]) -> None:
    """Set a workload up, and let its threads run: time is on from there."""
    arch = world.model.arch
    if "collapse" in workload and not arch.has_thp:
        raise TablewalkError(f"{workload}: {arch.name} has no huge pages to collapse into")
    p = Process.new(world.model)
    s = Setup(world, p, seed, values)
    if not values["batches"]:
        no_batch = world.model.kernel("mmu_gather").NO_BATCH
        world.model.replace("mmu_gather.table_batch_alloc", lambda: no_batch)
    bodies = WORKLOADS[workload](s)
    p.mm.nr_cpus = min(len(bodies), len(world.cpus))
    world.machine.quiescent()
    with world:
        for name, body in bodies.items():
            world.spawn(name, body, p.mm.addr)
        if values["khugepaged"]:
            world.spawn("khugepaged", s.khugepaged(), daemon=True)
        world.watch_memory("process", p.mm)
        world.run()
