# SPDX-License-Identifier: GPL-2.0-only
"""ksmd leaves alone what the CPU's batch of munlocked folios still holds (mm/mlock.c)."""

from __future__ import annotations

import pytest

from tablewalk.machine.drivers import KernelConfig
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.ops import Geometry, Op

START, NR, PAGE = 0x10003F000000, 40, 4096
MERGEABLE, ANON, NO_FILE = 12, 0x32, (1 << 64) - 1

# Equal pages of locked memory, which a child shares: the pass unmaps them from the parent, then looks at the child's.
PROGRAM = (
    Op(0, "mmap", (START, NR * PAGE, 3, ANON, NO_FILE, 0)),
    Op(0, "madvise", (START, NR * PAGE, MERGEABLE)),
    Op(0, "fill", (START, NR * PAGE, PAGE, 7)),
    Op(0, "mlock", (START, NR * PAGE)),
    Op(0, "fork", (1,)),
    Op(0, "ksm", (2,)),
)


@pytest.mark.parametrize(("release", "left"), [("6.1", 2), ("6.12", 8), ("7.x", 8)])
def test_what_is_left_is_less_than_a_batch(release: str, left: int) -> None:
    """Each of 39 pages brings two into the batch, itself and the page of KSM: 78 in all, in batches of 15 or (6.9) 31.

    The next pass begins with all batches drained, and merges the rest.
    """
    model = ModelRun(
        KernelConfig(release, "x86_64", (("known_contents", "y"), ("ksm", "y"))), Geometry(PAGE, 512, START)
    )
    for op in PROGRAM:
        model.run(op)
    merged = NR - left
    runs = [line for line in model.text().splitlines() if line.startswith("m")]
    assert runs == [f"m{START:x} {NR} p", f"m{START:x} {merged} p", f"m{START + merged * PAGE:x} {left} xp"]
    model.run(Op(0, "ksm", (1,)))
    assert [line for line in model.text().splitlines() if line.startswith("m")] == [f"m{START:x} {NR} p"] * 2
