# SPDX-License-Identifier: GPL-2.0-only
"""The verb `explore`: every interleaving of a scenario's threads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import click

from tablewalk.cli import EXIT_BAD
from tablewalk.cli._options import kconfig_option
from tablewalk.errors import TablewalkError, escape
from tablewalk.explore import counterexample, pairs
from tablewalk.explore.coverage import Function, Key, Reached, as_markdown, functions, traced
from tablewalk.explore.misuse import sparing_the_machine
from tablewalk.explore.order import inversion, joined
from tablewalk.explore.run import Options, Outcome, Program, built_in, explore, from_file, searched
from tablewalk.explore.search import REDUCTIONS, Limits, Progress, Standing
from tablewalk.explore.trace import as_table
from tablewalk.machine.drivers import NEWEST, KernelConfig, set_option


@click.command()
@click.argument("what", nargs=-1, metavar="[SCENARIO|FILE.py[::SCENARIO]]...")
@click.option("--list", "as_list", is_flag=True, help="What scenarios there are.")
@click.option("--pairs", "as_pairs", is_flag=True, help="What meets what in them, by two and by three, as Markdown.")
@click.option("--kernel", "release", default=NEWEST, show_default=True, help="Release.")
@click.option("--without", multiple=True, metavar="ID", help="A patch the kernel lacks; repeatable.")
@click.option("--set", "options", multiple=True, metavar="OPTION=VALUE", help="A Kconfig or sysfs option; repeatable.")
@click.option(
    "--reduction",
    type=click.Choice(sorted(REDUCTIONS)),
    default="m1",
    show_default=True,
    help="Which steps are joined: none; m1: what is guarded, private or a release; m2: acquires too; "
    "futures: m1, and source sets of one thread: what others will not interfere with any more is done at once.",
)
@click.option("--depth-first", is_flag=True, help="Depth first; counterexamples are longer then.")
@click.option("--wide", is_flag=True, help="Tell states apart by 128 bits, not 64.")
@click.option("--exact", is_flag=True, help="Tell states apart by all that they are, not by hashes.")
@click.option("--all", "everything", is_flag=True, help="Go on after the first violation.")
@click.option("--states", type=click.IntRange(0), default=0, help="Stop after so many states.")
@click.option("--seconds", type=click.FloatRange(0), default=0.0, help="Stop after so many seconds.")
@click.option(
    "--preemptions",
    type=click.IntRange(-1, 250),
    default=-1,
    show_default=True,
    help="Leave out schedules in which threads that could go on are made to wait more often; -1: none.",
)
@click.option("--rounds", type=click.IntRange(0), default=0, help="Leave out schedules with more rounds of a loop.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the search of one scenario here every 10 seconds, and go on from what is here.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Native threads.")
@click.option("--paranoid", is_flag=True, help="See that histories taken to be the same go on alike.")
@click.option("--no-symmetry", is_flag=True, help="Keep states that differ only in which of like threads is which.")
@click.option("--unmerged", is_flag=True, help="Tell apart all histories of a thread, even if it has forgotten them.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Keep the first counterexample here.")
@click.option(
    "--replay",
    "kept",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run the schedule of a counterexample that was kept, and no other.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The first counterexample as a page to step through.",
)
@click.option(
    "--perfetto",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The first counterexample as a Chrome trace, for ui.perfetto.dev.",
)
@click.option(
    "--coverage",
    "covered",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write which branches of the model are reached, and which by no scenario, as Markdown; learning is slower.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    what: tuple[str, ...],
    as_list: bool,
    as_pairs: bool,
    release: str,
    without: tuple[str, ...],
    options: tuple[str, ...],
    reduction: str,
    depth_first: bool,
    wide: bool,
    exact: bool,
    everything: bool,
    states: int,
    seconds: float,
    preemptions: int,
    rounds: int,
    checkpoint: Path | None,
    workers: int,
    paranoid: bool,
    no_symmetry: bool,
    unmerged: bool,
    save: Path | None,
    kept: Path | None,
    html: Path | None,
    perfetto: Path | None,
    covered: Path | None,
    as_json: bool,
) -> int:
    """Try every interleaving of scenarios' threads, which run the model's code, and check its rules at each step.

    A verdict is `exhausted` (every schedule was seen), `violation`, or `bounded` by what it names. A FILE.py has
    scenarios of its own and may override functions of the model: a proposal for the kernel. Exit status 1 on a
    violation.
    """
    if kept:
        return _replay(kept, what, html, perfetto, as_json)
    programs = _chosen(what)
    if as_list:
        _list(programs, as_json)
        return 0
    if as_pairs:
        click.echo(f"{pairs.as_markdown(programs)}\n\n{pairs.triples(programs)}")
        return 0
    if checkpoint and len(programs) != 1:
        raise TablewalkError("--checkpoint: of one scenario; give its name")
    if workers > 1 and (depth_first or checkpoint):
        raise TablewalkError("--workers: breadth first and without --checkpoint only")
    config = KernelConfig(release, options=tuple(map(kconfig_option, options)), without=without)
    _check(config)
    limits = Limits(states, seconds, switches=preemptions, rounds=rounds)
    search = Options(
        reduction, depth_first, wide, not everything, limits, checkpoint, workers, paranoid, exact, not unmerged,
        not no_symmetry,
    )  # fmt: skip
    outcomes = []
    known: dict[Key, Function] = functions() if covered else {}
    reached: dict[str, Reached] = {}
    for name, program in programs.items():
        with sparing_the_machine(), traced(known) as reached[name]:
            outcome = _explored(program, config, search)
        outcomes.append(outcome)
        if save and outcome.rule and outcome.trace:
            counterexample.save(save, program, config, outcome)
            save = None
        if not as_json:
            _tell(outcome)
    if covered:
        covered.write_text(as_markdown(known, reached), encoding="utf-8")
    shown = next((o for o in outcomes if o.trace), None)
    _draw(shown, html, perfetto)
    for path in (save, html, perfetto):
        if path and shown is None:
            click.echo(f"tablewalk: no counterexample; {escape(str(path))} is not written", err=True)
    violation = any(o.verdict == "violation" for o in outcomes)
    circle = "" if violation else inversion(joined(o.order for o in outcomes))
    if as_json:
        click.echo(json.dumps({"scenarios": [_as_object(o) for o in outcomes], "lock_order": circle or None}))
    elif circle:
        click.echo(f"all together: violation\n  {circle}")
    if violation or circle:
        return 1
    return EXIT_BAD if any(o.verdict == "error" for o in outcomes) else 0


def _check(config: KernelConfig) -> None:
    """Raises TablewalkError for a release, an option or a patch that no scenario's kernel can have."""
    model = searched()
    for name, value in config.options:
        set_option(model.kernel("config").Kconfig(), name, value)
    model.configure(replace(config, options=()))


def _chosen(what: tuple[str, ...]) -> dict[str, Program]:
    if not what:
        return built_in()
    here = {} if all(".py" in name for name in what) else built_in()
    programs: dict[str, Program] = {}
    for name in what:
        file, _, one = name.rpartition("::")
        if name.endswith(".py"):
            programs |= from_file(Path(name))
        elif file.endswith(".py"):
            found = from_file(Path(file))
            programs[one] = _named(one, found, f"{file} has {', '.join(found)}")
        else:
            programs[name] = _named(name, here, "`tablewalk explore --list` shows them")
    return programs


def _named(name: str, programs: dict[str, Program], hint: str) -> Program:
    if name not in programs:
        raise TablewalkError(f"{name}: no such scenario; {hint}")
    return programs[name]


def _draw(o: Outcome | None, html: Path | None, perfetto: Path | None) -> None:
    if not (o and o.trace and (html or perfetto)):
        return
    from tablewalk.report import schedule  # which most searches do without

    if html:
        html.write_text(schedule.page(o, o.trace), encoding="utf-8")
    if perfetto:
        perfetto.write_text(schedule.chrome_trace(o, o.trace), encoding="utf-8")


def _replay(path: Path, what: tuple[str, ...], html: Path | None, perfetto: Path | None, as_json: bool) -> int:
    """Run the schedule of a file; `what` may say where its scenario is now."""
    kept = counterexample.read(path)
    name = str(kept.get("scenario"))
    program = _chosen(what or (str(kept.get("source") or name),)).get(name)
    if program is None:
        raise TablewalkError(f"{escape(str(path))}: there is no scenario {escape(name)} any more")
    outcome = counterexample.replay(path, kept, program)
    _draw(outcome, html, perfetto)
    if as_json:
        click.echo(json.dumps({"scenarios": [_as_object(outcome)]}))
        return 1
    click.echo(f"{outcome.name}: violation, replayed from {escape(str(path))}")
    _tell_violation(outcome)
    return 1


def _explored(program: Program, config: KernelConfig, options: Options) -> Outcome:
    """The outcome; what goes wrong with one scenario is told, and leaves the others' alone."""
    name = program.scenario.name
    try:
        with _progress(name) as progress:
            return explore(program, config, options, progress)
    except TablewalkError as e:
        return Outcome(name, "error", sentence=str(e))


@contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    """A line that says where the search stands, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # which takes a while

    with Console(stderr=True).status(f"{name}: learning") as status:
        yield lambda s: status.update(f"{name}: {_standing(s.standing())}")


def _standing(s: Standing) -> str:
    found = f"{s.states:,} states" + (f" of about {s.estimate:,}" if s.estimate else "")
    left = max(0, s.estimate - s.states) / max(s.rate, 1)
    ends = f", {left:,.0f} s to go" if s.estimate else ""
    moves = f"{s.transitions:,} transitions, {s.rate:,.0f} states a second"
    return f"{found}, {moves}, depth {s.depth}, {s.waiting:,} to do{ends}"


def _list(programs: dict[str, Program], as_json: bool) -> None:
    if as_json:
        found = [{"scenario": name, "title": p.scenario.title} for name, p in programs.items()]
        click.echo(json.dumps({"scenarios": found}))
        return
    width = max(map(len, programs))
    for name, program in programs.items():
        click.echo(f"{name:{width}}  {escape(program.scenario.title)}")


def _as_object(o: Outcome) -> dict[str, Any]:
    return {
        "scenario": o.name,
        "verdict": o.verdict,
        "bound": o.bound or None,
        "invariant": o.rule.id if o.rule else None,
        "sentence": o.sentence or None,
        "states": o.result.states,
        "transitions": o.result.transitions,
        "operations": o.result.operations,
        "nodes": o.nodes,
        "seconds": round(o.seconds, 3),
        "schedule": o.trace.schedule if o.trace else None,
    }


def _tell(o: Outcome) -> None:
    r = o.result
    bound = f" by {o.bound}" if o.bound else ""
    click.echo(
        f"{o.name}: {o.verdict}{bound}; {r.states:,} states, {r.transitions:,} transitions, {o.nodes:,} nodes, "
        f"{o.seconds:.2f} s"
    )
    _tell_violation(o)


def _tell_violation(o: Outcome) -> None:
    if o.sentence:
        click.echo(f"  {escape(o.sentence)}")
    if o.rule:
        click.echo(f"  {o.rule.id}: {o.rule.statement} ({o.rule.source})")
    if o.trace:
        width = get_terminal_size().columns if sys.stdout.isatty() else 0
        for line in as_table(o.trace, o.threads, width):
            click.echo(escape(line))
