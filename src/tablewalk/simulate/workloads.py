# SPDX-License-Identifier: GPL-2.0-only
"""What is simulated: parametrised workloads, each a few threads that make system calls and touch memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tablewalk.errors import TablewalkError

from .world import World

PROT_RW: Final = 3
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
MADV_DONTNEED, MADV_COLLAPSE = 4, 25
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
    "rounds": Parameter(2, 1, 10_000, "how often each thread goes through its memory"),
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
class Process:
    """An address space, and the calls that threads make in it."""

    world: World
    mm: Any

    def _k(self, module: str) -> Any:
        return self.world.model.kernel(module)

    def mmap(self, address: int, length: int, file: Any, flags: int) -> int:
        """mmap(2) at a fixed address.  Raises TablewalkError if it fails."""
        ret = self._k("mmap").sys_mmap(self.mm, address, length, PROT_RW, flags | MAP_FIXED, file, 0)
        if ret < 0:
            raise TablewalkError(f"mmap({address:#x}, {length:#x}): error {-ret}")
        return int(ret)

    def madvise(self, name: str, address: int, length: int, advice: int) -> int:
        """madvise(2), timed."""
        return int(self.world.syscall(name, self._k("madvise").sys_madvise, self.mm, address, length, advice))

    def write(self, address: int) -> None:
        """User code writes to a page; a fault is timed."""
        if self._k("fault").user_write(self.mm, address, 1) < 0:
            raise TablewalkError(f"a write to {address:#x} is refused")


def shmem_collapse(world: World, seed: int, values: dict[str, int]) -> None:
    """Threads write all over mappings of a shared-memory file while another collapses it by MADV_COLLAPSE."""
    arch = world.model.module("arch").arch
    huge, page, extents = int(arch.pmd_size), int(arch.page_size), values["extents"]
    if not arch.has_thp:
        raise TablewalkError(f"{arch.name}: has no huge pages to collapse into")
    p = Process(world, world.model.kernel("mm_init").mm_alloc())
    p.mm.nr_cpus = min(values["threads"] + 1, len(world.cpus))
    file = world.model.kernel("shmem").shmem_file_setup(extents * huge)
    stride = (extents + 1) * huge
    bases = [16 * huge + i * stride for i in range(values["mappings"])]
    for base in bases:
        p.mmap(base, extents * huge, file, MAP_SHARED)
    for i in range(0, extents * huge, page):
        p.write(bases[0] + i)  # all is cached when it begins

    def toucher(number: int) -> Callable[[], None]:
        rng = Random(f"{seed}/{number}")
        base = bases[number % len(bases)]

        def body() -> None:
            for _ in range(values["rounds"]):
                for extent in rng.sample(range(extents), extents):
                    start = base + extent * huge
                    for at in range(rng.randrange(8), huge // page, 8):
                        p.write(start + at * page)
                        world.think(rng.randrange(THINK // 2, 3 * THINK // 2))
                    p.madvise("MADV_DONTNEED", start, huge, MADV_DONTNEED)

        return body

    def collapser() -> None:
        for extent in range(extents):
            world.sleep(100 * THINK)
            p.madvise("MADV_COLLAPSE", bases[0] + extent * huge, huge, MADV_COLLAPSE)

    with_time(world, p, [*(toucher(i) for i in range(values["threads"]))], {"collapser": collapser})


def with_time(world: World, p: Process, bodies: list[Body], others: dict[str, Body]) -> None:
    """Let threads of a process begin: time is on from here."""
    with world:
        for i, body in enumerate(bodies):
            world.spawn(f"thread{i}", body, p.mm.addr)
        for name, body in others.items():
            world.spawn(name, body, p.mm.addr)
        world.run()


WORKLOADS: Final[dict[str, Callable[[World, int, dict[str, int]], None]]] = {
    "shmem-collapse": shmem_collapse,
}
