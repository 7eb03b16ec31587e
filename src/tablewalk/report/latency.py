# SPDX-License-Identifier: GPL-2.0-only
"""The results of simulations as tables: latencies by operation and kernel, and who made whom wait."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tablewalk.simulate.run import PERCENTILES, Result

WAITS_SHOWN = 10


def duration(ps: int) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("s", 10**12), ("ms", 10**9), ("µs", 10**6)):
        if ps >= size:
            return f"{ps / size:.3g} {unit}" if ps < 1000 * size else f"{ps / size:.0f} {unit}"
    return f"{ps / 1000:.0f} ns"


def show(results: list[Result], console: Console) -> None:
    """Print the comparison."""
    first = results[0]
    console.print(f"{first.workload}: {first.cpus} CPUs, seed {first.seed}")
    console.print(_latencies(results))
    for r in results:
        console.print(_waits(r))


def _latencies(results: list[Result]) -> Table:
    table = Table(title="latency by operation", title_justify="left")
    table.add_column("operation")
    table.add_column("kernel")
    for name in ("calls", *(f"p{p:g}" for p in PERCENTILES[:-1]), "max"):
        table.add_column(name, justify="right")
    for operation in dict.fromkeys(name for r in results for name in r.latencies):
        for r in results:
            if operation in r.latencies:
                cells = [duration(r.percentile(operation, p)) for p in PERCENTILES]
                table.add_row(operation, str(r.config), f"{len(r.latencies[operation]):,}", *cells)
    return table


def _waits(r: Result) -> Table:
    ipis = f"{r.flushes:,} flushes, {sum(r.ipis):,} IPIs received, {duration(r.time)} in all"
    table = Table(title=f"{r.config}: who made whom wait ({ipis})", title_justify="left")
    for name in ("lock", "waited in", "held by", "in"):
        table.add_column(name)
    for name in ("times", "waited", "longest"):
        table.add_column(name, justify="right")
    rows = r.waits.worst_first()
    for (lock, waiter, holder, held_in), w in rows[:WAITS_SHOWN]:
        table.add_row(lock, waiter, holder, held_in, f"{w.times:,}", duration(w.total), duration(w.longest))
    if len(rows) > WAITS_SHOWN:
        table.caption = f"and {len(rows) - WAITS_SHOWN} more (--json has them all)"
    return table
