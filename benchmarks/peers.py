# SPDX-License-Identifier: GPL-2.0-only
"""`tablewalk explore` beside Spin on one protocol at four sizes, and beside frontrun on a racy counter.

    .venv/bin/python benchmarks/peers.py [--write] [--frontrun FILE] [--size NAME]...

Spin is the one of the PATH (Debian's package `spin`), with gcc; `--frontrun` names the command of an environment that
has it (`pip install frontrun`).  Each run is a process of its own, from source to verdict.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
PROTOCOLS = HERE / "protocols"
TABLEWALK = [sys.executable, "-P", "-m", "tablewalk", "explore"]

# name -> faults, retractions, zaps, readers; as the scenarios of protocols/tables.py
SIZES = {"small": (1, 1, 1, 0), "medium": (2, 1, 1, 0), "large": (2, 1, 1, 1), "huge": (2, 1, 1, 2)}

# how Spin is asked: options of spin -a, and of cc
SPIN = {
    "everything": ((), ("-O2", "-DNOREDUCE")),
    "everything, cc -O0": ((), ("-O0", "-DNOREDUCE")),
    "partial order": ((), ("-O2",)),
    "partial order, collapsed": ((), ("-O2", "-DCOLLAPSE")),
    "merged by hand": (("-DMERGED",), ("-O2",)),
    "merged by hand, cc -O0": (("-DMERGED",), ("-O0",)),
}
BYTECODE = Path(tempfile.gettempdir()) / f"tablewalk-peers-{os.getuid()}"  # kept from run to run, as at a user's
REDUCTIONS = ("none", "m1", "futures")
COUNTERS = {
    "two-threads-twice": (2, 2),
    "three-threads-once": (3, 1),
    "three-threads-twice": (3, 2),
    "three-threads-thrice": (3, 3),
}
FRONTRUN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that ended: what it printed, and what it took with its children."""

    output: str
    seconds: float
    cpu: float
    mib: float


@dataclass(frozen=True, slots=True)
class Row:
    """A search: seconds and CPU seconds by phase, and what it found."""

    size: str
    who: str
    verdict: str
    states: int
    transitions: int
    phases: tuple[tuple[str, float, float], ...]
    mib: float

    @property
    def seconds(self) -> float:
        return sum(wall for _, wall, _ in self.phases)

    @property
    def cpu(self) -> float:
        return sum(cpu for _, _, cpu in self.phases)


def run(command: Sequence[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None) -> Ran:
    """Run a command to its end.  Raises CalledProcessError if it cannot say what it found."""
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read()
    if process.returncode not in (0, 1):
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Ran(output, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


# --- Spin ---------------------------------------------------------------------------------------------------


def spin(size: str, who: str, folder: Path, more: tuple[str, ...] = (), slots: int = 24) -> Row:
    """Spin from source to verdict; `slots`: of its hash table, as a power of two."""
    spin_options, cc_options = SPIN[who]
    threads = [f"-D{letter}={count}" for letter, count in zip("FRZG", SIZES[size], strict=True)]
    steps: tuple[tuple[str, list[str | Path]], ...] = (
        ("spin -a", ["spin", "-a", *threads, *spin_options, *more, PROTOCOLS / "tables.pml"]),
        ("cc", ["cc", "-DSAFETY", "-DMEMLIM=12000", *cc_options, "-o", "pan", "pan.c"]),
        ("pan", ["./pan", "-m1000000", f"-w{slots}"]),
    )
    ran = [(name, run(command, folder)) for name, command in steps]
    found = ran[-1][1].output
    errors, states, transitions = (
        int(_number(pattern, found)) for pattern in (r"errors: (\d+)", r"(\d+) states, stored", r"(\d+) transitions")
    )
    complete = "Search not completed" not in found
    verdict = "violation" if errors else "exhausted" if complete else "bounded"
    phases = tuple((name, r.seconds, r.cpu) for name, r in ran)
    return Row(size, f"Spin, {who}", verdict, states, transitions, phases, ran[-1][1].mib)


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise click.ClickException(f"pan does not say {pattern}:\n{text}")
    return found[1]


# --- tablewalk ----------------------------------------------------------------------------------------------


def explore(scenario: str, reduction: str, size: str = "", cache: Path | None = None) -> Row:
    """`tablewalk explore` from its start to the verdict; `cache`: an empty place, for one that has compiled nothing."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(cache or BYTECODE) + "/bytecode"
    if cache:
        env["XDG_CACHE_HOME"] = str(cache)
    ran = run([*TABLEWALK, f"{PROTOCOLS / 'tables.py'}::{scenario}", "--reduction", reduction, "--json"], env=env)
    found = json.loads(ran.output)["scenarios"][0]
    phases = (("explore", ran.seconds, ran.cpu),)
    name = f"tablewalk, {reduction}" + (" (cold)" if cache else "")
    return Row(size, name, found["verdict"], found["states"], found["transitions"], phases, ran.mib)


def searches(size: str, cold: bool) -> list[Row]:
    """All ways of one size, one after the other."""
    explore("small", "m1")  # so that all that is kept is there
    rows = [explore(size, reduction, size) for reduction in REDUCTIONS]
    slots = max(18, rows[0].states.bit_length())
    with tempfile.TemporaryDirectory() as folder:
        rows += [spin(size, who, Path(folder), slots=slots) for who in SPIN]
    if cold:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(explore(size, "m1", size, Path(folder)))
    for row in rows:
        click.echo(_line(row))
    return rows


# --- frontrun -----------------------------------------------------------------------------------------------


def counters(frontrun: str) -> list[tuple[str, int, float, int, float, int]]:
    """(program, executions and CPU seconds of frontrun, executions that there are, CPU seconds of a search, states)."""
    found = []
    for name, (count, rounds) in COUNTERS.items():
        program: list[str | Path] = [PROTOCOLS / "counter_frontrun.py", str(count), str(rounds), str(FRONTRUN_SECONDS)]
        said = run([frontrun, str(Path(frontrun).parent / "python"), *program]).output.strip().split("\n")[-1].split()
        executions, cpu = int(said[0]), float(said[2])
        states, seconds = counter(name)
        there_are = factorial(2 * count * rounds) // factorial(2 * rounds) ** count
        found.append((name, executions, cpu, there_are, seconds, states))
        click.echo(f"{name}: frontrun {executions:,} in {cpu:.2f} s; {there_are:,} in {seconds:.4f} s")
    return found


def counter(name: str) -> tuple[int, float]:
    """(states, CPU seconds) of a search that leaves nothing out, with learning; what it needs has been compiled."""
    from tablewalk.explore.run import Options, explore, from_file

    programs = from_file(PROTOCOLS / "counter.py")
    options = Options(reduction="none")
    explore(programs["two-threads-twice"], options=options)
    began = time.process_time()
    outcome = explore(programs[name], options=options)
    seconds = time.process_time() - began
    assert outcome.verdict == "exhausted", outcome.sentence
    return outcome.result.states, seconds


# --- what is told -------------------------------------------------------------------------------------------

REPORT = """# Beside Spin and frontrun

Linux {system}, {cpus} CPUs, Python {python}, {spin}; written by
`benchmarks/peers.py --write`. Load average at the end: {load}. CPU seconds are those of all processes from the start of
the command to its verdict, one core each; other work on the machine lengthens wall-clock time far more than them.

## Spin

One protocol, written twice: [tables.pml](protocols/tables.pml) in Promela and [tables.py](protocols/tables.py) on the
machine's operations, a statement for an operation. Faults install page tables and set entries, a retraction and a
zap take tables away, readers walk without locks, RCU frees. Without reductions both have the same states and the same
transitions (Spin counts the initial state as one). Threads: faults, retractions, zaps, readers; beside them two RCU
callbacks.

- *everything*: no reduction (`-DNOREDUCE`). *partial order* is Spin's default: it finds nothing here, since each
  statement is on what is shared. *collapsed*: with `-DCOLLAPSE`.
- *merged by hand* (`-DMERGED`): whoever wrote the Promela has put each critical section into `atomic`. That it may be
  done is for him to know; `m1` finds as much by itself, and checks the guards that allow it.
- `pan` has 2^n slots of its hash table for at most as many states. `cc -O0` compiles sooner and searches slower.

What each takes from source to verdict, CPU seconds; ours is the default, `m1`, everything kept that it
keeps, and of Spin's the fastest run of a kind:

| size | threads | states | tablewalk | Spin, cc -O2 | times ours | Spin, any cc | times ours | by hand | times ours |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
@VERDICT@

All runs; *seconds* are wall-clock. Of Spin's CPU seconds: `spin -a` + `cc` + `pan`. *cold*: nothing is
kept, neither the compiled search nor Python's bytecode; the first search on a machine. Spin keeps nothing, and is as
slow each time; with a `pan` that is kept, only the last summand is left. At the small sizes our time is the start:
Python, numpy and the kernel model's modules. The compiled search is a shared object that is kept and loaded; numba is
imported only to make it. Of the two readers of the largest size `m1` and `futures` keep one order of two, since they do
the same (`--no-symmetry` keeps both).

| size | who | verdict | states | transitions | CPU s | seconds | MiB |
|---|---|---|---:|---:|---:|---:|---:|
@ROWS@

## frontrun

Threads that increment a counter by a read and a write, without a lock:
[counter_frontrun.py](protocols/counter_frontrun.py) and [counter.py](protocols/counter.py). frontrun executes the
program again and again, by DPOR, without a bound on preemptions, at most {limit} s of wall-clock time; it goes by
bytecodes, and so finds more executions in the second program than orders of reads and writes. tablewalk's search
leaves nothing out (`--reduction none`), learning included, compiled before: every order of the reads and writes is an
execution that it has covered, though not one by one.

| program | frontrun | CPU s | a second | all orders | tablewalk: states | CPU s | orders a second | times frontrun |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
@COUNTERS@
"""


def _line(row: Row) -> str:
    phases = "" if len(row.phases) == 1 else " (" + " + ".join(f"{cpu:.2f}" for _, _, cpu in row.phases) + ")"
    return (
        f"| {row.size} | {row.who} | {row.verdict} | {row.states:,} | {row.transitions:,} "
        f"| {row.cpu:.2f}{phases} | {row.seconds:.2f} | {row.mib:.0f} |"
    )


def _verdict(rows: list[Row]) -> list[str]:
    """For each size how many times as long as ours Spin takes."""
    lines = []
    for size in dict.fromkeys(row.size for row in rows):
        here = {row.who: row for row in rows if row.size == size}
        ours = here["tablewalk, m1"].cpu
        by_hand = [row.cpu for who, row in here.items() if "hand" in who]
        spins = {who: row.cpu for who, row in here.items() if who.startswith("Spin") and "hand" not in who}
        optimized = min(cpu for who, cpu in spins.items() if "-O0" not in who)
        figures = [f"{best:.2f} | {best / ours:.2f}" for best in (optimized, min(spins.values()), min(by_hand))]
        threads = " + ".join(map(str, SIZES[size]))
        states = here["Spin, everything"].states
        lines.append(f"| {size} | {threads} | {states:,} | {ours:.2f} | {' | '.join(figures)} |")
    return lines


def report(rows: list[Row], counted: list[tuple[str, int, float, int, float, int]]) -> str:
    """PEERS.md."""
    text = REPORT.format(
        system=platform.release(), cpus=os.cpu_count(), python=platform.python_version(), limit=FRONTRUN_SECONDS,
        spin=run(["spin", "-V"]).output.strip(), load=f"{os.getloadavg()[0]:.1f}",
    )  # fmt: skip
    tables = {
        "VERDICT": _verdict(rows),
        "ROWS": [_line(row) for row in rows],
        "COUNTERS": [
            f"| {name} | {executions:,} | {cpu:.2f} | {executions / cpu:,.0f} | {there_are:,} | {states:,} "
            f"| {seconds:.4f} | {there_are / seconds:,.0f} | {there_are / seconds * cpu / executions:,.0f} |"
            for name, executions, cpu, there_are, seconds, states in counted
        ],
    }
    for name, lines in tables.items():
        text = text.replace(f"@{name}@", "\n".join(lines))
    return text


@click.command()
@click.option("--write", is_flag=True, help="Write benchmarks/PEERS.md.")
@click.option("--frontrun", metavar="FILE", help="The command `frontrun`, of an environment that has it.")
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), help="Only this size; repeatable.")
@click.option("--cold", multiple=True, type=click.Choice(list(SIZES)), help="Sizes also searched cold; repeatable.")
def main(write: bool, frontrun: str | None, sizes: tuple[str, ...], cold: tuple[str, ...]) -> None:
    if not shutil.which("spin") or not shutil.which("cc"):
        raise click.ClickException("spin and cc are wanted (Debian: apt-get install spin gcc libc6-dev)")
    rows = [row for size in sizes or SIZES for row in searches(size, size in cold)]
    text = report(rows, counters(frontrun) if frontrun else [])
    if write:
        (HERE / "PEERS.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
