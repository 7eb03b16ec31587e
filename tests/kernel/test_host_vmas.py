# SPDX-License-Identifier: GPL-2.0-only
"""The model's VMAs against those of the kernel that runs the tests: same calls, same results, same maps."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import Any

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .host_vmas import (
    BASE,
    FILE_PAGES,
    PAGE,
    Observation,
    Op,
    Vma,
    random_program,
    run_on_host,
    stack_program,
    window_is_free,
)

SMAPS = {
    "rd": 0x1,
    "wr": 0x2,
    "ex": 0x4,
    "sh": 0x8,
    "mr": 0x10,
    "mw": 0x20,
    "me": 0x40,
    "ms": 0x80,
    "gd": 0x100,
    "lo": 0x2000,
    "sr": 0x8000,
    "rr": 0x10000,
    "dc": 0x20000,
    "lf": 0x80000,
    "ac": 0x100000,
    "nr": 0x200000,
    "wf": 0x2000000,
    "dd": 0x4000000,
    "hg": 0x20000000,
    "nh": 0x40000000,
}


class Process:
    """A process of the model with the files of `host_vmas.open_files`."""

    def __init__(self, model: drivers.Model) -> None:
        self.model = model
        self.k = model.kernel
        self.mm: Any = self.k("mm_init").mm_alloc()
        size = FILE_PAGES * PAGE
        filemap, shmem = self.k("filemap"), self.k("shmem")
        mappings = [shmem.shmem_mapping(size), shmem.shmem_mapping(size), filemap.file_mapping(size)]
        files = [filemap.open_file(m) for m in mappings]
        readonly = filemap.open_file(mappings[2], 1)
        readonly.f_readonly = 1
        self.files = (*files, readonly)
        self.names = {m.addr: f"file{i}" for i, m in enumerate(mappings)}
        for m in mappings:
            filemap.iput(m)
        self.no_file = self.k("mm_types").file(0)

    def run(self, op: Op) -> Observation:
        ret = self.call(op)
        self.model.machine.quiescent()
        return Observation(ret, self.vmas(), self.k("pgtable_generic").mm_pgtables_bytes(self.mm) >> 10)

    def call(self, op: Op) -> int:
        name, a = op
        mm = self.mm
        if name == "fork":
            child = self.k("fork").dup_mm(mm)
            self.k("mm_init").mmput(mm)
            self.mm = child
            return 0
        if name == "mlockall":
            return int(self.k("mlock").sys_mlockall(mm, a[0]) if a[0] else self.k("mlock").sys_munlockall(mm))
        start = BASE + a[0] * PAGE
        if name == "poke":
            return self.poke(start, a[1])
        if name == "shmat":
            f = self.k("shmem").shmem_file_setup(a[1] * PAGE)
            f.f_close = 1
            ret = self.k("mmap").sys_mmap(mm, start, a[1] * PAGE, 3, 0x11, f, 0)
            self.k("filemap").fput(f)
            return page_number(ret)
        if name == "mmap":
            f = self.files[a[4]] if a[4] >= 0 else self.no_file
            return page_number(self.k("mmap").sys_mmap(mm, start, a[1] * PAGE, a[2], a[3], f, a[5]))
        if name in ("read", "write"):
            pages = self.k("gup").get_user_pages(mm, start, 1, name == "write")
            self.k("gup").put_user_pages(pages)
            return len(pages) or -14
        size = a[1] * PAGE
        if name == "mremap":
            return page_number(self.k("mremap").sys_mremap(mm, start, size, a[2] * PAGE, a[3], BASE + a[4] * PAGE))
        if name in ("munmap", "remap_file_pages"):
            return int(getattr(self.k("mmap"), f"sys_{name}")(mm, start, size, *a[2:]))
        if name == "mlock2":
            return int(self.k("mlock").sys_mlock(mm, start, size, a[2]))
        if name == "mbind":
            return int(self.k("mempolicy").sys_mbind(mm, start, size, a[2], 0))
        module = "mlock" if name == "munlock" else name
        return int(getattr(self.k(module), f"sys_{name}")(mm, start, size, *a[2:]))

    def poke(self, address: int, write: int) -> int:
        """A child accesses memory, and carries on unless it is killed; 0, or -1 if it was."""
        child = self.k("fork").dup_mm(self.mm)
        fault = self.k("fault")
        killed = fault.user_write(child, address, 1) < 0 if write else fault.user_read(child, address) < 0
        self.k("mm_init").mmput(child if killed else self.mm)
        if not killed:
            self.mm = child
        return -1 if killed else 0

    def vmas(self) -> tuple[Vma, ...]:
        self.k("mmap_lock").mmap_read_lock(self.mm)
        found = self.model.machine.mt_values(self.mm.mm_mt)
        vmas = tuple(self.vma(self.k("mm_types").vm_area_struct(v)) for v in found)
        self.k("mmap_lock").mmap_read_unlock(self.mm)
        return vmas

    def vma(self, vma: Any) -> Vma:
        flags = vma.vm_flags
        prot = "".join(c if flags & bit else "-" for c, bit in (("r", 1), ("w", 2), ("x", 4)))
        f = vma.vm_file
        return Vma(
            (vma.vm_start - BASE) // PAGE,
            (vma.vm_end - BASE) // PAGE,
            prot + ("s" if flags & 0x80 else "p"),
            vma.vm_pgoff if f else 0,
            self.names.get(f.f_mapping.addr, "shmem") if f else "",
            frozenset(name for name, bit in SMAPS.items() if flags & bit),
        )

    def exit(self) -> None:
        self.k("mm_init").mmput(self.mm)
        for f in self.files:
            self.k("filemap").fput(f)
        self.model.machine.quiescent()


def page_number(ret: int) -> int:
    """Address as a page of the window; an errno as it is."""
    return (ret - BASE) // PAGE if ret > 0 else ret


def run_on_model(program: list[Op], driver: str) -> list[Observation]:
    major, minor = host_release()
    process = Process(drivers.model(KernelConfig(f"{major}.{minor}"), driver))
    seen = [process.run(op) for op in program]
    process.exit()
    return seen


def first_difference(program: list[Op], pages: int, driver: str = "sequential") -> str:
    """What differs first between host and model, as text; empty if nothing does.

    VmPTE is that of the whole interpreter, whose own tables come and go: only what shows each time counts.
    """
    model = run_on_model(program, driver)
    found = ""
    for _ in range(3):
        found = difference(program, run_on_host(program, pages), model)
        if "VmPTE" not in found:
            break
    return found


def difference(program: list[Op], host: list[Observation], model: list[Observation]) -> str:
    """The same for observations that have been made."""
    for i, (op, h, m) in enumerate(zip(program, host, model, strict=True)):
        if h.ret != m.ret or h.vmas != m.vmas:
            lines = [f"operation {i}: {op} returned {h.ret} on the host, {m.ret} in the model"]
            lines += [f"  before {v}" for v in (host[i - 1].vmas if i else ())]
            lines += [f"  host   {v}" for v in h.vmas if v not in m.vmas]
            lines += [f"  model  {v}" for v in m.vmas if v not in h.vmas]
            return "\n".join(lines)
        if i and op[0] not in ("fork", "poke"):
            grown = h.vmpte - host[i - 1].vmpte
            modelled = m.vmpte - model[i - 1].vmpte
            if grown != modelled:
                return f"operation {i}: {op} changed VmPTE by {grown} kB on the host, {modelled} in the model"
    return ""


def host_release() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


needs_host = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or host_release() < (6, 18) or os.geteuid() != 0,
    reason="compares with the running kernel: needs Linux 6.18 or newer on x86-64, and root",
)


@needs_host
@pytest.mark.parametrize("seed", range(6))
def test_pages(seed: int) -> None:
    assert window_is_free(24)
    assert first_difference(random_program(seed, 150, 1, 24), 24, "checked") == ""


@needs_host
@pytest.mark.parametrize("seed", range(6))
def test_tables(seed: int) -> None:
    assert window_is_free(4096)
    assert first_difference(random_program(seed, 100, 256, 16), 4096) == ""


@needs_host
@pytest.mark.parametrize("seed", range(6))
def test_stacks(seed: int) -> None:
    assert window_is_free(1024)
    assert first_difference(stack_program(seed), 1024, "checked") == ""


@needs_host
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 106))
def test_many(seed: int) -> None:
    assert window_is_free(4096)
    assert first_difference(random_program(seed, 150, 1, 24), 24) == ""
    assert first_difference(random_program(seed, 100, 256, 16), 4096) == ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--length", type=int, default=150)
    parser.add_argument("--unit", type=int, default=1)
    parser.add_argument("--window", type=int, default=24)
    parser.add_argument("--stacks", action="store_true", help="programs about stacks")
    parser.add_argument("--driver", default="sequential")
    parser.add_argument("--skip", action="append", default=[], help="leave out these operations")
    parser.add_argument("--stop", action="store_true", help="stop at the first difference")
    args = parser.parse_args()
    bad = 0
    for seed in range(args.first, args.first + args.seeds):
        program = random_program(seed, args.length, args.unit, args.window)
        if args.stacks:
            program = stack_program(seed)
        program = [op for op in program if op[0] not in args.skip]
        pages = 1024 if args.stacks else args.unit * args.window
        text = first_difference(program, pages, args.driver)
        if text:
            bad += 1
            print(f"seed {seed}: {text}")
            if args.stop:
                break
    print(f"{bad} of {args.seeds} seeds differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
