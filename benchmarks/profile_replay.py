# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of a replay goes, in plain Python.

    .venv/bin/python benchmarks/profile_replay.py RECORDING [--kernel RELEASE] [--top N]

Prints the share of each part of the house (time in its own functions, builtins charged to the caller) and the
functions that take most.  Profiling makes calls dearer, so the shares of small functions come out too large.
"""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from pathlib import Path

import click

from tablewalk.record.recording import Recording
from tablewalk.replay.run import replay
from tablewalk.replay.select import select

PARTS = ("machine", "kernel", "arch", "replay", "record")


def part_of(file: str) -> str:
    """The part of the house that a source file belongs to."""
    path = Path(file).parts
    if "tablewalk" in path:
        inside = path[len(path) - path[::-1].index("tablewalk")]
        return inside if inside in PARTS else "other"
    return "accessors and builtins" if file in ("~", "<string>") else "libraries"


@click.command()
@click.argument("recording", type=click.Path(path_type=Path, exists=True))
@click.option("--kernel", default=None, help="Release [default: the recorded one].")
@click.option("--top", default=15, show_default=True, help="Functions to show.")
def main(recording: Path, kernel: str | None, top: int) -> None:
    selections = select(Recording.open(recording).meta, [kernel] if kernel else [], None, (), ())
    profile = cProfile.Profile()
    profile.enable()
    replay(recording, selections, driver="sequential")
    profile.disable()
    stats = pstats.Stats(profile)
    timings: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = stats.stats  # type: ignore[attr-defined]
    total = sum(t[2] for t in timings.values())
    shares: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, _) in timings.items():
        shares[part_of(file)] += own  # type: ignore[assignment]
    for part, seconds in shares.most_common():
        print(f"{seconds / total:6.1%}  {part}")
    print()
    for (file, line, name), (calls, _, own, _, _) in sorted(timings.items(), key=lambda t: -t[1][2])[:top]:
        place = f"{Path(file).name}:{line} {name}" if line else name
        print(f"{own / total:6.1%} {calls:12,} calls  {place}")


if __name__ == "__main__":
    main()
