# SPDX-License-Identifier: GPL-2.0-only
"""Random programs in which page tables come and go.

A program is random but for what it remembers: which processes live, what they have mapped and where it worked before
(`memory`).  So most operations hit something, and some hit holes and edges.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

from . import generate_uffd
from .memory import Memory
from .mix import (
    ACTIONS,
    ALL_CATEGORIES,
    FOCUS,
    HINTS,
    HUGE,
    LAST_OFFSET,
    POLICIES,
    PROCESS_ADVICE,
    PROTS,
    RANGES_ADVICE,
    RECLAIM,
    SCAN_FLAGS,
    SCAN_PAGES,
    SCAN_RANGES,
    SCAN_SETS,
    SEALS,
    SIZES,
    SOME_THREADS,
    SPOILERS,
    THREADS,
    WEIGHTS,
    WITH_SEALS,
    WITH_UFFD,
    WRONG,
    WRONG_OF,
)
from .ops import MADV_COLLAPSE, MADV_PAGEOUT, MEMFDS, READONLY, REGULAR, Family, Geometry, Op
from .pages import FILE, MAPPED, NEEDS, SHARED

MAX_PROCESSES = 4
NO_FILE = (1 << 64) - 1

MERGEABLE, UNMERGEABLE = 12, 13
MADV_DONTNEED = 4
MADV_GUARD_INSTALL = 102  # in shared memory with uffd's markers it takes the agent 2 s to give up
SAME = (1, 1, 1, 2, 2, 3, 0x100, 0x10002)  # contents, where pages are to be merged


class Generator:
    """Makes programs from a seed; the same seed and focus make the same program."""

    def __init__(self, seed: int, focus: str, geometry: Geometry) -> None:
        self.rng = random.Random(f"{seed} {focus}")
        self.ksm = focus == "ksm"
        self.geometry = geometry
        self.page, self.table = geometry.page, geometry.table
        self.family = Family()
        self.by_threads = THREADS.get(focus, SOME_THREADS)
        self.stacks: list[int] = []  # first pages of what may grow down
        self.with_uffd = geometry.uffd and not self.ksm and (focus == "uffd" or self.rng.random() < WITH_UFFD)
        weights = {**WEIGHTS, **FOCUS.get(focus, {}), **(generate_uffd.WEIGHTS if self.with_uffd else {})}
        self.with_seals = not self.ksm and self.rng.random() < WITH_SEALS
        if self.with_seals:
            weights["mseal"] = SEALS
        if not geometry.ksmd:
            weights["ksmd"] = 0
        if not geometry.soft_dirty:
            weights["clear_refs"] = 0
        if not geometry.mprotect:
            weights["mprotect"] = 0
        self.uffd = generate_uffd.UffdChoices(self)
        self.pending: list[Op] = []  # what comes next
        self.kinds = [self._maker(kind) for kind in weights]
        self.weights = list(weights.values())
        self.memory = Memory(self.rng, geometry, self.with_seals)

    def _next(self) -> Op:
        """What the last operation was made for, or something else."""
        return self.pending.pop(0) if self.pending else self.rng.choices(self.kinds, self.weights)[0]()

    def _maker(self, kind: str) -> Callable[[], Op]:
        """What makes an operation of this kind."""
        if kind in generate_uffd.WEIGHTS:
            return partial(self.uffd.op, kind)
        made: Callable[[], Op] = getattr(self, f"_{kind}")
        return made

    def program(self, length: int) -> list[Op]:
        """`length` operations, the first of which is a reset."""
        ops = [Op(0, "reset"), *self._begin()]
        while len(ops) < length:
            op = self._permitted(self._by_thread(self._spoil(self._next())))
            self._track(op)
            ops.append(op)
        return ops

    def _begin(self) -> list[Op]:
        """Most programs have something mapped from the beginning."""
        start, length = self.geometry.start + self.memory.first * self.page, self.memory.window * self.page
        ops: list[Op] = []
        if self.rng.random() < 0.8:
            ops.append(Op(0, "mmap", (start, length, 3, 0x32, NO_FILE, 0)))
            if self.rng.random() < 0.6:
                ops.append(Op(0, "madvise", (start, length, 14)))
            if self.ksm and self.rng.random() < 0.7:
                ops.append(Op(0, "madvise", (start, length, MERGEABLE)))
        if self.rng.random() < 0.4:
            ops.append(Op(0, "mmap", (start, min(4 * self.table * self.page, length), 3, 0x11, 0, 0)))
        if self.with_uffd and self.rng.random() < 0.8:
            ops += self.uffd.begin(start, length)
        for op in ops:
            self._track(op)
        return ops

    def _permitted(self, op: Op) -> Op:
        """Reading is permitted where memory without any permission may not be."""
        if op.kind in ("mmap", "mprotect") and op.args[2] == 0 and not self.geometry.prot_none:
            return op._replace(args=(*op.args[:2], 1, *op.args[3:]))
        return op

    def _by_thread(self, op: Op) -> Op:
        """Now and then another thread's."""
        if self.rng.random() < self.by_threads:
            other = op._replace(thread=self.rng.choice((1, 2)))
            return other if self.family.allows(other) else op
        return op

    def _track(self, op: Op) -> None:
        """Note what an operation probably does to processes and mappings."""
        self.family.after(op)
        self.uffd.track(op)
        self.memory.track(op)

    def _spoil(self, op: Op) -> Op:
        """Now and then an argument that is wrong."""
        if op.kind not in SPOILERS or self.rng.random() > WRONG_OF.get(op.kind, WRONG):
            return op
        where, values = self.rng.choice(SPOILERS[op.kind])
        args = list(op.args)
        value = self.rng.choice(values)
        value = {HUGE: self.geometry.endless, LAST_OFFSET: self.geometry.last_offset}.get(value, value)
        args[where] = args[where] + value if value in (1, 2048) and where == 0 else value
        return op._replace(args=tuple(args))

    # --- operations --------------------------------------------------------------------------------------

    def _process(self) -> int:
        return self.rng.choice(self.family.ready)

    def _map(self, addr: int, length: int, flags: int, file: int, offset: int) -> Op:
        self.memory.remember(addr, length)
        return Op(self._process(), "mmap", (addr, length, self.rng.choice(PROTS), flags, file, offset))

    def _anon(self) -> Op:
        extra = self.rng.choice((0,) * 12 + (0x4000, 0x2000, 0x20000, 0x8000, 0x18000, 0x100, 0x100000))
        return self._map(*self.memory.place(), 0x32 | extra, NO_FILE, 0)

    def _shared(self) -> Op:
        return self._map(*self.memory.place(), 0x31, NO_FILE, 0)

    def _file(self) -> Op:
        rng = self.rng
        addr, length = self.memory.place()
        file = rng.choice((0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 6))
        if rng.random() < 0.7:  # as huge pages want it
            offset = (addr // self.page % self.table + rng.randrange(2) * self.table) * self.page
        else:
            offset = rng.randrange(self.geometry.file_pages[file]) * self.page
        flags = rng.choice((1, 1, 2, 2, 2, 3, 0x8001, 0x8002))
        return self._map(addr, length, 0x10 | flags, file, offset)

    def _munmap(self) -> Op:
        process = self._process()
        return Op(process, "munmap", self.memory.place(process))

    def _mprotect(self) -> Op:
        process = self._process()
        return Op(process, "mprotect", (*self.memory.place(process), self.rng.choice(PROTS)))

    def _action(self) -> Op:
        return self._advice(ACTIONS)

    def _reclaim(self) -> Op:
        return self._advice(RECLAIM)

    def _hint(self) -> Op:
        return self._advice(HINTS)

    def _advice(self, weights: Mapping[int, float]) -> Op:
        process = self._process()
        advice = self._weighted(weights)
        if self.ksm and advice == MADV_PAGEOUT:  # of merged pages it is not modelled
            advice = MADV_DONTNEED
        needs = (MAPPED, SHARED | FILE) if advice == MADV_GUARD_INSTALL and self.with_uffd else (MAPPED, 0)
        return Op(process, "madvise", (*self.memory.place(process, *NEEDS.get(advice, needs)), advice))

    def _weighted(self, weights: Mapping[int, float]) -> int:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def _mergeable(self) -> Op:
        process = self._process()
        return Op(process, "madvise", (*self.memory.place(process), self.rng.choice((MERGEABLE,) * 5 + (UNMERGEABLE,))))

    def _ksmd(self) -> Op:
        """A page is merged in the second pass or the third."""
        return Op(self._process(), "ksm", (self.rng.choice((1, 1, 2, 3)),))

    def _value(self) -> int:
        """What is written: often the same, where pages may be merged for it."""
        return self.rng.choice(SAME) if self.ksm else self.rng.randrange(1, 1 << 31)

    def _collapse(self) -> Op:
        process = self._process()
        tables = self.memory.tables(process)
        return self._touched(process, tables, Op(process, "madvise", (*tables, MADV_COLLAPSE)))

    def _touched(self, process: int, tables: tuple[int, int], op: Op) -> Op:
        """Often some pages are touched before the operation: where nothing is there is nothing to collapse."""
        if self.rng.random() < 0.4:
            return op
        self.pending = [op]
        step = self.rng.choice((16, 64, self.table // 4, self.table)) * self.page
        return Op(process, "fill", (*tables, step, self.rng.choice((0, self._value(), self._value()))))

    def _move(self) -> Op:
        rng = self.rng
        process = self._process()
        addr, length = self.memory.place(process)
        to, room = self.memory.place()
        if rng.random() < 0.5:  # to where it fits the tables as it does here
            huge = self.table * self.page
            to = to - to % huge + addr % huge
        flags = rng.choice((3, 3, 3, 7))
        new = length if flags == 7 else rng.choice((length, length, length, room))
        to = min(to, self.geometry.end - new)
        self.memory.remember(to, new)
        return Op(process, "mremap", (addr, length, new, flags, to))

    def _resize(self) -> Op:
        process = self._process()
        addr, length = self.memory.place(process)
        new = min(self.memory.place()[1], self.geometry.end - addr)
        return Op(process, "mremap", (addr, length, new, 0, 0))

    def _grow(self) -> Op:
        """Of the memory before a hole, into it."""
        process = self._process()
        pages, nr = self.memory.mapped[process], self.memory.pages
        end = self.rng.randrange(nr)
        hole = next((i for i in (*range(end, nr), *range(end)) if not pages[i] and i and pages[i - 1]), 0)
        if not hole:
            return self._resize()
        room = next((i for i in range(hole, nr) if pages[i]), nr) - hole
        first = next((i for i in range(hole - 1, -1, -1) if pages[i] != pages[hole - 1]), -1) + 1
        old = min(self.rng.choice((1, 1, *self.memory.sizes)), hole - first) * self.page
        new = old + self.rng.choice((1, room, self.rng.randrange(room) + 1)) * self.page
        return Op(process, "mremap", (self.geometry.start + hole * self.page - old, old, new, 0, 0))

    def _lock(self) -> Op:
        process = self._process()
        kind = self.rng.choice(("mlock", "mlock2", "munlock", "munlock"))
        place = self.memory.place(process)
        return Op(process, kind, (*place, self.rng.choice((0, 1))) if kind == "mlock2" else place)

    def _lockall(self) -> Op:
        flags = self.rng.choice((0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7))
        return Op(self._process(), "mlockall", (flags,)) if flags else Op(self._process(), "munlockall")

    def _read(self) -> Op:
        process = self._process()
        return Op(process, "read", (self.memory.page_at(process, MAPPED | 1),))

    def _write(self) -> Op:
        process = self._process()
        return Op(process, "write", (self.memory.page_at(process, MAPPED | 2), self._value()))

    def _fill(self) -> Op:
        rng = self.rng
        process = self._process()
        value = rng.choice((0, self._value()))
        addr, length = self.memory.place(process, MAPPED | 2 if value else MAPPED | 1)
        step = rng.choice((1, 1, 7, 16, 128, 512)) * self.page
        return Op(process, "fill", (addr, length, step, value))

    def _sum(self) -> Op:
        process = self._process()
        return Op(process, "sum", self.memory.place(process))

    def _fork(self) -> Op:
        free = [p for p in range(MAX_PROCESSES) if p not in self.family.live]
        return Op(self._process(), "fork", (free[0],)) if free else self._exit()

    def _vfork(self) -> Op:
        return self._fork()._replace(kind="vfork") if len(self.family.live) < MAX_PROCESSES else self._exit()

    def _exit(self) -> Op:
        return Op(self._process(), "exit") if len(self.family.live) > 1 else self._write()

    def _policy(self) -> tuple[int, int]:
        """(mode with flags, nodes)."""
        return self.rng.choice(POLICIES)

    def _mseal(self) -> Op:
        """Few pages, which other operations then come upon."""
        process = self._process()
        addr, length = self.memory.place(process)
        length = min(length, self.rng.choice(SIZES) * self.page)
        self.memory.remember(addr, length)
        return Op(process, "mseal", (addr, length, 0))

    def _pagemap_scan(self) -> Op:
        """Of a range that may have holes; with flag 1 pages are write-protected where a userfaultfd has WP_ASYNC."""
        rng, process = self.rng, self._process()
        addr, length = self.memory.place(process)
        length = min(length + rng.choice((0, 0, self.memory.place()[1])), self.geometry.end - addr)
        flags = rng.choice(SCAN_FLAGS)
        nr = 0 if flags & 1 and rng.random() < 0.2 else rng.choice(SCAN_RANGES)
        sets = rng.choice((0, 0, 0, 2, 8)), rng.choice(SCAN_SETS), rng.choice(SCAN_SETS)
        returned = rng.choice((ALL_CATEGORIES, ALL_CATEGORIES, 2, 8 | 16, rng.randrange(128)))
        return Op(process, "pagemap_scan", (addr, length, flags, rng.choice(SCAN_PAGES), nr, *sets, returned))

    def _clear_refs(self) -> Op:
        return Op(self._process(), "clear_refs", (4,))

    def _set_mempolicy(self) -> Op:
        return Op(self._process(), "set_mempolicy", self._policy())

    def _get_mempolicy(self) -> Op:
        process = self._process()
        flags = self.rng.choice((0, 4, 3, 3))  # the policy of an address may be the file's, which is not modelled
        return Op(process, "get_mempolicy", (self.memory.page_at(process, MAPPED | 1) if flags == 3 else 0, flags))

    def _mbind(self) -> Op:
        process = self._process()
        mode, nodes = self._policy()
        return Op(process, "mbind", (*self.memory.place(process), mode, nodes, 0))

    def _remap(self) -> Op:
        process = self._process()
        place = self.memory.place(process, MAPPED | SHARED)
        return Op(process, "remap_file_pages", (*place, 0, self.rng.randrange(2 * self.table), 0))

    def _truncate(self) -> Op:
        file = self.rng.choice((0, 0, 1, 1, 2, 3, 4, 5, 6))
        full = self.geometry.file_pages[file]
        more = full + self.rng.randrange(self.table)
        pages = self.rng.choice((0, 1, full, full, full, full, self.rng.randrange(full), more))
        return Op(self._process(), "ftruncate", (file, pages * self.page))

    def _punch(self) -> Op:
        file = self.rng.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 6))
        start = self.rng.choice((0, self.table, self.rng.randrange(self.geometry.file_pages[file])))
        nr = self.rng.choice((*self.memory.sizes, self.table, 2 * self.table))
        return Op(self._process(), "punch", (file, start * self.page, nr * self.page))

    def _process_madvise(self) -> Op:
        process, target, advice = self._process_advice(PROCESS_ADVICE)
        place = self._advised(target, advice)
        op = Op(process, "process_madvise", (target, *place, advice))
        return self._touched(target, place, op) if advice == MADV_COLLAPSE else op

    def _process_advice(self, advices: Mapping[int, float]) -> tuple[int, int, int]:
        """(process, target, advice): some advice is for the process itself only."""
        process, target, advice = self._process(), self._process(), self._weighted(advices)
        if advice in (4, 8, 14) and self.rng.random() < 0.85:
            target = process
        return process, target, advice

    def _advised(self, process: int, advice: int) -> tuple[int, int]:
        if advice == MADV_COLLAPSE:
            return self.memory.tables(process)
        return self.memory.place(process, *NEEDS.get(advice, (MAPPED, 0)))

    def _process_madvise_ranges(self) -> Op:
        process, target, advice = self._process_advice(RANGES_ADVICE)
        places = *self._advised(target, advice), *self._advised(target, advice)
        return Op(process, "process_madvise_ranges", (target, *places, advice))

    def _thp_disable(self) -> Op:
        return Op(self._process(), "thp_disable", self.rng.choice(((0, 0), (0, 0), (1, 0), (1, 2), (0, 2))))

    def _brk(self) -> Op:
        """Mostly to somewhere in the heap's part of the arena, not only to whole pages; now and then below it."""
        heap, rng = self.geometry.heap, self.rng
        room = (self.geometry.end - heap) // self.page
        pages = rng.choice((0, rng.choice(self.memory.sizes), rng.randrange(room), self.table, -1))
        return Op(self._process(), "brk", (heap + min(pages, room) * self.page + rng.choice((0, 0, 0, 8)),))

    def _stack(self) -> Op:
        """A small one high in a hole, if there is one."""
        start, nr = self.memory.anywhere()
        start += nr - 1
        self.stacks.append(start)
        return self._map(self.geometry.start + start * self.page, self.page, 0x132, NO_FILE, 0)

    def _below(self) -> Op:
        """An access below a stack."""
        if not self.stacks:
            return self._stack()
        at = max(self.rng.choice(self.stacks) - self.rng.choice((0, 1, 2, 16, 100, 255, 256, 257, 600)), 0)
        addr = self.geometry.start + at * self.page
        if self.rng.random() < 0.3:
            return Op(self._process(), "read", (addr,))
        return Op(self._process(), "write", (addr, self.rng.randrange(1, 1 << 31)))

    def _file_place(self, file: int) -> int:
        """The offset of a page, mostly within the file."""
        full = self.geometry.file_pages[file]
        index = self.rng.choice((0, self.table, self.rng.randrange(full), self.rng.randrange(full), full + 2))
        return index * self.page

    def _fallocate(self) -> Op:
        file = self.rng.choice((*MEMFDS, *MEMFDS, *MEMFDS, READONLY))
        length = self.rng.choice((*self.memory.sizes, 2 * self.table)) * self.page
        return Op(self._process(), "fallocate", (file, self.rng.randrange(2), self._file_place(file), length))

    def _pread(self) -> Op:
        file = self.rng.choice((*MEMFDS, REGULAR, READONLY, 4, 5, 6))
        return Op(self._process(), "pread", (file, self._file_place(file)))

    def _pwrite(self) -> Op:
        file = self.rng.choice((*MEMFDS, *MEMFDS, *MEMFDS, REGULAR, REGULAR, READONLY, 6))
        value = self.rng.randrange(1, 1 << 31)
        return Op(self._process(), "pwrite", (file, self._file_place(file), value))

    def _msync(self) -> Op:
        """Without MS_SYNC: what a regular file writes back is not modelled."""
        process = self._process()
        return Op(process, "msync", (*self.memory.place(process), self.rng.choice((0, 1, 2, 3))))

    def _mincore(self) -> Op:
        process = self._process()
        return Op(process, "mincore", self.memory.place(process))
