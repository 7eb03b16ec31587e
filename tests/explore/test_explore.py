# SPDX-License-Identifier: GPL-2.0-only
"""The real model's code under every schedule: verdicts, reductions that change none, seeded bugs that are found."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from tablewalk.cli import run
from tablewalk.errors import TablewalkError
from tablewalk.explore.engine import Engine
from tablewalk.explore.estimate import share
from tablewalk.explore.run import Options, Outcome, Program, built_in, explore, from_file, prepare
from tablewalk.explore.search import Limits, Search, Standing

HERE = Path(__file__).parent
NO_RESCAN = HERE / "no_rescan.py"


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    return built_in()


def finals_and_rules(engine: Engine, reduction: str, depth_first: bool = False) -> tuple[set[bytes], set[int]]:
    """Final states, and native rules broken, of a search that goes on to the end."""
    search = Search(engine, reduction, depth_first, stop=False)
    result = search.run()
    assert result.verdict in ("exhausted", "violation")
    width = len(engine.initial()) + engine.memory.columns
    return {bytes(state[:width]).rstrip(b"\0") for state in result.finals}, {f.rule for f in result.found}


@pytest.mark.parametrize(
    "name", ["fault-and-dontneed", "faults-and-dontneed-slow", "shmem-collapse-fault", "shmem-collapse-dontneed"]
)
def test_reductions_lose_nothing(programs: dict[str, Program], name: str) -> None:
    setup = prepare(programs[name])
    scenario = programs[name].scenario
    engine = Engine(setup.model, [body for _, body in setup.threads], scenario.pool, scenario.slots, 60_000)
    unreduced = finals_and_rules(engine, "none")
    assert unreduced[0] and not unreduced[1]
    assert finals_and_rules(engine, "m1") == unreduced
    assert finals_and_rules(engine, "m2") == unreduced
    assert finals_and_rules(engine, "futures") == unreduced
    assert finals_and_rules(engine, "m1", depth_first=True) == unreduced


def explored(path: Path, **options: Any) -> Outcome:
    (program,) = from_file(path).values()
    return explore(program, options=Options(**options))


def test_seeded_bug_is_found_and_shown() -> None:
    outcome = explored(NO_RESCAN)
    assert outcome.verdict == "violation"
    assert outcome.rule is not None and outcome.rule.id == "I2"
    assert " in use after CPU1 (dontneed) detached it (" in outcome.sentence and " of table @" in outcome.sentence
    assert outcome.trace is not None
    assert any("zap_pte_table no_rescan.py:" in event.place() for event in outcome.trace.events)


def test_seeded_bug_is_found_by_each_reduction() -> None:
    found = {r: explored(NO_RESCAN, reduction=r, stop=False).broken for r in ("none", "m1", "m2", "futures")}
    assert found["none"] == found["m1"] == found["m2"] == found["futures"]
    assert "I2" in found["m1"]


def test_override_ends_with_its_file(programs: dict[str, Program]) -> None:
    explored(NO_RESCAN)
    assert explore(programs["faults-and-dontneed-slow"]).verdict == "exhausted"


def scenario_file(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "own.py"
    path.write_text("from tablewalk.explore.scenario import scenario\n" + body)
    return path


def test_nondeterministic_scenario_is_told(tmp_path: Path) -> None:
    body = """
import itertools
counter = itertools.count()
@scenario()
def moody(s):
    p = s.process()
    p.mmap(s.A, 2)
    s.thread("moody", lambda: p.write(s.A + next(counter) % 2 * s.page, 1))
"""
    with pytest.raises(TablewalkError, match=r"scenario moody \(own.py:9\): .* after the same history"):
        explored(scenario_file(tmp_path, body))


@pytest.mark.parametrize("name", ["faults-and-dontneed-slow", "shmem-collapse-fault", "fork-and-fault"])
def test_merged_histories_go_on_alike(programs: dict[str, Program], name: str) -> None:
    setup = prepare(programs[name])
    scenario = programs[name].scenario
    bodies = [body for _, body in setup.threads]
    engine = Engine(setup.model, bodies, scenario.pool, scenario.slots, 60_000, paranoid=True)
    assert Search(engine).run().verdict == "exhausted"
    assert engine.learner.checked >= 8


def test_tables_are_freed_with_their_engine(programs: dict[str, Program]) -> None:
    scenario, setup = programs["fault-and-dontneed"].scenario, prepare(programs["fault-and-dontneed"])
    gc.disable()
    try:
        engine = Engine(setup.model, [body for _, body in setup.threads], scenario.pool, scenario.slots, 60_000)
        assert Search(engine).run().verdict == "exhausted"
        tables = weakref.ref(engine.tables.all)
        del engine
        assert tables() is None
    finally:
        gc.enable()


def test_impure_function_is_found_by_going_on(tmp_path: Path) -> None:
    body = """
from tablewalk.explore.learn import activation
memory = []
@scenario()
def leaky(s):
    p = s.process()
    @activation
    def impure(cell):
        memory.append(s.model.machine.load(cell))
        return 0
    def body():
        impure(p.mm.mm_users)
        s.model.machine.add(p.mm.mm_count, memory[-1])
        return 0
    s.thread("leaky", body)
    s.thread("other", lambda: s.model.machine.store(p.mm.mm_users, 3))
"""
    with pytest.raises(TablewalkError, match="histor"):
        explored(scenario_file(tmp_path, body), paranoid=True)


def test_limits_are_told(programs: dict[str, Program]) -> None:
    outcome = explore(programs["shmem-collapse-fault"], options=Options("none", limits=Limits(states=1000)))
    assert (outcome.verdict, outcome.bound) == ("bounded", "1000 states")


def test_bound_on_preemptions_is_told(programs: dict[str, Program]) -> None:
    def within(switches: int) -> Outcome:
        return explore(programs["fault-and-dontneed"], options=Options(limits=Limits(switches=switches)))

    outcomes = [within(n) for n in (0, 1, 2, 200)]
    assert [(o.verdict, o.bound) for o in outcomes[:2]] == [
        ("bounded", "0 preemptions"), ("bounded", "1 preemptions"),
    ]  # fmt: skip
    assert outcomes[0].result.states < outcomes[1].result.states < outcomes[2].result.states
    assert outcomes[-1].verdict == "exhausted"
    assert outcomes[-1].finals == explore(programs["fault-and-dontneed"]).finals


def test_a_bug_needs_so_many_preemptions() -> None:
    found = [explored(NO_RESCAN, limits=Limits(switches=n)).verdict for n in (0, 1)]
    assert found == ["bounded", "violation"]


LOOP = """
@scenario()
def waiting(s):
    p = s.process()
    machine = s.model.machine
    def wait():
        while machine.load(p.mm.mm_users) == 1:
            machine.forget(())
        return 1
    def release():
        machine.store(p.mm.mm_users, 2)
        return 1
    s.thread("wait", wait)
    s.thread("release", release)
"""


def test_bound_on_rounds_is_told(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, LOOP)
    outcome = explored(path, limits=Limits(rounds=2))
    assert (outcome.verdict, outcome.bound) == ("bounded", "the number of rounds of a loop")
    assert outcome.finals == explored(path).finals


@pytest.mark.parametrize("how", [{}, {"reduction": "none"}, {"depth_first": True}, {"workers": 2}])
def test_exact_states_are_those_that_hashes_tell_apart(programs: dict[str, Program], how: dict[str, Any]) -> None:
    hashed, exact = (explore(programs["shmem-collapse-fault"], options=Options(exact=e, **how)) for e in (False, True))
    assert exact.verdict == hashed.verdict == "exhausted"
    assert (exact.result.states, exact.result.transitions) == (hashed.result.states, hashed.result.transitions)
    assert exact.finals == hashed.finals


TWINS = """
@scenario()
def twins(s):
    p = s.process()
    machine = s.model.machine
    def add():
        machine.store(p.mm.mm_users, machine.load(p.mm.mm_users) + 1)
    for name in ("one", "two", "three"):
        s.thread(name, lambda: add())
    s.finally_(lambda results: None if machine.load(p.mm.mm_users) == 4 else "an addition is lost")
"""


@pytest.mark.parametrize("reduction", ["m1", "futures"])
def test_threads_that_do_the_same_change_places(tmp_path: Path, reduction: str) -> None:
    path = scenario_file(tmp_path, TWINS)
    one, all_of_them = (explored(path, reduction=reduction, stop=False, symmetry=s) for s in (True, False))
    assert one.verdict == all_of_them.verdict == "violation"
    assert (one.broken, one.finals) == (all_of_them.broken, all_of_them.finals)
    assert one.result.states * 2 < all_of_them.result.states
    assert one.trace is not None and one.trace.holds


def test_estimate_is_the_share_of_a_box() -> None:
    assert [share([1, 2], depth) for depth in (0, 1, 2, 3, 4, 9)] == pytest.approx([0, 1 / 6, 1 / 2, 5 / 6, 1, 1])


def test_progress_says_how_far_a_search_is(programs: dict[str, Program]) -> None:
    seen: list[Standing] = []
    limits = Limits(states=500)
    explore(
        programs["fault-and-dontneed"], options=Options("none", limits=limits),
        progress=lambda search: seen.append(search.standing()),
    )  # fmt: skip
    last = seen[-1]
    assert last.states >= 500 and last.depth > 5 and last.waiting > 0
    assert last.states <= last.estimate < 10_000_000


def test_promise_that_is_not_kept(tmp_path: Path) -> None:
    body = """
@scenario()
def idle(s):
    p = s.process()
    p.mmap(s.A, 2)
    s.thread("read", lambda: p.read(s.A))
    s.sometimes("thp_collapse_alloc")
"""
    outcome = explored(scenario_file(tmp_path, body))
    assert outcome.verdict == "violation"
    assert outcome.sentence == "never happens, in no schedule: thp_collapse_alloc"


def test_deadlock(tmp_path: Path) -> None:
    body = """
@scenario()
def inversion(s):
    p, q = s.process(), s.process()
    machine = s.model.machine
    def both(a, b):
        machine.down_write(a)
        machine.down_write(b)
        machine.up_write(b)
        machine.up_write(a)
    s.thread("pq", lambda: both(p.mm.mmap_lock, q.mm.mmap_lock))
    s.thread("qp", lambda: both(q.mm.mmap_lock, p.mm.mmap_lock))
"""
    for reduction in ("none", "m1"):
        outcome = explored(scenario_file(tmp_path, body), reduction=reduction)
        assert outcome.rule is not None and outcome.rule.id == "I28"


def test_writer_of_a_vma_that_does_not_wait_is_found() -> None:
    outcome = explored(HERE / "no_wait.py")
    assert outcome.rule is not None and outcome.rule.id == "I3"
    assert "without vm_mm.mmap_lock:w and vm_lock:w (" in outcome.sentence


def test_wrong_order_of_locks_is_found_without_a_deadlock() -> None:
    for reduction in ("m1", "m2"):
        outcome = explored(HERE / "wrong_order.py", reduction=reduction)
        assert outcome.rule is not None and outcome.rule.id == "I28"
        assert "takes folio.lock while it holds address_space.i_mmap_rwsem (link_and_lock_page " in outcome.sentence
        assert "takes address_space.i_mmap_rwsem while it holds folio.lock (" in outcome.sentence


def test_wrong_order_of_locks_is_found_in_two_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = """
def both(s, *names):
    p, machine = s.process(), s.model.machine
    f = s.shmem(1)
    locks = {"mmap": p.mm.mmap_lock, "i_mmap": f.f_mapping.i_mmap_rwsem}
    def body():
        for name in names:
            machine.down_write(locks[name])
        for name in names:
            machine.up_write(locks[name])
    s.thread("both", body)

@scenario()
def one_way(s):
    both(s, "mmap", "i_mmap")

@scenario()
def the_other_way(s):
    both(s, "i_mmap", "mmap")
"""
    path = scenario_file(tmp_path, body)
    assert run(["explore", f"{path}::one-way"]) == 0
    assert run(["explore", str(path)]) == 1
    said = "both takes mm_struct.mmap_lock while it holds address_space.i_mmap_rwsem (body own.py:"
    assert said in capsys.readouterr().out


def test_file_that_raises_names_its_line(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, "1 / 0\n")
    with pytest.raises(TablewalkError, match=r"own.py \(own.py:2\): ZeroDivisionError"):
        from_file(path)


def test_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["explore", "--json", str(NO_RESCAN), "fault-and-dontneed"]) == 1
    bad, good = json.loads(capfd.readouterr().out)["scenarios"]
    assert (bad["scenario"], bad["verdict"], bad["invariant"]) == ("no-rescan", "violation", "I2")
    assert bad["schedule"]
    assert (good["verdict"], good["schedule"]) == ("exhausted", None)
    assert run(["explore", "--list"]) == 0
    assert "fault-and-dontneed" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kernel", "9.9"], "kernel 9.9: not known"),
        (["--set", "nonsense=y"], "no such option"),
        (["--without", "ZZZ"], "no such patch"),
    ],
)
def test_what_no_kernel_can_have_is_told_once(options: list[str], said: str) -> None:
    with pytest.raises(TablewalkError, match=said):
        run(["explore", *options])


def test_a_counterexample_that_there_is_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page, kept = tmp_path / "c.html", tmp_path / "c.json"
    assert run(["explore", "dontneed-twice", "--html", str(page), "--save", str(kept)]) == 0
    told = capfd.readouterr().err
    assert f"no counterexample; {page} is not written" in told and f"no counterexample; {kept} is not written" in told
    assert not page.exists() and not kept.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from tablewalk.explore import checkpoint, search
from tablewalk.explore.run import Options, built_in, explore

def save_and_die(path, found, identity):
    checkpoint.save(path, found, identity)
    os.kill(os.getpid(), signal.SIGKILL)

search.BUDGET = 2000
search.save = save_and_die
search.Checkpoint.__init__.__defaults__ = (0.0,)
explore(built_in()["shmem-collapse-fault"], options=Options("none", checkpoint=Path(sys.argv[1])))
"""


def test_checkpoint_survives_sigkill(programs: dict[str, Program], tmp_path: Path) -> None:
    path = tmp_path / "kept"
    command = [sys.executable, "-c", KILLED, str(path)]
    died = subprocess.run(command, env=os.environ | {"PYTHONPATH": "src"}, check=False)
    assert died.returncode == -signal.SIGKILL
    program = programs["shmem-collapse-fault"]
    resumed = explore(program, options=Options("none", checkpoint=path))
    whole = explore(program, options=Options("none"))
    assert resumed.verdict == whole.verdict == "exhausted"
    assert (resumed.result.states, resumed.result.transitions) == (whole.result.states, whole.result.transitions)
    assert resumed.nodes == whole.nodes
    assert resumed.finals == whole.finals
    assert not path.exists()


def test_two_workers_do_what_one_does(programs: dict[str, Program]) -> None:
    one, two = (explore(programs["shmem-collapse-fault"], options=Options("none", workers=n)) for n in (1, 2))
    assert one.verdict == two.verdict == "exhausted"
    assert (two.result.states, two.result.transitions) == (one.result.states, one.result.transitions)
    assert len(two.finals) == len(one.finals)
    (program,) = from_file(NO_RESCAN).values()
    found = explore(program, options=Options(workers=2))
    assert found.rule is not None and found.rule.id == "I2"
    assert found.trace is not None and found.trace.schedule


def test_checkpoint_of_something_else(programs: dict[str, Program], tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("no checkpoint")
    with pytest.raises(TablewalkError, match="not a checkpoint"):
        explore(programs["fault-and-dontneed"], options=Options(checkpoint=path))
