# SPDX-License-Identifier: GPL-2.0-only
"""What kernels take beside what the simulation says: measures kernels, and writes measured.json and SIMULATED.md.

    .venv/bin/python benchmarks/simulate_measured.py [KERNEL...]

Measured is the host, or a kernel of `tablewalk kernels` in QEMU with one CPU and `-icount`, where an instruction takes
a nanosecond of the guest's time whatever else runs here.  Without a kernel only the table is written anew.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from marks import between_marks
from tablewalk.machine.drivers import KernelConfig
from tablewalk.simulate.calibrate import fitted, measured
from tablewalk.simulate.profile import Profile
from tablewalk.simulate.run import simulate
from tablewalk.validate import qemu
from tablewalk.validate.kernels import Kernel, find

HERE = Path(__file__).parent
MEASURED = HERE / "measured.json"
# More CPUs would take turns on one thread: who spins does so until its turn is over, and QEMU 7.2 may give it the next.
ICOUNT = ("-smp", "1", "-icount", "shift=0,sleep=off", "-seed", "1", "-rtc", "base=2026-01-01,clock=vm")
RULE = "| --- | --- | ---: | ---: | ---: |"
STORM = {"threads": 1, "extents": 8, "rounds": 10}
WORKLOADS = {
    "dontneed": ("dontneed-storm", STORM),
    "keep": ("dontneed-storm", STORM | {"keep": 1}),
    "single": ("dontneed-storm", STORM | {"touches": 1}),
    "singlekeep": ("dontneed-storm", STORM | {"touches": 1, "keep": 1}),
    "collapse": ("shmem-collapse", {"threads": 1, "extents": 8, "rounds": 1, "mappings": 2, "sleep": 50}),
}
SEEDS = {"dontneed": 1, "keep": 1, "single": 1, "singlekeep": 1, "collapse": 40}  # as often as the program does it
PAIRS = (("x86_64-7.x", "x86_64-6.12"), ("x86_64-7.x", "x86_64-6.1"), ("x86_64-6.12", "x86_64-6.1"))
PARTS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
RECLAIMING = ("6.18", "7.x")  # releases that reclaim tables
Latencies = dict[str, list[int]]  # by operation: picoseconds, sorted


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that both sides have: what it is, the measuring program's name, the simulation's operation and part."""

    what: str
    name: str
    operation: str
    part: str

    def __str__(self) -> str:
        return f"{self.what}, {self.part}"

    def measured(self, m: dict[str, float]) -> float:
        return m[f"{self.name}.{self.part}"] / 1000

    def simulated(self, results: dict[str, Latencies]) -> float:
        found = results[self.name.partition(".")[0]]
        if not self.operation:
            loops = len(found["MADV_DONTNEED"])
            return sum(values[len(values) // 2] * len(values) / loops for values in found.values()) / 1e6
        values = found[self.operation]
        if self.part == "mean":
            return sum(values) / len(values) / 1e6
        return values[int((len(values) - 1) * PARTS[self.part])] / 1e6


LOOP = Figure("a fault and MADV_DONTNEED of 2 MiB", "single.loop", "", "p50")
SINGLE = (LOOP, Figure("that fault", "single.fault", "page fault", "p50"),
          Figure("that MADV_DONTNEED", "single.dontneed", "MADV_DONTNEED", "p50"))  # fmt: skip


def kept(f: Figure) -> Figure:
    """The same where tables stay, since the last page of each table's range is not given back."""
    return replace(f, what=f"{f.what}, less the last page", name=f.name.replace("single", "singlekeep"))


FIGURES = (
    Figure("fault", "dontneed.fault", "page fault", "p50"),
    Figure("MADV_DONTNEED of 2 MiB", "dontneed.dontneed", "MADV_DONTNEED", "p50"),
    Figure("64 faults and MADV_DONTNEED of 2 MiB", "dontneed.loop", "", "p50"),
    LOOP,
    kept(LOOP),
    Figure("MADV_COLLAPSE of shmem", "collapse.collapse", "MADV_COLLAPSE", "p50"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "p50"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "mean"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "p99"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "p99.9"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "max"),
)


def measure(kernel: str) -> dict[str, float]:
    """All figures of a kernel."""
    command = qemu.command

    def with_icount(kernel: Kernel, initramfs: Path, console: Path, agent_arguments: tuple[str, ...]) -> list[str]:
        words = command(kernel, initramfs, console, agent_arguments)
        line = words.index("-append") + 1
        words[line] = f"preempt=full {words[line]}"
        return [*words, *ICOUNT]

    qemu.command = with_icount
    try:
        backing = " backing" if find(kernel).is_host else ""
        return measured(kernel, f"costs dontneed collapse{backing}", timeout=3000.0)
    finally:
        qemu.command = command


def simulations(kernel: str, profile: Profile) -> dict[str, Latencies]:
    """The same workloads, simulated: on the host's two CPUs, or the guest's only one."""
    config, cpus = KernelConfig(find(kernel).release), 2 if find(kernel).is_host else 1
    found: dict[str, Latencies] = {}
    for name, (workload, values) in WORKLOADS.items():
        pooled: Latencies = {}
        for seed in range(SEEDS[name]):
            for operation, latencies in simulate(workload, config, cpus, seed, values, profile).latencies.items():
                pooled.setdefault(operation, []).extend(latencies)
        found[name] = {operation: sorted(latencies) for operation, latencies in pooled.items()}
    return found


def table(known: dict[str, dict[str, float]]) -> list[str]:
    """Lines of the tables: measured, simulated, and one by the other; then what is new by what is old.

    New by old is simulated on the machine of the old one: only the model's text differs.
    """
    lines = ["| figure | kernel | measured, µs | simulated, µs | measured / simulated |", RULE]
    profiles = {kernel: fitted(m, kernel, find(kernel).release) for kernel, m in known.items()}
    sims = {kernel: simulations(kernel, profile) for kernel, profile in profiles.items()}
    for f in FIGURES:
        lines += [_line(str(f), kernel, f.measured(m), f.simulated(sims[kernel])) for kernel, m in known.items()]
    reclaiming = [kernel for kernel in known if find(kernel).release in RECLAIMING]
    for kernel in reclaiming:
        for f in SINGLE:
            real = f.measured(known[kernel]) - kept(f).measured(known[kernel])
            simulated = f.simulated(sims[kernel]) - kept(f).simulated(sims[kernel])
            lines.append(_line(f"what reclaim of a table adds to {f.what}, p50", kernel, real, simulated))
    lines += ["", "| figure | new / old | measured | simulated | measured / simulated |", RULE]
    for kernel in reclaiming:
        for f in SINGLE:
            real = f.measured(known[kernel]) / kept(f).measured(known[kernel])
            simulated = f.simulated(sims[kernel]) / kept(f).simulated(sims[kernel])
            lines.append(_line(str(f), f"{kernel}, with / without reclaim", real, simulated))
    for new, old in PAIRS:
        if new in known and old in known:
            there = simulations(new, profiles[old])
            for f in FIGURES:
                real = f.measured(known[new]) / f.measured(known[old])
                lines.append(_line(str(f), f"{new} / {old}", real, f.simulated(there) / f.simulated(sims[old])))
    return lines


def _line(what: str, which: str, real: float, simulated: float) -> str:
    return f"| {what} | {which} | {real:.2f} | {simulated:.2f} | {real / simulated:.2f} |"


def main() -> None:
    """Measure what is asked for, keep it, and write the table between the page's marks."""
    known: dict[str, dict[str, float]] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for kernel in sys.argv[1:]:
        known[kernel] = measure(kernel)
        MEASURED.write_text(json.dumps(known, indent=1) + "\n")
    between_marks(HERE / "SIMULATED.md", table(known))


if __name__ == "__main__":
    os.chdir(HERE.parent)
    main()
