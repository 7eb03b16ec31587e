# SPDX-License-Identifier: GPL-2.0-only
"""Is the referee any good?  Errors made in the model on purpose, and how soon `validate` finds them on the host.

    .venv/bin/python benchmarks/mutants.py [NAME]... [--ops N] [--seed S] [--focus F] [--list] [--write]

First the model itself is compared with the kernel that runs here, whose answers are kept: where they disagree a program
is cut off.  Then each mutant (`mutant_list`) is compared with the kept answers, program after program, until one shows
it; that is confirmed on the kernel, and the program reduced.  What was done before, with the same texts, is not done
again; so a run that was interrupted goes on where it was.

Exit status 1 if a mutant was not found, 2 if something could not run.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import click

from mutant_hunt import Found, agreed, begin_worker, hunt, mutated, site
from mutant_list import MUTANTS, Mutant
from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.native import ROOT, cache_dir

RESULTS = Path(__file__).with_name("MUTANTS.md")
LENGTH = 250  # operations of a program: session.LENGTH, which cannot be imported before a mutant is made
SEEDS_A_TASK = 2
SEEDS_A_ROUND = 4

Lengths = list[tuple[int, int]]


class Kept:
    """Results of tasks in a directory, by the texts and arguments that they depend on."""

    def __init__(self, directory: Path) -> None:
        self.answers = directory / "answers.sqlite"
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(f"{platform.release()} {platform.version()}".encode())
        parts = [
            path
            for part in ("machine", "arch", "kernel", "validate")
            for path in sorted((ROOT / part).rglob("*.[pch]*"))
        ]
        for path in [*parts, Path(__file__).with_name("mutant_hunt.py")]:
            if path.suffix in (".py", ".c", ".h"):
                digest.update(path.read_bytes())
        self._texts = digest.hexdigest()

    def _path(self, name: str, arguments: object) -> Path:
        key = hashlib.sha256(f"{self._texts} {arguments}".encode()).hexdigest()[:16]
        return self._directory / f"{name}-{key}.json"

    def get(self, name: str, arguments: object) -> object:
        """The result of an earlier run, or None."""
        path = self._path(name, arguments)
        return json.loads(path.read_text()) if path.exists() else None

    def put(self, name: str, arguments: object, result: object) -> None:
        """Keep a result; it is there whole or not at all."""
        path = self._path(name, arguments)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(result))
        partial.replace(path)


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names, in the order of the list; all if there are none."""
    known = {m.name for m in MUTANTS}
    if unknown := sorted(set(names) - known):
        raise click.UsageError(f"no such mutant: {escape(', '.join(unknown))}; --list names them")
    return [m for m in MUTANTS if not names or m.name in names]


def programs(pool: ProcessPoolExecutor, seeds: Sequence[int], focus: str, kept: Kept) -> Lengths:
    """(seed, operations from its first on in which the model agrees with the kernel) of each program."""
    groups = [tuple(seeds[i : i + SEEDS_A_TASK]) for i in range(0, len(seeds), SEEDS_A_TASK)]
    running: dict[Future[Lengths], tuple[int, ...]] = {}
    lengths: dict[int, int] = {}
    for group in groups:
        found = kept.get("model", (focus, group))
        if isinstance(found, list):
            lengths.update((seed, length) for seed, length in found)
        else:
            running[pool.submit(agreed, group, focus, kept.answers)] = group
    for done in as_completed(running):
        kept.put("model", (focus, running[done]), done.result())
        lengths.update(done.result())
    if cut := sorted(seed for seed, length in lengths.items() if length < LENGTH):
        click.echo(f"the model itself disagrees in programs of focus '{focus}', which are cut there: seeds {cut}")
    return sorted(lengths.items())


def hunts(pool: ProcessPoolExecutor, mutants: Sequence[Mutant], seeds: Sequence[int], kept: Kept) -> dict[str, Found]:
    """How each mutant fared, told as soon as it is found; a round of programs after the other."""
    found = {m.name: Found(m.name, False, 0) for m in mutants}
    for i in range(0, len(seeds), SEEDS_A_ROUND):
        left = [m for m in mutants if not found[m.name].found]
        here = seeds[i : i + SEEDS_A_ROUND]
        click.echo(f"  seeds {here[0]} to {here[-1]}: {len(left)} mutants", err=True)
        lengths = {focus: programs(pool, here, focus, kept) for focus in sorted({m.focus for m in left})}
        for m, fared in hunt_round(pool, left, lengths, kept):
            found[m.name] = fared._replace(operations=found[m.name].operations + fared.operations)
            if fared.found:
                tell(m, found[m.name])
    for m in mutants:
        if not found[m.name].found:
            tell(m, found[m.name])
    return found


def hunt_round(
    pool: ProcessPoolExecutor, mutants: Sequence[Mutant], lengths: dict[str, Lengths], kept: Kept
) -> Iterator[tuple[Mutant, Found]]:
    """How each fared with these programs."""
    running: dict[Future[Found], Mutant] = {}
    for m in mutants:
        before = kept.get(m.name, (m, lengths[m.focus]))
        if isinstance(before, dict):
            yield m, Found(**before)
        else:
            running[pool.submit(hunt, m, lengths[m.focus], kept.answers)] = m
    for done in as_completed(running):
        m = running[done]
        kept.put(m.name, (m, lengths[m.focus]), done.result()._asdict())
        yield m, done.result()


def tell(m: Mutant, f: Found) -> None:
    result = f"{f.operations:6} {f.kind}, reduced to {f.reduced}" if f.found else f"{f.operations:6} NOT FOUND"
    click.echo(f"{m.name:26} {site(m):44} {result}")


def table(mutants: Sequence[Mutant], found: dict[str, Found], ops: int, seed: int) -> str:
    """MUTANTS.md."""
    missed = [m for m in mutants if not found[m.name].found]
    rows = []
    for m in mutants:
        f = found[m.name]
        fared = f"{f.operations:,} | {f.kind} | {f.reduced}" if f.found else f"not in {f.operations:,} | |"
        rows.append(f"| {m.name} | `{site(m)}` | {m.wrong} | {fared} |")
    lines = [
        "# Mutants",
        "",
        f"Measured {date.today().isoformat()} by `benchmarks/mutants.py --ops {ops} --write`,",
        f"Linux {platform.release()} on {platform.machine()}.",
        "",
        "Each row is a small error made in the model on purpose: where, what is wrong then, after how many operations",
        f"`validate` found it (of {ops:,} at most, seed {seed} on), which operation showed it, and to how many",
        "operations the program was reduced.",
        "",
        f"{len(mutants) - len(missed)} of {len(mutants)} were found.",
        "",
        "| mutant | site | what is wrong | operations | shown by | reduced to |",
        "| --- | --- | --- | ---: | --- | ---: |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--ops", type=click.IntRange(1), default=20_000, show_default=True, help="Operations for each mutant.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the first program.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes at a time.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where results are kept [default: the cache].")
@click.option("--list", "list_", is_flag=True, help="Name the mutants, run nothing.")
@click.option("--write", is_flag=True, help=f"Write {RESULTS.name}.")
def main(
    names: tuple[str, ...], ops: int, seed: int, jobs: int, directory: Path | None, list_: bool, write: bool
) -> None:
    mutants = chosen(names)
    if list_:
        for m in mutants:
            click.echo(f"{m.name:26} {site(m):44} {m.wrong}")
        return
    if write and names:
        raise click.UsageError("--write is for all mutants")
    for m in mutants:
        mutated(m)
    kept = Kept(directory or cache_dir() / "mutants")
    seeds = range(seed, seed + math.ceil(ops / LENGTH))
    with ProcessPoolExecutor(jobs, get_context("spawn"), begin_worker, max_tasks_per_child=1) as pool:
        try:
            found = hunts(pool, mutants, seeds, kept)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    missed = [m.name for m in mutants if not found[m.name].found]
    click.echo(f"{len(mutants) - len(missed)} of {len(mutants)} mutants found")
    if write:
        RESULTS.write_text(table(mutants, found, ops, seed))
    if missed:
        sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except TablewalkError as e:
        click.echo(escape(str(e)), err=True)
        sys.exit(2)
