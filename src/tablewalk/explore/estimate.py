# SPDX-License-Identifier: GPL-2.0-only
"""How many states a search breadth first may come to, from how deep it is.

Threads that never met would give a box of states: each thread somewhere on its way, as long as random walks found it to
be.  The share of the box within a depth is taken for the share of all states within that depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def share(lengths: Sequence[float], depth: int) -> float:
    """The share of a box with sides of `lengths` steps that lies less than `depth` steps from its corner."""
    levels = np.ones(1)
    for length in lengths:
        levels = np.convolve(levels, np.ones(max(0, round(length)) + 1))
    return float(levels[: max(depth, 0)].sum() / levels.sum())
