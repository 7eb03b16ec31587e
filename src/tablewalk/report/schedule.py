# SPDX-License-Identifier: GPL-2.0-only
"""A counterexample to step through: one HTML page that needs nothing else; and as a Chrome trace."""

from __future__ import annotations

from typing import Final

from tablewalk.explore.run import Outcome
from tablewalk.explore.tables import DETACHED, PRIVATE
from tablewalk.explore.trace import Event, Trace, describe, entry_words, shown, who
from tablewalk.report import chrome
from tablewalk.report.markup import Markup, element, join
from tablewalk.report.page import document

STYLES: Final = ("schedule.css",)
SCRIPTS: Final = ("schedule.js",)


def page(outcome: Outcome, trace: Trace) -> str:
    """The whole page; without scripts all steps are below each other."""
    title = f"{outcome.name}: a counterexample"
    parts = [element("h1", title), *broken(outcome), stepper(outcome, trace, whole=True)]
    return document(title, parts, STYLES, SCRIPTS)


def broken(outcome: Outcome) -> list[Markup]:
    """Which rule, and by what."""
    rule = outcome.rule
    told = element("p", f"{rule.id}: {rule.statement}", cls="dim") if rule else Markup("")
    return [element("p", outcome.sentence, cls="warn"), told]


def stepper(outcome: Outcome, trace: Trace, whole: bool = False) -> Markup:
    """A counterexample to step through; one that is the `whole` page takes keys wherever they are pressed."""
    events = shown(trace)
    steps = []
    for i, e in enumerate(events):
        steps.append(_step(outcome, trace, e, events[i - 1] if i else None, f"step {i + 1} of {len(events)}"))
    buttons = [("first", "First"), ("back", "Back"), ("on", "On"), ("last", "Last")]
    bar = element(
        "div", *(element("button", text, type="button", data_do=name) for name, text in buttons),
        element("input", type="range", min="1", max=str(len(events)), value="1", aria_label="step"), cls="bar",
    )  # fmt: skip
    hint = element("p", "The arrow keys step; Home and End go to the first and last step.", cls="dim hint")
    about = {"data_whole": "yes"} if whole else {}
    return element("div", bar, element("div", *steps, aria_live="polite"), hint, cls="stepper", tabindex="0",
                   role="group", aria_label="a counterexample, step by step", **about)  # fmt: skip


def _step(outcome: Outcome, trace: Trace, e: Event, before: Event | None, title: str) -> Markup:
    cpus = []
    for t, holds in enumerate(e.holds):
        if t >= len(outcome.threads) and t != e.thread:
            continue
        now = t == e.thread
        does = f"{describe(trace.engine, e)} [{e.place()}]" if now else ""
        held = element("div", f"holds {', '.join(holds) or 'nothing'}", cls="dim")
        cells = [element("b", who(t, outcome.threads)), element("div", does), held]
        if t < len(outcome.threads):
            cells.append(element("div", f"TLB: {' → '.join(e.cached[t]) or 'empty'}", cls="dim"))
        cpus.append(element("div", *cells, cls="cpu now" if now else "cpu"))
    readers = [who(t, outcome.threads) for t, holds in enumerate(e.holds) if "RCU" in holds]
    told = f"RCU readers: {', '.join(readers) or 'none'}. Pending frees: {', '.join(e.pending) or 'none'}."
    old = before.memory if before else e.memory
    wrong = element("p", outcome.sentence, cls="warn") if e is trace.events[-1] else ""
    return element(
        "section", element("h3", title), wrong, element("div", *cpus, cls="cpus"), element("p", told),
        element("div", *_tables(trace, outcome.threads, e.memory, old), cls="tree"), cls="step",
    )  # fmt: skip


def _tables(trace: Trace, names: list[str], memory: tuple[int, ...], old: tuple[int, ...]) -> list[Markup]:
    """The page tables that live, each within the one that points to it; those without such a one beside."""
    machine = trace.engine.machine
    entries: dict[int, range] = {}
    for base, cls in machine.class_of.items():
        layout = machine.layouts[cls]
        ghost = machine.ghost_of(base)
        if layout.name == "ptdesc" and ghost < len(memory) and memory[ghost]:
            entries[base] = range(base + layout.slots[-1].offset, ghost)
    below = {memory[a] >> 12 for cells in entries.values() for a in cells if memory[a] >> 12 in entries}

    def box(base: int) -> Markup:
        cells = entries[base]
        parts = []
        for i, a in enumerate(cells):
            value = memory[a]
            changed = a >= len(old) or old[a] != value
            if not value and not changed:
                continue
            inner = box(value >> 12) if value >> 12 in entries else ""
            words = entry_words(trace.engine, value)
            parts.append(element("li", f"[{i}] {words}", inner, cls="changed" if changed else ""))
        owner = memory[machine.ghost_of(base)]
        own = f", {who(owner - PRIVATE, names)}'s own" if PRIVATE <= owner < DETACHED else ""
        name = element("b", f"table @{base}{', detached' if owner == DETACHED else own}")
        return element("div", name, element("ul", *parts) if parts else " empty", cls="table")

    tops = [base for base in entries if base not in below]
    return [join([box(base) for base in tops])]


def chrome_trace(outcome: Outcome, trace: Trace) -> str:
    """Chrome trace JSON: a track a CPU; a step takes a microsecond, what is held is a slice around the steps."""
    events = shown(trace)
    told = chrome.Trace()
    open_since: dict[tuple[int, str], int] = {}
    for t in sorted({e.thread for e in events}):
        told.track(1, t, who(t, outcome.threads))
    for i, e in enumerate(events):
        told.slice(1, e.thread, describe(trace.engine, e), i, i + 1, place=e.place())
        now = {(t, what) for t, holds in enumerate(e.holds) for what in holds}
        for key in sorted(set(open_since) - now):
            told.held(1, key[0], f"CPU{key[0]}", key[1], open_since.pop(key), i + 1)
        open_since |= dict.fromkeys(now - set(open_since), i)
    for (t, what), since in sorted(open_since.items()):
        told.held(1, t, f"CPU{t}", what, since, len(events))
    return told.text()
