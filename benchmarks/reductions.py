# SPDX-License-Identifier: GPL-2.0-only
"""Do reductions, workers and merged histories change what `explore` finds, and how many states do they save?

    .venv/bin/python benchmarks/reductions.py [SCENARIO]... [--states N] [--jobs N] [--keep FILE] [--mutants] [--write]

Each scenario is searched to its end, on beyond a violation, in each way: unreduced and with each reduction, by one
worker and by two, with histories merged and not.  Compared are the verdict, the rules broken, and the memories and
results in which all threads have ended.  Where a way has to stop at N states (or without merging, at so many automaton
nodes), what it has found has to be among what the others find.  With --mutants also those kernels are searched that
lack a patch of the catalogue whose absence breaks a rule.  What --keep has is not done again, but for what had to stop
at fewer states than now.

Exit status 1 if two ways disagree.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from tablewalk.explore.run import (
    Options,
    Outcome,
    built_in,
    engine_of,
    fingerprint,
    judge,
    prepare,
    search_of,
)
from tablewalk.explore.search import Limits
from tablewalk.explore.symmetry import alike
from tablewalk.explore.tables import Bound
from tablewalk.machine.drivers import KernelConfig
from tablewalk.patches import catalogue

RESULTS = Path(__file__).with_name("REDUCTIONS.md")

# the first that is exhausted is what the others are compared with
WAYS = {
    "m1, symmetry": Options("m1", symmetry=True),  # first: what it allocates for one thread it does for its twins
    "futures, symmetry": Options("futures", symmetry=True),
    "m1": Options("m1", symmetry=False),
    "m2": Options("m2", symmetry=False),
    "futures": Options("futures", symmetry=False),
    "none": Options("none", symmetry=False),
    "m1, 2 workers": Options("m1", workers=2, symmetry=False),
    "m2, 2 workers": Options("m2", workers=2, symmetry=False),
    "futures, 2 workers": Options("futures", workers=2, symmetry=False),
    "none, 2 workers": Options("none", workers=2, symmetry=False),
    "m1, unmerged": Options("m1", merged=False, symmetry=False),
    "futures, unmerged": Options("futures", merged=False, symmetry=False),
    "none, unmerged": Options("none", merged=False, symmetry=False),
}
MISSED = {"m2": {"I28"}, "none": {"I26"}}  # acquires are joined, so nobody waits; a loop is of many steps, not of one
UNMERGED = 1000  # nodes, which cost two milliseconds each; histories that are not merged may be without number


@dataclass(frozen=True)
class Case:
    """A scenario, and the patches that the kernel lacks."""

    scenario: str
    release: str = "7.x"
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        kernel = "" if self.release == "7.x" else f" on {self.release}"
        return self.scenario + kernel + "".join(f" without {row}" for row in self.without)


@dataclass
class Seen:
    """What a search in one way came to."""

    verdict: str
    bound: str
    broken: list[str]
    finals: int
    states: int
    transitions: int
    nodes: int
    cpu: float


@dataclass
class Row:
    """What all searches of a case came to."""

    case: str
    states: int  # where each search had to stop
    threads: int
    seen: dict[str, Seen] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def serves(self, states: int) -> bool:
        """Whether there is nothing to be had from searching so many states."""
        return self.states >= states or not any(s.bound == f"{self.states} states" for s in self.seen.values())


def measure(case: Case, states: int) -> Row:
    """Search in each way.  One set of automata serves as many ways as can share one."""
    program, config = built_in()[case.scenario], KernelConfig(case.release, without=case.without)
    row, outcomes = Row(str(case), states, 0), {}
    pools: list[tuple[int, int, int]] = []
    setup = engine = kind = None
    twins = False
    for name, way in WAYS.items():
        limits = Limits(states=states) if way.merged else Limits(states=states, nodes=UNMERGED)
        options = replace(way, stop=False, limits=limits)
        if engine is None or setup is None or kind != (way.merged, way.symmetry and twins):
            setup = prepare(program, config)
            twins = bool(alike([body for _, body in setup.threads]))
            kind = way.merged, way.symmetry and twins
            engine = engine_of(program, config, setup, options)
            for pool in pools:  # so that objects have the same addresses
                engine.memory.pool(*pool)
        row.threads = engine.threads
        began = time.process_time()
        search = search_of(engine, options)
        outcome = Outcome(case.scenario, "error")
        try:
            outcome.result = search.run()
            judge(outcome, search, setup)
        except Bound as e:
            outcome.verdict, outcome.bound = "bounded", e.what
        pools = list(engine.memory.pools)
        if outcome.verdict != "bounded" and outcome.result.verdict == "bounded":
            outcome.bound = outcome.result.bound  # a violation within a bound
        outcomes[name] = outcome
        row.seen[name] = Seen(
            outcome.verdict, outcome.bound, sorted(outcome.broken), len(outcome.finals), outcome.result.states,
            outcome.result.transitions, len(engine.learner.nodes) - 1, time.process_time() - began,
        )  # fmt: skip
    row.wrong = list(disagreements(outcomes))
    return row


def disagreements(outcomes: dict[str, Outcome]) -> Iterator[str]:
    """What is not as the first way that saw all has it."""
    whole = next((name for name, o in outcomes.items() if not o.bound), None)
    if whole is None:
        return
    reference = outcomes[whole]
    for name, o in outcomes.items():
        broken = o.broken | reference.broken & MISSED.get(name.partition(",")[0], set())
        if o.bound:
            if not (o.finals <= reference.finals and broken <= reference.broken):
                yield f"{name} finds what {whole} does not"
        elif (o.verdict, broken) != (reference.verdict, reference.broken):
            yield f"{name} says {o.verdict} {sorted(broken)}, {whole} {reference.verdict} {sorted(reference.broken)}"
        elif o.finals != reference.finals:
            differ = len(o.finals ^ reference.finals)
            yield f"{name} reaches {len(o.finals)} ends, {whole} {len(reference.finals)}: {differ} differ"


def cases(names: tuple[str, ...], mutants: bool) -> list[Case]:
    """Those that are asked for, or all."""
    found = [Case(name) for name in names or built_in()]
    if mutants:
        for row in catalogue():
            if row.claim.kind == "race" and (not names or row.claim.scenario in names):
                found.append(Case(row.claim.scenario, row.claim.kernel, (*row.claim.without, row.id)))
    return found


def shown(seen: Seen) -> str:
    """States, `>` where there are more."""
    return f"{'> ' if seen.bound else ''}{seen.states:,}"


def markdown(rows: list[Row], states: int, load: float) -> str:
    ways = [w for w in WAYS if "2 workers" not in w]
    complete = [row for row in rows if not row.seen["none"].bound]
    agree = sum(not row.wrong for row in rows)
    lines = [
        "# Reductions",
        "",
        f"Measured {date.today()} by `benchmarks/reductions.py --write`, Python {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, load average {load:.1f}.",
        "",
        f"Each scenario was searched in {len(WAYS)} ways: unreduced and with each reduction, by one worker and by two,",
        "with symmetry, and without merging histories; each search on beyond violations to its end, or to the bound of",
        f"{states:,} states. Compared were the verdict, the set of rules broken, and the set of memories and threads'",
        "results in the end. Of a way that came to the bound, what it had found was to be among what the others find.",
        "Two things are not asked for: of `m2` deadlocks (I28), since it joins acquires to what comes before, and of",
        "the unreduced search loops without end (I26), which are found where all of a loop is one step.",
        "",
        f"{agree} of {len(rows)} cases agree in all ways. In {len(complete)} of them the unreduced search was seen to",
        f"its end, in {len(rows) - len(complete)} it came to the bound; without merging, too, in "
        f"{sum(not row.seen['none, unmerged'].bound for row in rows)} to its end.",
        "",
        "Those that the unreduced search saw to its end, together:",
        "",
        "| way | states | unreduced has times as many | bounded, of all |",
        "|---|---:|---:|---:|",
        *(_together(rows, complete, way) for way in ways if "unmerged" not in way),
        "",
        "*ends*: memories and results in which all threads have ended. `>`: bounded, there are more. *s*: CPU seconds,",
        "of m1 with what it had to learn, of the others with what was left to learn.",
        "",
        "| scenario | threads | verdict | ends | " + " | ".join(ways) + " | m1 s | futures s | none s | agree |",
        "|---|---:|---|---:|" + "---:|" * (len(ways) + 3) + "---|",
    ]
    for row in rows:
        m1 = row.seen["m1"]
        verdict = " ".join([m1.verdict, *m1.broken])
        seconds = [f"{row.seen[w].cpu:.1f}" for w in ("m1", "futures", "none")]
        figures = [str(m1.finals), *(shown(row.seen[w]) for w in ways), *seconds]
        agree_text = "no: " + "; ".join(row.wrong) if row.wrong else "yes"
        lines.append(f"| {row.case} | {row.threads} | {verdict} | " + " | ".join(figures) + f" | {agree_text} |")
    two = [row for row in rows if not row.seen["none"].bound]
    same = sum(_totals(row, w) == _totals(row, f"{w}, 2 workers") for row in two for w in ("none", "m1", "m2"))
    lines += [
        "",
        f"Two workers counted the same states and transitions as one in {same} of {3 * len(two)} searches (none, m1,",
        "m2, where unreduced is seen to its end); with `futures` what is learned first decides what is counted on.",
        "",
    ]
    return "\n".join(lines)


def _together(rows: list[Row], complete: list[Row], way: str) -> str:
    states, unreduced = (sum(row.seen[w].states for row in complete) for w in (way, "none"))
    bounded = sum(bool(row.seen[way].bound) for row in rows)
    return f"| {way} | {states:,} | {unreduced / states:.1f} | {bounded} |"


def _totals(row: Row, way: str) -> tuple[int, int]:
    return row.seen[way].states, row.seen[way].transitions


def read(kept: Path | None) -> dict[str, Row]:
    """Rows by what was searched and how."""
    rows = {}
    if kept and kept.exists():
        for line in kept.read_text().splitlines():
            key, row = json.loads(line)
            row["seen"] = {name: Seen(**seen) for name, seen in row["seen"].items()}
            rows[key] = Row(**row)
    return rows


@click.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--states", default=3_000_000, show_default=True, help="Where each search stops.")
@click.option("--jobs", default=1, show_default=True, help="Cases searched at a time.")
@click.option("--keep", type=click.Path(path_type=Path), help="Rows are kept here.")
@click.option("--mutants", is_flag=True, help="Also kernels that lack a patch.")
@click.option("--write", is_flag=True, help=f"Write the table to benchmarks/{RESULTS.name}.")
def main(names: tuple[str, ...], states: int, jobs: int, keep: Path | None, mutants: bool, write: bool) -> None:
    load = os.getloadavg()[0]
    text = fingerprint(next(iter(built_in().values())))[:16]
    rows = read(keep)
    wanted = cases(names, mutants)

    def key(case: Case) -> str:
        return f"{case} {text}"

    missing = [c for c in wanted if key(c) not in rows or not rows[key(c)].serves(states)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        todo: dict[Any, Case] = {pool.submit(measure, c, states): c for c in missing}
        for done in as_completed(todo):
            row = rows[key(todo[done])] = done.result()
            if keep:
                with keep.open("a") as f:
                    f.write(json.dumps([key(todo[done]), asdict(row)]) + "\n")
            click.echo(f"{row.case}: " + ", ".join(f"{w} {shown(s)} in {s.cpu:.1f} s" for w, s in row.seen.items()))
            for wrong in row.wrong:
                click.echo(f"  {wrong}")
    found = [rows[key(c)] for c in wanted]
    if write:
        RESULTS.write_text(markdown(found, states, load))
    sys.exit(any(row.wrong for row in found))


if __name__ == "__main__":
    main()
