# SPDX-License-Identifier: GPL-2.0-only
"""Random system calls on a small window of addresses, and what this machine's kernel makes of them.

A program is a list of operations: tuples of a name and integers, addresses in pages from the window's start.
`run_on_host` runs it in a child and returns, after each operation, what it returned and the window's VMAs.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import pickle
import random
import resource
import tempfile
from typing import NamedTuple

BASE = 0x1000_0000_0000
PAGE = 4096
FILES = 4  # memfd, memfd, regular file, the same opened read-only
FILE_PAGES = 64
MADV_POPULATE_READ = 22
SHM_REMAP = 0o40000
SEEN_BYTES = 16384  # room for an observation

Op = tuple[str, tuple[int, ...]]


class Vma(NamedTuple):
    """A line of /proc/PID/maps: pages from the window's start, protection, offset in pages, file, flags."""

    start: int
    end: int
    prot: str
    pgoff: int
    file: str
    flags: frozenset[str]


class Observation(NamedTuple):
    """What an operation returned (negative: -errno), the VMAs after it, and VmPTE in kB."""

    ret: int
    vmas: tuple[Vma, ...]
    vmpte: int


# VmFlags of smaps that the model has
FLAGS = {"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "lf", "sr", "rr", "dc", "ac", "nr"}
FLAGS |= {"wf", "dd", "hg", "nh"}

SYS = {
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "mremap": 25,
    "madvise": 28,
    "mlock": 149,
    "munlock": 150,
    "remap_file_pages": 216,
    "mbind": 237,
    "mlockall": 151,
    "munlockall": 152,
    "shmget": 29,
    "shmat": 30,
    "shmctl": 31,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "mlock2": 325,
}


KINDS = {
    "anon": 16,
    "shared": 2,
    "file": 6,
    "shmat": 2,
    "munmap": 6,
    "mprotect": 24,
    "read": 4,
    "write": 20,
    "madvise": 14,
    "mlock": 8,
    "mlockall": 2,
    "mbind": 5,
    "mremap": 5,
    "remap_file_pages": 2,
    "fork": 1,
    "poke": 1,
}  # operations and their weights


def random_program(seed: int, length: int, unit: int, window: int) -> list[Op]:
    """`length` operations on `window` units of `unit` pages."""
    rng = random.Random(seed)
    weights = KINDS | {"fork": rng.choice((0, 0, 1, 3)), "mlockall": rng.choice((0, 0, 2))}
    weights["poke"] = rng.choice((0, 0, 2, 8))

    def place() -> tuple[int, int]:
        start = rng.randrange(window)
        return start * unit, min(rng.choice((1, 1, 2, 3, 4, 8)), window - start) * unit

    program: list[Op] = []
    for _ in range(length):
        start, pages = place()
        kind = rng.choices(tuple(weights), tuple(weights.values()))[0]
        prot = rng.choice((0, 1, 1, 3, 3, 3, 3, 3, 5, 7))
        if kind == "anon":
            flags = 0x32 | rng.choice((0, 0, 0, 0, 0, 0, 0x4000, 0x2000, 0x20000, 0x8000, 0x18000, 0x100, 0x100000))
            program.append(("mmap", (start, pages, prot, flags if rng.random() < 0.95 else 0x38, -1, 0)))
        elif kind == "shared":
            program.append(("mmap", (start, pages, prot, 0x31, -1, 0)))
        elif kind == "file":
            file = rng.randrange(FILES)
            pgoff = start if rng.random() < 0.8 else rng.randrange(FILE_PAGES)
            flags = rng.choice((1, 2, 2, 2, 3, 0x8002))
            program.append(("mmap", (start, pages, prot, 0x10 | flags, file, pgoff)))
        elif kind == "munmap":
            program.append(("munmap", (start, pages)))
        elif kind == "mprotect":
            program.append(("mprotect", (start, pages, prot | (0x1000000 if rng.random() < 0.03 else 0))))
        elif kind == "shmat":
            program.append(("shmat", (start, pages)))
        elif kind == "mlockall":
            program.append(("mlockall", (rng.choice((0, 0, 2, 6)),)))
        elif kind == "remap_file_pages":
            program.append(("remap_file_pages", (start, pages, 0, rng.randrange(FILE_PAGES), 0)))
        elif kind in ("read", "write"):
            program.append((kind, (start + rng.randrange(pages),)))
        elif kind == "poke":
            program.append(("poke", (start, rng.randrange(2))))
        elif kind == "madvise":
            advice = rng.choice((0, 1, 2, 4, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 22, 23))
            program.append(("madvise", (start, pages, advice)))
        elif kind == "mlock":
            call = rng.choice(("mlock", "mlock2", "munlock"))
            program.append((call, (start, pages, 1) if call == "mlock2" else (start, pages)))
        elif kind == "mbind":
            program.append(("mbind", (start, pages, rng.choice((0, 1, 2)))))
        elif kind == "mremap":
            new_pages = rng.choice((pages, pages, place()[1]))
            to = rng.randrange(window) * unit
            to = min(to, window * unit - new_pages)
            program.append(("mremap", (start, pages, new_pages, rng.choice((3, 3, 7)), to)))
        else:
            program.append(("fork", ()))
    return program


def stack_program(seed: int) -> list[Op]:
    """A stack, something below it or not, and accesses in between, in a window of 1024 pages."""
    rng = random.Random(seed)
    program: list[Op] = []
    if rng.random() < 0.8:
        flags = 0x32 | rng.choice((0, 0, 0x100))
        program.append(("mmap", (rng.randrange(256), rng.randrange(1, 128), rng.choice((0, 1, 3)), flags, -1, 0)))
    top = rng.randrange(400, 900)
    pages = rng.randrange(1, 40)
    prot = rng.choice((1, 3, 3, 3))
    program.append(("mmap", (top, pages, prot, 0x132 | rng.choice((0, 0, 0x4000, 0x2000)), -1, 0)))
    for _ in range(rng.randrange(2, 7)):
        program.append(("poke", (rng.randrange(top), int(rng.random() < 0.7))))
        extra = rng.randrange(5)
        if extra == 0:
            program.append(("mprotect", (top, pages, rng.choice((1, 3, 0x1000003, 0x1000001)))))
        elif extra == 1:
            program.append(("munmap", (rng.randrange(top), rng.randrange(1, 64))))
        elif extra == 2:
            program.append(("mlockall", (rng.choice((0, 2)),)))
    return program


# --- the child -------------------------------------------------------------------------------------------


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class Host:
    """System calls of this process by number; results as the kernel returns them."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.syscall.restype = ctypes.c_long
        self.buffer = ctypes.create_string_buffer(8)
        self.nodes = ctypes.c_ulong(1)
        self.segments: list[int] = []
        self.fds = open_files()
        self.names = {os.fstat(fd).st_ino: f"file{min(i, 2)}" for i, fd in enumerate(self.fds)}

    def syscall(self, name: str, *args: int) -> int:
        ret: int = self.libc.syscall(SYS[name], *[ctypes.c_long(a) for a in args])
        return -ctypes.get_errno() if ret == -1 else ret

    def clean_up(self) -> None:
        """Remove what outlives a process."""
        for shmid in self.segments:
            self.syscall("shmctl", shmid, 0, 0)

    def warm_up(self) -> None:
        """Have the interpreter's own tables made, so that VmPTE tells of the window only."""
        with open("/proc/self/maps", encoding="ascii", errors="surrogateescape") as f:
            own = [line.split()[:2] for line in f]
        for bounds, prot in own:
            start, end = (int(x, 16) for x in bounds.split("-"))
            if prot[0] == "r" and not BASE <= start < BASE + (1 << 30):
                self.syscall("madvise", start, end - start, MADV_POPULATE_READ)

    def poke(self, address: int, write: int) -> int:
        """Fork, and access memory in the child, which carries on unless it is killed; 0, or -1 if it was."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            if write:
                ctypes.memset(address, 1, 1)
            else:
                ctypes.string_at(address, 1)
            os.write(write_end, b"1")
            os.close(read_end)
            os.close(write_end)
            self.warm_up()
            return 0
        os.close(write_end)
        survived = os.read(read_end, 1) != b""
        os.close(read_end)
        status = os.waitpid(pid, 0)[1]
        if survived:
            os._exit(os.waitstatus_to_exitcode(status))
        self.warm_up()
        return -1

    def run(self, op: Op) -> int:
        name, a = op
        if name == "fork":
            pid = os.fork()
            if pid:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            self.warm_up()
            return 0
        if name == "mlockall":
            return self.syscall("mlockall", a[0]) if a[0] else self.syscall("munlockall")
        start = BASE + a[0] * PAGE
        if name == "poke":
            return self.poke(start, a[1])
        if name == "shmat":
            shmid = self.syscall("shmget", 0, a[1] * PAGE, 0o600)
            ret = self.syscall("shmat", shmid, start, SHM_REMAP)
            self.segments.append(shmid)
            return (ret - BASE) // PAGE if ret > 0 else ret
        if name == "mmap":
            ret = self.syscall("mmap", start, a[1] * PAGE, a[2], a[3], self.fds[a[4]] if a[4] >= 0 else -1, a[5] * PAGE)
            return (ret - BASE) // PAGE if ret > 0 else ret
        if name in ("read", "write"):
            here, there = Iovec(ctypes.addressof(self.buffer), 1), Iovec(start, 1)
            call = "process_vm_readv" if name == "read" else "process_vm_writev"
            return self.syscall(call, os.getpid(), ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0)
        if name == "mbind":
            nodes = ctypes.addressof(self.nodes) if a[2] else 0
            return self.syscall("mbind", start, a[1] * PAGE, a[2], nodes, 2 if a[2] else 0, 0)
        if name == "mremap":
            flags = a[3]
            ret = self.syscall("mremap", start, a[1] * PAGE, a[2] * PAGE, flags, BASE + a[4] * PAGE)
            return (ret - BASE) // PAGE if ret > 0 else ret
        return self.syscall(name, start, a[1] * PAGE, *a[2:])

    def vmas(self, pages: int) -> tuple[Vma, ...]:
        found: list[Vma] = []
        low, high = BASE >> 12, (BASE >> 12) + pages
        inside = False
        with open("/proc/self/smaps", encoding="ascii", errors="surrogateescape") as f:
            for line in f:
                if line.startswith("VmFlags:"):
                    if inside:
                        found[-1] = found[-1]._replace(flags=frozenset(FLAGS.intersection(line.split()[1:])))
                elif "-" in line.split(" ", 1)[0]:
                    bounds, prot, offset, _, inode, *path = line.split()
                    start, end = (int(x, 16) >> 12 for x in bounds.split("-"))
                    inside = start < high and end > low
                    if inside:
                        file = self.names.get(int(inode), "shmem") if path else ""
                        pgoff = int(offset, 16) >> 12 if file else 0
                        found.append(Vma(start - low, end - low, prot, pgoff, file, frozenset()))
        return tuple(found)


def vmpte() -> int:
    """VmPTE of this process in kB."""
    with open("/proc/self/status", "rb") as f:
        return int(f.read().split(b"VmPTE:")[1].split()[0])


def open_files() -> tuple[int, ...]:
    """File descriptors 0..FILES-1 of the programs."""
    fds = [os.memfd_create("a"), os.memfd_create("b")]
    fd, path = tempfile.mkstemp()
    fds.append(fd)
    for f in fds:
        os.ftruncate(f, FILE_PAGES * PAGE)
    fds.append(os.open(path, os.O_RDONLY))
    os.unlink(path)
    return tuple(fds)


def run_on_host(program: list[Op], pages: int) -> list[Observation]:
    """Run the program in a child of this process on a window of `pages`; what was seen after each operation.

    The child keeps nothing on its heap, which would grow and need tables of its own.
    """
    seen = mmap.mmap(-1, len(program) * SEEN_BYTES)
    seen.write(bytes(len(seen)))
    pid = os.fork()
    if pid == 0:
        try:
            gc.disable()
            faulthandler.disable()  # children are killed on purpose
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            host = Host()
            host.warm_up()
            for i, op in enumerate(program):
                data = pickle.dumps(observe(host, op, pages))
                seen[i * SEEN_BYTES : i * SEEN_BYTES + len(data)] = data
            host.clean_up()
            os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    return [pickle.loads(seen[i * SEEN_BYTES : (i + 1) * SEEN_BYTES]) for i in range(len(program))]


def observe(host: Host, op: Op, pages: int) -> Observation:
    """Run one operation."""
    ret = host.run(op)
    return Observation(ret, host.vmas(pages), vmpte())


def window_is_free(pages: int) -> bool:
    """Whether nothing is mapped where the programs run."""
    with open("/proc/self/maps", encoding="ascii", errors="surrogateescape") as f:
        for line in f:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if start < BASE + pages * PAGE and end > BASE:
                return False
    return mmap.PAGESIZE == PAGE
