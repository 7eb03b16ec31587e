# SPDX-License-Identifier: GPL-2.0-only
"""Charts as inline SVG that stretches, with labels as text beside it, legible at any width.

Colours come from the page's style, by class, so that they follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tablewalk.report.latency import duration
from tablewalk.report.markup import Markup, element
from tablewalk.report.plot import thin

SIZE = 1000  # of the SVG's own coordinates, each way
POINTS = 3000
DOTS = 800
TICKS = 6

Mark = tuple[float, str]  # a part of the axis, 0 to 1, and the label


@dataclass(frozen=True, slots=True)
class Line:
    """A step function: its name, class and points (times in ns, values in kB)."""

    name: str
    css: str
    times: Sequence[int]
    values: Sequence[int]


def timeline(
    lines: Sequence[Line], dots: Sequence[tuple[int, int]], start: int, end: int, origin: int, unit: str = "kB"
) -> Markup:
    """Lines from `start` to `end` with recorded samples as dots; the time axis counts from `origin`."""
    top = max([v for line in lines for v in line.values] + [v for _, v in dots], default=0)
    step = nice_step(top, 5)
    top = max(-(-top // step) * step, step)
    span = max(end - start, 1)

    def x(t: int) -> float:
        return (min(max(t, start), end) - start) / span

    body = []
    for t, v in dots[:: len(dots) // DOTS + 1]:
        title = element("title", f"recorded: {v:,} {unit} at {(t - origin) / 1e9:.3f} s")
        body.append(element("path", title, cls="dot", d=f"M{_point(x(t), v / top)}h0"))
    for line in lines:
        points = [(x(t), v / top) for t, v in thin(line.times, line.values, POINTS)]
        body.append(_path(line.name, line.css, [*points, (1.0, points[-1][1])] if points else []))
    every = nice_step(span, TICKS)
    first = -(-(start - origin) // every) * every
    xs = [(x(t), duration(1000 * (t - origin), 10)) for t in range(origin + first, start + span + 1, every)]
    ys = [(v / top, f"{v:,}") for v in range(0, top + 1, step)]
    return chart(f"over time: {', '.join(line.name for line in lines)}", body, xs, ys, f"{unit}, over time")


def tails(lines: Sequence[tuple[str, str, Sequence[int]]], about: str) -> Markup:
    """Which share of calls takes longer than a time: of each name and class sorted latencies in ps; both axes log."""
    least = min(max(found[0], 1000) for _, _, found in lines)
    most = max(found[-1] for _, _, found in lines)
    low, high = math.floor(math.log10(least)), max(math.ceil(math.log10(max(most, 1000))), 1)
    high = max(high, low + 1)
    decades = max(1, math.ceil(math.log10(max(len(found) for _, _, found in lines))))
    body = []
    for name, css, found in lines:
        n = len(found)
        points = [(0.0, 1.0)]
        for i in _steps(n):
            at = (math.log10(max(found[i], 10**low)) - low) / (high - low)
            points.append((at, 1 + math.log10(max((n - 1 - i) / n, 10**-decades)) / decades))
        body.append(_path(name, css, points))
    xs = [((d - low) / (high - low), duration(10**d)) for d in range(low, high + 1)]
    ys = [(1 - d / decades, f"{100 / 10**d:g} %") for d in range(decades + 1)]
    return chart(f"{about}: share of calls that take longer", body, xs, ys, "share of calls that take longer than …")


def _steps(n: int) -> list[int]:
    """Indices of a sorted list, thinned where many lie at one place of a logarithmic axis of what is beyond them."""
    kept = {n - 1 - round(10 ** (k * math.log10(n) / 300)) for k in range(301)} if n > 300 else set(range(n))
    return sorted({i for i in kept if i >= 0} | {0, n - 1})


def chart(about: str, body: Sequence[Markup], xs: Sequence[Mark], ys: Sequence[Mark], caption: str) -> Markup:
    """A chart with its axes."""
    grid = [element("path", cls="grid", d=f"M{_point(at, 0)}V0") for at, _ in xs]
    grid += [element("path", cls="grid", d=f"M{_point(0, at)}H{SIZE}") for at, _ in ys]
    svg = element("svg", *grid, *body, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", role="img",
                  aria_label=about)  # fmt: skip
    under = [element("span", text, cls="odd" if i % 2 and len(xs) > 4 else "", style=f"left:{at:.2%}")
             for i, (at, text) in enumerate(xs)]  # fmt: skip
    beside = [element("span", text, style=f"bottom:{at:.2%}") for at, text in ys]
    plot = element("div", element("div", *beside, cls="ys"), svg, element("div", *under, cls="xs"), cls="plot")
    return element("figure", element("figcaption", caption, cls="dim"), plot, cls="chart")


def nice_step(top: float, ticks: int) -> int:
    """A round distance (1, 2 or 5 times a power of ten, at least 1) that divides 0..top in at most `ticks` parts."""
    step, factors = 1, (2, 5, 10)
    base = 1
    while step * ticks < top:
        for factor in factors:
            step = base * factor
            if step * ticks >= top:
                return step
        base *= 10
    return step


def _point(x: float, y: float) -> str:
    return f"{x * SIZE:.1f} {(1 - y) * SIZE:.1f}"


def _path(name: str, css: str, points: Sequence[tuple[float, float]]) -> Markup:
    """A step function: flat from each point to the next one's place."""
    d = f"M{_point(*points[0])}" if points else ""
    for x, y in points[1:]:
        d += f"H{x * SIZE:.1f}V{(1 - y) * SIZE:.1f}"
    return element("path", element("title", name), cls=f"line {css}", d=d)
