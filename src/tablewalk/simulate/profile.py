# SPDX-License-Identifier: GPL-2.0-only
"""What things cost on a machine: a small table, in nanoseconds.

The values that come with it are estimates for an x86-64 server of about 3 GHz; a file with others is read by `read`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from tablewalk.errors import TablewalkError, escape

MOST = 1e9  # nanoseconds: no single cost is a second


@dataclass(frozen=True, slots=True)
class Profile:
    """Costs in nanoseconds, bandwidths in bytes a nanosecond (GB/s)."""

    name: str = "x86-64 server"
    # primitives of the machine
    field: float = 0.5  # a field of a struct, mostly in the first-level cache
    load: float = 1.0  # a marked read
    store: float = 1.0
    atomic: float = 6.0  # a locked instruction on a cache line that this CPU has
    tree: float = 25.0  # a look-up in a maple tree or xarray
    tree_store: float = 120.0
    lock: float = 6.0  # a free lock taken, or released
    barrier: float = 1.0  # rcu_read_lock, interrupts off
    # what the model's text leaves out
    syscall: float = 90.0  # into the kernel and back
    exception: float = 350.0  # a page fault into the kernel and back
    alloc: float = 40.0  # an object of a slab, or a page from the per-CPU list
    free: float = 100.0  # a page given back: LRU, memory cgroup, free list
    table: float = 300.0  # a page table made, or queued to be freed: memory cgroup, counters, lists
    isolate: float = 300.0  # a page that collapse takes: off its LRU list, and what else it asks and counts
    zero: float = 12.0  # bytes a nanosecond that clearing does
    copy: float = 8.0
    # between CPUs
    transfer: float = 70.0  # a cache line from another CPU: a contended lock handed over
    flush_page: float = 35.0  # one translation dropped (INVLPG)
    flush_all: float = 250.0  # all of an address space's
    ipi_send: float = 250.0
    ipi_each: float = 60.0  # and for each CPU that is sent to
    ipi_latency: float = 800.0  # until it is taken
    ipi_handler: float = 450.0  # what it takes from whom it interrupts
    broadcast: float = 400.0  # a flush that the hardware spreads
    # scheduling
    wakeup: float = 2500.0  # from wake-up to running on an idle CPU
    switch: float = 1300.0  # from one thread to another
    slice: float = 2_800_000.0  # before another one gets its turn
    granularity: float = 1_000_000.0  # before one that wakes up takes the CPU away
    handoff: float = 4_000_000.0  # RWSEM_WAIT_TIMEOUT: before a waiter forbids stealing
    grace_period: float = 12_000_000.0  # RCU: at least

    @staticmethod
    def read(path: Path) -> Profile:
        """The profile in a JSON file.  Raises TablewalkError for one that is none."""
        name = escape(str(path))
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise TablewalkError(f"{name}: not a machine profile: {escape(str(e))}") from None
        if not isinstance(told, dict):
            raise TablewalkError(f"{name}: not a machine profile: an object of costs is wanted")
        known = {f.name for f in fields(Profile)} - {"name"}
        for key, value in told.items():
            if key == "name" and isinstance(value, str):
                continue
            if key not in known:
                raise TablewalkError(f"{name}: no such cost: {escape(key)}; there are {', '.join(sorted(known))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST:
                raise TablewalkError(f"{name}: {key}: a number above 0 and up to {MOST:.0f} is wanted")
        return Profile(**told)

    def ps(self, cost: str) -> int:
        """A cost in picoseconds."""
        return round(float(getattr(self, cost)) * 1000)

    def of_bytes(self, how: str, nr: int) -> int:
        """Picoseconds to clear or copy `nr` bytes."""
        return round(nr * 1000 / float(getattr(self, how)))
