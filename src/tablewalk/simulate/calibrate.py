# SPDX-License-Identifier: GPL-2.0-only
"""A machine profile of the machine that this runs on: a program measures, and what it cannot see alone is fitted.

Directly measured are system calls, locked instructions, loads, bandwidths, the way of a cache line, wake-ups, switches,
how soon who wakes up takes the CPU from another, and grace periods.  The way into a page fault and back, what a page
costs that is given back or isolated, and a page table that is made and freed, are what is left of measured faults,
calls of MADV_DONTNEED and of MADV_COLLAPSE that nobody disturbs, when the model's own costs are taken off; a
shootdown's parts keep their proportions, and together become what was measured.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.kernels import find
from tablewalk.validate.run import run

from .profile import Profile
from .run import simulate

MEASURE: Final = Path(__file__).parent / "measure"
LEAST: Final = 0.1  # nanoseconds: what cannot be told from nothing
TOUCHES: Final = 64  # pages of a huge page's range that the measuring program writes before it gives them back
PAGE: Final = 4096
PAGES: Final = 512  # that it collapses
STORM: Final = ("dontneed-storm", {"threads": 1, "extents": 2, "rounds": 2})
SINGLE: Final = ("dontneed-storm", {"threads": 1, "extents": 2, "rounds": 2, "touches": 1})
LONE: Final = ("shmem-collapse", {"threads": 1, "mappings": 1, "extents": 2, "rounds": 1, "sleep": 1_000_000})
IPI_PARTS: Final = ("ipi_send", "ipi_each", "ipi_latency", "ipi_handler")
RELEASE: Final = "6.18"  # the model that faults of this machine are fitted with; releases hardly differ


def measured(kernel: str, what: str, timeout: float = 300.0) -> dict[str, float]:
    """What the measuring program says on a kernel (`tablewalk kernels`), by name: nanoseconds."""
    found = {}
    for line in run(find(kernel), what + "\n", timeout=timeout, agent=MEASURE):
        name, _, value = line.partition(" ")
        try:
            found[name] = float(value)
        except ValueError:
            raise TablewalkError(f"kernel {kernel}: the measuring program says {line!r}") from None
    return found


def calibrated() -> Profile:
    """The profile of this machine."""
    return fitted(measured("host", "costs dontneed"), f"calibrated on {os.uname().release}")


def fitted(m: dict[str, float], name: str, release: str = RELEASE) -> Profile:
    """The profile that explains what was measured of a release.

    A cost that was not measured stays as it is in the default one.
    """
    direct = {
        "syscall": m["syscall"], "atomic": m["atomic"], "lock": m["atomic"], "load": m["load"], "store": m["load"],
        "zero": 1 / m["clear"], "copy": 1 / m["copy"], "switch": m["switch"] - 2 * m["syscall"],
        "granularity": m["preempt"],
    }  # fmt: skip
    if "grace_period" in m:
        direct["grace_period"] = m["grace_period"]
    if "transfer" in m:
        direct |= {"transfer": m["transfer"], "wakeup": m["wakeup"] - m["syscall"]}
    profile = replace(Profile(), name=name, **{key: max(value, LEAST) for key, value in direct.items()})
    if "shootdown" in m:
        known = sum(getattr(profile, part) for part in IPI_PARTS)
        part_of = max(m["shootdown"] - profile.flush_page, LEAST) / known
        profile = replace(profile, **{part: getattr(profile, part) * part_of for part in IPI_PARTS})
    if "single.loop.p50" in m:
        free_of_charge = replace(profile, table=LEAST)
        loops = ((SINGLE[0], SINGLE[1] | {"keep": keep}) for keep in (0, 1))
        all_, less = (sum(_medians(loop, free_of_charge, release).values()) for loop in loops)
        added = m["single.loop.p50"] - m["singlekeep.loop.p50"]
        if added > all_ - less > profile.of_bytes("zero", PAGE) / 1000:  # a table is cleared, so they are reclaimed
            profile = replace(profile, table=(added - (all_ - less)) / 2)
    own = _medians(STORM, replace(profile, exception=LEAST, free=LEAST), release)
    fault = m["dontneed.fault.p50"] - own["page fault"]
    free = (m["dontneed.dontneed.p50"] - own["MADV_DONTNEED"]) / TOUCHES
    profile = replace(profile, exception=max(fault, LEAST), free=max(free, LEAST))
    if "collapse" in m:
        own = _medians(LONE, replace(profile, isolate=LEAST), release)
        profile = replace(profile, isolate=max((m["collapse"] - own["MADV_COLLAPSE"]) / PAGES, LEAST))
    return profile


def _medians(workload: tuple[str, dict[str, int]], profile: Profile, release: str) -> dict[str, float]:
    """What a workload's operations cost, on one CPU."""
    r = simulate(workload[0], KernelConfig(release), 1, 1, workload[1], profile)
    return {name: r.percentile(name, 50.0) / 1000 for name in r.latencies}


def as_table(profile: Profile) -> dict[str, object]:
    """The profile as `--profile` reads it."""
    return {key: value if isinstance(value, str) else round(value, 3) for key, value in asdict(profile).items()}
