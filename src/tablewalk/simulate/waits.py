# SPDX-License-Identifier: GPL-2.0-only
"""Who made whom wait: waits by lock, by the function that waited, and by the holder with its function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

K = TypeVar("K")

WAKEUP = ("", "(hand-over)")  # the part of a wait after the lock was free or given: until the waiter ran
OTHERS = ("", "(other CPUs)")  # a wait for no lock: until all others have answered

# who takes a lock for somebody else: the caller is meant
WRAPPERS = frozenset({
    "mmap_read_lock", "mmap_write_lock", "mmap_write_lock_nested", "mmap_write_trylock",
    "lock_mm_and_find_vma", "pte_offset_map_lock", "pte_alloc_map_lock", "pmd_lock",
    "vma_mark_detached", "vma_start_write", "madvise_lock", "anon_vma_lock_write", "rmap_lock_read",
    "filemap_lock_folio", "spin_lock", "spin_trylock", "down_read", "down_write", "down_read_trylock",
    "down_write_trylock", "mutex_lock", "mutex_trylock", "wait_unlocked", "wait_until", "lock_vma_under_rcu",
    "_answered", "_send", "flush_tlb_mm", "flush_tlb_range", "interrupt", "interrupt_all", "smp_call_function",
    "synchronize_rcu", "tlb_invalidate",
})


def function(depth: int) -> str:
    """The function of the model that takes a lock, `depth` frames up, without those that only wrap the lock."""
    frame: Any = sys._getframe(depth)
    while frame.f_code.co_name in WRAPPERS and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_code.co_name)


@dataclass(slots=True)
class Wait:
    """Waits with all in common but the time, in picoseconds."""

    times: int = 0
    total: int = 0
    longest: int = 0


@dataclass(slots=True)
class Waits:
    """All waits of a run."""

    by: dict[tuple[str, str, str, str], Wait] = field(default_factory=dict)  # lock, waiter's, holder, holder's

    def add(self, lock: str, waiter: str, holder: tuple[str, str], time: int) -> None:
        """`waiter` (a function) waited for what `holder` (a thread, a function) held."""
        found = self.by.setdefault((lock, waiter, *holder), Wait())
        found.times += 1
        found.total += time
        found.longest = max(found.longest, time)

    def worst_first(self) -> list[tuple[tuple[str, str, str, str], Wait]]:
        """All, the most time first."""
        return self.grouped(lambda key: key)

    def grouped(self, name: Callable[[tuple[str, str, str, str]], K]) -> list[tuple[K, Wait]]:
        """Those together that have one name, the most time first."""
        found: dict[K, Wait] = {}
        for key, w in self.by.items():
            sum_ = found.setdefault(name(key), Wait())
            sum_.times += w.times
            sum_.total += w.total
            sum_.longest = max(sum_.longest, w.longest)
        return sorted(found.items(), key=lambda item: (-item[1].total, str(item[0])))
