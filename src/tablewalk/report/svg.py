# SPDX-License-Identifier: GPL-2.0-only
"""Timelines as inline SVG. Colours come from the page's style, by class, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tablewalk.report.markup import Markup, element
from tablewalk.report.plot import thin

WIDTH, HEIGHT = 960, 300
LEFT, RIGHT, TOP, BOTTOM = 78, 12, 12, 34
POINTS = 3000
DOTS = 800


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
    plot = _Plot(start, max(end, start + 1), top)
    body = [_grid(plot, step, origin, unit)]
    for t, v in dots[:: len(dots) // DOTS + 1]:
        title = element("title", f"recorded: {v:,} {unit} at {(t - origin) / 1e9:.3f} s")
        body.append(element("circle", title, cls="dot", cx=f"{plot.x(t):.1f}", cy=f"{plot.y(v):.1f}", r="2.5"))
    for line in lines:
        body.append(element("path", element("title", line.name), cls=f"line {line.css}", d=plot.path(line, end)))
    names = ", ".join(line.name for line in lines)
    return element(
        "svg", *body, cls="timeline", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"over time: {names}"
    )


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


class _Plot:
    def __init__(self, start: int, end: int, top: int) -> None:
        self.start, self.end, self.top = start, end, top

    def x(self, t: int) -> float:
        part = (min(max(t, self.start), self.end) - self.start) / (self.end - self.start)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, value: int) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def path(self, line: Line, end: int) -> str:
        points = thin(line.times, line.values, POINTS)
        if not points:
            return ""
        out = [f"M{self.x(points[0][0]):.1f} {self.y(points[0][1]):.1f}"]
        for t, v in points[1:]:
            out.append(f"H{self.x(t):.1f}V{self.y(v):.1f}")
        out.append(f"H{self.x(end):.1f}")
        return "".join(out)


def _grid(plot: _Plot, step: int, origin: int, unit: str) -> Markup:
    marks = []
    for value in range(0, plot.top + 1, step):
        y = f"{plot.y(value):.1f}"
        marks.append(element("line", cls="grid", x1=str(LEFT), x2=str(WIDTH - RIGHT), y1=y, y2=y))
        marks.append(element("text", f"{value:,}", cls="tick", x=str(LEFT - 6), y=y, dy="0.32em", text_anchor="end"))
    marks.append(element("text", unit, cls="tick", x="4", y=str(TOP + 8)))
    span = plot.end - plot.start
    every = nice_step(span, 8)
    first = -(-(plot.start - origin) // every) * every
    digits = max(0, 10 - len(str(every)))
    for t in range(origin + first, plot.end + 1, every):
        x = f"{plot.x(t):.1f}"
        marks.append(element("line", cls="grid", x1=x, x2=x, y1=str(TOP), y2=str(HEIGHT - BOTTOM)))
        label = f"{(t - origin) / 1e9:.{digits}f} s"
        marks.append(element("text", label, cls="tick", x=x, y=str(HEIGHT - BOTTOM + 18), text_anchor="middle"))
    return element("g", *marks)
