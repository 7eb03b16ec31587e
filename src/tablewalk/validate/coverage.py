# SPDX-License-Identifier: GPL-2.0-only
"""How often each kind of operation (`ops.kind_of`) succeeded and failed, and whether that is enough."""

from __future__ import annotations

from tablewalk.machine import drivers

from .setup import Setup

Coverage = dict[str, list[int]]  # by kind: how often it succeeded, how often it failed

ENOUGH = 20  # operations of a kind after which one should have succeeded

# What a long run should have of each kind: 200,000 operations on the host do
WANTED_SUCCESSES = 500
WANTED_FAILURES = 50

CANNOT_FAIL = {
    "reset": "it begins a program",
    "fork": "no argument can be wrong",
    "vfork": "no argument can be wrong",
    "exit": "no argument can be wrong",
    "munlockall": "no argument can be wrong",
    "sum": "it reads what is mapped, and counts what cannot be read",
    "ksm": "ksmd is waited for",
}

# Kinds that a release before this one does not have
SINCE = {
    "madvise GUARD_INSTALL": (6, 13),
    "madvise GUARD_REMOVE": (6, 13),
    "mseal": (6, 10),
    "pagemap_scan": (6, 7),
    "pagemap_scan that protects": (6, 7),
    "process_madvise DONTNEED": (6, 13),
    "process_madvise FREE": (6, 13),
    "process_madvise HUGEPAGE": (6, 13),
    "uffd_move": (6, 8),
    "uffd_poison": (6, 6),
}
HUGE_PAGES = (
    "madvise HUGEPAGE", "madvise NOHUGEPAGE", "madvise COLLAPSE", "process_madvise HUGEPAGE", "process_madvise COLLAPSE"
)  # fmt: skip
POLICIES = ("mbind", "set_mempolicy", "get_mempolicy")
MERGING = ("madvise MERGEABLE", "madvise UNMERGEABLE", "ksm")


def cannot_succeed(kind: str) -> str:
    """Why a kind never does, on any kernel; empty if it can."""
    return "it asks for what there is not" if kind.endswith(" unknown") else ""


def lacking(on: Setup) -> dict[str, str]:
    """Kinds that this kernel cannot do, and why."""
    release = drivers.release_of(on.config.release)
    arch = drivers.load().module("arch.table").by_name(on.config.arch, release)
    options = dict(on.config.options)
    found = {kind: f"new in {since[0]}.{since[1]}" for kind, since in SINCE.items() if release < since}
    found |= {"mseal": "64-bit kernels alone have it"} if arch.long_bits == 32 else {}
    found |= {} if arch.has_thp else dict.fromkeys(HUGE_PAGES, "no huge pages")
    found |= dict.fromkeys(POLICIES, "no NUMA") if options.get("numa") == "n" else {}
    return found | (dict.fromkeys(MERGING, "no KSM") if options.get("ksm") == "n" else {})


def never_succeeded(coverage: Coverage, lacks: dict[str, str]) -> list[str]:
    """Kinds that were tried often enough, in vain: nothing was compared there."""
    return sorted(
        kind
        for kind, (ok, bad) in coverage.items()
        if not ok and bad >= ENOUGH and not cannot_succeed(kind) and kind not in lacks
    )


def coverage_rows(coverage: Coverage, lacks: dict[str, str]) -> list[tuple[str, int, int, str]]:
    """(kind, succeeded, failed, remark) for a table; `lacks` are the kinds of `lacking`."""
    return [(kind, ok, bad, _remark(kind, ok, bad, lacks)) for kind, (ok, bad) in sorted(coverage.items())]


def _remark(kind: str, succeeded: int, failed: int, lacks: dict[str, str]) -> str:
    never_ok = cannot_succeed(kind) or lacks.get(kind, "")
    never_fails = CANNOT_FAIL.get(kind, "")
    if not succeeded and not never_ok:
        return "never succeeds"
    remarks = [f"cannot succeed: {never_ok}"] if never_ok else []
    remarks += [f"cannot fail: {never_fails}"] if never_fails else []
    wanted = [] if never_ok or succeeded >= WANTED_SUCCESSES else ["succeeds"]
    wanted += [] if never_fails or failed >= WANTED_FAILURES else ["fails"]
    return "; ".join([*remarks, *([f"seldom {' and '.join(wanted)}"] if wanted else [])])


def seldom(coverage: Coverage, lacks: dict[str, str]) -> list[str]:
    """Kinds that too little was compared of: see `WANTED_SUCCESSES` and `WANTED_FAILURES`."""
    return [kind for kind, _, _, remark in coverage_rows(coverage, lacks) if "seldom" in remark]
