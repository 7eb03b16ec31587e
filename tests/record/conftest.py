# SPDX-License-Identifier: GPL-2.0-only
"""A perf.data made by hand, for what no perf would write."""

from __future__ import annotations

import itertools
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

IDENTIFIER, IP, TID, TIME, ADDR, CPU, PERIOD, RAW = 1 << 16, 1, 2, 4, 8, 128, 256, 1024
SOFT = IDENTIFIER | IP | TID | TIME | ADDR
TRACE = IDENTIFIER | IP | TID | TIME | ADDR | CPU | PERIOD | RAW
COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)
FIELDS = {
    "exceptions:page_fault_user": (
        "unsigned long address|8|8",
        "unsigned long ip|16|8",
        "unsigned long error_code|24|8",
    ),
    "exceptions:page_fault_kernel": (
        "unsigned long address|8|8",
        "unsigned long ip|16|8",
        "unsigned long error_code|24|8",
    ),
    "raw_syscalls:sys_enter": ("long id|8|8", "unsigned long args[6]|16|48"),
    "raw_syscalls:sys_exit": ("long id|8|8", "long ret|16|8"),
    "mmap_lock:mmap_lock_acquire_returned": ("struct mm_struct * mm|8|8", "bool write|24|1", "bool success|25|1"),
    "task:task_newtask": ("pid_t pid|8|4", "char comm[16]|12|16", "u64 clone_flags|32|8", "short oom_score_adj|40|2"),
}
FLAGS = 1 << 1 | 1 << 12 | 1 << 17 | 1 << 18 | 1 << 25  # inherit, enable_on_exec, mmap_data, sample_id_all, clockid
PID = 100
STACK = 0x7FFC00000000


class PerfDataFile:
    """Collects records; `bytes()` is the file. Times are ns, counted on by 10 where none is given."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.flags = FLAGS
        self.period = 1
        self.arch = b"x86_64"
        self.cmdline = [b"perf", b"record", b"--", b"prog", b"arg"]
        self.clock = itertools.count(1_000_000, 10)
        self.names = ["minor-faults", "major-faults", *FIELDS]
        self.id = {name: 10 + i for i, name in enumerate(self.names)}

    def raw(self, type: int, body: bytes, misc: int = 0) -> None:
        body += bytes(-len(body) % 8)
        self.records.append(struct.pack("<IHH", type, misc, 8 + len(body)) + body)

    def done(self, address: int, *, major: bool = False, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        t = next(self.clock) if t is None else t
        name = "major-faults" if major else "minor-faults"
        self.raw(9, struct.pack("<QQIIQQ", self.id[name], 0, pid, tid, t, address))
        return t

    def trace(self, name: str, data: bytes, *, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        t = next(self.clock) if t is None else t
        event = self.id[name]
        data = struct.pack("<HHi", 500 + event, 0, tid) + data
        data += bytes(-(len(data) + 4) % 8)
        head = struct.pack("<QQIIQQIIQ", event, 0, pid, tid, t, 0, 0, 0, 1)
        self.raw(9, head + struct.pack("<I", len(data)) + data)
        return t

    def fault(self, address: int, error: int = 6, *, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        where = "user" if error & 4 else "kernel"
        data = struct.pack("<QQQ", address, 0, error)
        return self.trace(f"exceptions:page_fault_{where}", data, pid=pid, tid=tid, t=t)

    def enter(self, nr: int, *args: int, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        data = struct.pack("<q6Q", nr, *args, *[0] * (6 - len(args)))
        return self.trace("raw_syscalls:sys_enter", data, pid=pid, tid=tid, t=t)

    def exit(self, nr: int, ret: int = 0, *, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        return self.trace("raw_syscalls:sys_exit", struct.pack("<qq", nr, ret), pid=pid, tid=tid, t=t)

    def lock(self, *, write: int = 1, success: int = 1, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        data = struct.pack("<QQBB", 0, 0, write, success)
        return self.trace("mmap_lock:mmap_lock_acquire_returned", data, pid=pid, tid=tid, t=t)

    def newtask(self, child: int, flags: int, *, pid: int = PID, tid: int = PID, t: int | None = None) -> int:
        data = struct.pack("<i16s4xQhxx", child, b"comm clone_flags", flags, 0)
        return self.trace("task:task_newtask", data, pid=pid, tid=tid, t=t)

    def _trailer(self, pid: int, tid: int, t: int | None) -> bytes:
        """struct sample_id of minor-faults; of nothing, where t is 0 (made by perf itself)."""
        t = next(self.clock) if t is None else t
        return struct.pack("<IIQQ", pid, tid, t, self.id["minor-faults"]) if t else bytes(24)

    def comm(self, comm: bytes, *, exec: bool = True, pid: int = PID, tid: int = PID, t: int | None = None) -> None:
        text = comm + bytes(8 - len(comm) % 8)
        self.raw(3, struct.pack("<II", pid, tid) + text + self._trailer(pid, tid, t), (1 << 13) * exec)

    def mmap2(
        self, start: int, length: int, name: bytes = b"//anon", *, prot: int = 3, flags: int = 2, pgoff: int = 0,
        device: tuple[int, int] = (0, 0), inode: int = 0, pid: int = PID, tid: int = PID, t: int | None = None,
        misc: int = 0,
    ) -> None:  # fmt: skip
        body = struct.pack("<IIQQQIIQQII", pid, tid, start, length, pgoff, *device, inode, 0, prot, flags)
        self.raw(10, body + name + bytes(8 - len(name) % 8) + self._trailer(pid, tid, t), misc)

    def task(self, type: int, pid: int, ppid: int, tid: int, ptid: int, t: int | None = None) -> None:
        trailer = self._trailer(ppid, ptid, t)
        self.raw(type, struct.pack("<IIIIQ", pid, ppid, tid, ptid, 0) + trailer)

    def fork(self, child: int, child_tid: int, *, pid: int = PID, tid: int = PID, t: int | None = None) -> None:
        self.task(7, child, pid, child_tid, tid, t)

    def end(self, *, pid: int = PID, tid: int = PID, t: int | None = None) -> None:
        self.task(4, pid, 1, tid, 1, t)

    def lost(self, n: int, t: int | None = None) -> None:
        self.raw(2, struct.pack("<QQ", 10, n) + self._trailer(0, 0, t))

    def round(self) -> None:
        self.raw(68, b"")

    def formats(self) -> dict[str, str]:
        """The format files of the tracepoints."""
        out = {}
        for name, fields in FIELDS.items():
            lines = [f"\tfield:{d};\toffset:{o};\tsize:{s};\tsigned:0;\n" for d, o, s in (f.split("|") for f in fields)]
            text = f"name: {name.partition(':')[2]}\nID: {500 + self.id[name]}\nformat:\n{COMMON}{''.join(lines)}\n"
            out[name] = text
        return out

    def _tracing_data(self) -> bytes:
        out = b"\x17\x08\x44tracing0.6\0\0\x08" + struct.pack("<I", 4096)
        out += b"header_page\0" + struct.pack("<Q", 2) + b"hp" + b"header_event\0" + struct.pack("<Q", 0)
        out += struct.pack("<I", 0) + struct.pack("<I", len(FIELDS))
        for name, text in self.formats().items():
            out += name.partition(":")[0].encode() + b"\0" + struct.pack("<IQ", 1, len(text)) + text.encode()
        return out + bytes(4) + bytes(4) + bytes(8)

    def attr(self, name: str) -> bytes:
        """struct perf_event_attr of PERF_ATTR_SIZE_VER5."""
        tracepoint = name in FIELDS
        config = 500 + self.id[name] if tracepoint else {"minor-faults": 5, "major-faults": 6}[name]
        sample_type = TRACE if tracepoint else SOFT
        head = struct.pack("<IIQQQQQ", 2 if tracepoint else 1, 112, config, self.period, sample_type, 0, self.flags)
        return (head + bytes(44) + struct.pack("<i", 1)).ljust(112, b"\0")

    def bytes(self, *, complete: bool = True) -> bytes:
        """The file; incomplete as perf leaves it when it is killed."""
        ids_at = 104
        attrs_at = ids_at + 8 * len(self.names)
        data_at = attrs_at + 128 * len(self.names)
        ids = b"".join(struct.pack("<Q", self.id[n]) for n in self.names)
        attrs = b"".join(self.attr(n) + struct.pack("<QQ", ids_at + 8 * i, 8) for i, n in enumerate(self.names))
        data = b"".join(self.records)
        texts = [struct.pack("<I", len(t) + 1) + t + b"\0" for t in (b"6.18.0", b"6.1.1", self.arch)]
        cmdline = struct.pack("<I", len(self.cmdline))
        cmdline += b"".join(struct.pack("<I", len(c) + 1) + c + b"\0" for c in self.cmdline)
        features = [self._tracing_data(), *texts, struct.pack("<II", 4, 4), cmdline]
        bits = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 11
        head = struct.pack(
            "<8sQQQQQQQQ", b"PERFILE2", 104, 128, attrs_at, len(attrs), data_at, len(data) * complete, 0, 0
        )
        out = head + bits.to_bytes(32, "little") + ids + attrs + data
        if complete:
            at = len(out) + 16 * len(features)
            for f in features:
                out += struct.pack("<QQ", at, len(f))
                at += len(f)
            out += b"".join(features)
        return out


@pytest.fixture
def perf_file() -> PerfDataFile:
    return PerfDataFile()


@pytest.fixture
def small_run(perf_file: PerfDataFile) -> PerfDataFile:
    """A program that execs, maps, faults, forks and exits."""
    p = perf_file
    p.comm(b"perf-exec", exec=False, t=0)
    p.comm(b"prog")
    p.mmap2(STACK, 0x21000, b"[stack]")
    p.exit(59)
    p.round()
    p.enter(9, 0, 0x4000, 3, 0x22)
    p.lock()
    p.mmap2(0x700000000000, 0x4000)
    p.exit(9, 0x700000000000)
    p.fault(0x700000000123)
    p.done(0x700000000123)
    p.round()
    p.fault(0x700000001000, 2)
    p.done(0x700000001000, major=True)
    p.enter(435, 0x7000, 88)
    p.fork(200, 200)
    p.newtask(200, 0x1200011)
    p.exit(435, 200)
    p.exit(435, 0, pid=200, tid=200)
    p.enter(231, 0, pid=200, tid=200)
    p.end(pid=200, tid=200)
    p.round()
    p.enter(28, 0x700000000000, 0x4000, 4)
    p.exit(28, -22)
    p.enter(231, 0)
    p.end()
    return p


@pytest.fixture(scope="session")
def perf_works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Skips, and says why, where perf may not record tracepoints."""
    out = tmp_path_factory.mktemp("perf") / "x"
    try:
        command = ["perf", "record", "-q", "-e", "raw_syscalls:sys_enter", "-o", str(out), "--", "true"]
        run = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("perf is not installed")
    if run.returncode:
        pytest.skip(f"perf cannot record tracepoints here: {' '.join(run.stderr.split())[:200]}")
    yield


@pytest.fixture
def perf_path(tmp_path: Path) -> Path:
    return tmp_path / "perf.data"
