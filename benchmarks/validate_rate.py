# SPDX-License-Identifier: GPL-2.0-only
"""Operations a minute that `tablewalk validate` compares on kernels in QEMU.

    .venv/bin/python benchmarks/validate_rate.py [KERNEL]... [--ops N] [--seed S] [--jobs N] [--write]

Each kernel is validated by a process of its own, begun afresh and without earlier outcomes, to its verdict: starting
Python, booting a guest a job, all operations on kernel and model.  Booting alone is measured beside it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from tablewalk.machine.drivers import fastest
from tablewalk.validate.kernels import KERNELS, find
from tablewalk.validate.run import boot

RESULTS = Path(__file__).parent / "VALIDATE_RATE.md"


@dataclass(frozen=True, slots=True)
class Rate:
    """One kernel's run: seconds from the start of the process, and of all processors."""

    kernel: str
    operations: int
    seconds: float
    processor_seconds: float
    boot_seconds: float
    disagreements: int

    @property
    def a_minute(self) -> float:
        """Operations compared in a minute, booting included."""
        return self.operations * 60 / self.seconds


def measure(name: str, operations: int, seed: int, jobs: int) -> Rate:
    """Validate the kernel `name`, which is fetched before, once."""
    began = time.monotonic()
    if not find(name).is_host:
        boot(find(name))
    boot_seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory(prefix="tablewalk-") as directory:
        command = [sys.executable, "-P", "-m", "tablewalk", "validate", "--kernel", name, "--ops", str(operations)]
        command += ["--seed", str(seed), "--jobs", str(jobs), "--json", "-o", str(Path(directory) / "outcomes")]
        before, began = _processor_seconds(), time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        seconds, used = time.monotonic() - began, _processor_seconds() - before
    try:
        (found,) = json.loads(done.stdout)["kernels"]
    except ValueError:
        raise click.ClickException(f"kernel {name}: `tablewalk validate` has no verdict") from None
    if found["ended"]:
        print(found["ended"], file=sys.stderr)
    return Rate(name, found["operations"], seconds, used, boot_seconds, len(found["disagreements"]))


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rates: Iterable[Rate]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        "| kernel | operations | seconds | operations a minute | CPU seconds | booting alone, s | disagreements |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| `{r.kernel}` | {r.operations:,} | {r.seconds:.1f} | {r.a_minute:,.0f} | {r.processor_seconds:.1f} "
            f"| {r.boot_seconds:.1f} | {r.disagreements} |"
            for r in rates
        ),
    ]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--ops", default=10_000, show_default=True, help="Operations on each kernel.")
@click.option("--seed", default=1, show_default=True, help="Of the first program.")
@click.option("--jobs", default=2, show_default=True, help="Guests at once.")
@click.option("--write", is_flag=True, help=f"Write the table to benchmarks/{RESULTS.name}.")
def main(names: tuple[str, ...], ops: int, seed: int, jobs: int, write: bool) -> None:
    load = os.getloadavg()[0]
    rates = []
    for name in names or [name for name in KERNELS if name != "host"]:
        rates.append(measure(name, ops, seed, jobs))
        print(table(rates)[-1], flush=True)
    if write:
        head = (
            "# How fast kernels and model are compared\n\n"
            f"`benchmarks/validate_rate.py --ops {ops} --seed {seed} --jobs {jobs} --write`: {os.cpu_count()} CPUs, "
            f"load average {load:.1f} when it began, the model {fastest()}.\n\n"
        )
        RESULTS.write_text(head + "\n".join(table(rates)) + "\n")


if __name__ == "__main__":
    main()
