# SPDX-License-Identifier: GPL-2.0-only
"""The results of simulations as tables: latencies by operation and kernel, and who made whom wait."""

from __future__ import annotations

import re

from rich.console import Console
from rich.table import Table

from tablewalk.errors import escape
from tablewalk.simulate.run import PERCENTILES, Result

WAITS_SHOWN = 10
PROCESSES_SHOWN = 10
COLUMNS = ("calls", "mean", "waited", *(f"p{p:g}" for p in PERCENTILES[:-1]))  # of an operation, before the longest


def duration(ps: int, digits: int = 3) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("s", 10**12), ("ms", 10**9), ("µs", 10**6)):
        if ps >= size:
            return f"{ps / size:.{digits}g} {unit}" if ps < 1000 * size else f"{ps / size:.0f} {unit}"
    return f"{ps / 1000:.0f} ns" if ps else "0"


def show(results: list[Result], console: Console) -> None:
    """Print the comparison."""
    first = results[0]
    console.print(f"{first.workload}: {first.cpus} CPUs" + (f", seed {first.seed}" if first.seed else ""))
    console.print(_latencies(results))
    console.print(_memory(results))
    for r in results:
        console.print(_waits(r))
        for note in r.notes:
            console.print(f"{r.kernel}: {escape(note)}", markup=False)


def _latencies(results: list[Result]) -> Table:
    table = Table(title="latency by operation", title_justify="left")
    table.add_column("operation")
    table.add_column("kernel")
    for name in (*COLUMNS, "max"):
        table.add_column(name, justify="right")
    for operation in dict.fromkeys(name for r in results for name in r.latencies):
        for r in results:
            if operation in r.latencies:
                table.add_row(operation, r.kernel, *cells(r, operation))
    return table


def cells(r: Result, operation: str) -> list[str]:
    """What `COLUMNS` name of an operation, and the longest."""
    told = (r.mean(operation), r.waited(operation), *(r.percentile(operation, p) for p in PERCENTILES))
    return [f"{len(r.latencies[operation]):,}", *map(duration, told)]


def _memory(results: list[Result]) -> Table:
    """VmPTE at its highest, at the end, and on average over time."""
    table = Table(title="page-table memory (VmPTE, kB)", title_justify="left")
    table.add_column("process")
    table.add_column("kernel")
    for name in ("highest", "average", "at the end"):
        table.add_column(name, justify="right")
    names = list(dict.fromkeys(name for r in results for name in r.memory))
    for process in names[:PROCESSES_SHOWN]:
        for r in results:
            if history := r.memory.get(process):
                kbs = [kb for _, kb in history]
                told = (f"{kb:,.0f}" for kb in (max(kbs), average(history, r.time), kbs[-1]))
                table.add_row(escape(process), r.kernel, *told)
    if len(names) > PROCESSES_SHOWN:
        table.caption = f"and {len(names) - PROCESSES_SHOWN} more processes (--json has them all)"
    return table


def average(history: list[tuple[int, int]], end: int) -> float:
    """The average of what a history says up to a time, from its first time on."""
    times = [t for t, _ in history] + [max(end, history[-1][0])]
    area = sum(kb * (until - t) for (t, kb), until in zip(history, times[1:], strict=True))
    return area / max(times[-1] - times[0], 1)


def _waits(r: Result) -> Table:
    ipis = f"{r.flushes:,} flushes, {sum(r.ipis):,} IPIs received, {duration(r.time)} in all"
    table = Table(title=f"{r.kernel}: who made whom wait ({ipis})", title_justify="left")
    for name in ("lock", "waited in", "held by", "in"):
        table.add_column(name)
    for name in ("times", "waited", "longest"):
        table.add_column(name, justify="right")
    rows = r.waits.grouped(lambda key: (*key[:2], re.sub(r"\d+$", "*", key[2]), key[3]))
    for (lock, waiter, holder, held_in), w in rows[:WAITS_SHOWN]:
        table.add_row(lock, waiter, holder, held_in, f"{w.times:,}", duration(w.total), duration(w.longest))
    if len(rows) > WAITS_SHOWN:
        table.caption = f"and {len(rows) - WAITS_SHOWN} more (--json has them all, thread by thread)"
    return table
