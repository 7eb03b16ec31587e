# SPDX-License-Identifier: GPL-2.0-only
"""Random small programs, and naive enumeration of all they can do: an interpreter that shares nothing with explore.

A program is a list of threads, a thread a list of blocks, a block a list of instructions on two atomics, a counter, two
guarded fields, a spinlock, a rwsem, and an object that RCU frees.  A thread has one register.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tablewalk.explore.learn import activation
from tablewalk.machine.drivers import Model

Instruction = tuple[Any, ...]
Block = tuple[Instruction, ...]
Program = tuple[tuple[Block, ...], ...]

ATOMICS = ("mm_users", "mm_count")
FIELDS = ("map_count", "flags")


def random_program(rng: random.Random) -> Program:
    """Two or three threads of a few blocks."""
    threads = rng.choice((2, 2, 3))
    frees = rng.randrange(threads) if rng.random() < 0.4 else -1
    return tuple(
        tuple(random_block(rng, frees == t and i == 0) for i in range(rng.randint(1, 3 if threads == 2 else 2)))
        for t in range(threads)
    )


def random_block(rng: random.Random, frees: bool) -> Block:
    """A critical section of some kind, sometimes without the lock that it needs."""
    inner = tuple(random_instruction(rng) for _ in range(rng.randint(1, 2)))
    if frees:
        return (*inner, ("call_rcu",))
    kind = rng.choice(("spin", "read", "write", "try", "rcu", "none", "if"))
    if kind == "spin":
        return (("lock",), *inner, ("unlock",))
    if kind == "read":
        return (("down_read",), *inner, ("up_read",))
    if kind == "write":
        return (("down_write",), *inner, ("up_write",))
    if kind == "try":
        return (("trylock", len(inner) + 1), *inner, ("unlock",))
    if kind == "rcu":
        return (("rcu",), *inner, ("touch",), ("unrcu",))
    if kind == "if":
        return (("load", rng.choice(ATOMICS)), ("if", len(inner)), *inner)
    return inner


def random_instruction(rng: random.Random) -> Instruction:
    """One access."""
    name = rng.choice(("load", "store", "add_return", "inc_not_zero", "add", "get", "set", "xchg"))
    if name in ("get", "set"):
        field = rng.choice(FIELDS)
        return (name, field, rng.randint(1, 2)) if name == "set" else (name, field)
    if name == "add":
        return ("add", 1)
    cell = rng.choice(ATOMICS)
    return (name, cell, rng.randint(0, 2)) if name in ("store", "xchg") else (name, cell)


# --- the model ----------------------------------------------------------------------------------------------


class Subject:
    """The program on the driver `searched`: `bodies` for an engine, and what of memory the oracle knows too."""

    def __init__(self, model: Model, program: Program) -> None:
        self.model, self.machine = model, model.machine
        self.mm = model.kernel("mm_init").mm_alloc()
        self.object = model.kernel("page_alloc").folio_alloc(0)
        self.block = activation(self._block)
        self.release = activation(self._release)
        self.bodies = [self._body(thread) for thread in program]

    def _body(self, thread: tuple[Block, ...]) -> Callable[[], int]:
        def body() -> int:
            reg = 0
            for i, block in enumerate(thread):
                reg = self.block(block, reg)
                self.machine.forget((i, reg))
            return reg

        return body

    def _release(self, address: int) -> None:
        self.model.kernel("mm_types").folio(address).free(1)

    def _block(self, block: Block, reg: int) -> int:
        m, mm = self.machine, self.mm
        i = 0
        while i < len(block):
            name, *args = block[i]
            i += 1
            if name in ("load", "add_return", "inc_not_zero"):
                cell = getattr(mm, args[0])
                reg = int(getattr(m, name)(cell, *([1] if name == "add_return" else [])))
            elif name == "store":
                m.store(getattr(mm, args[0]), args[1])
            elif name == "xchg":
                reg = m.xchg(getattr(mm, args[0]), args[1])
            elif name == "add":
                m.add(mm.nr_ptes, args[0])
            elif name == "get":
                reg = getattr(mm, args[0])
            elif name == "set":
                setattr(mm, args[0], args[1])
            elif name == "touch":
                m.add(self.object._mapcount, 1)
            elif name == "call_rcu":
                m.call_rcu(self.release, self.object)
            elif name == "trylock":
                if not m.spin_trylock(mm.page_table_lock):
                    i += args[0]
            elif name == "if":
                i += args[0] if reg == 0 else 0
            else:
                primitive = {"lock": m.spin_lock, "unlock": m.spin_unlock}.get(name)
                if primitive:
                    primitive(mm.page_table_lock)
                elif name in ("rcu", "unrcu"):
                    (m.rcu_read_lock if name == "rcu" else m.rcu_read_unlock)()
                else:
                    getattr(m, name)(mm.mmap_lock)
        return reg

    def seen(self, cells: list[int], regs: list[int]) -> tuple[Any, ...]:
        """What the oracle says of a final state."""
        mm, f = self.mm, self.object
        alive = cells[self.machine.ghost_of(f.addr)] != 0
        self.machine.mem[: len(cells)] = cells
        fields = [mm.map_count, mm.flags]
        values = [cells[a] for a in (mm.mm_users, mm.mm_count, mm.nr_ptes)]
        return (*values, *fields, alive, cells[f._mapcount] if alive else 0, *regs)


# --- naive enumeration --------------------------------------------------------------------------------------

FINAL, VIOLATIONS = 0, 1
START = {"mm_users": 1, "mm_count": 1, "nr_ptes": 0, "map_count": 0, "flags": 0, "alive": True, "touched": 0}


def enumerate_all(program: Program) -> tuple[set[tuple[Any, ...]], set[str]]:
    """(all final states, kinds of violations) by trying everything, one instruction at a time."""
    memory = tuple(START.values())
    threads = tuple((0, 0, 0, False, False, 0) for _ in program)  # block, instruction, register, spin, write, read/rcu
    start = (memory, threads, 0, ())  # spin owner + 1, callback: () or readers waited for or ("done",)
    seen, todo = {start}, [start]
    finals: set[tuple[Any, ...]] = set()
    violations: set[str] = set()
    while todo:
        state = todo.pop()
        after, waiting, broken = [], 0, 0
        for t in range(len(program)):
            new = one(program, state, t)
            if new is None:
                continue
            if new == "wait":
                waiting += 1
            elif isinstance(new, str):
                violations.add(new)
                broken += 1
            else:
                after.append(new)
        if state[3] and state[3][0] == "pending" and not state[3][1]:
            values = dict(zip(START, state[0], strict=True))
            values["alive"], values["touched"] = False, 0
            after.append((tuple(values.values()), state[1], state[2], ("done",)))
        if not after and not broken:
            if waiting:
                violations.add("deadlock")
            else:
                finals.add((*state[0], *(thread[2] for thread in state[1])))
        for new in after:
            if new not in seen:
                seen.add(new)
                todo.append(new)
    return finals, violations


def one(program: Program, state: Any, t: int) -> Any:
    """The state after an instruction of thread `t`; None at its end, "wait", or the kind of violation."""
    memory, threads, owner, callback = state
    block, pc, reg, _, writes, reads = threads[t]
    code = program[t]
    while block < len(code) and pc >= len(code[block]):
        block, pc = block + 1, 0
    if block == len(code):
        return None
    rcu, reads = reads & 1, reads & 2
    name, *args = code[block][pc]
    pc += 1
    v = dict(zip(START, memory, strict=True))
    read_by_others = any(thread[5] & 2 for i, thread in enumerate(threads) if i != t)
    written_by_others = any(thread[4] for i, thread in enumerate(threads) if i != t)
    if name in ("load", "get"):
        if name == "get" and not guarded(args[0], owner == t + 1, writes, reads, write=False):
            return "guard"
        reg = v[args[0]]
    elif name in ("store", "set"):
        if name == "set" and not guarded(args[0], owner == t + 1, writes, reads, write=True):
            return "guard"
        v[args[0]] = args[1]
    elif name == "xchg":
        reg, v[args[0]] = v[args[0]], args[1]
    elif name == "add_return":
        v[args[0]] += 1
        reg = v[args[0]]
    elif name == "inc_not_zero":
        reg = int(v[args[0]] != 0)
        v[args[0]] += reg
    elif name == "add":
        v["nr_ptes"] += args[0]
    elif name == "touch":
        if not v["alive"]:
            return "freed"
        v["touched"] += 1
    elif name == "lock":
        if owner:
            return "wait"
        owner = t + 1
    elif name == "trylock":
        if owner:
            pc += args[0]
        else:
            owner = t + 1
    elif name == "unlock":
        owner = 0
    elif name == "down_read":
        if written_by_others:
            return "wait"
        reads = 2
    elif name == "up_read":
        reads = 0
    elif name == "down_write":
        if written_by_others or read_by_others:
            return "wait"
        writes = True
    elif name == "up_write":
        writes = False
    elif name == "rcu":
        rcu = 1
    elif name == "unrcu":
        rcu = 0
        if callback and callback[0] == "pending":
            callback = ("pending", callback[1] - {t})
    elif name == "call_rcu":
        callback = ("pending", frozenset(i for i, thread in enumerate(threads) if thread[5] & 1))
    elif name == "if" and reg == 0:
        pc += args[0]
    mine = (block, pc, reg, False, writes, rcu | reads)
    return tuple(v.values()), (*threads[:t], mine, *threads[t + 1 :]), owner, callback


def guarded(field: str, spin: bool, writes: bool, reads: int, write: bool) -> bool:
    """Whether the field's guard is held."""
    if field == "map_count":
        return writes if write else bool(writes or reads)
    return bool(spin or writes or reads)
