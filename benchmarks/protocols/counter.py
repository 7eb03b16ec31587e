# SPDX-License-Identifier: GPL-2.0-only
# mypy: ignore-errors
"""Threads that increment a counter by a read and a write, some times each: the program of counter_frontrun.py."""

from __future__ import annotations

from tablewalk.explore.learn import activation
from tablewalk.explore.scenario import Setup, scenario

from ..machine import load, store


@activation
def increment(cell: int) -> None:
    store(cell, load(cell) + 1)


@activation
def increments(cell: int, rounds: int) -> None:
    for _ in range(rounds):
        increment(cell)


def threads(s: Setup, count: int, rounds: int) -> None:
    """So many threads that increment so often."""
    cell = s.process().mm.tlb_flush_pending
    for n in range(count):
        s.thread(f"thread {n}", lambda: increments(cell, rounds))


@scenario()
def two_threads_twice(s: Setup) -> None:
    """Two threads, two increments each."""
    threads(s, 2, 2)


@scenario()
def three_threads_once(s: Setup) -> None:
    """Three threads, an increment each."""
    threads(s, 3, 1)


@scenario()
def three_threads_twice(s: Setup) -> None:
    """Three threads, two increments each."""
    threads(s, 3, 2)


@scenario()
def three_threads_thrice(s: Setup) -> None:
    """Three threads, three increments each."""
    threads(s, 3, 3)
