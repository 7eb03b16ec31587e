# SPDX-License-Identifier: GPL-2.0-only
"""A replay's report as one HTML page; it has no script."""

from __future__ import annotations

from tablewalk.replay.results import KernelResult, ProcessResult, Report
from tablewalk.report import words
from tablewalk.report.chart import Line, timeline
from tablewalk.report.markup import Markup, element
from tablewalk.report.page import COLOURS, document, folded, legend, table
from tablewalk.report.words import NONE, find

PROCESSES_SHOWN = 20
PROCESSES_DETAILED = 6


def page(report: Report) -> str:
    """The whole page."""
    header = element("header", element("h1", "Page-table memory"), *recorded(report))
    sections = [header, warnings(report), summary(report)]
    sections += [process(report, key) for key in keys(report)[:PROCESSES_DETAILED]]
    if report.checked:
        sections.append(checks(report))
    sections.append(remarks(report))
    return document(f"{' '.join(report.source.command) or report.source.path}: page tables", sections)


def recorded(report: Report) -> list[Markup]:
    """What was recorded, and under what it was replayed."""
    setups = [element("p", words.setup(r), cls="dim") for r in report.results]
    return [element("p", words.headline(report)), *setups]


def warnings(report: Report) -> Markup:
    """What makes the numbers partial or uncertain."""
    found = list(words.warnings(report))
    if not found:
        return Markup("")
    return element("section", element("h2", "Take note"), element("ul", *(element("li", w) for w in found), cls="warn"))


def keys(report: Report) -> list[tuple[int, int]]:
    """Processes by (pid, generation), the one with the largest peak under any kernel first."""
    peaks: dict[tuple[int, int], int] = {}
    for result in report.results:
        for p in result.processes:
            key = (p.pid, p.generation)
            if p.shares_with is None:
                peaks[key] = max(peaks.get(key, 0), p.peak_kb)
    return sorted(peaks, key=lambda key: -peaks[key])


def _found(report: Report, key: tuple[int, int]) -> list[tuple[int, KernelResult, ProcessResult]]:
    return [(i, r, p) for i, r in enumerate(report.results) if (p := find(r, key))]


def summary(report: Report) -> Markup:
    """Peak and last size of each process under each kernel."""
    chosen = keys(report)
    rows = []
    for key in chosen[:PROCESSES_SHOWN]:
        found = _found(report, key)
        p = found[0][2]
        cells: list[object] = [words.process_name(p), words.pair(p.sampled_peak_kb, p.sampled_final_kb)]
        by_kernel = {i: q for i, _, q in found}
        for i in range(len(report.results)):
            q = by_kernel.get(i)
            cells.append(NONE if q is None else words.pair(q.peak_kb, q.final_kb) + (" partial" if q.stopped else ""))
        rows.append(cells)
    columns = ["process", "recorded", *(r.label for r in report.results)]
    parts = [element("h2", "VmPTE in kB: peak / last"), table(columns, rows)]
    most = max((len(r.processes) + r.more_processes for r in report.results), default=0)
    if most > len(rows):
        parts.append(element("p", f"and {most - len(rows):,} more processes", cls="dim"))
    return element("section", *parts)


def process(report: Report, key: tuple[int, int]) -> Markup:
    """A process over time, with its figures and what costs most."""
    found = _found(report, key)
    first = found[0][2]
    start, end = min(p.start for _, _, p in found), max(p.end for _, _, p in found)
    lines = [Line(r.label, f"s{i % COLOURS}", p.times, p.kbs) for i, r, p in found]
    labels = {i: r.label for i, r, _ in found}
    told = [(f"k{i % COLOURS}", label) for i, label in labels.items()]
    parts = [
        element("h2", words.process_name(first)),
        legend([], *told, *([("kd", "recorded samples")] if first.samples else [])),
        timeline(lines, first.samples, start, end, report.source.start),
    ]
    if any(len(p.rss_times) > 1 for _, _, p in found):
        rss = [Line(r.label, f"s{i % COLOURS}", p.rss_times, p.rss_kbs) for i, r, p in found]
        chart = timeline(rss, [], start, end, report.source.start)
        parts.append(folded("Resident memory over time", chart))
    parts += [_figures(found), _points(report, found)]
    parts += [_costs(report, r, p) for _, r, p in found]
    return element("section", *parts)


def _figures(found: list[tuple[int, KernelResult, ProcessResult]]) -> Markup:
    told = [words.counters(p) for _, _, p in found]
    rows = [[name.strip(), *(t[name] for t in told)] for name in told[0]]
    locks = sorted({lock for _, _, p in found for lock in p.locks})
    rows += [[f"lock {lock}", *(f"{p.locks.get(lock, 0):,}" for _, _, p in found)] for lock in locks]
    labels = [r.label for _, r, _ in found]
    return folded("Tables, memory and work", table(["", *labels], rows))


def _points(report: Report, found: list[tuple[int, KernelResult, ProcessResult]]) -> Markup:
    points = found[0][2].points
    if not points:
        return Markup("")
    rows = []
    for j, point in enumerate(points):
        values = [words.kb(p.points[j].model_kb) if j < len(p.points) else NONE for _, _, p in found]
        rows.append([words.seconds(report, point.t), words.kb(point.real_kb), *values])
    columns = ["at", "recorded", *(r.label for _, r, _ in found)]
    return folded("VmPTE at some samples, kB", table(columns, rows))


def _costs(report: Report, result: KernelResult, p: ProcessResult) -> Markup:
    parts: list[Markup] = []
    if p.sites:
        rows = [
            [s.call, s.where]
            + [f"{n:,}" for n in (s.calls, s.allocated_kb, s.freed_kb, s.flushes, s.ipis, s.rcu_callbacks, s.locks)]
            for s in p.sites
        ]
        columns = ["call", "mapping", "calls", "+kB", "-kB", "TLB flushes", "IPIs", "RCU", "locks"]
        parts += [element("h3", "Calls"), table(columns, rows, left=2)]
    if p.holders and p.holders.mappings:
        rows = [
            [h.what, f"{h.start:#x}", f"{h.end:#x}", *(f"{n:,}" for n in (h.pte, h.empty, h.huge))]
            for h in p.holders.mappings
        ]
        if p.holders.others:
            rows.append([f"{p.holders.others:,} more", "", "", f"{p.holders.others_pte:,}", "", ""])
        when = f"{words.kb(p.holders.vmpte_kb)} kB at {words.seconds(report, p.holders.t)}"
        columns = ["mapping", "from", "to", "PTE tables", "empty", "huge pages"]
        parts += [element("h3", f"Mappings that held the tables: {when}"), table(columns, rows)]
    return folded(f"What costs most under {result.label}", *parts) if parts else Markup("")


def checks(report: Report) -> Markup:
    """The recorded samples against each kernel."""
    rows = []
    for result in report.results:
        c = words.total_check(result)
        numbers = (c.compared, c.disagreements, c.max_error_kb, c.disagreements_strict, c.max_error_strict_kb)
        rows.append([result.label, *(f"{n:,}" for n in numbers)])
    columns = ["kernel", "samples compared", "disagree", "largest error, kB", "disagree strictly", "largest, kB"]
    note = "A sample disagrees if no call or fault in flight during the read can explain it."
    title = element("h2", "Check against the recorded samples")
    return element("section", title, table(columns, rows), element("p", note, cls="dim"))


def remarks(report: Report) -> Markup:
    """What is worth knowing of the replay itself."""
    parts = [element("h2", "How the replay went")]
    for result in report.results:
        found = [element("li", line) for line in words.remarks(result)]
        speed = f"{result.rows:,} events in {result.seconds:.2f} s, {result.max_rss_kb >> 10:,} MiB"
        parts += [element("h3", result.label), element("ul", element("li", speed), *found)]
    return element("section", *parts)
