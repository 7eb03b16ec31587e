# SPDX-License-Identifier: GPL-2.0-only
"""Step functions of time, thinned to what a plot can show, and as rows of block characters."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"


def column_peaks(times: Sequence[int], values: Sequence[int], start: int, end: int, columns: int) -> list[int | None]:
    """Highest value of the step function in each of `columns` equal parts of [start, end]; None before it begins."""
    out: list[int | None] = []
    span = max(end - start, 1)
    first = 0
    for column in range(columns):
        until = start + span * (column + 1) // columns
        last = bisect_right(times, until)
        out.append(max(values[max(first - 1, 0) : last]) if last else None)
        first = last
    return out


def blocks(
    times: Sequence[int], values: Sequence[int], start: int, end: int, top: int, columns: int, rows: int
) -> list[str]:
    """The step function as `rows` lines of block characters, `top` being full height."""
    steps = rows * 8
    heights = [
        0 if peak is None else max(round(peak * steps / top), peak > 0)
        for peak in column_peaks(times, values, start, end, columns)
    ]
    return [
        "".join(_BLOCKS[min(max(height - row * 8, 0), 8)] for height in heights) for row in reversed(range(rows))
    ]


def thin(times: Sequence[int], values: Sequence[int], most: int) -> list[tuple[int, int]]:
    """The step function's points, at most about `most`: of each stretch its first, lowest, highest and last."""
    n = len(times)
    if n <= most:
        return list(zip(times, values, strict=True))
    stretch = max(n * 4 // most, 4)
    kept: set[int] = set()
    for i in range(0, n, stretch):
        part = range(i, min(i + stretch, n))
        kept |= {part[0], part[-1], min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return [(times[i], values[i]) for i in sorted(kept)]
