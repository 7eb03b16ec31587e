# SPDX-License-Identifier: GPL-2.0-only
"""The figures of one process, or of several in sum, for every output format; and the JSON form itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tablewalk.inspect import Inspection, Survey
from tablewalk.inspect.account import VmaTables
from tablewalk.inspect.pagemap import Kernel

NAMES = (
    "vmpte_kb",
    "vmrss_kb",
    "populated_tables",
    "empty_tables",
    "deposited_tables",
    "unknown_tables",
    "reclaimable_kb",
    "reclaimable_max_kb",
    "lazyfree_kb",
    "pte_populated_tables",
    "pte_empty_tables",
    "pmd_populated_tables",
    "pmd_empty_tables",
    "pud_populated_tables",
    "pud_empty_tables",
)

Figures = dict[str, int | None]


def figures(p: Inspection) -> Figures:
    """Sizes in kB, tables by number; None where it is not known (see `Account`)."""
    t = p.tables
    values = (
        p.memory_kb["VmPTE"],
        p.memory_kb.get("VmRSS", 0),
        t.populated,
        t.empty,
        t.deposited,
        t.unknown,
        None if t.reclaimable is None else t.reclaimable * p.table_kb,
        t.reclaimable_max * p.table_kb,
        p.lazyfree_kb,
        t.pte_populated,
        t.pte_empty,
        t.pmd_populated,
        t.pmd_empty,
        t.pud_populated,
        t.pud_empty,
    )
    return dict(zip(NAMES, values, strict=True))


def total(processes: Iterable[Inspection]) -> Figures:
    """The sum of the figures; one that is not known of some process is not known of all."""
    every = [figures(p) for p in processes]
    result: Figures = {}
    for name in NAMES:
        known = [value for f in every if (value := f[name]) is not None]
        result[name] = sum(known) if len(known) == len(every) else None
    return result


def process_json(p: Inspection, kernel: Kernel, vmas: bool, inc_empty: bool) -> dict[str, Any]:
    """One process; `vmas` adds its mappings, those without a table too if `inc_empty`."""
    result: dict[str, Any] = {"pid": p.pid, "comm": p.comm, **figures(p), "changed": p.changed}
    result["pt_reclaim"] = kernel.pt_reclaim
    if vmas:
        result["vmas"] = [_vma_json(t, p.table_kb) for t in p.tables.vmas if inc_empty or t.any]
    return result


def survey_json(s: Survey, kernel: Kernel, rollup: bool, vmas: bool, inc_empty: bool) -> dict[str, Any]:
    """Several processes and their sum, or only the sum if `rollup`; and who was left out."""
    result: dict[str, Any] = {"total": {"processes": len(s.processes), **total(s.distinct)}}
    result["total"]["changed"] = any(p.changed for p in s.processes)
    if not rollup:
        result["processes"] = [process_json(p, kernel, vmas, inc_empty) for p in s.processes]
        result["same_memory"] = [{"pid": pid, "as": other} for pid, other in s.same_mm.items()]
    result["skipped"] = [{"pid": e.pid, "comm": e.comm, "reason": e.reason} for e in s.skipped]
    return result


def _vma_json(t: VmaTables, table_kb: int) -> dict[str, Any]:
    return {
        "start": t.vma.start,
        "end": t.vma.end,
        "perms": t.vma.perms,
        "name": t.vma.name,
        "populated_tables": t.populated,
        "empty_tables": t.empty,
        "deposited_tables": t.deposited,
        "shared_tables": t.shared,
        "reclaimable_kb": t.reclaimable * table_kb,
    }
