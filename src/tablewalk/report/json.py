# SPDX-License-Identifier: GPL-2.0-only
"""A replay's report as the JSON object that `--json` prints; docs/replay.md describes it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tablewalk.replay.results import KernelResult, ProcessResult, Report
from tablewalk.report import words
from tablewalk.report.plot import thin

HISTORY_POINTS = 10000


def as_object(report: Report) -> dict[str, Any]:
    """Sizes are kB, times ns of CLOCK_MONOTONIC."""
    return {
        "recording": dataclasses.asdict(report.source),
        "results": [_process(result, p, report.checked) for result in report.results for p in result.processes],
        "kernels": [_kernel(result, report.checked) for result in report.results],
        "warnings": list(words.warnings(report)),
        "partial": not report.source.complete or report.source.lost > 0 or any(r.partial for r in report.results),
    }


def _process(result: KernelResult, p: ProcessResult, checked: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kernel": result.kernel,
        "arch": result.arch,
        "process": p.name,
        "peak_kb": p.peak_kb,
        "final_kb": p.final_kb,
    }
    if checked:
        told["compared"] = p.check.compared if p.check else 0
        told["disagreements"] = p.check.disagreements if p.check else 0
        told["disagreements_strict"] = p.check.disagreements_strict if p.check else 0
        told["max_error_kb"] = p.check.max_error_kb if p.check else 0
        told["max_error_strict_kb"] = p.check.max_error_strict_kb if p.check else 0
        told["first_disagreements"] = [dataclasses.asdict(d) for d in p.check.first] if p.check else []
    return told | {
        "pid": p.pid,
        "generation": p.generation,
        "options": result.options,
        "without": result.without,
        "start": p.start,
        "end": p.end,
        "peak_t": p.peak_t,
        "recorded_peak_kb": p.sampled_peak_kb,
        "recorded_final_kb": p.sampled_final_kb,
        "at_peak": dataclasses.asdict(p.at_peak),
        "at_end": dataclasses.asdict(p.at_end),
        "rss_peak_kb": p.rss_peak_kb,
        "faults": p.faults,
        "counts": p.counts,
        "locks": p.locks,
        "calls": [dataclasses.asdict(s) for s in p.sites],
        "mappings_at_peak": dataclasses.asdict(p.holders) if p.holders else None,
        "samples": [dataclasses.asdict(s) for s in p.points],
        "history": thin(p.times, p.kbs, HISTORY_POINTS),
        "rss_history": thin(p.rss_times, p.rss_kbs, HISTORY_POINTS),
        "partial": p.stopped is not None or result.interrupted,
        "stopped": p.stopped,
        "stopped_t": p.stopped_t if p.stopped else None,
        "shares_with": p.shares_with,
    }


def _kernel(result: KernelResult, checked: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kernel": result.kernel,
        "arch": result.arch,
        "options": result.options,
        "recorded_options": result.recorded,
        "effective_options": result.effective,
        "without": result.without,
        "page_size": result.page_size,
        "processes": len(result.processes) + result.more_processes,
        "processes_left_out": result.more_processes,
        "events": result.rows,
        "seconds": round(result.seconds, 3),
        "max_rss_kb": result.max_rss_kb,
        "interrupted": result.interrupted,
        "accuracy": dataclasses.asdict(result.accuracy),
        "samples_uncovered": result.uncovered,
        "harmless_calls": result.harmless,
        "unapplied_calls": result.unapplied,
        "unknowns": result.unknowns,
    }
    if checked:
        told["check"] = dataclasses.asdict(words.total_check(result))
    return told
