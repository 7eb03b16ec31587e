# SPDX-License-Identifier: GPL-2.0-only
"""Exploring a scenario from its text to a verdict."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from tablewalk.errors import TablewalkError
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig, Model

from . import scenario as scenarios
from .engine import Engine
from .learn import activation, instrument
from .loop import V_END
from .misuse import Beginning, told
from .order import Order, inversion, order_of
from .rules import BOUNDS, DEADLOCK, MISTAKE, RESULT, Rule, final_rules
from .scenario import Override, Scenario, Setup
from .search import Checkpoint, Found, Limits, Progress, Result, Search
from .symmetry import alike
from .tables import Bound
from .trace import Trace
from .workers import ParallelSearch

EMPTY_TABLES = (6, 6)  # until then collapse_pte_mapped_thp() freed tables as they were


@dataclass(frozen=True, slots=True)
class Program:
    """A scenario with the overrides of its file."""

    scenario: Scenario
    overrides: tuple[Override, ...] = ()
    own: bool = False  # from a file of the user's


@dataclass(frozen=True, slots=True)
class Options:
    """How to search."""

    reduction: str = "m1"
    depth_first: bool = False
    wide: bool = False
    stop: bool = True
    limits: Limits = field(default_factory=Limits)
    checkpoint: Path | None = None
    workers: int = 1
    paranoid: bool = False
    exact: bool = False
    merged: bool = True
    symmetry: bool = True

    def with_symmetry(self) -> bool:
        """Whether threads that do the same may change places; a bound on preemptions tells them apart."""
        return self.symmetry and self.reduction != "none" and self.limits.switches < 0


@dataclass(slots=True)
class Outcome:
    """A scenario's verdict: `exhausted`, `violation`, `bounded` (`bound` says by what), or `error`."""

    name: str
    verdict: str
    bound: str = ""
    rule: Rule | None = None
    sentence: str = ""
    result: Result = field(default_factory=Result)
    nodes: int = 0
    runs: int = 0
    seconds: float = 0.0
    trace: Trace | None = None
    threads: list[str] = field(default_factory=list)
    finals: frozenset[tuple[Any, ...]] = frozenset()  # memories when all threads have ended
    broken: frozenset[str] = frozenset()  # every rule broken, by id
    order: Order = field(default_factory=dict)  # of locks


def searched() -> Model:
    """The model on the driver `searched`, ready to learn from."""
    model = drivers.load("searched")
    instrument(model)
    return model


def built_in() -> dict[str, Program]:
    """The scenarios that come along, by name."""
    model = searched()
    package = import_module(f"{model.package}.scenarios")
    scenarios.collect()
    programs: dict[str, Program] = {}
    for found in iter_modules(package.__path__):
        sys.modules.pop(f"{package.__name__}.{found.name}", None)
        import_module(f"{package.__name__}.{found.name}")
        for name, program in _programs().items():
            if programs.setdefault(name, program) is not program:
                raise TablewalkError(f"{found.name}.py: there is a scenario {name} already")
    return programs


def from_file(path: Path) -> dict[str, Program]:
    """The scenarios of a file, which may have overrides; its relative imports find the model.

    Raises TablewalkError for what is no such file.
    """
    model = searched()
    name = f"{model.package}.patches.{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TablewalkError(f"{path}: not a Python file")
    scenarios.collect()
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        with told(str(path), str(path)):
            spec.loader.exec_module(module)
    finally:
        sys.modules.pop(name, None)
    programs = {name: replace(p, own=True) for name, p in _programs().items()}
    if not programs:
        raise TablewalkError(f"{path}: no scenario in it; decorate a function with @scenario()")
    return programs


def _programs() -> dict[str, Program]:
    found, overrides = scenarios.collect()
    return {s.name: Program(s, tuple(overrides)) for s in found}


def _told(s: Scenario, doing: str = "") -> AbstractContextManager[None]:
    """What goes wrong in a scenario's own code is told with its line."""
    code = s.setup.__code__
    return told(f"scenario {s.name}{doing}", code.co_filename, code.co_firstlineno)


def prepare(program: Program, config: KernelConfig | None = None) -> Setup:
    """The kernel configured and overridden, and the scenario set up on it: memory is its initial state."""
    config = config or KernelConfig()
    model, s = searched(), program.scenario
    model.configure(replace(config, arch=s.arch, options=(*s.options, *config.options)))
    for o in program.overrides:
        model.replace(o.site, activation(o.function))
    setup = Setup(model)
    with _told(s, ", set-up"):
        s.setup(setup)
        if not setup.threads:
            raise TablewalkError("has no thread")
        for process in setup.processes:
            process.mm.nr_cpus = max(2, len(setup.threads))
        model.machine.quiescent()
    model.machine.reached.clear()
    return setup


def explore(
    program: Program,
    config: KernelConfig | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Explore a scenario on the kernel that `config` describes, its architecture being the scenario's."""
    options, config = options or Options(), config or KernelConfig()
    began = time.perf_counter()
    s = program.scenario
    outcome = Outcome(s.name, "error")
    try:
        with _told(s):
            first = _beginning(engine_of(program, config, prepare(program, config), options)) if program.own else None
            setup = prepare(program, config)
            if config.release != drivers.NEWEST or config.without or config.options:
                setup.promises.clear()  # they are of the newest kernel
                setup.endings.clear()
            outcome.threads = [name for name, _ in setup.threads]
            engine = engine_of(program, config, setup, options)
            if first:
                first.same(_beginning(engine))
            kept = None
            if options.checkpoint:
                kept = Checkpoint(options.checkpoint, _identity(program, config, options))
            search = search_of(engine, options, progress, kept)
            outcome.result = search.run()
            if kept and outcome.result.verdict != "bounded":
                kept.path.unlink(missing_ok=True)
            outcome.nodes, outcome.runs = len(engine.learner.nodes) - 1, engine.learner.runs
            judge(outcome, search, setup)
    except Bound as e:
        outcome.sentence, outcome.verdict, outcome.bound = str(e), "bounded", e.what
    outcome.seconds = time.perf_counter() - began
    return outcome


def _beginning(engine: Engine) -> Beginning:
    """What a search would do first; unmerged or reduced, threads have to do the same when run again."""
    memory = list(engine.machine.mem)
    Search(engine, limits=Limits(states=1)).run()
    return Beginning(memory, engine.learner.nodes[1:], engine.machine)


def _identity(program: Program, config: KernelConfig, options: Options) -> str:
    """Changes with whatever makes a checkpoint useless: scenario, kernel, way of searching, and the text of all."""
    bounds = (options.limits.switches, options.limits.rounds)
    how = (options.reduction, options.depth_first, options.wide, options.stop, options.exact, options.merged,
           options.symmetry, bounds)  # fmt: skip
    return f"{program.scenario.name} {config} {how} {fingerprint(program)}"


def fingerprint(program: Program) -> str:
    """Of the text of the model, of the search, and of the scenario with its overrides."""
    digest = hashlib.sha256()
    for part in ("machine", "arch", "kernel", "patches", "explore", "scenarios"):
        for source in sorted((drivers.ROOT / part).glob("*.py")):
            digest.update(source.read_bytes())
    for function in (program.scenario.setup, *(o.function for o in program.overrides)):
        digest.update(Path(function.__code__.co_filename).read_bytes())
    return digest.hexdigest()


def engine_of(program: Program, config: KernelConfig, setup: Setup, options: Options) -> Engine:
    """The automata of a scenario that is set up."""
    s, bodies = program.scenario, [body for _, body in setup.threads]
    empty_tables = drivers.release_of(config.release) >= EMPTY_TABLES
    limits = options.limits
    return Engine(
        setup.model, bodies, s.pool, s.slots, limits.nodes, empty_tables, options.paranoid, limits.rounds,
        options.merged, alike(bodies) if options.with_symmetry() else (),
    )  # fmt: skip


def search_of(
    engine: Engine, o: Options, progress: Progress | None = None, kept: Checkpoint | None = None
) -> Search:
    """A search over them that has not begun."""
    if o.workers > 1:
        return ParallelSearch(engine, o.reduction, o.workers, o.wide, o.stop, o.limits, progress, o.exact)
    return Search(engine, o.reduction, o.depth_first, o.wide, o.stop, o.limits, progress, kept, o.exact)


def judge(outcome: Outcome, search: Search, setup: Setup) -> None:
    """The verdict: of what broke a rule on the way the first, otherwise of what is left in the end."""
    result, engine = search.result, search.engine
    outcome.verdict, outcome.bound = result.verdict, result.bound
    broken = []
    for found in result.found:
        if found.rule in BOUNDS:
            outcome.verdict = "bounded"
            outcome.bound = BOUNDS[found.rule]
            continue
        trace = Trace(engine, found, search.schedule(found.state), search.reduction)
        rule, sentence = trace.conflict(outcome.threads)
        if rule is MISTAKE:
            outcome.trace, outcome.sentence = outcome.trace or trace, outcome.sentence or sentence
            continue
        broken.append(rule.id)
        if outcome.rule is None:
            outcome.rule, outcome.sentence, outcome.trace = rule, sentence, trace
    finals: set[tuple[Any, ...]] = set()
    memory = list(engine.machine.mem)
    for end, way, state in search.all_finals():
        key = (*engine.memory.cells(state), *(str(engine.result_of(state, t)) for t in range(engine.threads)))
        if key in finals:
            continue
        finals.add(key)
        for rule, sentence in in_the_end(engine, setup, state):
            broken.append(rule.id)
            if outcome.rule is None:
                outcome.rule, outcome.sentence = rule, sentence
                schedule = [engine.symmetry.thread(way, t) for t in search.schedule(end)]
                outcome.trace = Trace(engine, Found(V_END, 0, 0, end, 0, 1), schedule, search.reduction)
    engine.machine.rewind(memory)
    outcome.order = order_of(engine, outcome.threads)
    wrong = inversion(outcome.order)
    if wrong:
        broken.append(DEADLOCK.id)
        if outcome.rule is None:
            outcome.rule, outcome.sentence = DEADLOCK, wrong
    outcome.finals, outcome.broken = frozenset(finals), frozenset(broken)
    if outcome.rule is not None:
        outcome.verdict = "violation"
    elif outcome.trace:
        outcome.verdict = "error"
    elif outcome.verdict == "exhausted":
        missed = _missed(engine, setup, result.finals)
        if missed:
            outcome.verdict, outcome.rule = "violation", RESULT
            outcome.sentence = f"never happens, in no schedule: {', '.join(missed)}"


def _missed(engine: Engine, setup: Setup, finals: Any) -> list[str]:
    """What the scenario promised to happen in some schedule, and happened in none."""
    done = set(setup.model.machine.reached)
    for node in engine.learner.nodes:
        done.update(function for function, _, _ in node.where)
        done.update(f"{function}: {node.name}" for function, _, _ in node.where[:1])
    ends = [{name: engine.result_of(state, t) for t, (name, _) in enumerate(setup.threads)} for state in finals]
    return [event for event in setup.promises if event not in done] + [
        what for what, holds in setup.endings if not any(map(holds, ends))
    ]


def in_the_end(engine: Engine, setup: Setup, state: Any) -> Iterator[tuple[Rule, str]]:
    """What is wrong in a state in which all threads have ended."""
    engine.machine.rewind(engine.memory.cells(state))
    results = {name: engine.result_of(state, t) for t, (name, _) in enumerate(setup.threads)}
    broken = list(final_rules(setup.model))
    for rule, sentence in broken:
        yield rule, f"in the end {sentence}"
    for check in setup.checks if not broken else ():  # they use that memory, and might not come back
        wrong = check(results)
        if wrong:
            yield RESULT, f"in the end {wrong}"


