# SPDX-License-Identifier: GPL-2.0-only
"""What /proc says of one process, read through one open directory so that a reused pid cannot be mistaken."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tablewalk.errors import TablewalkError

PF_KTHREAD = 0x00200000  # include/linux/sched.h
SYS_KCMP, KCMP_VM = 312, 1  # x86-64; include/uapi/linux/kcmp.h

EXITED = "exited while it was looked at"
DENIED = "permission denied (needs the right to ptrace it: root, or its owner)"
KTHREAD = "kernel thread, has no memory of its own"
ZOMBIE = "zombie, has no memory any more"
HIDDEN = "not shown in /proc (mounted with hidepid?); run as root"


class Uninspectable(TablewalkError):
    """A process that cannot be looked at.  `reason` is for grouping, `comm` may be empty."""

    def __init__(self, pid: int, reason: str, comm: str = "") -> None:
        super().__init__(f"process {pid}{f' ({comm})' if comm else ''}: {reason}")
        self.pid, self.reason, self.comm = pid, reason, comm


@dataclass(frozen=True, slots=True)
class Vma:
    """One mapping.  Addresses in bytes, sizes in kB as in /proc/PID/smaps (proc_pid_smaps(5))."""

    start: int
    end: int
    perms: str
    name: str = ""
    flags: frozenset[str] = field(default_factory=frozenset)
    page_kb: int = 4
    kb: dict[str, int] = field(default_factory=dict)

    @property
    def hidden(self) -> bool:
        """VM_PFNMAP: pagemap and PAGEMAP_SCAN pass over it, whatever it maps (walk_page_test())."""
        return "pf" in self.flags

    @property
    def hugetlb(self) -> bool:
        return "ht" in self.flags

    @property
    def discardable(self) -> bool:
        """MADV_DONTNEED is allowed (madvise_dontneed_free_valid_vma(), can_madv_modify(): mm/madvise.c)."""
        sealed = "sl" in self.flags and "w" not in self.perms
        return not (self.flags & {"pf", "ht", "lo"} or sealed)


class Process:
    """One process by its /proc directory.  Use as a context manager.

    Every method raises Uninspectable if the process is gone, has no memory or must not be looked at.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.comm = ""
        try:
            self._dir = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise Uninspectable(pid, _why_absent(pid, e)) from None
        try:
            self.comm = self.read("comm").rstrip(b"\n").decode(errors="backslashreplace")
            if _task_flags(self.read("stat")) & PF_KTHREAD:
                raise self.uninspectable(KTHREAD)
            self.memory_kb()
        except BaseException:
            os.close(self._dir)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._dir)

    def uninspectable(self, reason: str) -> Uninspectable:
        return Uninspectable(self.pid, reason, self.comm)

    def open(self, name: str) -> int:
        """A file descriptor of /proc/PID/`name`, for reading."""
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._dir)
        except OSError as e:
            raise self.uninspectable(why(e)) from None

    def read(self, name: str) -> bytes:
        with os.fdopen(self.open(name), "rb", buffering=0) as f:
            try:
                return f.readall() or b""
            except OSError as e:
                raise self.uninspectable(why(e)) from None

    def memory_kb(self) -> dict[str, int]:
        """The Vm* lines of /proc/PID/status (proc_pid_status(5)) in kB; VmPTE is always among them."""
        status = self.read("status")
        kb = {k.decode(): int(v) for k, v in re.findall(rb"^(Vm\w+):\s*(\d+) kB$", status, re.M)}
        if "VmPTE" not in kb:
            raise self.uninspectable(ZOMBIE if re.search(rb"^State:\s*Z", status, re.M) else EXITED)
        return kb

    def vmas(self) -> list[Vma]:
        """Its mappings in order of address, from /proc/PID/smaps; [vsyscall] is the kernel's and left out."""
        return parse_smaps(self.read("smaps"))


_SMAPS = re.compile(
    rb"^(?:([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ \d+ *(.*)"
    rb"|(Rss|Swap|LazyFree|AnonHugePages|ShmemPmdMapped|FilePmdMapped|KernelPageSize): +(\d+) kB"
    rb"|VmFlags: (.*))$",
    re.M,
)


def parse_smaps(text: bytes) -> list[Vma]:
    """The mappings in the text of a /proc/PID/smaps."""
    vmas: list[Vma] = []
    kb: dict[str, int] = {}
    head: tuple[bytes, ...] = ()
    for start, end, perms, name, key, value, flags in _SMAPS.findall(text):
        if start:
            head, kb = (start, end, perms, name), {}
        elif key:
            kb[key.decode()] = int(value)
        elif head[3] != b"[vsyscall]":
            vmas.append(
                Vma(
                    int(head[0], 16),
                    int(head[1], 16),
                    head[2].decode(),
                    head[3].decode(errors="backslashreplace"),
                    frozenset(flags.decode().split()),
                    kb.pop("KernelPageSize", 4),
                    kb,
                )
            )
    return vmas


def all_pids() -> list[int]:
    """Every process that /proc lists."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def cgroup_pids(paths: Iterable[Path]) -> list[int]:
    """Every process of the control groups at `paths` and of those below them (cgroups(7))."""
    pids: set[int] = set()
    for path in paths:
        if not (path / "cgroup.procs").is_file():
            raise TablewalkError(f"{path}: not a control group (no cgroup.procs there); give its directory")
        for directory, _, _ in os.walk(path):
            try:
                text = Path(directory, "cgroup.procs").read_text()
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.ENODEV):  # removed meanwhile
                    continue
                hint = "threaded, give its domain instead" if e.errno == errno.EOPNOTSUPP else e.strerror
                raise TablewalkError(f"{directory}/cgroup.procs: {hint}") from None
            pids.update(int(word) for word in text.split())
    return sorted(pids - {0})  # 0: a process of another pid namespace


def same_mm(a: int, b: int) -> bool:
    """Do two processes run on one mm_struct (CLONE_VM)?  False too where kcmp(2) does not say."""
    return bool(ctypes.CDLL(None).syscall(SYS_KCMP, a, b, KCMP_VM, 0, 0) == 0)


def _task_flags(stat: bytes) -> int:
    return int(stat[stat.rindex(b")") + 2 :].split()[6])


def why(e: OSError) -> str:
    """The reason to give for an error of a file in /proc/PID."""
    if e.errno in (errno.ENOENT, errno.ESRCH):
        return EXITED
    if e.errno in (errno.EACCES, errno.EPERM):
        return DENIED
    return os.strerror(e.errno) if e.errno else str(e)


def _why_absent(pid: int, e: OSError) -> str:
    if e.errno not in (errno.ENOENT, errno.ESRCH):
        return why(e)
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (ProcessLookupError, OverflowError):
        return "no such process"
    return HIDDEN
