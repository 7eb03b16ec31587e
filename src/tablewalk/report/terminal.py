# SPDX-License-Identifier: GPL-2.0-only
"""A replay's report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tablewalk.errors import escape
from tablewalk.replay.results import KernelResult, ProcessResult, Report
from tablewalk.report import words
from tablewalk.report.plot import blocks
from tablewalk.report.words import NONE, find

PROCESSES_SHOWN = 12
PLOT_ROWS = 3


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(Text(words.headline(report)))
    console.print()
    console.print(summary(report))
    top = top_process(report)
    if top is not None:
        for part in details(report, top, console.width):
            console.print()
            console.print(part)
    if report.checked:
        console.print()
        console.print(checks(report))
    _lines(console, "Take note", list(words.warnings(report)), "yellow")
    for result in report.results:
        _lines(console, words.setup(result), list(words.remarks(result)), "")


def top_process(report: Report) -> tuple[int, int] | None:
    """(pid, generation) of the process with the largest peak under any kernel."""
    processes = [p for result in report.results for p in result.processes if p.shares_with is None]
    if not processes:
        return None
    top = max(processes, key=lambda p: p.peak_kb)
    return top.pid, top.generation


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if i else "left", no_wrap=bool(i))
    return table


def summary(report: Report) -> RenderableType:
    """Peak and last VmPTE by process and kernel."""
    table = _table("VmPTE, kB: peak / last", "process", "recorded", *(r.label for r in report.results))
    keys: dict[tuple[int, int], ProcessResult] = {}
    for result in report.results:
        for p in result.processes[:PROCESSES_SHOWN]:
            keys.setdefault((p.pid, p.generation), p)
    for key, p in list(keys.items())[:PROCESSES_SHOWN]:
        row = [words.process_name(p), words.pair(p.sampled_peak_kb, p.sampled_final_kb)]
        for result in report.results:
            found = find(result, key)
            mark = "" if found is None or not found.stopped else " partial"
            row.append(NONE if found is None else words.pair(found.peak_kb, found.final_kb) + mark)
        table.add_row(*map(Text, row))
    most = max((len(r.processes) + r.more_processes for r in report.results), default=0)
    if most > len(table.rows):
        return Group(table, Text(f"and {most - len(table.rows):,} more processes with smaller peaks"))
    return table


def details(report: Report, key: tuple[int, int], width: int) -> list[RenderableType]:
    """One process under every kernel: figures, samples, timeline, and what costs most."""
    found = [(result, p) for result in report.results if (p := find(result, key))]
    name = words.process_name(found[0][1])
    told = [words.counters(p) for _, p in found]
    labels = [result.label for result, _ in found]
    figures = _table(name, "", *labels)
    for row in told[0]:
        figures.add_row(Text(row), *(Text(t[row]) for t in told))
    for lock in _locks([p for _, p in found]):
        figures.add_row(Text(f"lock {lock}"), *(Text(f"{p.locks.get(lock, 0):,}") for _, p in found))
    parts: list[RenderableType] = [figures, _timeline(report, found, width)]
    points = found[0][1].points
    if points:
        samples = _table("Samples, kB", "at", "recorded", *labels)
        for i, point in enumerate(points):
            at = words.seconds(report, point.t)
            values = [p.points[i].model_kb if i < len(p.points) else None for _, p in found]
            samples.add_row(Text(at), Text(words.kb(point.real_kb)), *(Text(words.kb(v)) for v in values))
        parts.append(samples)
    result, p = max(found, key=lambda f: f[1].peak_kb)
    return [*parts, *_costs(report, result, p)]


def _locks(processes: Sequence[ProcessResult]) -> list[str]:
    """The lock classes that are taken most often."""
    total: dict[str, int] = {}
    for p in processes:
        for lock, n in p.locks.items():
            total[lock] = total.get(lock, 0) + n
    return sorted(total, key=lambda lock: -total[lock])[:8]


def _timeline(report: Report, found: list[tuple[KernelResult, ProcessResult]], width: int) -> RenderableType:
    """VmPTE over time, a strip a kernel, all on one scale."""
    start = min(p.start for _, p in found)
    end = max(p.end for _, p in found)
    top = max(max((p.peak_kb for _, p in found)), found[0][1].sampled_peak_kb or 0, 1)
    label = min(max(len("recorded"), *(len(r.label) for r, _ in found)), 24)
    columns = max(min(width, 120) - label - 2, 10)
    strips: list[RenderableType] = []
    series: list[tuple[str, Sequence[int], Sequence[int]]] = []
    if samples := found[0][1].samples:
        series.append(("recorded", [t for t, _ in samples], [v for _, v in samples]))
    series += [(result.label, p.times, p.kbs) for result, p in found]
    for name, times, kbs in series:
        rows = blocks(times, kbs, start, end, top, columns, PLOT_ROWS)
        for i, row in enumerate(rows):
            shown = name if i == len(rows) - 1 else ""
            strips.append(Text(f"{shown[:label]:<{label}}  {row}", no_wrap=True, overflow="crop"))
    span = f"{words.seconds(report, start)} … {words.seconds(report, end)}"
    return Group(Text(f"VmPTE over time, 0 … {words.kb(top)} kB, {span}", style="bold"), *strips)


def _costs(report: Report, result: KernelResult, p: ProcessResult) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if p.sites:
        sites = _table(
            f"Calls that cost most under {result.label}",
            "call", "calls", "+kB", "-kB", "flushes", "IPIs", "RCU", "locks", "mapping",
        )  # fmt: skip
        for s in p.sites:
            numbers = (s.calls, s.allocated_kb, s.freed_kb, s.flushes, s.ipis, s.rcu_callbacks, s.locks)
            sites.add_row(Text(escape(s.call)), *(Text(f"{n:,}") for n in numbers), Text(escape(s.where)))
        sites.columns[-1].justify = "left"
        parts.append(sites)
    if p.holders and p.holders.mappings:
        held = _table(
            f"Mappings that held the tables under {result.label}: {words.kb(p.holders.vmpte_kb)} kB"
            f" at {words.seconds(report, p.holders.t)}",
            "mapping", "from", "to", "PTE tables", "empty", "huge",
        )  # fmt: skip
        for h in p.holders.mappings:
            tables = (f"{n:,}" for n in (h.pte, h.empty, h.huge))
            held.add_row(Text(escape(h.what)), f"{h.start:#x}", f"{h.end:#x}", *tables)
        if p.holders.others:
            held.add_row(f"{p.holders.others:,} more", "", "", f"{p.holders.others_pte:,}", "", "")
        parts.append(held)
    return parts


def checks(report: Report) -> RenderableType:
    """Samples compared, by kernel; then the first that disagree."""
    table = _table(
        "Check against the recorded samples", "kernel", "compared", "agree", "disagree", "largest error, kB",
        "disagree strictly", "mean / largest strict error, kB",
    )  # fmt: skip
    wrong: list[Text] = []
    for result in report.results:
        c = words.total_check(result)
        mean = c.error_kb / c.compared if c.compared else 0
        table.add_row(
            Text(result.label), f"{c.compared:,}", f"{c.compared - c.disagreements:,}", f"{c.disagreements:,}",
            f"{c.max_error_kb:,}", f"{c.disagreements_strict:,}", f"{mean:.3f} / {c.max_error_strict_kb:,}",
        )  # fmt: skip
        for p in result.processes:
            for d in p.check.first if p.check else ():
                where = f"{result.label}: {words.process_name(p)} at {words.seconds(report, d.t)}"
                wrong.append(Text(f"{where}: recorded {d.real_kb:,} kB, model {d.model_kb:,} kB"))
    return Group(table, *wrong[:10])


def _lines(console: Console, title: str, lines: list[str], style: str) -> None:
    if lines:
        console.print()
        console.print(Text(title, style="bold"))
        for line in lines:
            console.print(Text(f"- {line}", style=style))
