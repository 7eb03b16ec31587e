# SPDX-License-Identifier: GPL-2.0-only
"""Looking at the model's state from outside, and the few places where a replay sets it, on every driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tablewalk.machine.drivers import Model


class Vma(NamedTuple):
    """A mapping of an mm as it is now; `file` is a view, NULL for anonymous memory."""

    view: Any
    start: int
    end: int
    flags: int
    pgoff: int
    file: Any


class Peek:
    """Reads what no lock of the model is held for: between two calls nothing changes."""

    def __init__(self, model: Model) -> None:
        self._machine = model.machine
        self._vma = model.kernel("mm_types").vm_area_struct
        lock = model.kernel("mmap_lock")
        self._lock, self._unlock = lock.mmap_write_lock, lock.mmap_write_unlock
        self._vma_start_write = lock.vma_start_write
        self.get: Any = model.machine.READ_ONCE  # (view, name of a field)
        self._pgtable, self._arch = model.kernel("pgtable"), model.arch

    def vma_at(self, mm: Any, address: int) -> Vma | None:
        """The mapping that contains `address`."""
        found = self._machine.mtree_load(mm.mm_mt, address)
        return self._look(found) if found else None

    def start_of(self, mm: Any, address: int) -> int:
        """Where the mapping that contains `address` begins; -1 where there is none."""
        found = self._machine.mtree_load(mm.mm_mt, address)
        return self.get(self._vma(found), "vm_start") if found else -1

    def vma_above(self, mm: Any, address: int) -> Vma | None:
        """The first mapping that ends above `address`."""
        found = self._machine.mt_find(mm.mm_mt, address)
        return self._look(found) if found else None

    def vmas(self, mm: Any, start: int, end: int) -> list[Vma]:
        """The mappings that overlap [start, end), in order."""
        return [self._look(found) for found in self._machine.mt_range(mm.mm_mt, start, end)]

    def has_guard(self, mm: Any, vma: Vma) -> bool:
        """Whether a mapping has guard pages (MADV_GUARD_INSTALL)."""
        pages = self._arch.ptrs_per_pte
        for address in range(vma.start & -self._arch.pmd_size, vma.end, self._arch.pmd_size):
            pmd = self._pgtable.mm_find_pmd(mm, address)
            entry = self._machine.load(pmd) if pmd else 0
            if self._pgtable.pmd_is_table(entry):
                ptes = self._machine.load_range(self._pgtable.pmd_pgtable(entry).entry, pages)
                if any(self._pgtable.pte_marker(pte) & self._pgtable.PTE_MARKER_GUARD for pte in ptes if pte):
                    return True
        return False

    def _look(self, address: int) -> Vma:
        view, get = self._vma(address), self.get
        return Vma(
            view,
            get(view, "vm_start"),
            get(view, "vm_end"),
            get(view, "vm_flags"),
            get(view, "vm_pgoff"),
            get(view, "vm_file"),
        )

    @contextmanager
    def writing(self, mm: Any) -> Iterator[None]:
        """The mm's fields may be set inside."""
        self._lock(mm)
        try:
            yield
        finally:
            self._unlock(mm)

    def set_vm_flags(self, mm: Any, vma: Vma, flags: int) -> None:
        """Give a mapping other flags."""
        with self.writing(mm):
            self._vma_start_write(vma.view)
            self._machine.WRITE_ONCE(vma.view, "vm_flags", flags)
