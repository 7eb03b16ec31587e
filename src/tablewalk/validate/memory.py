# SPDX-License-Identifier: GPL-2.0-only
"""What a random program has probably mapped, as far as arguments tell, and where in it the next operation is to go."""

from __future__ import annotations

import random

from .mix import SIZES
from .ops import MAP_ANONYMOUS, Geometry, Op
from .pages import FILE, MAPPED, SEALED, SHARED


class Memory:
    """The arena of all processes of a program that is being made; `sizes` are numbers of pages to choose from."""

    def __init__(self, rng: random.Random, geometry: Geometry, with_seals: bool) -> None:
        self.rng, self.geometry, self.with_seals = rng, geometry, with_seals
        self.page, self.table = geometry.page, geometry.table
        self.pages = geometry.tables * geometry.table
        half = self.table // 2
        much = max(half * 3 - 68, half // 2)
        self.sizes = (*SIZES, half - 1, half, self.table - 1, self.table, self.table, self.table + 1, much)
        self.mapped = {0: bytearray(self.pages)}  # of each process that lives: PROT_* of each page, 0 where nothing is
        self.recent: list[tuple[int, int]] = []
        # Some programs stay within a part of the arena: more happens in one place.
        self.window = rng.choice((3, 6, 12, geometry.tables)) * self.table
        self.first = rng.randrange(geometry.tables - self.window // self.table + 1) * self.table

    def track(self, op: Op) -> None:
        """Note what an operation probably does to mappings."""
        if op.kind == "fork":
            self.mapped[op.args[0]] = bytearray(self.mapped[op.process])
        elif op.kind == "vfork":
            self.mapped[op.args[0]] = self.mapped[op.process]
        elif op.kind == "exit":
            del self.mapped[op.process]
        elif op.kind == "mmap":
            of = (SHARED if op.args[3] & 3 == 1 else 0) | (0 if op.args[3] & MAP_ANONYMOUS else FILE)
            self._set(op.process, op.args[0], op.args[1], MAPPED | op.args[2] & 7 | of)
        elif op.kind == "brk":
            self._set(op.process, self.geometry.heap, op.args[0] - self.geometry.heap, MAPPED | 3)
        elif op.kind == "munmap":
            self._set(op.process, op.args[0], op.args[1], 0)
        elif op.kind == "mprotect":
            pages = self.mapped[op.process]
            first, end = self._range(op.args[0], op.args[1])
            kept = MAPPED | SHARED | FILE
            if not self._sealed(pages[first:end]):
                pages[first:end] = bytes(op.args[2] & 7 | p & kept if p else 0 for p in pages[first:end])
        elif op.kind == "mseal" and not op.args[2] and self.all_mapped(op.process, op.args[0], op.args[1]):
            first, end = self._range(op.args[0], op.args[1])
            self.mapped[op.process][first:end] = bytes(p | SEALED for p in self.mapped[op.process][first:end])
        elif op.kind == "mremap" and op.args[3] & 2:
            first, end = self._range(op.args[0], op.args[1])
            moved = self.mapped[op.process][first:end]
            if all(moved):
                if not op.args[3] & 4:
                    self._set(op.process, op.args[0], op.args[1], 0)
                self._set(op.process, op.args[4], op.args[2], moved[0] if moved else 0)

    def _range(self, addr: int, length: int) -> tuple[int, int]:
        first = (addr - self.geometry.start) // self.page
        return max(first, 0), min(first + length // self.page, self.pages)

    def all_mapped(self, process: int, addr: int, length: int) -> bool:
        """Whether a process that lives has something mapped in all of the range, which is in the arena."""
        first, end = self._range(addr, length)
        return process in self.mapped and end > first and 0 not in self.mapped[process][first:end]

    def _set(self, process: int, addr: int, length: int, what: int) -> None:
        first, end = self._range(addr, length)
        if first < end and not self._sealed(self.mapped[process][first:end]):
            self.mapped[process][first:end] = bytes((what,)) * (end - first)

    def _sealed(self, pages: bytearray) -> bool:
        """Whether one of the pages is, so that all stay as they are."""
        return self.with_seals and any(page & SEALED for page in pages)

    # --- places ------------------------------------------------------------------------------------------

    def anywhere(self) -> tuple[int, int]:
        """(first page, pages): often where something was before, often on tables."""
        rng = self.rng
        choice = rng.random()
        if self.recent and choice < 0.5:
            start, nr = rng.choice(self.recent)
            if rng.random() < 0.5:
                cut = rng.randrange(nr)
                start, nr = start + cut, rng.randrange(nr - cut) + 1
        elif choice < 0.75:
            start = self.first + rng.randrange(self.window // self.table) * self.table
            nr = rng.choice((1, 1, 1, 2, 2, 3, 4)) * self.table
        else:
            start = self.first + rng.randrange(self.window)
            nr = rng.choice(self.sizes)
        return start, min(nr, self.pages - start)

    def place(self, process: int = -1, need: int = MAPPED, without: int = 0) -> tuple[int, int]:
        """(address, bytes); with a process mostly where it has memory with the bits of `need`, not of `without`."""
        start, nr = self.anywhere()
        if process >= 0 and self.rng.random() < 0.9:
            pages = self.mapped[process]
            for _ in range(8):
                if pages[start] & (need | without) == need:
                    break
                start, nr = self.anywhere()
            if self.rng.random() < 0.9:  # no hole in it
                hole = next((i for i in range(start, start + nr) if pages[i] & (need | without) != need), start + nr)
                nr = max(hole - start, 1)
        return self.geometry.start + start * self.page, nr * self.page

    def remember(self, addr: int, length: int) -> None:
        """Something is done there, which is a reason to come back."""
        self.recent.append(((addr - self.geometry.start) // self.page, length // self.page))
        if len(self.recent) > 8:
            del self.recent[self.rng.randrange(8)]

    def tables(self, process: int) -> tuple[int, int]:
        """Whole tables, mostly of which all is mapped: (address, bytes)."""
        pages, huge = self.mapped[process], self.table * self.page
        full = [at for at in range(0, self.pages, self.table) if 0 not in pages[at : at + self.table]]
        if full and self.rng.random() < 0.8:
            return self.geometry.start + self.rng.choice(full) * self.page, huge
        addr, length = self.place(process)
        start = addr // huge * huge
        return start, min(-(-(addr + length) // huge) * huge, self.geometry.end) - start

    def page_at(self, process: int, need: int) -> int:
        """The address of a page."""
        addr, length = self.place(process, need)
        return addr + self.rng.randrange(length // self.page) * self.page
