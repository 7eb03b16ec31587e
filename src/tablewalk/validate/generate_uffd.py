# SPDX-License-Identifier: GPL-2.0-only
"""The part of random programs that opens userfaultfds, registers memory with them, and fills, protects and moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .ops import Op
from .pages import MAPPED, SHARED

if TYPE_CHECKING:
    from .generate import Generator

EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP, SIGBUS = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 7
EXACT_ADDRESS, WP_UNPOPULATED, WP_ASYNC = 1 << 11, 1 << 13, 1 << 15
USER_MODE_ONLY = 1
NUMBERS = 4  # of userfaultfds that programs open; children's come to them

MODES = (1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 5, 6, 7)  # missing, write protection, minor
FILL_PAGES = (1, 1, 1, 2, 3, 4, 8, 17)

WEIGHTS: dict[str, float] = {
    "uffd_open": 3,
    "uffd_close": 3.4,
    "uffd_register": 11,
    "uffd_unregister": 4.5,
    "uffd_copy": 9,
    "uffd_zeropage": 8.5,
    "uffd_continue": 9,
    "uffd_writeprotect": 6,
    "uffd_move": 9.5,
    "uffd_poison": 8.4,
    "uffd_wake": 3.6,
}

# How often memory is mapped and registered for an operation, so that it succeeds
SCENES = {
    "uffd_copy": 0.4,
    "uffd_zeropage": 0.3,
    "uffd_continue": 0.5,
    "uffd_move": 0.5,
    "uffd_poison": 0.3,
    "uffd_writeprotect": 0.15,
}

SPOILERS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "uffd_open": ((0, (2, 0x100)), (1, (1 << 40, 1 << 62)), (2, (8,))),
    "uffd_close": ((0, (7, 8)),),
    "uffd_register": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (0, 8)), (3, (7, 8))),
    "uffd_unregister": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (7, 8))),
    "uffd_copy": ((0, (1, 2048)), (2, (0, 1 << 62)), (3, (4, 8)), (4, (7, 8))),
    "uffd_zeropage": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (2, 8)), (3, (7, 8))),
    "uffd_continue": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (4, 8)), (3, (7, 8))),
    "uffd_writeprotect": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (3, 4)), (3, (7, 8))),
    "uffd_move": ((0, (1, 2048)), (1, (2048,)), (2, (0, 1 << 62)), (3, (4, 8)), (4, (7, 8))),
    "uffd_poison": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (2, 8)), (3, (7, 8))),
    "uffd_wake": ((0, (1, 2048)), (1, (0, 1 << 62)), (2, (7, 8))),
}


class Registered(NamedTuple):
    """Memory that was registered with userfaultfd `n` once."""

    process: int
    n: int
    addr: int
    length: int
    mode: int


class UffdChoices:
    """Makes operations `uffd_*` for a generator; remembers which userfaultfds are open, and what is registered."""

    def __init__(self, generator: Generator) -> None:
        self.g, self.rng = generator, generator.rng
        self.owner: dict[int, int] = {}  # process, by number of the userfaultfd
        self.forks: set[int] = set()  # those that a child gets, too
        self.registered: list[Registered] = []

    def begin(self, start: int, length: int) -> list[Op]:
        """Something is registered from the beginning."""
        return [self._opened(0, 0), self._register_with(0, 0, start, length)]

    def track(self, op: Op) -> None:
        """Note which userfaultfds there probably are."""
        if op.kind == "uffd_open" and op.args[0] <= USER_MODE_ONLY and op.args[2] not in self.owner:
            if op.args[2] < NUMBERS and op.args[1] < 1 << 40:
                self.owner[op.args[2]] = op.process
                if op.args[1] & EVENT_FORK:
                    self.forks.add(op.args[2])
        elif op.kind == "uffd_close":
            self.owner.pop(op.args[0], None)
            self.forks.discard(op.args[0])
            self.registered = [r for r in self.registered if r.n != op.args[0]]
        elif op.kind == "uffd_register":
            self._registers(*op.args)
        elif op.kind in ("mmap", "munmap"):
            self._forget(op.process, op.args[0], op.args[1])
        elif op.kind == "mremap" and op.args[3] & 2:
            self._forget(op.process, op.args[4], op.args[2])
        elif op.kind == "uffd_unregister" and op.args[2] in self.owner:
            self._forget(self.owner[op.args[2]], op.args[0], op.args[1])
        elif op.kind == "fork":
            self._fork(op.process, op.args[0])
        elif op.kind == "exit":
            self.registered = [r for r in self.registered if r.process != op.process]

    def _registers(self, addr: int, length: int, mode: int, n: int) -> None:
        """Memory that is probably registered: all of it mapped."""
        process = self.owner.get(n, -1)
        if mode and mode < 8 and self.g.memory.all_mapped(process, addr, length):
            self.registered.append(Registered(process, n, addr, length, mode))
            if len(self.registered) > 8:
                del self.registered[self.rng.randrange(8)]

    def _forget(self, process: int, addr: int, length: int) -> None:
        """Something else is there now."""
        self.registered = [
            r for r in self.registered if r.process != process or r.addr + r.length <= addr or addr + length <= r.addr
        ]

    def _fork(self, parent: int, child: int) -> None:
        theirs = [r for r in self.registered if r.process == parent and r.n in self.forks]
        for n in dict.fromkeys(r.n for r in theirs):
            free = next((i for i in range(NUMBERS) if i not in self.owner), None)
            if free is not None:
                self.owner[free] = child
                self.forks.add(free)
                self.registered += [r._replace(process=child, n=free) for r in theirs if r.n == n]

    # --- choices -----------------------------------------------------------------------------------------

    def _owned(self) -> tuple[int, int]:
        """(process, number of a userfaultfd): mostly its own."""
        usable = self._usable()
        if not usable or self.rng.random() < 0.02:
            return self.g._process(), self.rng.randrange(NUMBERS)
        n = self.rng.choice(usable)
        process = self.owner[n]
        return (process if process in self.g.family.ready and self.rng.random() < 0.97 else self.g._process()), n

    def _target(self, modes: int = 7) -> tuple[int, int, int, int]:
        """(process, userfaultfd, address, bytes): mostly registered with one of these modes."""
        found = [r for r in self.registered if r.mode & modes and r.process in self.g.family.ready]
        if not found or self.rng.random() < 0.07:
            process, n = self._owned()
            return process, n, *self.g.memory.place(process)
        r = self.rng.choice(found)
        choice = self.rng.random()
        if choice < 0.25:
            return r.process, r.n, r.addr, r.length
        table = self.g.table * self.g.page
        if choice < 0.5 and r.length >= 2 * table:  # of whole tables
            addr = -(-r.addr // table) * table
            addr += self.rng.randrange((r.addr + r.length - addr) // table) * table
            return r.process, r.n, addr, table
        first = self.rng.randrange(r.length // self.g.page)
        pages = self.rng.randrange(r.length // self.g.page - first) + 1
        pages = min(pages, self.rng.choice(self.g.memory.sizes))
        return r.process, r.n, r.addr + first * self.g.page, pages * self.g.page

    def _to_fill(self, modes: int) -> tuple[int, int, int, int]:
        """The same, of few pages: each page is an operation for the kernel."""
        process, n, addr, length = self._target(modes)
        return process, n, addr, min(length, self.rng.choice(FILL_PAGES) * self.g.page)

    # --- operations --------------------------------------------------------------------------------------

    def op(self, kind: str) -> Op:
        """An operation of this kind, or what it needs first: the generator then has others `pending`."""
        usable = self._usable()
        if not usable and self.rng.random() < 0.8:
            return self._open()
        if kind in SCENES and usable and self.rng.random() < (SCENES[kind] if self.registered else 0.8):
            self.g.pending = self._scene(kind)
            return self.g.pending.pop(0)
        made: Op = getattr(self, kind.removeprefix("uffd"))()
        return made

    def _usable(self) -> list[int]:
        """Numbers of userfaultfds whose memory there is."""
        return [n for n, process in self.owner.items() if process in self.g.family.live]

    def _scene(self, kind: str) -> list[Op]:
        """Memory just mapped and registered, and the operation."""
        rng, page = self.rng, self.g.page
        process, n = self._owned()
        addr, length = self._fresh(process)
        if kind == "uffd_continue":
            offset = rng.randrange(self.g.geometry.file_pages[0] - length // page) * page
            made = [
                Op(process, "mmap", (addr, length, 3, rng.choice((0x11, 0x11, 0x12)), 0, offset)),
                Op(process, "fill", (addr, length, page, rng.choice((0, 1)))),
                Op(process, "madvise", (addr, length, 4)),
                self._register_with(process, n, addr, length, rng.choice((4, 4, 5, 6, 7))),
            ]
        else:
            shared = kind not in ("uffd_move", "uffd_writeprotect") and rng.random() < 0.3
            made = [
                Op(process, "mmap", (addr, length, 3, 0x31 if shared else 0x32, (1 << 64) - 1, 0)),
                self._register_with(process, n, addr, length, rng.choice((1, 2, 3) if kind != "uffd_move" else (1, 3))),
            ]
        modes = {"uffd_writeprotect": (1, 1, 0), "uffd_copy": (0, 0, 1, 2), "uffd_move": (0, 1, 2)}
        mode = rng.choice(modes.get(kind, (0, 0, 1)))
        source: tuple[int, ...] = ()
        if kind in ("uffd_copy", "uffd_move"):
            source = (self._fresh(process, length)[0],)
            made.append(Op(process, "mmap", (source[0], length, 3, 0x32, (1 << 64) - 1, 0)))
            made.append(Op(process, "fill", (source[0], length, page, rng.choice((0, rng.randrange(1, 1 << 31))))))
            made.append(self._register_with(process, n, addr, length, rng.choice((1, 3))))
        return [*made, Op(process, kind, (addr, *source, length, mode, n))]

    def _fresh(self, process: int, length: int = 0) -> tuple[int, int]:
        """Where to map few pages, or `length` bytes, often on a table's edge."""
        length = length or self.rng.choice((*FILL_PAGES, self.g.table)) * self.g.page
        addr, _ = self.g.memory.place(process)
        if self.rng.random() < 0.4:
            addr -= addr % (self.g.table * self.g.page)
        return min(addr, self.g.geometry.end - length), length

    def _opened(self, process: int, n: int) -> Op:
        rng = self.rng
        features = rng.choice((0, EXACT_ADDRESS))
        if rng.random() < 0.4:
            features |= SIGBUS
        for event in (EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP):
            features |= event if rng.random() < 0.4 else 0
        features |= rng.choice((0, 0, 0, 0, WP_UNPOPULATED, WP_UNPOPULATED, WP_ASYNC, WP_ASYNC))
        return Op(process, "uffd_open", (USER_MODE_ONLY if rng.random() < 0.1 else 0, features, n))

    def _open(self) -> Op:
        free = [n for n in range(NUMBERS) if n not in self.owner]
        if not free and self.rng.random() < 0.9:
            return self._close()
        return self._opened(self.g._process(), free[0] if free else self.rng.randrange(NUMBERS))

    def _close(self) -> Op:
        gone = [n for n, process in self.owner.items() if process not in self.g.family.live]
        return Op(self.g._process(), "uffd_close", (self.rng.choice(gone) if gone else self._owned()[1],))

    def _register_with(self, process: int, n: int, addr: int, length: int, mode: int = 0) -> Op:
        mode = mode or self.rng.choice(MODES)
        self.g.memory.remember(addr, length)
        return Op(process, "uffd_register", (addr, length, mode, n))

    def _register(self) -> Op:
        process, n = self._owned()
        mode = self.rng.choice(MODES)
        shared = MAPPED | SHARED if mode == 4 else MAPPED
        return self._register_with(process, n, *self.g.memory.place(process, shared), mode)

    def _unregister(self) -> Op:
        process, n, addr, length = self._target()
        return Op(process, "uffd_unregister", (addr, length, n))

    def _wake(self) -> Op:
        process, n, addr, length = self._target()
        return Op(process, "uffd_wake", (addr, length, n))

    def _source(self, process: int, like: int, length: int) -> int:
        """Where to fill from: an address, often as far from the beginning of a table."""
        addr, _ = self.g.memory.place(process, 10)
        table = self.g.table * self.g.page
        if self.rng.random() < 0.5:
            addr = addr - addr % table + like % table
        return min(addr, self.g.geometry.end - length)

    def _copy(self) -> Op:
        process, n, addr, length = self._to_fill(3)
        mode = self.rng.choice((0, 0, 0, 1, 2, 2, 3))
        return Op(process, "uffd_copy", (addr, self._source(process, addr, length), length, mode, n))

    def _move(self) -> Op:
        process, n, addr, length = self._target(7)
        mode = self.rng.choice((0, 0, 1, 2, 2, 2, 3))
        return Op(process, "uffd_move", (addr, self._source(process, addr, length), length, mode, n))

    def _zeropage(self) -> Op:
        process, n, addr, length = self._to_fill(7)
        return Op(process, "uffd_zeropage", (addr, length, self.rng.choice((0, 0, 1)), n))

    def _continue(self) -> Op:
        process, n, addr, length = self._to_fill(4)
        return Op(process, "uffd_continue", (addr, length, self.rng.choice((0, 0, 1, 2, 2)), n))

    def _poison(self) -> Op:
        process, n, addr, length = self._to_fill(7)
        return Op(process, "uffd_poison", (addr, length, self.rng.choice((0, 0, 1)), n))

    def _writeprotect(self) -> Op:
        process, n, addr, length = self._target(2)
        return Op(process, "uffd_writeprotect", (addr, length, self.rng.choice((0, 0, 1, 1, 1, 2)), n))
