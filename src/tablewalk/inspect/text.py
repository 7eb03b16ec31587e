# SPDX-License-Identifier: GPL-2.0-only
"""An inspection as text for people: one process in detail, or a line for each of several."""

from __future__ import annotations

from collections.abc import Iterator

from tablewalk.errors import escape
from tablewalk.inspect import Inspection, Survey
from tablewalk.inspect.figures import Figures, figures, total
from tablewalk.inspect.pagemap import Kernel
from tablewalk.inspect.procfs import KTHREAD


def process_text(p: Inspection, kernel: Kernel, inc_empty: bool) -> Iterator[str]:
    """The lines for one process, with its mappings (those without tables only if `inc_empty`)."""
    yield f"process {p.pid} ({escape(p.comm)})"
    yield from summary_text(figures(p), kernel)
    if p.changed:
        yield "The process changed its tables while it was looked at: the figures are of different moments."
    if p.tables.missing:
        yield f"{p.tables.missing} more tables were seen than its VmPTE counts."
    rows = [["mapping", "perm", "size kB", "populated", "empty", "deposited", "shared", "reclaim kB", ""]]
    for t in p.tables.vmas:
        if inc_empty or t.any:
            counts = [t.populated, t.empty, t.deposited, t.shared, t.reclaimable * p.table_kb]
            where = [f"{t.vma.start:x}-{t.vma.end:x}", t.vma.perms, str((t.vma.end - t.vma.start) >> 10)]
            rows.append([*where, *map(str, counts), escape(t.vma.name)])
    yield ""
    yield from _columns(rows, left=(0, 1, 8))


def summary_text(f: Figures, kernel: Kernel) -> Iterator[str]:
    """The lines for the figures of a process or of several."""
    yield f"page tables {_(f['vmpte_kb'])} kB, resident memory {_(f['vmrss_kb'])} kB"
    yield ""
    rows = [["tables", "populated", "empty", "deposited", "unknown"]]
    for level in ("pte", "pmd", "pud"):
        spare = _(f["deposited_tables"]) if level == "pte" else ""
        of_level = (_(f[f"{level}_{state}_tables"]) for state in ("populated", "empty"))
        rows.append([level.upper(), *of_level, spare, ""])
    states = ("populated_tables", "empty_tables", "deposited_tables", "unknown_tables")
    rows.append(["all", *(_(f[name]) for name in states)])
    yield from _columns(rows, left=(0,))
    yield ""
    yield _reclaim_text(f, kernel)
    if f["unknown_tables"]:
        yield f"{f['unknown_tables']} tables can be in use by mappings that pagemap does not show."
    if f["lazyfree_kb"]:
        yield f"{f['lazyfree_kb']} kB after MADV_FREE still hold their tables until memory is short."


def _reclaim_text(f: Figures, kernel: Kernel) -> str:
    if f["reclaimable_kb"] is None:
        return (
            f"This kernel does not show which tables are empty: MADV_DONTNEED on them would give back "
            f"at most {f['reclaimable_max_kb']} kB, with PT_RECLAIM (Linux 6.14)."
        )
    would = f"MADV_DONTNEED on the empty tables alone would give back {f['reclaimable_kb']} kB"
    if kernel.pt_reclaim:
        return f"{would}."
    has = "does not have" if kernel.pt_reclaim is False else "may or may not have"
    return f"{would} with PT_RECLAIM (Linux 6.14), which this kernel {has}."


def survey_text(s: Survey) -> Iterator[str]:
    """A line for each process, the largest first, and their sum."""
    rows = [["pid", "VmPTE kB", "populated", "empty", "deposited", "unknown", "reclaim kB", ""]]
    for p in sorted(s.processes, key=lambda p: -p.memory_kb["VmPTE"]):
        notes = " (changing)" if p.changed else ""
        if p.pid in s.same_mm:
            notes += f" (the memory of {s.same_mm[p.pid]})"
        rows.append([str(p.pid), *_cells(figures(p)), escape(p.comm) + notes])
    rows.append(["all", *_cells(total(s.distinct)), f"({len(s.processes)})"])
    yield from _columns(rows, left=(7,))


def skipped_text(s: Survey) -> Iterator[str]:
    """Who was left out, by reason."""
    for reason in dict.fromkeys(e.reason for e in s.skipped):
        those = [f"{e.pid} {escape(e.comm)}".rstrip() for e in s.skipped if e.reason == reason]
        names = "" if reason == KTHREAD else f": {', '.join(those)}"  # hundreds, and the same everywhere
        yield f"left out {len(those)}, {reason}{names}"


def _cells(f: Figures) -> list[str]:
    reclaim = f["reclaimable_kb"]
    at_most = _(reclaim) if reclaim is not None else f"<={f['reclaimable_max_kb']}"
    names = ("vmpte_kb", "populated_tables", "empty_tables", "deposited_tables", "unknown_tables")
    return [*(_(f[name]) for name in names), at_most]


def _(value: int | None) -> str:
    return "?" if value is None else str(value)


def _columns(rows: list[list[str]], left: tuple[int, ...]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        yield "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in cells).rstrip()
