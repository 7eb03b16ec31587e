# SPDX-License-Identifier: GPL-2.0-only
"""A replay's report as one HTML page that needs nothing else: no network, no script, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from tablewalk import __version__
from tablewalk.replay.results import KernelResult, ProcessResult, Report
from tablewalk.report import words
from tablewalk.report.markup import Markup, element
from tablewalk.report.svg import Line, timeline
from tablewalk.report.words import NONE, find

PROCESSES_SHOWN = 20
PROCESSES_DETAILED = 6

STYLE = files("tablewalk.report").joinpath("style.css").read_text(encoding="utf-8")
COLOURS = 6


def page(report: Report) -> str:
    """The whole page."""
    title = f"{' '.join(report.source.command) or report.source.path}: page tables"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    sections = [_header(report), _warnings(report), _summary(report)]
    sections += [_process(report, key) for key in _keys(report)[:PROCESSES_DETAILED]]
    if report.checked:
        sections.append(_checks(report))
    sections.append(_remarks(report))
    footer = element("p", f"Made by Tablewalk {__version__}.", cls="dim")
    return "<!doctype html>\n" + element("html", head, element("body", *sections, footer), lang="en") + "\n"


def _header(report: Report) -> Markup:
    lines = [element("h1", "Page-table memory"), element("p", words.headline(report))]
    lines += [element("p", words.setup(r), cls="dim") for r in report.results]
    return element("header", *lines)


def _warnings(report: Report) -> Markup:
    found = list(words.warnings(report))
    if not found:
        return Markup("")
    return element("section", element("h2", "Take note"), element("ul", *(element("li", w) for w in found), cls="warn"))


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> Markup:
    """A table whose first `left` columns are text; a cell that is no text is right as it is."""
    head = element("tr", *(element("th", c, cls="left" if i < left else "") for i, c in enumerate(columns)))
    body = []
    for row in rows:
        body.append(element("tr", *(element("td", c, cls="left wide" if i < left else "") for i, c in enumerate(row))))
    return element("div", element("table", element("thead", head), element("tbody", *body)), cls="scroll")


def _keys(report: Report) -> list[tuple[int, int]]:
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


def _summary(report: Report) -> Markup:
    keys = _keys(report)
    rows = []
    for key in keys[:PROCESSES_SHOWN]:
        found = _found(report, key)
        p = found[0][2]
        cells: list[object] = [words.process_name(p), words.pair(p.sampled_peak_kb, p.sampled_final_kb)]
        by_kernel = {i: q for i, _, q in found}
        for i in range(len(report.results)):
            q = by_kernel.get(i)
            cells.append(NONE if q is None else words.pair(q.peak_kb, q.final_kb) + (" partial" if q.stopped else ""))
        rows.append(cells)
    columns = ["process", "recorded", *(r.label for r in report.results)]
    parts = [element("h2", "VmPTE in kB: peak / last"), _table(columns, rows)]
    most = max((len(r.processes) + r.more_processes for r in report.results), default=0)
    if most > len(rows):
        parts.append(element("p", f"and {most - len(rows):,} more processes", cls="dim"))
    return element("section", *parts)


def _process(report: Report, key: tuple[int, int]) -> Markup:
    found = _found(report, key)
    first = found[0][2]
    start, end = min(p.start for _, _, p in found), max(p.end for _, _, p in found)
    lines = [Line(r.label, f"s{i % COLOURS}", p.times, p.kbs) for i, r, p in found]
    keys: list[object] = []
    for i, r, _ in found:
        keys += [element("span", cls=f"key k{i % COLOURS}"), r.label]
    if first.samples:
        keys += [element("span", cls="key kd"), "recorded samples"]
    parts = [
        element("h2", words.process_name(first)),
        element("p", *keys),
        timeline(lines, first.samples, start, end, report.source.start),
    ]
    if any(len(p.rss_times) > 1 for _, _, p in found):
        rss = [Line(r.label, f"s{i % COLOURS}", p.rss_times, p.rss_kbs) for i, r, p in found]
        chart = timeline(rss, [], start, end, report.source.start)
        parts.append(element("details", element("summary", "Resident memory over time"), chart))
    parts += [_figures(found), _points(report, found)]
    parts += [_costs(report, r, p) for _, r, p in found]
    return element("section", *parts)


def _figures(found: list[tuple[int, KernelResult, ProcessResult]]) -> Markup:
    told = [words.counters(p) for _, _, p in found]
    rows = [[name.strip(), *(t[name] for t in told)] for name in told[0]]
    locks = sorted({lock for _, _, p in found for lock in p.locks})
    rows += [[f"lock {lock}", *(f"{p.locks.get(lock, 0):,}" for _, _, p in found)] for lock in locks]
    labels = [r.label for _, r, _ in found]
    return element("div", element("h3", "Tables, memory and work"), _table(["", *labels], rows))


def _points(report: Report, found: list[tuple[int, KernelResult, ProcessResult]]) -> Markup:
    points = found[0][2].points
    if not points:
        return Markup("")
    rows = []
    for j, point in enumerate(points):
        values = [words.kb(p.points[j].model_kb) if j < len(p.points) else NONE for _, _, p in found]
        rows.append([words.seconds(report, point.t), words.kb(point.real_kb), *values])
    columns = ["at", "recorded", *(r.label for _, r, _ in found)]
    return element("div", element("h3", "VmPTE at some samples, kB"), _table(columns, rows))


def _costs(report: Report, result: KernelResult, p: ProcessResult) -> Markup:
    parts = [element("summary", f"What costs most under {result.label}")]
    if p.sites:
        rows = [
            [s.call, s.where]
            + [f"{n:,}" for n in (s.calls, s.allocated_kb, s.freed_kb, s.flushes, s.ipis, s.rcu_callbacks, s.locks)]
            for s in p.sites
        ]
        columns = ["call", "mapping", "calls", "+kB", "-kB", "TLB flushes", "IPIs", "RCU", "locks"]
        parts += [element("h3", "Calls"), _table(columns, rows, left=2)]
    if p.holders and p.holders.mappings:
        rows = [
            [h.what, f"{h.start:#x}", f"{h.end:#x}", *(f"{n:,}" for n in (h.pte, h.empty, h.huge))]
            for h in p.holders.mappings
        ]
        if p.holders.others:
            rows.append([f"{p.holders.others:,} more", "", "", f"{p.holders.others_pte:,}", "", ""])
        when = f"{words.kb(p.holders.vmpte_kb)} kB at {words.seconds(report, p.holders.t)}"
        columns = ["mapping", "from", "to", "PTE tables", "empty", "huge pages"]
        parts += [element("h3", f"Mappings that held the tables: {when}"), _table(columns, rows)]
    return element("details", *parts)


def _checks(report: Report) -> Markup:
    rows = []
    for result in report.results:
        c = words.total_check(result)
        numbers = (c.compared, c.disagreements, c.max_error_kb, c.disagreements_strict, c.max_error_strict_kb)
        rows.append([result.label, *(f"{n:,}" for n in numbers)])
    columns = ["kernel", "samples compared", "disagree", "largest error, kB", "disagree strictly", "largest, kB"]
    note = "A sample disagrees if no call or fault in flight during the read can explain it."
    title = element("h2", "Check against the recorded samples")
    return element("section", title, _table(columns, rows), element("p", note, cls="dim"))


def _remarks(report: Report) -> Markup:
    parts = [element("h2", "How the replay went")]
    for result in report.results:
        found = [element("li", line) for line in words.remarks(result)]
        speed = f"{result.rows:,} events in {result.seconds:.2f} s, {result.max_rss_kb >> 10:,} MiB"
        parts += [element("h3", result.label), element("ul", element("li", speed), *found)]
    return element("section", *parts)
