# SPDX-License-Identifier: GPL-2.0-only
"""The report of `tablewalk demo`: one page that tells the whole story of a recorded program and of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tablewalk.explore.run import Outcome
from tablewalk.explore.verify import claimed
from tablewalk.patches import KINDS, Patch
from tablewalk.replay.results import Check, Report
from tablewalk.report import html, schedule, simulation, words
from tablewalk.report.markup import Markup, element
from tablewalk.report.page import document, folded, legend, table
from tablewalk.simulate.run import Result

STYLES: Final = ("timeline.css", "schedule.css", "story.css")
SCRIPTS: Final = ("timeline.js", "schedule.js")

GROUPS: Final[dict[str, Callable[[str], bool]]] = {
    "arch, 6.5": lambda id: id.startswith("A"),
    "mm, 6.5": lambda id: id.startswith("B"),
    "free by RCU, 6.6": lambda id: id.startswith("C"),
    "PT_RECLAIM, 6.14": lambda id: id.startswith("D"),
    "bugs": lambda id: not id.startswith(("A", "B", "C", "D")),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """A table of figures that was measured before, and where it stands."""

    title: str
    source: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # columns of text


@dataclass(slots=True)
class Story:
    """What is told; a part that could not be made here is a paragraph that says why."""

    report: Report
    patches: Sequence[Patch]
    schedule: Markup
    waits: Markup
    figures: list[Figures] = field(default_factory=list)


def page(story: Story) -> str:
    """The whole page."""
    parts = [
        ("memory", "Memory over time", _memory(story.report)),
        ("waits", "Who waits for whom", [story.waits]),
        ("schedule", "A schedule that breaks it", [story.schedule]),
        ("patches", "Which patch is needed for what", _patches(story.patches)),
        ("validation", "Is that right?", _validation(story)),
    ]
    title = f"{' '.join(story.report.source.command) or story.report.source.path}: page tables"
    links = element("nav", *(element("a", text, href=f"#{id}") for id, text, _ in parts), aria_label="Contents")
    header = element(
        "header", element("h1", "Where do the page tables go?"),
        element("p", words.headline(story.report), cls="dim"), _tiles(story), links,
    )  # fmt: skip
    sections = [element("section", element("h2", text), *inner, id=id) for id, text, inner in parts]
    return document(title, [header, *sections, html.remarks(story.report)], STYLES, SCRIPTS)


def _tiles(story: Story) -> Markup:
    """The few numbers to take away."""
    report = story.report
    key = html.keys(report)[0]
    peaks = [(r.label, p.peak_kb) for r in report.results if (p := words.find(r, key))]
    (old, most), (new, least) = max(peaks, key=lambda k: k[1]), min(peaks, key=lambda k: k[1])
    told = [(f"{words.kb(most)} kB", f"page tables at most, under {old}"),
            (f"{words.kb(least)} kB", f"under {new}: {most / max(least, 1):.3g} times less")]  # fmt: skip
    c = _checked(report)
    if c:
        told.append((f"{c.compared - c.disagreements:,} of {c.compared:,}", "recorded samples agree with the model"))
    races = sum(row.claim.kind == "race" for row in story.patches)
    told.append((f"{races:,}", "patches without which a schedule breaks a rule"))
    return element("div", *(element("div", element("b", n), element("span", text)) for n, text in told), cls="tiles")


def _checked(report: Report) -> Check | None:
    """The recorded samples against the recorded kernel, if it is one of those replayed."""
    found = (words.total_check(r) for r in report.results if words.recorded_setting(report.source, r))
    return next((check for check in found if check.compared), None)


def _memory(report: Report) -> list[Markup]:
    setups = [element("p", words.setup(r), cls="dim") for r in report.results]
    first, *others = html.keys(report)[: html.PROCESSES_DETAILED]
    parts = [
        element("p", "The recorded program's faults and system calls, through the model of each kernel; dots are what"
                     " the recording machine showed. VmPTE is the memory that page tables take."),
        html.warnings(report), html.summary(report), html.process(report, first),
    ]  # fmt: skip
    if others:
        parts.append(folded(f"{len(others)} more processes", *(html.process(report, key) for key in others)))
    return [*parts, folded("Kernels and options", *setups)]


def _patches(rows: Sequence[Patch]) -> list[Markup]:
    kinds = [kind for kind in KINDS if kind != "release"]
    cells = []
    for group, belongs in GROUPS.items():
        by_kind = [[_id(row) for row in rows if belongs(row.id) and row.claim.kind == kind] for kind in kinds]
        cells.append([group, *(element("span", *found, cls="ids") for found in by_kind)])
    told = [[row.id, row.release, row.commit, row.claim.kind, row.title, claimed(row.claim)]
            for row in rows if row.claim.kind != "release"]  # fmt: skip
    return [
        element("p", "What older kernels do otherwise. Race: without the patch some schedule breaks a rule. ",
                element("code", "tablewalk patches --verify"), " runs what each row claims, without it and with it."),
        table(["", *kinds], cells, left=1 + len(kinds)),
        folded("Each patch, and what its absence does",
               table(["id", "since", "commit", "kind", "title", "without it"], told, left=6)),
    ]  # fmt: skip


def _id(row: Patch) -> Markup:
    return element("abbr", row.id, title=f"{row.title} ({row.commit})")


def _validation(story: Story) -> list[Markup]:
    c = _checked(story.report)
    told = ("None of the kernels is the one that was recorded, so no sample was compared." if c is None else
            f"{c.compared:,} samples of VmPTE were recorded beside the program. Under the same kernel the model"
            f" disagrees with {c.disagreements or 'none'} of them; not allowing for calls that were under way, with"
            f" {c.disagreements_strict or 'none'}.")  # fmt: skip
    parts = [element("h3", "This recording, measured now"), element("p", told)]
    for f in story.figures:
        source = element("p", f"Measured before, not by this run: from {f.source}.", cls="dim")
        inner = table(f.columns, [[_cell(cell) for cell in row] for row in f.rows], f.left)
        parts += [element("h3", f.title), source, inner if f.left == 1 else folded("Kernel by kernel", inner)]
    if not story.figures:
        parts.append(element("p", "Figures of longer runs are in the project's repository.", cls="dim"))
    return parts


def _cell(text: str) -> Markup:
    """A number with thousands set apart, or Markdown with `code`."""
    if text.isdecimal():
        return Markup(f"{int(text):,}")
    pieces = text.split("`")
    return element("span", *(element("code", p) if i % 2 else p for i, p in enumerate(pieces)))


def counterexample(outcome: Outcome, patch: Patch, command: str) -> Markup:
    """The section of a violation that was found without a patch."""
    assert outcome.trace
    about = (f"Kernels before {patch.release} lack {patch.commit}, “{patch.title}”. What can happen without it: of the"
             f" interleavings of two threads on the same kernel code ({outcome.result.states:,} states were seen) this"
             " one breaks a rule.")  # fmt: skip
    return element("div", element("p", about), element("p", element("code", command), cls="dim"),
                   *schedule.broken(outcome), schedule.stepper(outcome, outcome.trace))  # fmt: skip


def old_against_new(compared: Sequence[tuple[str, str, list[Result]]]) -> Markup:
    """Simulations: of each what it is about, the command, and the results, the older first; the first in detail."""
    told = ("The same kernel code in virtual time: threads on CPUs that wait for each other's locks. What a primitive"
            " costs is from a small table, so directions and orders of magnitude are what to look at.")  # fmt: skip
    parts = [element("p", told)]
    for i, (about, command, results) in enumerate(compared):
        parts += [element("h3", about), element("p", element("code", command), cls="dim"),
                  legend([r.kernel for r in results]), simulation.latencies(results),
                  simulation.distributions(results)]  # fmt: skip
        if i == 0:
            parts += [*map(simulation.waits, results)]
            parts += [simulation.trace(r, r.log) for r in results if r.log]
    return element("div", *parts)
