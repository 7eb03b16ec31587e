# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfd beside all that changes tables: the model against the running kernel.

Two userfaultfds with UFFD_FEATURE_SIGBUS, so that no access waits.  After each operation results, what the ioctl gave
back, VMAs and VmPTE are compared, and each page: present, file, marker, write-protected, guarded.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import itertools
import mmap
import os
import pickle
import random
import resource
import sys
from typing import Any, NamedTuple

import pytest

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .host_vmas import BASE, PAGE, Host, Op, Vma, vmpte, window_is_free
from .test_host_vmas import SMAPS, Process, host_release, needs_host

HALF = 256  # pages
WINDOW = 12  # halves of a table
SEEN_BYTES = 1 << 16

SIGBUS, WP_UNPOPULATED, WP_ASYNC = 1 << 7, 1 << 13, 1 << 15
UFFDIO = {
    "api": 0xC018AA3F,
    "register": 0xC020AA00,
    "unregister": 0x8010AA01,
    "copy": 0xC028AA03,
    "zeropage": 0xC020AA04,
    "move": 0xC028AA05,
    "writeprotect": 0xC018AA06,
    "continue": 0xC020AA07,
    "poison": 0xC020AA08,
}
UFFD_FLAGS = {"um": 0x200, "uw": 0x1000, "ui": 1 << 41}
PM_PRESENT, PM_SWAP, PM_FILE, PM_GUARD, PM_UFFD_WP = 1 << 63, 1 << 62, 1 << 61, 1 << 58, 1 << 57
PM_SEEN = PM_PRESENT | PM_SWAP | PM_FILE | PM_GUARD | PM_UFFD_WP

ADVICE = (4, 4, 4, 8, 9, 14, 14, 15, 22, 23, 25, 102, 103)
KINDS = {
    **{"anon": 8, "shared": 3, "file": 5, "munmap": 2, "touch": 14, "advice": 14, "mremap": 4, "mprotect": 4},
    **{"mlock": 1, "fork": 1, "register": 14, "unregister": 5, "copy": 9, "zeropage": 5, "continue": 5},
    **{"writeprotect": 14, "move": 12, "poison": 3},
}


class Seen(NamedTuple):
    """What an operation returned with its output, the VMAs after it, runs of (page, bits, pages), and VmPTE in kB."""

    ret: tuple[int, int]
    vmas: tuple[Vma, ...]
    pages: tuple[tuple[int, int, int], ...]
    vmpte: int


def runs(entries: list[int]) -> tuple[tuple[int, int, int], ...]:
    """Runs of equal entries that are not 0: (first, entry, how many)."""
    found = []
    at = 0
    for value, group in itertools.groupby(entries):
        n = len(list(group))
        if value:
            found.append((at, value, n))
        at += n
    return tuple(found)


# --- programs --------------------------------------------------------------------------------------------


def place(rng: random.Random) -> tuple[int, int]:
    """(start, pages): on halves of tables, or a few pages somewhere."""
    start = rng.randrange(WINDOW) * HALF
    if rng.random() < 0.45:
        start += rng.randrange(6)
        return start, rng.randrange(1, 6)
    return start, min(rng.choice((1, 2, 2, 2, 4, 4, 6)), WINDOW - start // HALF) * HALF


def random_uffd(seed: int, length: int) -> list[Op]:
    """A program; its first operation opens the userfaultfds with their features."""
    rng = random.Random(seed)
    weights = KINDS | {"fork": rng.choice((0, 0, 1))}
    feature = SIGBUS | rng.choice((0, WP_UNPOPULATED, WP_UNPOPULATED, WP_ASYNC))
    program: list[Op] = [("open", (feature, SIGBUS))]
    for _ in range(length):
        kind = rng.choices(tuple(weights), tuple(weights.values()))[0]
        start, pages = place(rng)
        ctx = int(rng.random() < 0.1)
        if kind in ("anon", "shared", "file"):
            start, pages = start // HALF * HALF, max(pages // HALF, 1) * HALF
            prot = rng.choice((3, 3, 3, 3, 1))
            flags = {"anon": 0x32, "shared": 0x31, "file": rng.choice((0x11, 0x12))}[kind]
            fd = rng.choice((0, 0, 1, 2)) if kind == "file" else -1
            size = pages if kind != "file" else rng.choice((8, 64, HALF))
            program.append(("mmap", (start, size, prot, flags, fd, 0)))
            if rng.random() < 0.6:
                program.append(("register", (start, pages, ctx, rng.choice((1, 1, 2, 2, 3, 4, 5, 7)))))
        elif kind == "touch":
            program += [
                (rng.choice(("write", "write", "read")), (p,))
                for p in range(start, start + pages, rng.choice((1, HALF, 64)))
            ][:6]
        elif kind == "advice":
            program.append(("madvise", (start, pages, rng.choice(ADVICE))))
        elif kind == "mremap":
            to = rng.randrange(WINDOW) * HALF + rng.choice((0, 0, 3))
            to = min(to, WINDOW * HALF - pages)
            program.append(("mremap", (start, pages, pages, rng.choice((3, 3, 7)), to)))
        elif kind == "mprotect":
            program.append(("mprotect", (start, pages, rng.choice((0, 1, 3, 3)))))
        elif kind == "mlock":
            program.append((rng.choice(("mlock", "munlock")), (start, pages)))
        elif kind == "munmap":
            program.append(("munmap", (start, pages)))
        elif kind == "fork":
            program += [("fork", ()), ("open", (feature, SIGBUS))]
        elif kind == "register":
            program.append(("register", (start, pages, ctx, rng.choice((1, 2, 2, 3, 4, 5, 6, 7)))))
        elif kind in ("copy", "move"):
            source = min(place(rng)[0], WINDOW * HALF - pages)
            how = (0, 0, 2) if kind == "copy" else (0, 2, 2)
            size = min(pages, 8) if kind == "copy" else pages
            program.append((kind, (start, size, ctx, rng.choice(how), source)))
        elif kind == "unregister":
            program.append((kind, (start, pages, ctx)))
        else:
            modes = {"writeprotect": (1, 1, 0), "continue": (0, 0, 2), "zeropage": (0,), "poison": (0,)}[kind]
            program.append((kind, (start, min(pages, 512), ctx, rng.choice(modes))))
    return program


# --- the host --------------------------------------------------------------------------------------------


class UffdHost(Host):
    """System calls and ioctls of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.uffds: list[int] = []

    def open(self, features: tuple[int, ...]) -> tuple[int, int]:
        for fd in self.uffds:
            os.close(fd)
        self.uffds = [int(self.libc.syscall(323, 0)) for _ in features]
        ret, out = 0, 0
        for fd, feature in zip(self.uffds, features, strict=True):
            ret, args = self.ioctl(fd, "api", 0xAA, feature, 0)
            out = args[1]
        return ret, out

    def ioctl(self, fd: int, name: str, *args: int) -> tuple[int, Any]:
        struct = (ctypes.c_int64 * len(args))(*args)
        ret = self.libc.ioctl(fd, ctypes.c_ulong(UFFDIO[name]), ctypes.byref(struct))
        return -ctypes.get_errno() if ret == -1 else ret, struct

    def call(self, op: Op) -> tuple[int, int]:
        name, a = op
        if name == "open":
            return self.open(a)
        if name not in UFFDIO:
            return self.run(op), 0
        start, size, fd = BASE + a[0] * PAGE, a[1] * PAGE, self.uffds[a[2]]
        if name == "unregister":
            return self.ioctl(fd, name, start, size)[0], 0
        if name == "writeprotect":
            return self.ioctl(fd, name, start, size, a[3])[0], 0
        args = (start, BASE + a[4] * PAGE, size, a[3], 0) if name in ("copy", "move") else (start, size, a[3], 0)
        ret, out = self.ioctl(fd, name, *args)
        return ret, int(out[-1])

    def pages(self, nr: int) -> list[int]:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
        data = os.pread(pagemap, nr * 8, BASE // PAGE * 8)
        os.close(pagemap)
        return [entry & PM_SEEN for entry in memoryview(data).cast("Q")]

    def vmas(self, pages: int) -> tuple[Vma, ...]:
        return tuple(self.with_uffd(v) for v in super().vmas(pages))

    def with_uffd(self, vma: Vma) -> Vma:
        """The flags that `Host` leaves out."""
        address = f"{BASE + vma.start * PAGE:x}-"
        with open("/proc/self/smaps", encoding="ascii", errors="surrogateescape") as f:
            inside = False
            for line in f:
                inside = inside or line.startswith(address)
                if inside and line.startswith("VmFlags:"):
                    return vma._replace(flags=vma.flags | set(UFFD_FLAGS).intersection(line.split()[1:]))
        raise AssertionError(f"{address} is not in smaps")


def run_on_host(program: list[Op], pages: int) -> list[Seen]:
    """Run the program in a child, as `host_vmas.run_on_host` does."""
    seen = mmap.mmap(-1, len(program) * SEEN_BYTES)
    seen.write(bytes(len(seen)))
    pid = os.fork()
    if pid == 0:
        try:
            gc.disable()
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            host = UffdHost()
            host.warm_up()
            for i, op in enumerate(program):
                ret = host.call(op)
                data = pickle.dumps(Seen(ret, host.vmas(pages), runs(host.pages(pages)), vmpte()))
                seen[i * SEEN_BYTES : i * SEEN_BYTES + len(data)] = data
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    return [pickle.loads(seen[i * SEEN_BYTES : (i + 1) * SEEN_BYTES]) for i in range(len(program))]


# --- the model -------------------------------------------------------------------------------------------


class UffdProcess(Process):
    """The model's."""

    def __init__(self, model: drivers.Model) -> None:
        super().__init__(model)
        self.uffds: list[Any] = []
        self.parents: list[Any] = []  # they are waiting, as on the host

    def open(self, features: tuple[int, ...]) -> tuple[int, int]:
        uffd = self.k("fs_userfaultfd")
        for ctx in self.uffds:
            uffd.uffd_close(ctx)
        self.uffds = [uffd.sys_userfaultfd(self.mm, 0) for _ in features]
        told: list[tuple[int, int]] = [uffd.uffdio_api(ctx, f) for ctx, f in zip(self.uffds, features, strict=True)]
        return told[-1]

    def step(self, op: Op, pages: int) -> Seen:
        ret = self.uffd_call(op)
        self.model.machine.quiescent()
        kb = self.k("pgtable_generic").mm_pgtables_bytes(self.mm) >> 10
        return Seen(ret, self.vmas(), runs(self.pages(pages)), kb)

    def uffd_call(self, op: Op) -> tuple[int, int]:
        name, a = op
        if name == "open":
            return self.open(a)
        if name == "fork":
            self.parents.append(self.mm)
            self.mm = self.k("fork").dup_mm(self.mm)
            return 0, 0
        if name not in UFFDIO:
            return self.call(op), 0
        call = getattr(self.k("fs_userfaultfd"), f"uffdio_{name}")
        start, size, ctx = BASE + a[0] * PAGE, a[1] * PAGE, self.uffds[a[2]]
        if name == "unregister":
            return call(ctx, start, size), 0
        if name == "writeprotect":
            return call(ctx, start, size, a[3]), 0
        source = (BASE + a[4] * PAGE,) if name in ("copy", "move") else ()
        told: tuple[int, int] = call(ctx, start, *source, size, a[3])
        return told

    def vma(self, vma: Any) -> Vma:
        flags = frozenset(name for name, bit in (SMAPS | UFFD_FLAGS).items() if vma.vm_flags & bit)
        return super().vma(vma)._replace(flags=flags)

    def pages(self, nr: int) -> list[int]:
        p, load_range = self.k("pgtable"), self.model.machine.load_range
        found: list[int] = []
        for address in range(BASE, BASE + nr * PAGE, 512 * PAGE):
            pmd = p.mm_find_pmd(self.mm, address)
            value = self.model.machine.load(pmd) if pmd else 0
            is_table = p.pmd_is_table(value)
            entries = load_range(p.pmd_pgtable(value).entry, 512) if is_table else [value] * 512
            found += [self.bits(e) if e else 0 for e in entries]
        return found

    def bits(self, entry: int) -> int:
        p = self.k("pgtable")
        if entry & (p.PRESENT | p.PROTNONE):
            bits = PM_PRESENT | (PM_UFFD_WP if entry & p.UFFD_WP else 0)
            if entry & p.SPECIAL:
                return bits | (PM_FILE if entry & p.LEAF else 0)  # the huge zero page is not anonymous
            mapping = self.k("page_alloc").folio_test_anon(p.page_folio(entry >> p.PFN_SHIFT))
            return bits if mapping else bits | PM_FILE
        marker = p.pte_marker(entry)
        bits = PM_SWAP | (PM_UFFD_WP if marker & p.PTE_MARKER_UFFD_WP else 0)
        return bits | (PM_GUARD if marker & p.PTE_MARKER_GUARD else 0)

    def finish(self) -> None:
        for ctx in self.uffds:
            self.k("fs_userfaultfd").uffd_close(ctx)
        for mm in self.parents:
            self.k("mm_init").mmput(mm)
        self.exit()


def run_on_model(program: list[Op], pages: int, driver: str) -> list[Seen]:
    major, minor = host_release()
    process = UffdProcess(drivers.model(KernelConfig(f"{major}.{minor}"), driver))
    seen = [process.step(op, pages) for op in program]
    process.finish()
    return seen


def first_difference(program: list[Op], pages: int, driver: str = "sequential") -> str:
    """What differs first, as text; empty if nothing does."""
    model = run_on_model(program, pages, driver)
    found = ""
    for _ in range(3):
        found = difference(program, run_on_host(program, pages), model)
        if "VmPTE" not in found:
            break
    return found


def difference(program: list[Op], host: list[Seen], model: list[Seen]) -> str:
    for i, (op, h, m) in enumerate(zip(program, host, model, strict=True)):
        if (h.ret, h.vmas, h.pages) != (m.ret, m.vmas, m.pages):
            lines = [f"operation {i}: {op} returned {h.ret} on the host, {m.ret} in the model"]
            lines += [f"  before {v}" for v in (host[i - 1].vmas if i else ())]
            lines += [f"  before {r}" for r in (host[i - 1].pages if i else ())][:12]
            for name, there, other in (("host ", h, m), ("model", m, h)):
                lines += [f"  {name} {v}" for v in there.vmas if v not in other.vmas]
                lines += [f"  {name} page {r[0]}: {r[1]:#x} * {r[2]}" for r in there.pages if r not in other.pages][:9]
            return "\n".join(lines)
        if i and op[0] != "fork" and h.vmpte - host[i - 1].vmpte != m.vmpte - model[i - 1].vmpte:
            grown, modelled = h.vmpte - host[i - 1].vmpte, m.vmpte - model[i - 1].vmpte
            return f"operation {i}: {op} changed VmPTE by {grown} kB on the host, {modelled} in the model"
    return ""


@needs_host
@pytest.mark.parametrize("seed", range(8))
def test_uffd(seed: int) -> None:
    assert window_is_free(WINDOW * HALF)
    assert first_difference(random_uffd(seed, 50), WINDOW * HALF, "checked" if seed < 2 else "sequential") == ""


ANON = ("mmap", (0, 2048, 3, 0x32, -1, 0))
SHARED = ("mmap", (0, 2048, 3, 0x31, -1, 0))
TOUCH = tuple(("write", (page,)) for page in (2, 514))
PROTECT, RESOLVE = ("writeprotect", (0, 2048, 0, 1)), ("writeprotect", (0, 2048, 0, 0))
DONTNEED, HUGE, COLLAPSE, GUARD = [("madvise", (0, 2048, advice)) for advice in (4, 14, 25, 102)]
WP, MISSING, MINOR = [("register", (0, 2048, 0, mode)) for mode in (2, 1, 4)]
SOURCE = (("mmap", (2048, 1024, 3, 0x32, -1, 0)), ("madvise", (2048, 1024, 14)), ("write", (2048,)), ("write", (2561,)))
ROWS: dict[str, tuple[Op, ...]] = {
    "protect half touched memory, discard": (ANON, *TOUCH, WP, PROTECT, DONTNEED),
    "shared: until unregistered": (SHARED, *TOUCH, WP, PROTECT, DONTNEED, ("unregister", (0, 2048, 0)), DONTNEED),
    "huge pages": (ANON, HUGE, *TOUCH, WP, PROTECT, ("writeprotect", (0, 256, 0, 0)), RESOLVE, *TOUCH, DONTNEED),
    "a file's huge pages": (SHARED, *TOUCH, COLLAPSE, ("read", (2,)), WP, PROTECT, ("read", (2,)), COLLAPSE, RESOLVE),
    "fill from untouched memory": (ANON, MISSING, ("mmap", (2560, 512, 3, 0x32, -1, 0)), ("copy", (0, 4, 0, 0, 2560))),
    "zero pages, poison": (ANON, MISSING, ("zeropage", (0, 4, 0, 0)), ("poison", (512, 4, 0, 0)), DONTNEED),
    "guard and poison are no obstacle": (ANON, GUARD, MISSING, *SOURCE, ("copy", (0, 4, 0, 0, 2048)), DONTNEED),
    "continue": (SHARED, *TOUCH, MINOR, DONTNEED, ("continue", (2, 2, 0, 0)), ("continue", (514, 1, 0, 0))),
    "move holes": (ANON, MISSING, ("mmap", (2048, 1024, 3, 0x32, -1, 0)), ("move", (0, 1024, 0, 2, 2048))),
    "move huge pages": (ANON, MISSING, *SOURCE, ("move", (0, 512, 0, 0, 2048)), ("move", (512, 3, 0, 0, 2561))),
    "move what was shared": (ANON, MISSING, *SOURCE, ("fork", ()), ("open", (SIGBUS,)), MISSING,
                             ("move", (0, 1024, 0, 0, 2048)), ("write", (2049,)), ("move", (0, 1024, 0, 0, 2048))),
    "protection does not move": (ANON, *TOUCH, WP, PROTECT, ("mremap", (0, 1024, 1024, 3, 2048)), ("read", (2050,))),
    "a child has none of it": (ANON, *TOUCH, WP, PROTECT, ("fork", ())),
}


@needs_host
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("feature", [0, WP_UNPOPULATED, WP_ASYNC])
def test_rows(row: str, feature: int) -> None:
    assert window_is_free(WINDOW * HALF)
    program: list[Op] = [("open", (SIGBUS | feature,)), *ROWS[row]]
    assert first_difference(program, WINDOW * HALF, "checked" if feature else "sequential") == ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--driver", default="sequential")
    parser.add_argument("--stop", action="store_true", help="stop at the first difference")
    args = parser.parse_args()
    bad = 0
    for seed in range(args.first, args.first + args.seeds):
        text = first_difference(random_uffd(seed, args.length), WINDOW * HALF, args.driver)
        if text:
            bad += 1
            print(f"seed {seed}: {text}", flush=True)
            if args.stop:
                break
    print(f"{bad} of {args.seeds} seeds differ")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
