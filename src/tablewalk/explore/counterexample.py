# SPDX-License-Identifier: GPL-2.0-only
"""A counterexample in a file: a schedule, and what it takes to run the model's own code by it again.

The automata are learned anew in the same order, so that every object has the same name.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tablewalk import __version__
from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.drivers import KernelConfig

from .loop import V_DEADLOCK, V_END
from .run import Options, Outcome, Program, engine_of, fingerprint, in_the_end, prepare
from .search import Found, Limits
from .trace import Trace

FORMAT = "tablewalk counterexample 1"


def save(path: Path, program: Program, config: KernelConfig, outcome: Outcome) -> None:
    """Write the schedule of a violation.  Raises TablewalkError if the outcome has none."""
    trace = outcome.trace
    if trace is None:
        raise TablewalkError(f"--save: {outcome.name} is {outcome.verdict}, without a schedule that breaks a rule")
    source = Path(program.scenario.setup.__code__.co_filename)
    kept = {
        "format": FORMAT,
        "version": __version__,
        "scenario": outcome.name,
        "source": str(source.absolute()) if program.own else None,
        "kernel": {"release": config.release, "options": config.options, "without": config.without},
        "text": fingerprint(program),
        "invariant": outcome.rule.id if outcome.rule else None,
        "sentence": outcome.sentence,
        "schedule": trace.schedule,
        "reduction": trace.reduction,
        "rounds": trace.engine.learner.rounds,
        "merged": trace.engine.learner.merged,
        "symmetry": trace.engine.symmetry.asked,
        "found": asdict(trace.found),
        "learned": trace.engine.misses,
    }
    path.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """What is in a counterexample file.  Raises TablewalkError for one that is something else."""
    where = escape(str(path))
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise TablewalkError(f"{where}: no counterexample: {escape(str(e))}") from None
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise TablewalkError(f"{where}: no counterexample: its format is not '{FORMAT}'")
    return kept


def replay(path: Path, kept: dict[str, Any], program: Program) -> Outcome:
    """Run exactly the schedule of a file.  Raises TablewalkError if it no longer leads to what was found."""
    where = escape(str(path))
    if kept.get("text") != fingerprint(program):
        raise TablewalkError(f"{where}: of another text of the model or scenario; explore the scenario again")
    try:
        kernel = kept["kernel"]
        kconfig = tuple((str(name), str(value)) for name, value in kernel["options"])
        config = KernelConfig(kernel["release"], options=kconfig, without=tuple(kernel["without"]))
        found, schedule, reduction = Found(**kept["found"]), list(map(int, kept["schedule"])), int(kept["reduction"])
        setup = prepare(program, config)
        limits = Limits(rounds=int(kept["rounds"]))
        options = Options(limits=limits, merged=bool(kept["merged"]), symmetry=bool(kept["symmetry"]))
        engine = engine_of(program, config, setup, options)
        for miss in kept["learned"]:
            engine.learn(miss)
        steps = schedule if found.rule >= V_DEADLOCK else schedule[:-1]
        trace = Trace(engine, found, steps, reduction)
        threads = [name for name, _ in setup.threads]
        if found.rule == V_END:
            rule, sentence = next(in_the_end(engine, setup, trace.state))
        else:
            rule, sentence = trace.conflict(threads)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration) as e:
        raise TablewalkError(f"{where}: does not replay: {type(e).__name__}: {escape(str(e))}") from None
    if not trace.holds or trace.schedule != schedule or sentence != kept.get("sentence"):
        raise TablewalkError(f"{where}: does not replay: the schedule no longer leads to what was found")
    return Outcome(program.scenario.name, "violation", rule=rule, sentence=sentence, trace=trace, threads=threads)
