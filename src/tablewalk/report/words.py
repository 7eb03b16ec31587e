# SPDX-License-Identifier: GPL-2.0-only
"""What every form of the report says in the same words."""

from __future__ import annotations

from collections.abc import Iterator

from tablewalk.errors import escape
from tablewalk.replay.results import Check, KernelResult, ProcessResult, Report, Source, Tables

MISMATCHES_TOLD = 8
NONE = "-"


def kb(value: int | None) -> str:
    """A size in kB with thousands set apart; a dash where it is not known."""
    return NONE if value is None else f"{value:,}"


def pair(peak: int | None, last: int | None) -> str:
    """Peak and last size in kB."""
    return NONE if peak is None else f"{kb(peak)} / {kb(last)}"


def find(result: KernelResult, key: tuple[int, int]) -> ProcessResult | None:
    """The process with this pid and generation."""
    return next((p for p in result.processes if (p.pid, p.generation) == key), None)


def seconds(report: Report, t: int) -> str:
    """A time since the recording began."""
    return f"{(t - report.source.start) / 1e9:.3f} s"


def process_name(process: ProcessResult) -> str:
    """`python3 (1234)`; a pid used again has its generation."""
    again = f"#{process.generation + 1}" if process.generation else ""
    return f"{escape(process.name) or '?'} ({process.pid}{again})"


def headline(report: Report) -> str:
    """What was recorded, in a line."""
    s = report.source
    command = escape(" ".join(s.command)) or "a program"
    if len(command) > 200:
        command = command[:199] + "…"
    return (
        f"{escape(s.path)}: {command}, recorded under Linux {escape(s.kernel) or '?'} ({escape(s.machine) or '?'}), "
        f"{(s.end - s.start) / 1e9:.2f} s, {s.rows:,} events"
    )


def counters(process: ProcessResult) -> dict[str, str]:
    """The figures of one process, by name, in the order in which reports show them."""
    peak, end = process.at_peak, process.at_end
    told = {
        "peak VmPTE, kB": kb(process.peak_kb),
        **{f"  {name}": value for name, value in _tables(peak).items()},
        "RSS then, kB": kb(peak.rss_kb),
        "  anonymous / file / shared": f"{kb(peak.rss_anon_kb)} / {kb(peak.rss_file_kb)} / {kb(peak.rss_shmem_kb)}",
        "  huge pages, anonymous / file": f"{peak.huge_anon} / {peak.huge_file}",
        "last VmPTE, kB": kb(process.final_kb),
        **{f"  {name} at the end": value for name, value in _tables(end).items()},
        "peak RSS, kB": kb(process.rss_peak_kb),
        "page faults": f"{process.faults:,}",
    }
    return told | {_COUNTS[name]: f"{process.counts.get(name, 0):,}" for name in _COUNTS}


def _tables(tables: Tables) -> dict[str, str]:
    return {
        "PTE tables": f"{tables.pte:,}",
        "of these empty": kb(tables.empty),
        "deposited": f"{tables.deposited:,}",
        "PMD / PUD tables": f"{tables.pmd:,} / {tables.pud:,}",
    }


_COUNTS = {
    "tlb_flushes": "TLB flushes",
    "ipis": "IPI rounds",
    "rcu_callbacks": "RCU callbacks",
    "pte_tables_allocated": "PTE tables allocated",
    "pte_tables_freed": "PTE tables freed",
    "reclaimed_fast": "  by PT_RECLAIM, at once",
    "reclaimed_slow": "  by PT_RECLAIM, after a rescan",
    "retracted": "  retracted by a collapse",
    "thp_fault_alloc": "huge pages by faults",
    "thp_collapse_alloc": "huge pages by collapse",
    "thp_split_pmd": "huge pages split",
}


def setup(result: KernelResult) -> str:
    """Kernel, architecture and options of a replay."""
    parts = [f"Linux {result.kernel}", result.arch]
    parts += [f"{escape(k)}={escape(v)}" for k, v in result.options.items()]
    parts += [f"without {escape(p)}" for p in result.without]
    if result.effective:
        parts.append("ran with " + ", ".join(f"{k}={escape(v)}" for k, v in result.effective.items()))
    recorded = {k: v for k, v in result.recorded.items() if k not in result.effective}
    if recorded:
        parts.append("as recorded: " + ", ".join(f"{k}={v}" for k, v in recorded.items()))
    return "; ".join(parts)


def total_check(result: KernelResult) -> Check:
    """The checks of all processes together."""
    total = Check()
    for check in [p.check for p in result.processes] + [result.more_check]:
        if check:
            total.compared += check.compared
            total.disagreements += check.disagreements
            total.disagreements_strict += check.disagreements_strict
            total.error_kb += check.error_kb
            total.max_error_kb = max(total.max_error_kb, check.max_error_kb)
            total.max_error_strict_kb = max(total.max_error_strict_kb, check.max_error_strict_kb)
    return total


def recorded_setting(source: Source, result: KernelResult) -> bool:
    """Whether a replay is of the recorded kernel itself, so that its samples have to agree."""
    same_series = source.kernel == result.kernel or source.kernel.startswith((f"{result.kernel}.", f"{result.kernel}-"))
    return same_series and result.arch.startswith("x86_64") and not result.options and not result.without


def warnings(report: Report) -> Iterator[str]:
    """What makes the numbers partial or uncertain, most important first."""
    for result in report.results:
        who = f"{result.label}: " if len(report.results) > 1 else ""
        if result.interrupted:
            yield f"{who}PARTIAL: interrupted after {result.rows:,} of {result.rows_total:,} events"
        for p in result.processes:
            if p.stopped:
                yield (
                    f"{who}PARTIAL: {process_name(p)} is followed up to {seconds(report, p.stopped_t)} only: "
                    f"{escape(p.stopped)}"
                )
    source = report.source
    if report.checked:
        for result in report.results:
            if total_check(result).compared == 0:
                yield f"{result.label}: nothing was compared: no sample is of a process and time that is replayed"
            elif not recorded_setting(source, result):
                recorded = f"Linux {escape(source.kernel)} on {escape(source.machine)}"
                yield f"{result.label}: the samples are of {recorded}; where this kernel differs they have to disagree"
    if not source.complete:
        yield "PARTIAL: the recording was cut short"
    if source.lost:
        yield f"the recording lost {source.lost:,} events: what follows a gap may be wrong"
    for what in source.missing:
        yield f"not recorded: {escape(what)}"
    for result in report.results:
        who = f"{result.label}: " if len(report.results) > 1 else ""
        yield from (who + line for line in _about(result))


def _about(result: KernelResult) -> Iterator[str]:
    a = result.accuracy
    if result.page_size != 4096:
        kb = result.page_size >> 10
        yield f"ranges are rounded outward to pages of {kb} kB, so neighbours may be cut"
        yield f"recorded with pages of 4 kB: here a fault fills {kb} kB, so RSS is larger where little was touched"
    for what in result.unknowns:
        yield f"not known: {escape(what)}"
    if a.faults_refused:
        first = a.faults_refused_first[0]
        yield f"{a.faults_refused:,} faults were served in reality and refused by the model: {first}"
    if a.write_unknown:
        yield f"{a.write_unknown:,} faults may be reads or writes: taken as writes where memory is anonymous"
    if a.vma_mismatches:
        yield f"{a.vma_mismatches:,} of {a.vma_extents:,} mappings have another extent: {escape(a.vma_first[0])}"
    for m in a.mismatches[:MISMATCHES_TOLD]:
        yield f"{m.call}: {m.times:,} times another result than recorded; first: {m.detail}"
    if len(a.mismatches) > MISMATCHES_TOLD:
        yield f"{len(a.mismatches) - MISMATCHES_TOLD} more kinds of calls had another result than recorded"


def remarks(result: KernelResult) -> Iterator[str]:
    """What is worth knowing and changes no number."""
    a = result.accuracy
    if a.vma_extents:
        right = a.vma_extents - a.vma_mismatches
        yield f"{right:,} of {a.vma_extents:,} mappings have the recorded extent after merging"
    if a.returns:
        wrong = sum(m.times for m in a.mismatches)
        yield f"{a.returns - wrong:,} of {a.returns:,} calls return what was recorded"
    if a.faults_failed:
        yield (
            f"{a.faults_failed:,} faults were not served in reality and are not replayed"
            f" ({a.faults_failed_odd:,} where the mapping allows them)"
        )
    if a.faults_unattributed:
        yield f"{a.faults_unattributed:,} faults are of processes that the replay does not follow (any more)"
    if result.uncovered:
        yield f"{result.uncovered:,} samples are of processes or times that the replay does not cover"
    if result.harmless:
        yield "calls that change no page table: " + _listed(result.harmless)
    if result.unapplied:
        yield "calls that failed in reality and are not replayed: " + _listed(result.unapplied)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{escape(name)} ({n:,})" for name, n in sorted(counts.items(), key=lambda c: -c[1]))
