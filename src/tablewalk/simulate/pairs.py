# SPDX-License-Identifier: GPL-2.0-only
"""Old schemes against new ones: what `tablewalk demo` and benchmarks/simulate_growth.py compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tablewalk.machine.drivers import KernelConfig

from .run import Result, simulate


@dataclass(frozen=True, slots=True)
class Pair:
    """An old scheme and a new one: what they are, which kernels have them, and the workload that tells them apart."""

    name: str
    about: str
    workload: str
    values: Mapping[str, int]  # parameters of the workload, beside the number of threads
    call: str  # the system call to look at, beside faults
    old: KernelConfig
    new: KernelConfig

    def run(self, config: KernelConfig, cpus: int, seed: int = 1, logged: bool = False, **more: int) -> Result:
        """Simulate one of the two; `more` are parameters that differ."""
        return simulate(self.workload, config, cpus, seed, self._parameters(cpus) | more, logged=logged)

    def command(self, cpus: int) -> str:
        """What runs both on the command line."""
        words = ["tablewalk simulate", self.workload, f"--cpus {cpus}"]
        words += [f"--with {name}={value}" for name, value in self._parameters(cpus).items()]
        if self.old.release != self.new.release:
            words += [f"--kernel {c.release}" for c in (self.old, self.new)]
        else:
            changes = [f"{k}={v}" for k, v in self.old.options if (k, v) not in self.new.options]
            words += [f"--set {k}={v}" for k, v in self.new.options]
            words += ["--against", ",".join([*changes, *self.old.without])]
        return " ".join(words)

    def _parameters(self, cpus: int) -> dict[str, int]:
        """Each CPU has a thread, but for one that is left to who collapses, and to RCU."""
        return {"threads": max(1, cpus - 1), **self.values}


NO_VMA_LOCK: Final = (("PER_VMA_LOCK", "n"),)
KEPT: Final = (("PT_RECLAIM", "n"),)
COLLAPSES: Final = {"extents": 16, "rounds": 4}

PAIRS: Final = (
    Pair("collapse", "Faults while a file's memory becomes huge pages: mmap_lock for writing in 6.1, and today's",
         "shmem-collapse", COLLAPSES, "MADV_COLLAPSE", KernelConfig("6.1"), KernelConfig()),
    Pair("C09, C10", "The same with today's kernel (no reclaim, no per-VMA locks), without and with two patches of 6.6",
         "shmem-collapse", COLLAPSES, "MADV_COLLAPSE", KernelConfig(options=KEPT + NO_VMA_LOCK, without=("C09", "C10")),
         KernelConfig(options=KEPT + NO_VMA_LOCK)),
    Pair("reclaim", "MADV_DONTNEED that keeps page tables, and that frees them",
         "dontneed-storm", {}, "MADV_DONTNEED", KernelConfig(options=KEPT), KernelConfig()),
    Pair("semi-RCU", "Page tables freed one by one for lack of memory: after an IPI each (semi-RCU), and by RCU",
         "dontneed-storm", {"batches": 0}, "MADV_DONTNEED", KernelConfig(without=("D10",)), KernelConfig()),
    Pair("VMA locks", "Faults beside threads that map and unmap: mmap_lock, and per-VMA locks",
         "mmap-churn", {"rounds": 2}, "munmap", KernelConfig(options=NO_VMA_LOCK), KernelConfig()),
)  # fmt: skip
