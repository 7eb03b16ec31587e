# SPDX-License-Identifier: GPL-2.0-only
"""Random programs in which page tables come and go.

A program is random but for what it remembers: which processes live, and where it worked before.  So most operations
hit something, and some hit holes and edges.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .ops import Geometry, Op

MAX_PROCESSES = 4
NO_FILE = (1 << 64) - 1
HUGE = 1 << 62

PROTS = (0, 1, 1, 3, 3, 3, 3, 3, 3, 5, 7)
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
    "collapse": {"action": 50, "fill": 30, "hint": 14, "file": 12},
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
        self.live = [0]
        self.recent: list[tuple[int, int]] = []
        weights = {**WEIGHTS, **FOCUS.get(focus, {})}
        self.kinds: list[Callable[[], Op]] = [getattr(self, f"_{kind}") for kind in weights]
        self.weights = list(weights.values())
        # Some programs stay within a part of the arena: more happens in one place.
        self.window = self.rng.choice((3, 6, 12, geometry.tables)) * self.table
        self.first = self.rng.randrange(geometry.tables - self.window // self.table + 1) * self.table

    def program(self, length: int) -> list[Op]:
        """`length` operations, the first of which is a reset."""
        ops = [Op(0, "reset")]
        while len(ops) < length:
            ops.append(self._spoil(self.rng.choices(self.kinds, self.weights)[0]()))
        return ops

    # --- choices -----------------------------------------------------------------------------------------

    def _process(self) -> int:
        return self.rng.choice(self.live)

    def _place(self) -> tuple[int, int]:
        """(address, bytes): often where something was before, often on tables."""
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
        nr = min(nr, self.pages - start)
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

    def _map(self, length: int, addr: int, flags: int, file: int, offset: int) -> Op:
        self._remember(addr, length)
        return Op(self._process(), "mmap", (addr, length, self.rng.choice(PROTS), flags, file, offset))

    def _anon(self) -> Op:
        addr, length = self._place()
        extra = self.rng.choice((0,) * 12 + (0x4000, 0x2000, 0x20000, 0x8000, 0x18000, 0x100, 0x100000))
        return self._map(length, addr, 0x32 | extra, NO_FILE, 0)

    def _shared(self) -> Op:
        addr, length = self._place()
        return self._map(length, addr, 0x31, NO_FILE, 0)

    def _file(self) -> Op:
        rng = self.rng
        addr, length = self._place()
        file = rng.choice((0, 0, 0, 1, 1, 2, 2, 3))
        if rng.random() < 0.7:  # as huge pages want it
            offset = (addr // self.page % self.table + rng.randrange(2) * self.table) * self.page
        else:
            offset = rng.randrange(self.geometry.file_pages[file]) * self.page
        flags = rng.choice((1, 1, 2, 2, 2, 3, 0x8001, 0x8002))
        return self._map(length, addr, 0x10 | flags, file, offset)

    def _munmap(self) -> Op:
        return Op(self._process(), "munmap", self._place())

    def _mprotect(self) -> Op:
        prot = self.rng.choice(PROTS)
        return Op(self._process(), "mprotect", (*self._place(), prot))

    def _action(self) -> Op:
        return Op(self._process(), "madvise", (*self._place(), self.rng.choice(ACTIONS)))

    def _hint(self) -> Op:
        return Op(self._process(), "madvise", (*self._place(), self.rng.choice(HINTS)))

    def _move(self) -> Op:
        rng = self.rng
        addr, length = self._place()
        to, room = self._place()
        if rng.random() < 0.5:  # to where it fits the tables as it does here
            to = to - to % (self.table * self.page) + addr % (self.table * self.page)
        new = rng.choice((length, length, length, room))
        to = min(to, self.geometry.end - new)
        self._remember(to, new)
        flags = rng.choice((3, 3, 3, 7))
        return Op(self._process(), "mremap", (addr, length, new, flags, to))

    def _resize(self) -> Op:
        addr, length = self._place()
        new = min(self._place()[1], self.geometry.end - addr)
        return Op(self._process(), "mremap", (addr, length, new, 0, 0))

    def _lock(self) -> Op:
        kind = self.rng.choice(("mlock", "mlock2", "munlock", "munlock"))
        place = self._place()
        return Op(self._process(), kind, (*place, self.rng.choice((0, 1))) if kind == "mlock2" else place)

    def _lockall(self) -> Op:
        flags = self.rng.choice((0, 0, 1, 2, 3, 4, 5, 6, 7))
        return Op(self._process(), "mlockall", (flags,)) if flags else Op(self._process(), "munlockall")

    def _read(self) -> Op:
        addr, length = self._place()
        return Op(self._process(), "read", (addr + self.rng.randrange(length // self.page) * self.page,))

    def _write(self) -> Op:
        addr, length = self._place()
        where = addr + self.rng.randrange(length // self.page) * self.page
        return Op(self._process(), "write", (where, self.rng.randrange(1, 1 << 31)))

    def _fill(self) -> Op:
        rng = self.rng
        addr, length = self._place()
        step = rng.choice((1, 1, 7, 16, 128, 512)) * self.page
        value = rng.choice((0, rng.randrange(1, 1 << 31)))
        return Op(self._process(), "fill", (addr, length, step, value))

    def _sum(self) -> Op:
        return Op(self._process(), "sum", self._place())

    def _fork(self) -> Op:
        parent = self._process()
        free = [p for p in range(MAX_PROCESSES) if p not in self.live]
        if not free:
            return self._exit()
        self.live.append(free[0])
        return Op(parent, "fork", (free[0],))

    def _exit(self) -> Op:
        if len(self.live) == 1:
            return self._write()
        process = self._process()
        self.live.remove(process)
        return Op(process, "exit")

    def _mbind(self) -> Op:
        mode = self.rng.choice((0, 1, 2))
        return Op(self._process(), "mbind", (*self._place(), mode, 1 if mode else 0, 0))

    def _remap(self) -> Op:
        args = (*self._place(), 0, self.rng.randrange(2 * self.table), 0)
        return Op(self._process(), "remap_file_pages", args)

    def _truncate(self) -> Op:
        file = self.rng.choice((0, 0, 1, 1, 2, 3))
        full = self.geometry.file_pages[file]
        pages = self.rng.choice((0, 1, full, full, self.rng.randrange(full)))
        return Op(self._process(), "ftruncate", (file, pages * self.page))

    def _punch(self) -> Op:
        file = self.rng.choice((0, 0, 0, 1, 1, 2, 3))
        start = self.rng.choice((0, self.table, self.rng.randrange(self.geometry.file_pages[file])))
        nr = self.rng.choice((*self.sizes, self.table, 2 * self.table))
        return Op(self._process(), "punch", (file, start * self.page, nr * self.page))

    def _process_madvise(self) -> Op:
        process, target = self._process(), self._process()
        advice = self.rng.choice((3, 20, 21, 25, 25, 4, 8, 14))
        return Op(process, "process_madvise", (target, *self._place(), advice))

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
