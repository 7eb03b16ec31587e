# SPDX-License-Identifier: GPL-2.0-only
"""One simulation: a workload on a kernel and a machine, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig, load, release_of

from . import recorded
from .log import Log, LoggedWorld
from .profile import Profile
from .waits import Waits
from .workloads import CPUS, WORKLOADS, checked, in_range, run
from .world import World

PERCENTILES = (50.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation showed; times in picoseconds."""

    workload: str
    config: KernelConfig
    cpus: int
    seed: int
    time: int
    latencies: dict[str, list[int]]  # by operation, sorted
    waited_in_all: dict[str, int]  # by operation: for others, of all its latencies
    waits: Waits
    flushes: int
    ipis: list[int]  # received, by CPU
    switches: int
    memory: dict[str, list[tuple[int, int]]]  # by process: VmPTE in kB over time, at each change
    notes: list[str] = field(default_factory=list)  # what could not be done as it was recorded
    log: Log | None = None  # what happened when, if it was asked for
    label: str = ""  # the kernel as it was asked for, where the configuration has more from a recording

    @property
    def kernel(self) -> str:
        """The kernel in a few words."""
        return self.label or str(self.config)

    def percentile(self, operation: str, p: float) -> int:
        """The latency that `p` percent of an operation's calls do not exceed."""
        found = self.latencies[operation]
        return found[max(0, -int(-len(found) * p // 100) - 1)]

    def mean(self, operation: str) -> int:
        """The latency of an operation on average."""
        found = self.latencies[operation]
        return sum(found) // len(found)

    def waited(self, operation: str) -> int:
        """How long of that it waits for others."""
        return self.waited_in_all[operation] // len(self.latencies[operation])


def simulate(
    workload: str,
    config: KernelConfig,
    cpus: int,
    seed: int = 1,
    values: dict[str, int] | None = None,
    profile: Profile | None = None,
    logged: bool = False,
) -> Result:
    """Run a workload.  Raises TablewalkError for wrong parameters, and Stuck where nobody gets on."""
    if workload not in WORKLOADS:
        raise TablewalkError(f"{workload}: no such workload; there are {', '.join(WORKLOADS)}")
    all_values = checked(values or {})
    world = _world(config, cpus, profile, logged)
    run(workload, world, seed, all_values)
    return _result(workload, config, world, seed)


def simulate_recording(
    path: Path, config: KernelConfig, cpus: int, profile: Profile | None = None, label: str = "",
    logged: bool = False,
) -> Result:
    """Let the threads of a recording do what they did.  Raises TablewalkError if it is none, and Stuck."""
    world = _world(config, cpus, profile, logged)
    notes = recorded.run(path, world)
    return replace(_result(path.name, config, world, 0), notes=notes, label=label)


def _world(config: KernelConfig, cpus: int, profile: Profile | None, logged: bool) -> World:
    in_range("--cpus", cpus, CPUS)
    model = load("timed")
    model.configure(config)
    return (LoggedWorld if logged else World)(model, cpus, profile or Profile(), release_of(config.release))


def _result(workload: str, config: KernelConfig, world: World, seed: int) -> Result:
    latencies = {name: sorted(found) for name, found in sorted(world.latencies.items())}
    ipis = [cpu.ipis for cpu in world.cpus]
    return Result(workload, config, len(world.cpus), seed, world.clock[0], latencies, world.waited, world.waits,
                  world.flushes, ipis, world.switches, world.memory,
                  log=world.log if isinstance(world, LoggedWorld) else None)  # fmt: skip


def as_object(r: Result) -> dict[str, Any]:
    """For --json; times in nanoseconds."""
    operations = {
        name: {"count": len(found), "mean": r.mean(name) / 1000, "waited": r.waited(name) / 1000,
               **{f"p{p:g}": r.percentile(name, p) / 1000 for p in PERCENTILES[:-1]}, "max": found[-1] / 1000}
        for name, found in r.latencies.items()
    }  # fmt: skip
    waits = [
        {"lock": lock, "waiter": waiter, "holder": holder, "held_in": held, "times": w.times,
         "ns": w.total / 1000, "longest_ns": w.longest / 1000}
        for (lock, waiter, holder, held), w in r.waits.worst_first()
    ]  # fmt: skip
    return {
        "workload": r.workload, "kernel": r.kernel, "cpus": r.cpus, "seed": r.seed, "ns": r.time / 1000,
        "operations": operations, "waits": waits, "flushes": r.flushes, "ipis": r.ipis, "switches": r.switches,
        "vmpte_kb": {name: [[t / 1000, kb] for t, kb in history] for name, history in r.memory.items()},
        "notes": r.notes,
    }  # fmt: skip
