# SPDX-License-Identifier: GPL-2.0-only
"""Record real programs, replay the recordings with --check, and say how exact and how fast that was.

    .venv/bin/python benchmarks/must_show.py [NAME]... [--runs N] [--directory DIR] [--write]

For each workload: the time it takes by itself (the least of N runs) and recorded; what was recorded; samples
compared and disagreements, strict and allowing for calls in flight; time and peak memory of the replay.
Exit status 1 if a sample disagrees, events were lost or a replay took longer than the program by itself; 2 if
one could not run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tablewalk.record.rows import Kind
from workloads import HEADLINE, WORKLOADS, NotRunnable, Workload

RESULTS = Path(__file__).with_name("RESULTS.md")
TABLEWALK = [sys.executable, "-P", "-m", "tablewalk"]


@dataclass
class Run:
    """A finished command: wall-clock and CPU seconds, peak resident memory of its largest process in MiB."""

    status: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    out: str
    err: str


def run(command: Sequence[str | Path]) -> Run:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        cpu = usage.ru_utime + usage.ru_stime
        return Run(process.returncode, seconds, cpu, usage.ru_maxrss / 1024, out.read(), err.read())


@dataclass
class Figures:
    """One row of the table."""

    name: str
    what: str
    faults: int
    syscalls: int
    rows: int
    lost: int
    samples: int
    exact_samples: int
    compared: int
    disagreements: int
    strict: int
    native: float
    native_cpu: float
    recorded: float
    replay: float
    replay_cpu: float
    replay_mib: float
    recording_kib: float

    @property
    def ok(self) -> bool:
        return self.compared > 0 and not self.disagreements and not self.lost and self.replay < self.native


def must(finished: Run, allowed: tuple[int, ...] = (0,)) -> Run:
    if finished.status not in allowed:
        last = (finished.err.strip().splitlines() or ["(no message)"])[-1]
        raise NotRunnable(f"exit status {finished.status}: {last}")
    return finished


def measure(workload: Workload, directory: Path, runs: int, driver: str) -> Figures:
    """Run, record and replay one workload. Raises NotRunnable with the reason where a step fails."""
    command = workload.command(directory / workload.name)
    native = min((must(run(command)) for _ in range(runs)), key=lambda r: r.seconds)
    recording = directory / f"{workload.name}.tw"
    recorded = must(run([*TABLEWALK, "record", "--require-all", "-o", recording, "--", *command])).seconds
    replay = run([*TABLEWALK, "replay", recording, "--check", "--json", "--driver", driver])
    must(replay, allowed=(0, 1))
    results: list[dict[str, Any]] = json.loads(replay.out)["results"]
    table = pq.read_table(recording, columns=["kind", "a0", "a5"])
    kinds = dict(zip(*pc.value_counts(table["kind"]).flatten(), strict=True))
    count = {kind.as_py(): n.as_py() for kind, n in kinds.items()}
    samples = table.filter(pc.equal(table["kind"], Kind.SAMPLE))
    lost = table.filter(pc.equal(table["kind"], Kind.LOST))
    return Figures(
        name=workload.name,
        what=workload.what,
        faults=count.get(Kind.FAULT, 0),
        syscalls=count.get(Kind.SYSCALL, 0),
        rows=len(table),
        lost=pc.sum(lost["a0"]).as_py() or 0,
        samples=len(samples),
        exact_samples=pc.sum(samples["a5"]).as_py() or 0,
        compared=sum(r["compared"] for r in results),
        disagreements=sum(r["disagreements"] for r in results),
        strict=sum(r["disagreements_strict"] for r in results),
        native=native.seconds,
        native_cpu=native.cpu_seconds,
        recorded=recorded,
        replay=replay.seconds,
        replay_cpu=replay.cpu_seconds,
        replay_mib=replay.peak_mib,
        recording_kib=recording.stat().st_size / 1024,
    )


HEADINGS = [
    "program", "faults", "calls", "samples", "of them exact", "compared", "disagree", "strictly",
    "program s", "program CPU s", "recorded s", "replay s", "replay CPU s", "events/s", "replay MiB", "recording KiB",
]  # fmt: skip


def cells(f: Figures) -> list[str]:
    return [
        f.name, f"{f.faults}", f"{f.syscalls}", f"{f.samples}", f"{f.exact_samples}", f"{f.compared}",
        f"{f.disagreements}", f"{f.strict}", f"{f.native:.2f}", f"{f.native_cpu:.2f}", f"{f.recorded:.2f}",
        f"{f.replay:.2f}", f"{f.replay_cpu:.2f}", f"{f.rows / f.replay:,.0f}", f"{f.replay_mib:.0f}",
        f"{f.recording_kib:.0f}",
    ]  # fmt: skip


def markdown(figures: list[Figures], failed: dict[str, str], runs: int, driver: str, load: float) -> str:
    lines = [
        "# Real programs, recorded and replayed",
        "",
        f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}, replayed with `--driver {driver}`; written by `benchmarks/must_show.py",
        f"--write`, which repeats it all on the machine at hand. Load average when it began: {load:.1f}. Other",
        "work on the machine lengthens wall-clock times, and those of programs with several threads or processes",
        "more than those of the replays: under load they say little about which takes longer.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---|" + "---:|" * (len(HEADINGS) - 1),
        *("| " + " | ".join(cells(f)) + " |" for f in figures),
        "",
        f"*program s*: wall-clock time by itself, the least of {runs} runs. *recorded s*: under",
        "`tablewalk record`, the conversion to a recording included. *replay s*, *replay MiB*: wall-clock",
        "time and peak memory of `tablewalk replay --check` as a whole, its start included. *disagree*:",
        "samples of VmPTE that the model does not give, allowing for calls in flight at the read;",
        "*strictly*: not allowing for them. *exact* samples are those the program took of itself while",
        "nothing else of it ran.",
        "",
        *(f"- `{f.name}`: {f.what}" for f in figures),
        *(f"- `{name}` could not run: {why}" for name, why in failed.items()),
        "",
    ]
    return "\n".join(lines)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([w.name for w in WORKLOADS + HEADLINE]))
@click.option("--runs", default=3, show_default=True, help="Runs of the program by itself; the least counts.")
@click.option("--driver", type=click.Choice(["sequential", "native"]), default="sequential", show_default=True,
              help="How the replay runs the model; native is compiled (tablewalk compile).")  # fmt: skip
@click.option("--directory", type=click.Path(path_type=Path), help="Keep programs and recordings there.")
@click.option("--write", is_flag=True, help=f"Write the table to benchmarks/{RESULTS.name}.")
def main(names: tuple[str, ...], runs: int, driver: str, directory: Path | None, write: bool) -> None:
    load = os.getloadavg()[0]
    figures: list[Figures] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="tablewalk-") as temporary:
        for workload in WORKLOADS + HEADLINE:
            if names and workload.name not in names:
                continue
            try:
                figures.append(measure(workload, directory or Path(temporary), runs, driver))
            except NotRunnable as e:
                failed[workload.name] = str(e)
                click.echo(f"{workload.name}: {e}", err=True)
                continue
            pairs = zip(HEADINGS[1:], cells(figures[-1])[1:], strict=True)
            click.echo(f"{workload.name}: " + ", ".join(f"{name} {value}" for name, value in pairs))
    if write:
        RESULTS.write_text(markdown(figures, failed, runs, driver, load))
    sys.exit(2 if failed else not all(f.ok for f in figures))


if __name__ == "__main__":
    main()
