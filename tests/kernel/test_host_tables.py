# SPDX-License-Identifier: GPL-2.0-only
"""Moves, advice, guard regions, huge pages and forks on whole and half tables: the model against the running kernel.

The comparison is `test_host_vmas`'s: results, VMAs and VmPTE to the kB after each operation.
"""

from __future__ import annotations

import argparse
import random
import sys

import pytest

from .host_vmas import Op, window_is_free
from .test_host_vmas import first_difference, needs_host

HALF = 256  # pages
WINDOW = 32  # halves of a table

# MADV_*: what discards, gives up, populates, collapses, guards; and what is kept in the VMA
ACTIONS = (4, 4, 4, 8, 9, 20, 21, 22, 23, 24, 25, 25, 3, 102, 102, 103)
FLAGS = (10, 11, 14, 14, 14, 15, 18, 19, 12, 13)
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4

KINDS = (
    *("anon", "shared", "file", "munmap", "touch", "advice"),
    *("flags", "mremap", "resize", "mprotect", "mlock", "fork"),
)


def place(rng: random.Random, page: bool) -> tuple[int, int]:
    """(start, pages): on halves of tables, or with `page` now and then a page off."""
    start = rng.randrange(WINDOW)
    pages = min(rng.choice((1, 2, 2, 2, 4, 4, 6, 8)), WINDOW - start) * HALF
    start *= HALF
    if page and rng.random() < 0.3:
        start += 1
        pages -= rng.choice((1, 2))
    return start, pages


def landing(rng: random.Random, pages: int) -> int:
    """Where `pages` more may go within the window, on halves of tables."""
    return rng.randrange(WINDOW - pages // HALF) * HALF


def random_tables(seed: int, length: int) -> list[Op]:
    """A program of `length` operations."""
    rng = random.Random(seed)
    fork = rng.choice((0, 0, 2))
    program: list[Op] = []
    for _ in range(length):
        kind = rng.choices(
            KINDS,
            (8, 2, 4, 3, 20, 22, 8, 10, 4, 3, 1, fork),
        )[0]
        start, pages = place(rng, kind not in ("anon", "shared", "file"))
        if kind == "anon":
            program.append(("mmap", (start, pages, 3, 0x32, -1, 0)))
        elif kind == "shared":
            program.append(("mmap", (start, pages, 3, 0x31, -1, 0)))
        elif kind == "file":
            prot, flags = rng.choice((1, 3)), rng.choice((0x11, 0x12))
            program.append(("mmap", (start, min(pages, HALF), prot, flags, rng.randrange(2), 0)))
        elif kind == "munmap":
            program.append(("munmap", (start, pages)))
        elif kind == "touch":
            what = rng.choice(("write", "write", "read"))
            program += [(what, (p,)) for p in range(start, start + pages, rng.choice((HALF, HALF, 64)))][:8]
        elif kind in ("advice", "flags"):
            program.append(("madvise", (start, pages, rng.choice(ACTIONS if kind == "advice" else FLAGS))))
        elif kind == "mremap":
            to = landing(rng, pages) + (start % HALF if rng.random() < 0.7 else 0)
            flags = rng.choice((MAYMOVE | FIXED, MAYMOVE | FIXED, MAYMOVE | FIXED | DONTUNMAP))
            program.append(("mremap", (start, pages, pages, flags, to)))
        elif kind == "resize":
            new = min(place(rng, True)[1], WINDOW * HALF - start)
            flags = rng.choice((0, 0, MAYMOVE | FIXED))
            program.append(("mremap", (start, rng.choice((pages, pages, 0)), new, flags, landing(rng, new))))
        elif kind == "mprotect":
            program.append(("mprotect", (start, pages, rng.choice((0, 1, 3, 3)))))
        elif kind == "mlock":
            program.append((rng.choice(("mlock", "munlock")), (start, pages)))
        else:
            program.append(("fork", ()))
    return program


@needs_host
@pytest.mark.parametrize("seed", range(8))
def test_tables(seed: int) -> None:
    assert window_is_free(WINDOW * HALF)
    assert first_difference(random_tables(seed, 60), WINDOW * HALF) == ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--driver", default="sequential")
    parser.add_argument("--stop", action="store_true", help="stop at the first difference")
    args = parser.parse_args()
    bad = 0
    for seed in range(args.first, args.first + args.seeds):
        text = first_difference(random_tables(seed, args.length), WINDOW * HALF, args.driver)
        if text:
            bad += 1
            print(f"seed {seed}: {text}", flush=True)
            if args.stop:
                break
    print(f"{bad} of {args.seeds} seeds differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
