# SPDX-License-Identifier: GPL-2.0-only
"""What kernels take beside what the simulation says: measures kernels, and writes measured.json and SIMULATED.md.

    .venv/bin/python benchmarks/simulate_measured.py [KERNEL...]

Measured is the host, or a kernel of `tablewalk kernels` in QEMU with two CPUs and `-icount`, where an instruction takes
a nanosecond of the guest's time whatever else runs here.  Without a kernel only the table is written anew.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tablewalk.machine.drivers import KernelConfig
from tablewalk.simulate.calibrate import fitted, measured
from tablewalk.simulate.profile import Profile
from tablewalk.simulate.run import Result, simulate
from tablewalk.validate import qemu
from tablewalk.validate.kernels import find

HERE = Path(__file__).parent
MEASURED = HERE / "measured.json"
ICOUNT = ("-smp", "2", "-icount", "shift=0,sleep=off")
RULE = "| --- | --- | ---: | ---: | ---: |"
DONTNEED = {"threads": 1, "extents": 8, "rounds": 10}
COLLAPSE = {"threads": 1, "extents": 8, "rounds": 8, "mappings": 2}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that both sides have: what it is, the measuring program's name, the simulation's operation and part."""

    what: str
    name: str
    operation: str
    part: str

    def measured(self, m: dict[str, float]) -> float:
        return m[f"{self.name}.{self.part}"]

    def simulated(self, results: dict[str, Result]) -> float:
        found = results[self.name.partition(".")[0]].latencies[self.operation]
        at = {"p50": (len(found) - 1) // 2, "p99": int((len(found) - 1) * 0.99), "max": -1}
        return (sum(found) / len(found) if self.part == "mean" else found[at[self.part]]) / 1000


FIGURES = (
    Figure("fault, no collapse", "dontneed.fault", "page fault", "p50"),
    Figure("fault, no collapse", "dontneed.fault", "page fault", "mean"),
    Figure("MADV_DONTNEED of 2 MiB", "dontneed.dontneed", "MADV_DONTNEED", "p50"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "mean"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "p99"),
    Figure("fault during MADV_COLLAPSE", "collapse.fault", "page fault", "max"),
    Figure("MADV_COLLAPSE of shmem", "collapse.collapse", "MADV_COLLAPSE", "p50"),
)


def measure(kernel: str) -> dict[str, float]:
    """All figures of a kernel; its single costs, too, on the host, where two threads that take turns do so at once."""
    if find(kernel).is_host:
        return measured(kernel, "costs dontneed collapse")
    command = qemu.command
    qemu.command = lambda *given: [*command(*given), *ICOUNT]
    try:
        return measured(kernel, "dontneed collapse", timeout=3000.0)
    finally:
        qemu.command = command


def simulations(release: str, profile: Profile) -> dict[str, Result]:
    """The same two workloads, simulated."""
    config = KernelConfig(release)
    return {"dontneed": simulate("dontneed-storm", config, 2, 1, DONTNEED, profile),
            "collapse": simulate("shmem-collapse", config, 2, 1, COLLAPSE, profile)}  # fmt: skip


def table(known: dict[str, dict[str, float]]) -> list[str]:
    """Lines of the table: measured, simulated, and one by the other."""
    lines = ["| figure | kernel | measured, µs | simulated, µs | measured / simulated |", RULE]
    sims = {kernel: simulations(find(kernel).release, _profile(m)) for kernel, m in known.items()}
    for f in FIGURES:
        for kernel, m in known.items():
            real, simulated = f.measured(m) / 1000, f.simulated(sims[kernel]) / 1000
            lines.append(f"| {f.what}, {f.part} | {kernel} | {real:.2f} | {simulated:.2f} | {real / simulated:.2f} |")
    lines += ["", "| figure | new / old | measured | simulated | measured / simulated |", RULE]
    for f in FIGURES:
        for new, old in (("x86_64-7.x", "x86_64-6.12"), ("x86_64-7.x", "x86_64-6.1"), ("host", "x86_64-6.12")):
            if new in known and old in known:
                real = f.measured(known[new]) / f.measured(known[old])
                ratio = f.simulated(sims[new]) / f.simulated(sims[old])
                lines.append(f"| {f.what}, {f.part} | {new} / {old} | {real:.2f} | {ratio:.2f} | {real / ratio:.2f} |")
    return lines


def _profile(m: dict[str, float]) -> Profile:
    return fitted(m, "fitted") if "syscall" in m else Profile()


def main() -> None:
    """Measure what is asked for, keep it, and write the table between the page's marks."""
    known: dict[str, dict[str, float]] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for kernel in sys.argv[1:]:
        known[kernel] = measure(kernel)
        MEASURED.write_text(json.dumps(known, indent=1) + "\n")
    page = HERE / "SIMULATED.md"
    before, mark, rest = page.read_text().partition("<!-- table -->\n")
    after = rest.partition("<!-- end -->")[2]
    page.write_text(before + mark + "\n".join(table(known)) + "\n<!-- end -->" + after)


if __name__ == "__main__":
    os.chdir(HERE.parent)
    main()
