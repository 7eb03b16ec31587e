# SPDX-License-Identifier: GPL-2.0-only
"""The state at the start of a process that was recorded with -p: what its rows can't say, the metadata does."""

from __future__ import annotations

from typing import Any

from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import Model
from tablewalk.record.recording import Recording
from tablewalk.replay.stream import Event
from tablewalk.replay.syscalls import Calls

MADV_COLLAPSE = 25
# VmFlags of /proc/PID/smaps that matter to merging, forking, locking and huge pages (fs/proc/task_mmu.c)
_VM_FLAGS = {
    "gd": "VM_GROWSDOWN", "lo": "VM_LOCKED", "lf": "VM_LOCKONFAULT", "sr": "VM_SEQ_READ", "rr": "VM_RAND_READ",
    "dc": "VM_DONTCOPY", "de": "VM_DONTEXPAND", "ac": "VM_ACCOUNT", "nr": "VM_NORESERVE", "wf": "VM_WIPEONFORK",
    "dd": "VM_DONTDUMP", "hg": "VM_HUGEPAGE", "nh": "VM_NOHUGEPAGE", "mg": "VM_MERGEABLE",
}  # fmt: skip
_MOST = 1 << 20  # ranges and tables of a start state; more is no start state


class StartState:
    """Rows up to time `t` are the state of process `pid`: its mappings, and a fault for each page that was there."""

    def __init__(self, model: Model, attach: dict[str, Any]) -> None:
        self.pid, self.t = attach["pid"], attach["time"]
        self._brk = attach["brk"]
        self._empty: list[list[int]] = attach["empty_tables"] or []
        self._huge: list[list[int]] = attach["huge"]
        self._flags = {start: flags.split() for start, _, flags in attach["vmflags"]}
        self._arch, self._bits = model.arch, model.kernel("vm_flags")
        self._tables, self._madvise = model.kernel("pgtable_generic"), model.kernel("madvise")
        self._config = model.kernel("config").config
        # A page that is there was not huge unless the state says so.
        self._thp, self._config.transparent_hugepage = self._config.transparent_hugepage, "never"

    @classmethod
    def of(cls, recording: Recording, model: Model) -> StartState | None:
        """The start state of a recording that has one. Raises TablewalkError for one that makes no sense."""
        attach = recording.meta.attach
        if attach is None:
            return None
        if not _makes_sense(attach):
            raise TablewalkError(f"{recording.path}: the state of its process at the start makes no sense")
        return cls(model, attach)

    def map(self, calls: Calls, mm: Any, row: Event) -> None:
        """Make a mapping of the start state, with the flags it had."""
        names = self._flags.get(row.a[0], [])
        flags = sum(getattr(self._bits, bit) for name, bit in _VM_FLAGS.items() if name in names)
        calls.map_at_start(mm, row, flags & ~self._bits.VM_LOCKED_MASK)
        vma = calls.peek.vma_at(mm, row.a[0])
        if vma and names:  # what mmap adds by itself (VM_ACCOUNT) may have gone since; what is locked is there already
            known = sum(getattr(self._bits, bit) for bit in _VM_FLAGS.values())
            calls.peek.set_vm_flags(mm, vma, vma.flags & ~known | flags)

    def finish(self, calls: Calls, mm: Any) -> None:
        """All rows of the state are there: make what remains, the heap's ends, huge pages and empty tables."""
        self._config.transparent_hugepage = self._thp
        with calls.peek.writing(mm):
            mm.start_brk, mm.brk = self._brk
        for start, end in self._huge:
            self._madvise.sys_madvise(mm, start, end - start, MADV_COLLAPSE)
        for start, end in self._empty:
            for address in range(start, min(end, self._arch.task_size), self._arch.pmd_size):
                self._tables.pte_alloc(mm, self._tables.walk_to_pmd(mm, address), address)


def _makes_sense(attach: dict[str, Any]) -> bool:
    """Whether every field has the form that a recorder gives it."""

    def ranges(value: Any, *, extra: bool = False) -> bool:
        return (
            isinstance(value, list)
            and len(value) <= _MOST
            and all(
                isinstance(r, list)
                and len(r) == 2 + extra
                and all(type(x) is int and 0 <= x < 1 << 64 for x in r[:2])
                and r[0] <= r[1]
                and (not extra or isinstance(r[2], str))
                for r in value
            )
        )

    brk, empty = attach.get("brk"), attach.get("empty_tables")
    return (
        type(attach.get("pid")) is int
        and type(attach.get("time")) is int
        and ranges([brk])
        and (empty is None or (ranges(empty) and sum(e - s for s, e in empty) >> 21 <= _MOST))
        and ranges(attach.get("huge"))
        and ranges(attach.get("vmflags"), extra=True)
    )
