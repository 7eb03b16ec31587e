# SPDX-License-Identifier: GPL-2.0-only
"""Random programs of system calls and faults, and how to run one on a model."""

from __future__ import annotations

import random
from typing import Any

BASE = 0x10_0000_0000
PAGE = 4096
MB2 = 2 << 20
ARENA = 6 * MB2  # the programs live in [BASE, BASE + ARENA), and where mremap moves things, right above

Op = tuple[str, tuple[int, ...]]


def random_program(seed: int, length: int) -> list[Op]:
    """A program of `length` operations in which mappings, tables and huge pages come and go."""
    rng = random.Random(seed)

    def place() -> tuple[int, int]:
        if rng.random() < 0.5:
            start = rng.randrange(0, ARENA // MB2) * MB2
            return BASE + start, min(rng.choice((1, 1, 2, 3)) * MB2, ARENA - start)
        start = rng.randrange(0, ARENA // PAGE)
        return BASE + start * PAGE, min(rng.choice((1, 3, 16, 200, 512, 700)), ARENA // PAGE - start) * PAGE

    def prot() -> int:
        return rng.choice((0, 1, 3, 3, 3, 3, 5))

    program: list[Op] = [("mmap", (BASE, ARENA, 3, 0x22, 0))]
    for _ in range(length):
        start, size = place()
        kind = rng.choices(
            ("mmap", "mmap_shared", "munmap", "mprotect", "madvise", "mremap", "touch", "mlock", "munlock", "fork"),
            (4, 3, 4, 5, 18, 4, 40, 1, 2, 1),
        )[0]
        if kind == "mmap":
            program.append(("mmap", (start, size, prot(), 0x32, 0)))
        elif kind == "mmap_shared":
            program.append(("mmap", (start, size, prot(), rng.choice((0x11, 0x12)), rng.randrange(4))))
        elif kind in ("munmap", "mlock", "munlock"):
            program.append((kind, (start, size)))
        elif kind == "mprotect":
            program.append((kind, (start, size, prot())))
        elif kind == "madvise":
            advice = rng.choice((4, 4, 4, 4, 8, 14, 14, 15, 20, 22, 23, 23, 24, 25, 25, 10, 11, 18, 19, 102, 103, 9))
            program.append((kind, (start, size, advice)))
        elif kind == "mremap":
            target = BASE + ARENA + rng.randrange(0, ARENA // PAGE) * PAGE
            if rng.random() < 0.5:
                target = BASE + ARENA + (start - BASE)
            program.append((kind, (start, size, size, rng.choice((3, 3, 7)), target)))
        elif kind == "touch":
            for _ in range(rng.randrange(1, 6)):
                where = rng.randrange(start // PAGE, (start + size) // PAGE) * PAGE
                program.append(("touch", (where, rng.randrange(2), rng.randrange(1, 1000), rng.randrange(2))))
        else:
            program.append(("fork", ()))
    return program


class Machine:
    """One process (and at most one child at a time) on a model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        k = model.kernel
        self.mm = k("mm_init").mm_alloc()
        self.children: list[Any] = []
        self.file = k("shmem").shmem_file_setup(8 * MB2)
        self.none = k("mm_types").file(0)
        self.mm.nr_cpus = 2
        model.machine.quiescent()

    def run(self, op: Op) -> tuple[int, ...]:
        """Execute one operation: (result, VmPTE in bytes, rss of three kinds in pages)."""
        name, args = op
        k, mm = self.model.kernel, self.mm
        if name == "mmap":
            start, size, prot, flags, pgoff = args
            f = self.none if flags & 0x20 else self.file
            ret = k("mmap").sys_mmap(mm, start, size, prot, flags | 0x10, f, pgoff * 256)
        elif name == "munmap":
            ret = k("mmap").sys_munmap(mm, *args)
        elif name == "mprotect":
            ret = k("mprotect").sys_mprotect(mm, *args)
        elif name == "madvise":
            ret = k("madvise").sys_madvise(mm, *args)
        elif name == "mremap":
            ret = k("mremap").sys_mremap(mm, *args)
        elif name == "touch":
            ret = self.touch(*args)
        elif name in ("mlock", "munlock"):
            ret = getattr(k("mlock"), f"sys_{name}")(mm, *args)
        elif name == "fork":
            while self.children:
                k("mm_init").mmput(self.children.pop())
            self.children.append(k("fork").dup_mm(mm))
            ret = 0
        else:
            raise ValueError(name)
        self.model.machine.quiescent()
        return (int(ret), *self.observe(self.mm), *(n for c in self.children for n in self.observe(c)))

    def touch(self, address: int, write: int, value: int, cpu: int) -> int:
        """Access memory from a CPU: 0 for a write, the content for a read, -1 for a signal."""
        fault = self.model.kernel("fault")
        if hasattr(self.model.machine, "run_on"):
            self.model.machine.run_on(cpu, self.mm.addr)
        return int(fault.user_write(self.mm, address, value) if write else fault.user_read(self.mm, address))

    def observe(self, mm: Any) -> tuple[int, ...]:
        """VmPTE in bytes and the rss counters of an mm."""
        load = self.model.machine.load
        size = self.model.kernel("pgtable_generic").mm_pgtables_bytes(mm)
        return (size, load(mm.anon_rss), load(mm.file_rss), load(mm.shmem_rss))

    def exit(self) -> None:
        """End all processes: what is left over is an error of the model."""
        for mm in (*self.children, self.mm):
            self.model.kernel("mm_init").mmput(mm)
        self.model.machine.quiescent()
