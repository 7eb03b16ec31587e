# SPDX-License-Identifier: GPL-2.0-only
"""Random programs in which page tables come and go.

A program is random but for what it remembers: which processes live, what they have mapped as far as arguments tell,
and where it worked before.  So most operations hit something, and some hit holes and edges.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .ops import Geometry, Op

MAX_PROCESSES = 4
NO_FILE = (1 << 64) - 1
HUGE = 1 << 62

PROTS = (0, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 7)
SIZES = (1, 1, 1, 2, 3, 4, 8, 16, 17, 64, 100)  # pages

# advice that works on pages, and advice that is kept in the VMA
ACTIONS = (4, 4, 4, 4, 8, 8, 9, 20, 21, 22, 23, 24, 25, 25, 25, 3, 102, 103)
HINTS = (0, 1, 2, 10, 11, 12, 13, 14, 14, 14, 14, 15, 16, 17, 18, 19)

WEIGHTS = {
    "anon": 10,
    "shared": 3,
    "file": 7,
    "munmap": 5,
    "mprotect": 6,
    "action": 22,
    "collapse": 4,
    "hint": 8,
    "move": 7,
    "resize": 3,
    "lock": 3,
    "lockall": 0.3,
    "read": 10,
    "write": 22,
    "fill": 10,
    "sum": 3,
    "fork": 1.2,
    "exit": 1,
    "mbind": 1,
    "remap": 1,
    "truncate": 1.5,
    "punch": 2,
    "process_madvise": 2,
    "thp_disable": 0.3,
}

# What a focus makes more likely
FOCUS: dict[str, dict[str, float]] = {
    "collapse": {"collapse": 30, "action": 30, "fill": 30, "hint": 14, "file": 12},
    "mremap": {"move": 40, "resize": 15},
    "fork": {"fork": 8, "exit": 7, "write": 30},
    "files": {"file": 30, "truncate": 8, "punch": 10, "shared": 8},
    "vma": {"mprotect": 25, "munmap": 15, "hint": 20, "lock": 10, "mbind": 6},
}


class Generator:
    """Makes programs from a seed; the same seed and focus make the same program."""

    def __init__(self, seed: int, focus: str, geometry: Geometry) -> None:
        self.rng = random.Random(f"{seed} {focus}")
        self.geometry = geometry
        self.page, self.table = geometry.page, geometry.table
        self.pages = geometry.tables * geometry.table
        half = self.table // 2
        self.sizes = (*SIZES, half - 1, half, self.table - 1, self.table, self.table, self.table + 1, half * 3 - 68)
        self.mapped = {0: bytearray(self.pages)}  # of each process that lives: PROT_* of each page, 0 where nothing is
        self.recent: list[tuple[int, int]] = []
        weights = {**WEIGHTS, **FOCUS.get(focus, {})}
        self.kinds: list[Callable[[], Op]] = [getattr(self, f"_{kind}") for kind in weights]
        self.weights = list(weights.values())
        # Some programs stay within a part of the arena: more happens in one place.
        self.window = self.rng.choice((3, 6, 12, geometry.tables)) * self.table
        self.first = self.rng.randrange(geometry.tables - self.window // self.table + 1) * self.table

    def program(self, length: int) -> list[Op]:
        """`length` operations, the first of which is a reset."""
        ops = [Op(0, "reset"), *self._begin()]
        while len(ops) < length:
            op = self._spoil(self.rng.choices(self.kinds, self.weights)[0]())
            self._track(op)
            ops.append(op)
        return ops

    def _begin(self) -> list[Op]:
        """Most programs have something mapped from the beginning."""
        start, length = self.geometry.start + self.first * self.page, self.window * self.page
        ops: list[Op] = []
        if self.rng.random() < 0.8:
            ops.append(Op(0, "mmap", (start, length, 3, 0x32, NO_FILE, 0)))
            if self.rng.random() < 0.6:
                ops.append(Op(0, "madvise", (start, length, 14)))
        if self.rng.random() < 0.4:
            ops.append(Op(0, "mmap", (start, min(4 * self.table * self.page, length), 3, 0x11, 0, 0)))
        for op in ops:
            self._track(op)
        return ops

    def _track(self, op: Op) -> None:
        """Note what an operation probably does to mappings."""
        if op.kind == "fork":
            self.mapped[op.args[0]] = bytearray(self.mapped[op.process])
        elif op.kind == "exit":
            del self.mapped[op.process]
        elif op.kind == "mmap":
            self._set(op.process, op.args[0], op.args[1], 8 | op.args[2] & 7)
        elif op.kind == "munmap":
            self._set(op.process, op.args[0], op.args[1], 0)
        elif op.kind == "mprotect":
            pages = self.mapped[op.process]
            first, end = self._range(op.args[0], op.args[1])
            pages[first:end] = bytes(8 | op.args[2] & 7 if p else 0 for p in pages[first:end])
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

    def _set(self, process: int, addr: int, length: int, what: int) -> None:
        first, end = self._range(addr, length)
        if first < end:
            self.mapped[process][first:end] = bytes((what,)) * (end - first)

    # --- choices -----------------------------------------------------------------------------------------

    def _process(self) -> int:
        return self.rng.choice(list(self.mapped))

    def _anywhere(self) -> tuple[int, int]:
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

    def _place(self, process: int = -1, need: int = 8) -> tuple[int, int]:
        """(address, bytes); with a process mostly where it has memory with the PROT_* bits of `need` (8: any)."""
        start, nr = self._anywhere()
        if process >= 0 and self.rng.random() < 0.9:
            pages = self.mapped[process]
            for _ in range(8):
                if pages[start] & need == need:
                    break
                start, nr = self._anywhere()
            if self.rng.random() < 0.9:  # no hole in it
                hole = next((i for i in range(start, start + nr) if pages[i] & need != need), start + nr)
                nr = max(hole - start, 1)
        return self.geometry.start + start * self.page, nr * self.page

    def _remember(self, addr: int, length: int) -> None:
        self.recent.append(((addr - self.geometry.start) // self.page, length // self.page))
        if len(self.recent) > 8:
            del self.recent[self.rng.randrange(8)]

    def _spoil(self, op: Op) -> Op:
        """Now and then an argument that is wrong."""
        if op.kind not in SPOILERS or self.rng.random() > 0.05:
            return op
        where, values = self.rng.choice(SPOILERS[op.kind])
        args = list(op.args)
        value = self.rng.choice(values)
        args[where] = args[where] + value if value in (1, 2048) and where == 0 else value
        return op._replace(args=tuple(args))

    # --- operations --------------------------------------------------------------------------------------

    def _map(self, addr: int, length: int, flags: int, file: int, offset: int) -> Op:
        self._remember(addr, length)
        return Op(self._process(), "mmap", (addr, length, self.rng.choice(PROTS), flags, file, offset))

    def _anon(self) -> Op:
        extra = self.rng.choice((0,) * 12 + (0x4000, 0x2000, 0x20000, 0x8000, 0x18000, 0x100, 0x100000))
        return self._map(*self._place(), 0x32 | extra, NO_FILE, 0)

    def _shared(self) -> Op:
        return self._map(*self._place(), 0x31, NO_FILE, 0)

    def _file(self) -> Op:
        rng = self.rng
        addr, length = self._place()
        file = rng.choice((0, 0, 0, 1, 1, 2, 2, 3))
        if rng.random() < 0.7:  # as huge pages want it
            offset = (addr // self.page % self.table + rng.randrange(2) * self.table) * self.page
        else:
            offset = rng.randrange(self.geometry.file_pages[file]) * self.page
        flags = rng.choice((1, 1, 2, 2, 2, 3, 0x8001, 0x8002))
        return self._map(addr, length, 0x10 | flags, file, offset)

    def _munmap(self) -> Op:
        process = self._process()
        return Op(process, "munmap", self._place(process))

    def _mprotect(self) -> Op:
        process = self._process()
        return Op(process, "mprotect", (*self._place(process), self.rng.choice(PROTS)))

    def _action(self) -> Op:
        process = self._process()
        return Op(process, "madvise", (*self._place(process), self.rng.choice(ACTIONS)))

    def _hint(self) -> Op:
        process = self._process()
        return Op(process, "madvise", (*self._place(process), self.rng.choice(HINTS)))

    def _collapse(self) -> Op:
        """Of whole tables."""
        process = self._process()
        addr, length = self._place(process)
        huge = self.table * self.page
        start = addr // huge * huge
        end = min(-(-(addr + length) // huge) * huge, self.geometry.end)
        return Op(process, "madvise", (start, end - start, 25))

    def _move(self) -> Op:
        rng = self.rng
        process = self._process()
        addr, length = self._place(process)
        to, room = self._place()
        if rng.random() < 0.5:  # to where it fits the tables as it does here
            huge = self.table * self.page
            to = to - to % huge + addr % huge
        flags = rng.choice((3, 3, 3, 7))
        new = length if flags == 7 else rng.choice((length, length, length, room))
        to = min(to, self.geometry.end - new)
        self._remember(to, new)
        return Op(process, "mremap", (addr, length, new, flags, to))

    def _resize(self) -> Op:
        process = self._process()
        addr, length = self._place(process)
        new = min(self._place()[1], self.geometry.end - addr)
        return Op(process, "mremap", (addr, length, new, 0, 0))

    def _lock(self) -> Op:
        process = self._process()
        kind = self.rng.choice(("mlock", "mlock2", "munlock", "munlock"))
        place = self._place(process)
        return Op(process, kind, (*place, self.rng.choice((0, 1))) if kind == "mlock2" else place)

    def _lockall(self) -> Op:
        flags = self.rng.choice((0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7))
        return Op(self._process(), "mlockall", (flags,)) if flags else Op(self._process(), "munlockall")

    def _page_at(self, process: int, need: int) -> int:
        addr, length = self._place(process, need)
        return addr + self.rng.randrange(length // self.page) * self.page

    def _read(self) -> Op:
        process = self._process()
        return Op(process, "read", (self._page_at(process, 9),))

    def _write(self) -> Op:
        process = self._process()
        return Op(process, "write", (self._page_at(process, 10), self.rng.randrange(1, 1 << 31)))

    def _fill(self) -> Op:
        rng = self.rng
        process = self._process()
        value = rng.choice((0, rng.randrange(1, 1 << 31)))
        addr, length = self._place(process, 10 if value else 9)
        step = rng.choice((1, 1, 7, 16, 128, 512)) * self.page
        return Op(process, "fill", (addr, length, step, value))

    def _sum(self) -> Op:
        process = self._process()
        return Op(process, "sum", self._place(process))

    def _fork(self) -> Op:
        free = [p for p in range(MAX_PROCESSES) if p not in self.mapped]
        return Op(self._process(), "fork", (free[0],)) if free else self._exit()

    def _exit(self) -> Op:
        return Op(self._process(), "exit") if len(self.mapped) > 1 else self._write()

    def _mbind(self) -> Op:
        process = self._process()
        mode = self.rng.choice((0, 1, 2))
        return Op(process, "mbind", (*self._place(process), mode, 1 if mode else 0, 0))

    def _remap(self) -> Op:
        process = self._process()
        return Op(process, "remap_file_pages", (*self._place(process), 0, self.rng.randrange(2 * self.table), 0))

    def _truncate(self) -> Op:
        file = self.rng.choice((0, 0, 1, 1, 2, 3))
        full = self.geometry.file_pages[file]
        pages = self.rng.choice((0, 1, full, full, full, full, self.rng.randrange(full)))
        return Op(self._process(), "ftruncate", (file, pages * self.page))

    def _punch(self) -> Op:
        file = self.rng.choice((0, 0, 0, 1, 1, 2, 3))
        start = self.rng.choice((0, self.table, self.rng.randrange(self.geometry.file_pages[file])))
        nr = self.rng.choice((*self.sizes, self.table, 2 * self.table))
        return Op(self._process(), "punch", (file, start * self.page, nr * self.page))

    def _process_madvise(self) -> Op:
        process, target = self._process(), self._process()
        advice = self.rng.choice((3, 20, 21, 25, 25, 4, 8, 14))
        return Op(process, "process_madvise", (target, *self._place(target), advice))

    def _thp_disable(self) -> Op:
        return Op(self._process(), "thp_disable", (self.rng.randrange(2),))


# Arguments by their place, and what they are replaced by (an address: what is added to it).
SPOILERS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "mmap": ((0, (1, 2048)), (1, (0, HUGE)), (3, (0x10, 0x30, 0x1F)), (5, (1, 0x7FFFFFFFFFFFF000))),
    "munmap": ((0, (1, 2048)), (1, (0, HUGE))),
    "mprotect": ((0, (1, 2048)), (1, (0, HUGE)), (2, (0x1000000, 0x3000000))),
    "madvise": ((0, (1, 2048)), (1, (0, (1 << 64) - 4096)), (2, (5, 7, 99))),
    "mremap": ((0, (1, 2048)), (1, (0,)), (2, (0, HUGE)), (3, (2, 4, 8, 6))),
    "mlock": ((1, (0, HUGE)),),
    "mlock2": ((2, (2, 3)), (1, (0, HUGE))),
    "munlock": ((1, (0, HUGE)),),
    "mbind": ((0, (1, 2048)), (2, (9,)), (1, (0,))),
    "remap_file_pages": ((1, (0, 1)), (2, (1,))),
    "ftruncate": ((1, (1 << 63,)),),
    "punch": ((2, (0,)),),
    "process_madvise": ((1, (1,)), (3, (99,))),
}
