# SPDX-License-Identifier: GPL-2.0-only
"""How waits grow with CPUs, under old and new schemes: JSON on stdout, and a plot into the SVG file that is named.

    .venv/bin/python benchmarks/simulate_growth.py benchmarks/growth.svg > benchmarks/growth.json
"""

from __future__ import annotations

import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tablewalk.machine.drivers import KernelConfig
from tablewalk.report.markup import Markup, element
from tablewalk.simulate.run import Result, simulate

CPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
Point = tuple[int, float]  # CPUs, microseconds that an operation waits on average

# workload, its parameters beside a thread for each CPU, and the schemes by what they are
PLOTS: dict[str, tuple[dict[str, int], dict[str, KernelConfig]]] = {
    "mmap-churn": (
        {"extents": 1, "rounds": 1},
        {"mmap_lock": KernelConfig(options=(("PER_VMA_LOCK", "n"),)), "per-VMA locks": KernelConfig()},
    ),
    "shmem-collapse": (
        {"extents": 2, "rounds": 1},
        {"mmap_lock for writing": KernelConfig(without=("C09", "C10")), "no mmap_lock": KernelConfig()},
    ),
    "anon-collapse": ({"extents": 2, "rounds": 1}, {"6.1": KernelConfig("6.1"), "7.x": KernelConfig()}),
    "dontneed-storm": (
        {"extents": 1, "rounds": 2},
        {"reclaim, semi-RCU": KernelConfig(without=("D10",)), "reclaim, RCU": KernelConfig(),
         "no reclaim": KernelConfig(options=(("PT_RECLAIM", "n"),))},
    ),
    "fork": ({"extents": 1, "rounds": 2}, {"6.1": KernelConfig("6.1"), "7.x": KernelConfig()}),
}

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 300, 60, 40, 30
COLOURS = ("#c2410c", "#1d4ed8", "#15803d")


def waits(workload: str, scheme: str, cpus: int) -> tuple[str, str, Point, dict[str, float]]:
    """One run: microseconds of waiting for each operation, and what else is told of it."""
    begun = time.process_time()
    parameters, schemes = PLOTS[workload]
    r = simulate(workload, schemes[scheme], cpus, 1, {"threads": cpus, **parameters})
    return workload, scheme, (cpus, _wait(r)), {"fault p99 us": r.percentile("page fault", 99.0) / 1e6,
                                                "IPIs": float(sum(r.ipis)), "ms": r.time / 1e9,
                                                "CPU s": time.process_time() - begun}  # fmt: skip


def _wait(r: Result) -> float:
    operations = sum(len(found) for found in r.latencies.values())
    return sum(w.total for w in r.waits.by.values()) / 1e6 / operations


def plot(workload: str, lines: dict[str, list[Point]], at: tuple[int, int]) -> Markup:
    """Waits over CPUs, both logarithmic."""
    values = [wait for line in lines.values() for _, wait in line if wait > 0]
    low, high = math.floor(math.log10(min(values, default=1))), math.ceil(math.log10(max(values, default=10)))

    def x(cpus: int) -> float:
        return at[0] + LEFT + math.log2(cpus) / 8 * (WIDTH - LEFT - 20)

    def y(wait: float) -> float:
        part = (math.log10(max(wait, 10.0**low)) - low) / max(high - low, 1)
        return at[1] + HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    body = [element("text", f"{workload}: waits for an operation, µs, by CPUs", x=str(at[0] + LEFT), y=str(at[1] + 18))]
    for power in range(low, high + 1):
        at_y = f"{y(10.0 ** power):.1f}"
        body.append(element("line", x1=str(at[0] + LEFT), x2=str(at[0] + WIDTH - 20), y1=at_y, y2=at_y, stroke="#8884"))
        body.append(element("text", f"{10.0 ** power:g}", x=str(at[0] + LEFT - 6), y=at_y, text_anchor="end"))
    for cpus in CPUS:
        body.append(element("text", str(cpus), x=f"{x(cpus):.1f}", y=str(at[1] + HEIGHT - 20), text_anchor="middle"))
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        points = " ".join(f"{x(cpus):.1f},{y(wait):.1f}" for cpus, wait in line)
        body.append(element("polyline", points=points, fill="none", stroke=colour, stroke_width="2"))
        row = TOP + 14 * (list(lines).index(name) + 1)
        body.append(element("text", name, x=str(at[0] + LEFT + 10), y=str(at[1] + row), fill=colour))
    return element("g", *body)


def main() -> None:
    """All of them, on as many processes as there are CPUs."""
    begun = time.monotonic()
    told: dict[str, dict[str, list[Point]]] = {w: {s: [] for s in schemes} for w, (_, schemes) in PLOTS.items()}
    more: dict[str, dict[str, list[dict[str, float]]]] = {w: {s: [] for s in told[w]} for w in told}
    with ProcessPoolExecutor() as pool:
        jobs = [(w, s, cpus) for w, schemes in told.items() for s in schemes for cpus in CPUS]
        for workload, scheme, point, rest in pool.map(waits, *zip(*jobs, strict=True)):
            told[workload][scheme].append(point)
            more[workload][scheme].append(rest)
    seconds = time.monotonic() - begun
    cpu = sum(row["CPU s"] for schemes in more.values() for rows in schemes.values() for row in rows)
    took = {"seconds": round(seconds, 1), "CPU seconds": round(cpu, 1)}
    print(json.dumps(took | {"waits_us": told, "more": more}, indent=1))
    panels = [plot(w, lines, (i % 2 * WIDTH, i // 2 * HEIGHT)) for i, (w, lines) in enumerate(told.items())]
    height = -(-len(panels) // 2) * HEIGHT
    svg = element("svg", *panels, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {2 * WIDTH} {height}",
                  font_family="sans-serif", font_size="11", fill="#555")  # fmt: skip
    Path(sys.argv[1]).write_text(str(svg) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
