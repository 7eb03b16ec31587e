# SPDX-License-Identifier: GPL-2.0-only
"""Primitives a second of a simulation in plain Python: counted in one run, timed in a second one of the same seed."""

from __future__ import annotations

import cProfile
import pstats
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tablewalk.machine.drivers import KernelConfig, load
from tablewalk.simulate.run import simulate
from tablewalk.simulate.workloads import WORKLOADS
from tablewalk.simulate.world import World


def primitives(run: Callable[[], object]) -> int:
    """Calls of the driver's primitives, accessors of fields included, that any of a run's threads makes."""
    machine = load("timed").machine
    texts = (machine.__name__, machine.spin_lock.__module__)
    counted = 0

    def profiled(frame: Any, event: str, _: object) -> None:
        nonlocal counted
        counted += event == "call" and frame.f_globals["__name__"] in texts and frame.f_code.co_name != "alloc"

    spawn = World.spawn

    def spawn_profiled(self: World, name: str, body: Callable[[], object], *rest: Any, **named: Any) -> Any:
        def begin() -> None:
            sys.setprofile(profiled)
            body()
            sys.setprofile(None)

        return spawn(self, name, begin, *rest, **named)

    type.__setattr__(World, "spawn", spawn_profiled)
    try:
        run()
    finally:
        sys.setprofile(None)
        del World.spawn  # that of its base again
    return counted


def parts(run: Callable[[], object]) -> list[tuple[str, float]]:
    """Of a run's time which share is spent in which part of the house, the most first."""
    profile = cProfile.Profile()
    profile.runcall(run)
    seconds: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        part = Path(file).parent.name
        seconds[part if part in ("kernel", "machine", "simulate", "patches") else
                "accessors of fields" if file == "<string>" else "Python's own"] += own  # fmt: skip
    whole = sum(seconds.values())
    return [(part, own / whole) for part, own in seconds.most_common()]


def main() -> None:
    """A line a workload, and its profile; the time includes setting up, whose primitives are not counted."""
    for workload in WORKLOADS:
        def run(workload: str = workload) -> object:
            return simulate(workload, KernelConfig(), 8, 1, {"rounds": 4})

        counted = primitives(run)
        begun = time.process_time()
        run()
        seconds = time.process_time() - begun
        print(f"{workload:16} {counted:9,} primitives {seconds:6.2f} s {counted / seconds:12,.0f} a second")
        print("    " + ", ".join(f"{part} {share:.0%}" for part, share in parts(run)))


if __name__ == "__main__":
    main()
