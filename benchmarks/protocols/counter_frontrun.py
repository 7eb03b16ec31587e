# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""Threads that increment a counter by a read and a write, under frontrun; run by peers.py.

    frontrun python counter_frontrun.py THREADS ROUNDS SECONDS

Prints executions, seconds and CPU seconds.  All executions are asked for: no bound on preemptions, no stop.
"""

from __future__ import annotations

import sys
import time

import frontrun

THREADS, ROUNDS, SECONDS = (int(argument) for argument in sys.argv[1:4])


class Counter:
    """What is shared."""

    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> None:
        for _ in range(ROUNDS):
            found = self.value
            self.value = found + 1


def main() -> None:
    began, cpu = time.perf_counter(), time.process_time()
    result = frontrun.explore(
        setup=Counter,
        workers=Counter.increment,
        count=THREADS,
        invariant=lambda counter: True,
        stop_on_first=False,
        preemption_bound=None,
        total_timeout=SECONDS,
    )
    print(result.num_explored, time.perf_counter() - began, time.process_time() - cpu)


if __name__ == "__main__":
    main()
