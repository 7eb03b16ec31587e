# SPDX-License-Identifier: GPL-2.0-only
"""Old schemes against new ones: how waits grow with CPUs, and the latencies on 16 of them.

    .venv/bin/python benchmarks/simulate_growth.py             prints the tables
    .venv/bin/python benchmarks/simulate_growth.py --write     and writes them into GROWTH.md and docs/simulate.md,
                                                               and the plots to growth.svg
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean

from marks import between_marks
from tablewalk.report.latency import average, duration
from tablewalk.report.markup import Markup, element
from tablewalk.simulate.pairs import PAIRS, Pair
from tablewalk.simulate.run import Result

SEEDS = {1: 2, 2: 8, 4: 4, 8: 4, 16: 4, 32: 3, 64: 2, 128: 2, 256: 1}  # by CPUs: as many as 5 minutes allow
CPUS = tuple(SEEDS)
IN_DETAIL = 16  # CPUs
HERE = Path(__file__).parent
Key = tuple[str, str, str, int]  # pair, kernel, operation, CPUs
Points = dict[Key, list[float]]  # microseconds that the operation waits on average, by seed

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 330, 66, 74, 30
STYLE = ("line{stroke:#8885}text{fill:#444}.o{stroke:#c2410c}.n{stroke:#1d4ed8}.o,.n{fill:none;stroke-width:2}"
         ".dashed{stroke-dasharray:5 4}@media(prefers-color-scheme:dark){.o{stroke:#fb923c}.n{stroke:#60a5fa}"
         "text{fill:#bbb}}")  # fmt: skip


def operations(pair: Pair) -> tuple[str, str]:
    """What is looked at."""
    return "page fault", pair.call


def waited(job: tuple[Pair, str, int, int]) -> tuple[dict[str, float], float]:
    """(microseconds of waiting by operation, seconds of CPU time) of a pair's `old` or `new` on so many CPUs."""
    pair, which, cpus, seed = job
    begun = time.process_time()
    rounds = 8 if pair.workload == "shmem-collapse" else 2  # for as long as there is something to collapse
    r = pair.run(getattr(pair, which), cpus, seed, extents=4, rounds=rounds)
    waits = {name: r.waited(name) / 1e6 for name in operations(pair)}
    return waits, time.process_time() - begun


def detail(pair: Pair) -> list[str]:
    """Lines of the table for 16 CPUs: what the pair's command prints."""
    lines = [f"\n{pair.about}:\n\n    $ {pair.command(IN_DETAIL).replace('tablewalk', './run', 1)}\n",
             f"| | fault: mean, p50, p99, p99.9 | {pair.call}: mean, p50, p99 | IPIs received | VmPTE, average |",
             "| --- | --- | --- | ---: | ---: |"]  # fmt: skip
    for config in (pair.old, pair.new):
        r = pair.run(config, IN_DETAIL)
        fault, call = _latencies(r, "page fault", (50.0, 99.0, 99.9)), _latencies(r, pair.call, (50.0, 99.0))
        memory = average(r.memory["process"], r.time)
        lines.append(f"| {r.kernel} | {fault} | {call} | {sum(r.ipis):,} | {memory:,.0f} kB |")
    return lines


def _latencies(r: Result, operation: str, percentiles: Iterable[float]) -> str:
    return ", ".join(duration(ps) for ps in (r.mean(operation), *(r.percentile(operation, p) for p in percentiles)))


def table(points: Points) -> list[str]:
    """A line for each scheme and operation, with a column for each number of CPUs."""
    lines = ["| | kernel | waits | " + " | ".join(map(str, CPUS)) + " |", "| --- | --- | --- |" + " ---: |" * len(CPUS)]
    for pair in PAIRS:
        for name in operations(pair):
            for config in (pair.old, pair.new):
                cells = " | ".join(_cell(points[pair.name, str(config), name, cpus]) for cpus in CPUS)
                lines.append(f"| {pair.name} | {config} | {name} | {cells} |")
    return lines


def _cell(waits: list[float]) -> str:
    """The mean of several seeds, and the least and the most if they are a tenth of it apart."""
    found, least, most = mean(waits), min(waits), max(waits)
    return f"{found:.3g}" + (f" ({least:.3g} to {most:.3g})" if most - least > found / 10 else "")


def plot(pair: Pair, points: Points, at: tuple[int, int]) -> Markup:
    """Waits over CPUs, both logarithmic, and between which seeds differ; what is less than 10 ns lies on the axis."""
    lines = {(str(c), name): [points[pair.name, str(c), name, cpus] for cpus in CPUS]
             for c in (pair.old, pair.new) for name in operations(pair)}  # fmt: skip
    low, high = -2, math.ceil(math.log10(max(max(waits) for line in lines.values() for waits in line)))

    def x(cpus: int) -> float:
        return at[0] + LEFT + math.log2(cpus) / 8 * (WIDTH - LEFT - 20)

    def y(wait: float) -> float:
        part = (math.log10(max(wait, 10.0**low)) - low) / (high - low)
        return at[1] + HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    body = [_text(f"{pair.name} ({pair.workload})", at[0] + LEFT, at[1] + 18)]
    for power in range(low, high + 1):
        level = f"{y(10.0**power):.1f}"
        body.append(element("line", x1=str(at[0] + LEFT), x2=str(at[0] + WIDTH - 20), y1=level, y2=level))
        body.append(_text(f"{10.0 ** power:g} µs", at[0] + LEFT - 6, y(10.0**power) + 4, text_anchor="end"))
    body += [_text(str(cpus), x(cpus), at[1] + HEIGHT - BOTTOM + 16, text_anchor="middle") for cpus in CPUS]
    for i, line in enumerate(lines.values()):
        shape = " ".join(f"{x(cpus):.1f},{y(mean(waits)):.1f}" for cpus, waits in zip(CPUS, line, strict=True))
        look = "on"[i // 2] + " dashed" * (i % 2)
        for cpus, waits in zip(CPUS, line, strict=True):
            at_cpus = f"{x(cpus):.1f}"
            body.append(element("line", x1=at_cpus, x2=at_cpus, y1=f"{y(min(waits)):.1f}", y2=f"{y(max(waits)):.1f}",
                                cls="on"[i // 2]))  # fmt: skip
        body.append(element("polyline", points=shape, cls=look))
    for i, kernel in enumerate((pair.old, pair.new)):
        row = at[1] + HEIGHT - BOTTOM + 35 + 15 * i
        body.append(element("path", d=f"M{at[0] + LEFT} {row - 4}h26", cls="on"[i]))
        body.append(_text(str(kernel), at[0] + LEFT + 34, row))
    body.append(_text(f"dashed: {pair.call}", at[0] + WIDTH - 20, at[1] + 18, text_anchor="end"))
    return element("g", *body)


def _text(text: str, x: float, y: float, **attributes: str) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", **attributes)


def svg(points: Points) -> str:
    """A plot for each pair, two in a row."""
    panels = [plot(pair, points, (i % 2 * WIDTH, i // 2 * HEIGHT)) for i, pair in enumerate(PAIRS)]
    height = -(-len(panels) // 2) * HEIGHT
    drawn = element("svg", element("style", Markup(STYLE)), *panels, xmlns="http://www.w3.org/2000/svg",
                    viewBox=f"0 0 {2 * WIDTH} {height}", font_family="sans-serif", font_size="12")  # fmt: skip
    return str(drawn) + "\n"


def main() -> None:
    """All of them, by two processes; those that take longest first."""
    begun = time.monotonic()
    jobs = [(pair, which, cpus, seed) for cpus in reversed(CPUS) for pair in PAIRS for which in ("old", "new")
            for seed in range(1, SEEDS[cpus] + 1)]  # fmt: skip
    points: Points = {}
    seconds = 0.0
    with ProcessPoolExecutor(2) as pool:
        for (pair, which, cpus, _), (waits, took) in zip(jobs, pool.map(waited, jobs), strict=True):
            for name, wait in waits.items():
                points.setdefault((pair.name, str(getattr(pair, which)), name, cpus), []).append(wait)
            seconds += took
        growth = table(points)
        here = time.monotonic() - begun
        growth += ["", f"{len(jobs)} simulations by two processes: {seconds:.0f} s of CPU time, "
                       f"so {seconds / 2:.0f} s if two cores do nothing else ({here:.0f} s here)."]  # fmt: skip
        details = [line for lines in pool.map(detail, PAIRS) for line in lines]
    print("\n".join([*growth, *details]))
    if sys.argv[1:] == ["--write"]:
        between_marks(HERE / "GROWTH.md", growth)
        between_marks(HERE.parent / "docs" / "simulate.md", details)
        (HERE / "growth.svg").write_text(svg(points), encoding="utf-8")


if __name__ == "__main__":
    main()
