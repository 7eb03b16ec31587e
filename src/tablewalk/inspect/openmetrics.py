# SPDX-License-Identifier: GPL-2.0-only
"""An inspection as OpenMetrics 1.0 text, which Prometheus and its node exporter's textfile collector read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tablewalk.errors import escape
from tablewalk.inspect import Survey
from tablewalk.inspect.figures import Figures, figures, total

BYTES = {
    "vmpte_kb": ("vmpte", "Memory in page tables, as VmPTE counts it."),
    "reclaimable_kb": ("reclaimable", "Memory that MADV_DONTNEED on empty page tables would give back."),
    "lazyfree_kb": ("lazyfree", "Memory of MADV_FREE pages that still hold their page tables."),
}
LEVELS = ("pte", "pmd", "pud")


def openmetrics(s: Survey, rollup: bool) -> Iterator[str]:
    """The lines for all of `s`: a set of samples for each process, or only their sum if `rollup`.

    What is not known has no sample.  Tables of which the level is not known have the level `unknown`, so that
    the samples of a process add up to its VmPTE.
    """
    named = [({"pid": str(p.pid), "comm": p.comm}, p) for p in s.processes]
    sets: list[tuple[Labels, Figures]] = [(labels, figures(p)) for labels, p in named]
    if rollup:
        sets = [({}, total(s.distinct))]
    for name, (metric, text) in BYTES.items():
        samples = [(labels, kb * 1024) for labels, f in sets if (kb := f[name]) is not None]
        yield from _family(f"tablewalk_{metric}_bytes", text, samples, "bytes")
    tables = [(labels | more, n) for labels, f in sets for more, n in _by_level(f)]
    yield from _family("tablewalk_page_tables", "Page tables by level and state.", tables)
    if not rollup:
        changed = [(labels, int(p.changed)) for labels, p in named]
        yield from _family("tablewalk_changed", "1 if it changed while it was looked at.", changed)
    skipped = Counter(e.reason for e in s.skipped)
    left_out = [({"reason": reason}, n) for reason, n in skipped.items()]
    yield from _family("tablewalk_skipped_processes", "Processes that were left out.", left_out)
    yield "# EOF"


Labels = dict[str, str]


def _by_level(f: Figures) -> Iterator[tuple[Labels, int]]:
    for state in ("populated", "empty"):
        left = f[f"{state}_tables"] or 0
        for level in LEVELS:
            if (n := f[f"{level}_{state}_tables"]) is not None:
                left -= n
                yield {"level": level, "state": state}, n
        if left:
            yield {"level": "unknown", "state": state}, left
    yield {"level": "pte", "state": "deposited"}, f["deposited_tables"] or 0
    yield {"level": "unknown", "state": "unknown"}, f["unknown_tables"] or 0


def _family(name: str, text: str, samples: Iterable[tuple[Labels, int]], unit: str = "") -> Iterator[str]:
    yield f"# TYPE {name} gauge"
    if unit:
        yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {text}"
    for labels, value in samples:
        inner = ",".join(f'{key}="{_label(v)}"' for key, v in labels.items())
        yield f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _label(value: str) -> str:
    return escape(value).replace("\\", r"\\").replace('"', r"\"")
