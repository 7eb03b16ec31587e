# SPDX-License-Identifier: GPL-2.0-only
"""Simulations as an HTML page: distributions, waits by lock and by holder, memory, and a timeline to look into."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from tablewalk.report.chart import Line, tails, timeline
from tablewalk.report.latency import COLUMNS, cells, duration
from tablewalk.report.markup import Markup, element
from tablewalk.report.page import COLOURS, document, folded, legend, table
from tablewalk.simulate.log import Log
from tablewalk.simulate.run import Result
from tablewalk.simulate.waits import Wait

STYLES: Final = ("timeline.css",)
SCRIPTS: Final = ("timeline.js",)
TAIL: Final = 20  # calls that make a distribution
SHOWN: Final = 12  # rows of waits
BARS: Final = 6
OPERATIONS: Final = 20_000  # of a timeline
THREADS: Final = 24
HUES: Final = (0, 2, 3, 4, 5)  # of operations; 1 is the colour of waits


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    first = results[0]
    title = f"{first.workload}: who waits for whom"
    told = f"Simulated on {first.cpus} CPUs, seed {first.seed}, in virtual time, under {_names(results)}."
    header = element("header", element("h1", title), element("p", told, cls="dim"))
    notes = [element("li", f"{r.kernel}: {note}") for r in results for note in r.notes]
    noted = [element("ul", *notes, cls="warn")] if notes else []
    return document(title, [header, *noted, *sections(results)], STYLES, SCRIPTS)


def sections(results: Sequence[Result]) -> list[Markup]:
    """All that is told of simulations of one workload."""
    parts = [
        element("h2", "Latency"), legend([r.kernel for r in results]), latencies(results), distributions(results),
        *_memory(results), element("h2", "Waits"), *map(waits, results),
        element("h2", "Timeline"), *(trace(r, r.log) for r in results if r.log),
    ]  # fmt: skip
    return [element("section", *parts)]


def _names(results: Sequence[Result]) -> str:
    return " and ".join(r.kernel for r in results)


# --- latency ---------------------------------------------------------------------------------------------


def operations(results: Sequence[Result]) -> list[str]:
    """What was timed, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for r in results:
        for name, found in r.latencies.items():
            counts[name] += len(found)
    return sorted(counts, key=lambda name: -counts[name])


def latencies(results: Sequence[Result]) -> Markup:
    """The table of percentiles."""
    rows = []
    for name in operations(results):
        for i, r in enumerate(results):
            if name in r.latencies:
                key = element("span", element("span", cls=f"key k{i % COLOURS}"), r.kernel)
                rows.append([name, key, *cells(r, name)])
    return table(["operation", "kernel", *COLUMNS, "longest"], rows, left=2)


def distributions(results: Sequence[Result], only: Sequence[str] = ()) -> Markup:
    """A chart for each operation that was called often enough."""
    charts = []
    for name in only or operations(results):
        lines = [(r.kernel, f"s{i % COLOURS}", r.latencies[name]) for i, r in enumerate(results)
                 if len(r.latencies.get(name, ())) >= TAIL]  # fmt: skip
        if lines:
            charts.append(element("div", element("h3", name), tails(lines, name)))
    return element("div", *charts, cls="pair")


def _memory(results: Sequence[Result]) -> list[Markup]:
    """VmPTE of all processes together, over time."""
    lines = []
    for i, r in enumerate(results):
        changes: list[tuple[int, int]] = []
        for sizes in r.memory.values():
            before = 0
            for t, kb in sizes:
                changes.append((t, kb - before))
                before = kb
        total, times, values = 0, [], []
        for t, change in sorted(changes):
            total += change
            times.append(t // 1000)
            values.append(total)
        if times:
            lines.append(Line(r.kernel, f"s{i % COLOURS}", [0, *times], [values[0], *values]))
    if not lines:
        return []
    end = max(r.time for r in results) // 1000
    return [element("h2", "Page-table memory"), timeline(lines, [], 0, end, 0, "kB of VmPTE")]


# --- waits -----------------------------------------------------------------------------------------------


def waits(r: Result) -> Markup:
    """By lock, and by who made whom wait."""
    waited = sum(w.total for w in r.waits.by.values())
    about = (f"{duration(r.time)} in all; {duration(waited) if waited else 'nobody'} waited; "
             f"{r.flushes:,} flushes; {sum(r.ipis):,} IPIs received")  # fmt: skip
    head = [element("h3", f"Under {r.kernel}"), element("p", about, cls="dim")]
    if not r.waits.by:
        return element("div", *head)
    by_lock = _bars(r.waits.grouped(lambda key: key[0]), "lock")
    by_holder = _bars(r.waits.grouped(lambda key: f"{key[2]} in {key[3]}" if key[2] else key[3]), "held by")
    rows = []
    every = r.waits.worst_first()
    for (lock, waiter, holder, held_in), w in every[:SHOWN]:
        rows.append([lock, waiter, holder, held_in, f"{w.times:,}", duration(w.total), duration(w.longest)])
    columns = ["lock", "waited in", "held by", "in", "times", "waited", "longest"]
    parts = [table(columns, rows, left=4)]
    if len(every) > SHOWN:
        parts.append(element("p", f"and {len(every) - SHOWN} more; --json has them all", cls="dim"))
    return element(
        "div", *head, element("div", by_lock, by_holder, cls="pair"),
        folded("Who made whom wait, function by function", *parts),
    )  # fmt: skip


def _bars(found: list[tuple[str, Wait]], what: str) -> Markup:
    """A table with a bar for the time waited."""
    most = max((w.total for _, w in found), default=0) or 1
    rows = []
    for name, w in found[:BARS]:
        bar = element("span", cls="amount", style=f"width:{100 * w.total / most:.1f}%")
        rows.append([element("span", name, bar, cls="barred"), f"{w.times:,}", duration(w.total), duration(w.longest)])
    return table([what, "times", "waited", "longest"], rows)


# --- timeline --------------------------------------------------------------------------------------------


def trace(r: Result, log: Log) -> Markup:
    """Threads over time, to zoom into: what they do, and for whom they wait."""
    data, left_out = _data(log)
    hues = [f"k{HUES[i % len(HUES)]}" for i in range(len(data["names"]))]
    keys = legend([], *zip(hues, data["names"], strict=True), ("k1", "waits for a lock"))
    buttons = [("in", "Zoom in"), ("out", "Zoom out"), ("left", "Left"), ("right", "Right"), ("all", "Everything"),
               ("next", "Next long wait"), ("prev", "Previous")]  # fmt: skip
    bar = element("div", *(element("button", text, type="button", data_do=name) for name, text in buttons), cls="bar")
    label = f"Threads over time under {r.kernel}. Arrow keys move, plus and minus zoom, n and p go from wait to wait."
    canvas = element("canvas", tabindex="0", role="img", aria_label=label)
    told = element("p", "Point at something, or step through the longest waits.", cls="told", aria_live="polite")
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = [element("h3", f"Under {r.kernel}"), keys, bar, canvas, told]
    if left_out:
        parts.append(element("p", left_out, cls="dim"))
    parts.append(element("script", Markup(text), type="application/json"))
    return element("div", *parts, cls="trace")


def _data(log: Log) -> tuple[dict[str, Any], str]:
    """What the script draws (times in ns), and what was left out."""
    waited: dict[int, int] = defaultdict(int)
    for w in log.waits:
        waited[w.thread] += w.end - w.begin
        for b in w.blame:
            if b.holder >= 0:
                waited[b.holder] += b.end - b.begin
    chosen = sorted(range(len(log.threads)), key=lambda t: (t in log.daemons and not waited[t], -waited[t]))[:THREADS]
    lanes = {t: i for i, t in enumerate(sorted(chosen, key=lambda t: (t in log.daemons, t)))}
    calls = sorted((o for o in log.operations if o.thread in lanes), key=lambda o: o.begin)
    end = calls[OPERATIONS].begin if len(calls) > OPERATIONS else max((o.end for o in calls), default=1)
    names: dict[str, int] = {}
    words: dict[str, int] = {}

    def word(text: str) -> int:
        return words.setdefault(text, len(words))

    operations = [[lanes[o.thread], names.setdefault(o.name if not o.name.startswith("IPI") else "IPIs", len(names)),
                   word(o.function), o.begin // 1000, o.end // 1000] for o in calls[:OPERATIONS]]  # fmt: skip
    waits = [
        [lanes[w.thread], word(w.lock), word(w.function), w.begin // 1000, w.end // 1000,
         [[lanes.get(b.holder, -1), word(log.threads[b.holder] if b.holder >= 0 else ""), word(b.function),
           b.begin // 1000, b.end // 1000] for b in w.blame]]
        for w in log.waits if w.thread in lanes and w.begin < end
    ]  # fmt: skip
    told = []
    if len(lanes) < len(log.threads):
        told.append(f"{len(log.threads) - len(lanes)} threads that wait least")
    if len(calls) > OPERATIONS:
        told.append(f"what comes after {duration(end)}")
    data = {"threads": [log.threads[t] for t in lanes], "names": list(names), "words": list(words),
            "operations": operations, "waits": waits, "end": end // 1000}  # fmt: skip
    return data, f"Not drawn: {' and '.join(told)}; --perfetto has it." if told else ""
