# SPDX-License-Identifier: GPL-2.0-only
"""A recorded system call as calls of the model: the one place that knows both sides' conventions.

Arguments and results are those of x86-64. Where the page size is larger than 4 KiB, ranges are rounded outward.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from tablewalk.errors import TablewalkError
from tablewalk.kernel.not_modelled import NotModelled
from tablewalk.machine.drivers import Model
from tablewalk.record.recording import NEVER_RETURNED
from tablewalk.replay.calls import MADVISE, name_of
from tablewalk.replay.files import MAP_HUGETLB, Files, is_driver_memory
from tablewalk.replay.peek import Peek, Vma
from tablewalk.replay.stream import Event

MAP_TYPE, MAP_FIXED, MAP_ANONYMOUS = 0xF, 0x10, 0x20
MAP_LOCKED, MAP_POPULATE, MAP_FIXED_NOREPLACE = 0x2000, 0x8000, 0x100000
MCL_CURRENT = 1
PR_THP_DISABLE_EXCEPT_ADVISED = 2
PR_SET_MM, PR_SET_THP_DISABLE, PR_SET_VMA, PR_SET_VMA_ANON_NAME = 35, 41, 0x53564D41, 0
EIO, EAGAIN, ENOMEM, EACCES, EFAULT, EEXIST, EINVAL, EHWPOISON = 5, 11, 12, 13, 14, 17, 22, 133
MREMAP_FIXED = 2
MADV_DONTNEED, MADV_COLLAPSE, MADV_GUARD_INSTALL = 4, 25, 102
MADV_POPULATE = (22, 23)
_PINNING_REGISTER_OPS = (0, 15, 16, 22)  # io_uring_register: buffers and buffer rings
MAX_POPULATE_PAGES: Final = 1 << 25  # what one call may fill: more is taken for a damaged recording

class Refused(TablewalkError):
    """A call that the replay will not run; the message says which row and why."""


class CannotFit(TablewalkError):
    """The recording's addresses don't fit the architecture."""


class Calls:
    """`apply` runs a call on an mm. What could not be done is counted in `unapplied` and told in `unknowns`.

    `recorded_end` is the end of user space where the recording was made.
    """

    def __init__(self, model: Model, files: Files, recorded_end: int) -> None:
        self._files, self._recorded_end = files, recorded_end
        self.unapplied: dict[str, int] = {}
        self.unknowns: dict[str, int] = {}
        kernel = model.kernel
        self._mmap, self._brk, self._exec = kernel("mmap"), kernel("brk"), kernel("exec")
        self._mprotect, self._mlock, self._mremap = kernel("mprotect"), kernel("mlock"), kernel("mremap")
        self._madvise, self._mempolicy = kernel("madvise"), kernel("mempolicy")
        self._flags, self._fault = kernel("vm_flags"), kernel("fault")
        self.peek = Peek(model)
        self._arch = model.arch
        self._handlers: dict[int, Callable[[Any, Event], int | None]] = {
            9: self.mmap, 10: self.mprotect, 11: self.munmap, 12: self.brk, 25: self.mremap, 28: self.madvise,
            30: self.shmat, 67: self.shmdt, 149: self.mlock, 150: self.munlock, 151: self.mlockall,
            152: self.munlockall, 157: self.prctl, 216: self.remap_file_pages, 237: self.mbind,
            323: self.userfaultfd, 325: self.mlock, 329: self.mprotect, 425: self.io_uring,
            427: self.io_uring_register, 440: self.process_madvise, 453: self.map_shadow_stack,
        }  # fmt: skip
        gap = (ENOMEM,)
        self._after_failure: dict[int, tuple[int, ...]] = {
            10: gap, 329: gap, 149: gap, 325: gap, 150: gap, 237: (EIO,), 25: (EFAULT, EINVAL, ENOMEM),
            MADVISE: (EAGAIN, ENOMEM, EACCES, EFAULT, EINVAL, EHWPOISON),
        }  # fmt: skip

    def knows(self, nr: int) -> bool:
        """Whether the call can change an address space in a way that is modelled or refused."""
        return nr in self._handlers

    def apply(self, mm: Any, e: Event) -> int | None:
        """The model's return value, or None where there is nothing to compare with the recorded one.

        Raises NotModelled, Refused, or CannotFit.
        """
        if e.ret == NEVER_RETURNED and e.nr in (9, 12, 25, 30):  # where it put the mapping is not known
            self.tell(f"what {name_of(e.nr, e.a)} did that did not return")
            return None
        if -4096 < e.ret < 0 and not self._fails_like(mm, e):
            return None
        return self._handlers[e.nr](mm, e)

    def _fails_like(self, mm: Any, e: Event) -> bool:
        """Whether a call that failed is to be run, for it did part of its work before it met what stopped it."""
        runs = -e.ret in self._after_failure.get(e.nr, ())
        if runs and e.nr in (10, 329, 150):
            runs = self._has_gap(mm, e)  # or else a limit that the recording does not tell stopped it
        elif runs and e.nr in (149, 325):
            runs = self._has_gap(mm, e) or self._has_forbidden(mm, e)
        elif runs and e.nr == 25:
            runs = e.a[3] & MREMAP_FIXED != 0  # elsewhere nothing was done
        elif runs and e.nr == MADVISE and e.a[2] & 0xFFFFFFFF == MADV_COLLAPSE:
            runs = not self._has_files(mm, e)  # which file systems have huge pages is not recorded
        if not runs and e.nr in self._handlers:
            self._count(self.unapplied, e)
        return runs

    # --- mappings ----------------------------------------------------------------------------------------

    def mmap(self, mm: Any, e: Event) -> int | None:
        """mmap(2); the MMAP row inside the call tells the file."""
        length, prot, flags = e.a[1], e.a[2] & 0xFFFFFFFF, e.a[3] & 0xFFFFFFFF
        row = e.inside[0] if e.inside else None
        if row and row.a[4] & MAP_HUGETLB:
            raise NotModelled("hugetlb")
        file = self._files.none
        if flags & MAP_ANONYMOUS == 0:
            file = self._files.of(row, e.a[4] & 0xFFFFFFFF) if row else self._files.unknown()
            if not row:
                self.tell("mappings of files that the recording does not name")
            elif is_driver_memory(row.name or ""):
                self.tell(f"tables that a driver fills without faults in mappings of {row.name}")
        start, size = self.span(e.ret, length)
        if flags & (MAP_POPULATE | MAP_LOCKED) or self._locks_new(mm):
            self._limit(size, e)
        pgoff = (e.a[5] >> 12 << 12) // self._arch.page_size
        ret: int = self._mmap.sys_mmap(mm, start, size, prot, flags, file, pgoff)
        if ret == -EEXIST and not flags & MAP_FIXED:
            self.tell("mappings that the model still had where the kernel put a new one")
            ret = self._mmap.sys_mmap(mm, start, size, prot, flags & ~MAP_FIXED_NOREPLACE | MAP_FIXED, file, pgoff)
        if ret >= 0 and row and (row.name or "").startswith("anon_inode:[io_uring]"):
            self._populate(mm, start, size)  # its rings are mapped at once
        return e.ret if ret == start else ret

    def map_exec(self, mm: Any, row: Event) -> None:
        """A mapping made by execve, or by something else that is no recorded call."""
        name = row.name or ""
        if row.a[4] & MAP_HUGETLB:
            raise NotModelled("hugetlb")
        kind = "vvar" if name.startswith("[vvar") else _KINDS.get(name, "")
        if kind == "stack" and row.a[0] + row.a[1] <= 1 << 32:
            raise NotModelled("32-bit programs, whose system calls have other numbers")
        start, size = self.span(row.a[0], row.a[1])
        file = self._files.none if kind else self._files.of(row, -1)
        pgoff = (row.a[2] << 12) // self._arch.page_size
        self._exec.exec_map(mm, start, size, row.a[3], row.a[4] & 0xFFFFFFFF, file, pgoff, kind)

    def map_at_start(self, mm: Any, row: Event, vm_flags: int) -> None:
        """A mapping that a process had when its recording began, with these flags besides those of mmap."""
        name = row.name or ""
        if name in ("[vdso]", "[vsyscall]") or name.startswith("[vvar"):
            return self.map_exec(mm, row)
        if row.a[4] & MAP_HUGETLB:
            raise NotModelled("hugetlb")
        file = self._files.of(row, -1)
        flags = row.a[4] & MAP_TYPE | MAP_FIXED | (0 if file else MAP_ANONYMOUS)
        start, size = self.span(row.a[0], row.a[1])
        with self.peek.writing(mm):
            mm.def_flags = vm_flags
        self._mmap.sys_mmap(mm, start, size, row.a[3], flags, file, (row.a[2] << 12) // self._arch.page_size)
        with self.peek.writing(mm):
            mm.def_flags = 0
        return None

    def munmap(self, mm: Any, e: Event) -> int:
        ret: int = self._mmap.sys_munmap(mm, *self.span(e.a[0], e.a[1]))
        return ret

    def mremap(self, mm: Any, e: Event) -> int:
        to = e.ret if e.ret >= 0 else e.a[4]
        start, old = self.span(e.a[0], e.a[1])
        new = self.span(to, e.a[2])[1]
        vma = self.peek.vma_at(mm, start)
        if new > old and vma and vma.flags & self._flags.VM_LOCKED:
            self._limit(new - old, e)
        target = self.span(to, 0)[0]
        ret: int = self._mremap.sys_mremap(mm, start, old, new, e.a[3] & 0xFFFFFFFF, target)
        return e.ret if ret == target else ret

    def brk(self, mm: Any, e: Event) -> int | None:
        """brk(2). What the heap's start is, the first call tells."""
        if self.peek.get(mm, "start_brk") == 0:
            with self.peek.writing(mm):
                mm.start_brk = mm.brk = self.span(e.ret, 0)[0] if e.a[0] != e.ret else self._heap_start(e)
        now: int = self.peek.get(mm, "brk")
        if e.a[0] != e.ret:  # asked for the end of the heap, or did not get what it asked for
            return None if now == e.ret or self._arch.page_size != 4096 else now
        if self._locks_new(mm):
            self._limit(max(e.ret - now, 0), e)
        ret: int = self._brk.sys_brk(mm, e.a[0])
        return ret

    def _heap_start(self, e: Event) -> int:
        if not e.inside:
            return e.ret
        return e.inside[0].a[0]

    def shmat(self, mm: Any, e: Event) -> int | None:
        """shmat(2): how much it mapped, and of what, only the MMAP row inside tells."""
        if not e.inside:
            raise NotModelled("shmat of a segment whose mapping was not recorded")
        row = e.inside[0]
        file = self._files.of(row, -2)
        start, size = self.span(e.ret, row.a[1])
        flags = 1 | MAP_FIXED  # MAP_SHARED, in place of what SHM_REMAP allows
        ret: int = self._mmap.sys_mmap(mm, start, size, row.a[3], flags, file, 0)
        return e.ret if ret == start else ret

    def shmdt(self, mm: Any, e: Event) -> int | None:
        """shmdt(2): unmap what is left of the segment attached at the address."""
        start = self.span(e.a[0], 0)[0]
        first = self.peek.vma_at(mm, start)
        if not first or not first.file:
            return -EINVAL
        for vma in self.peek.vmas(mm, start, self._arch.task_size):
            if vma.file == first.file and vma.start - start == vma.pgoff << self._arch.page_shift:
                self._mmap.sys_munmap(mm, vma.start, vma.end - vma.start)
        return 0

    def remap_file_pages(self, mm: Any, e: Event) -> int:
        self._limit(e.a[1], e)
        pgoff = (e.a[3] << 12) // self._arch.page_size
        span = self.span(e.a[0], e.a[1])
        ret: int = self._mmap.sys_remap_file_pages(mm, *span, e.a[2] & 0xFFFFFFFF, pgoff, e.a[4] & 0xFFFFFFFF)
        return ret

    # --- attributes and advice -----------------------------------------------------------------------------

    def mprotect(self, mm: Any, e: Event) -> int:
        if e.nr == 329 and 0 < e.a[3] & 0xFFFFFFFF < 1 << 31:
            raise NotModelled("memory protection keys")
        ret: int = self._mprotect.sys_mprotect(mm, *self.span(e.a[0], e.a[1]), e.a[2] & 0xFFFFFFFF)
        return ret

    def mlock(self, mm: Any, e: Event) -> int:
        start, size = self.span(e.a[0], e.a[1])
        self._limit_accessible(mm, start, size, e)
        ret: int = self._mlock.sys_mlock(mm, start, size, e.a[2] & 0xFFFFFFFF if e.nr == 325 else 0)
        return ret

    def munlock(self, mm: Any, e: Event) -> int:
        ret: int = self._mlock.sys_munlock(mm, *self.span(e.a[0], e.a[1]))
        return ret

    def mlockall(self, mm: Any, e: Event) -> int:
        if e.a[0] & MCL_CURRENT:
            self._limit_accessible(mm, 0, self._arch.task_size, e)
        ret: int = self._mlock.sys_mlockall(mm, e.a[0] & 0xFFFFFFFF)
        return ret

    def munlockall(self, mm: Any, e: Event) -> int:
        ret: int = self._mlock.sys_munlockall(mm)
        return ret

    def mbind(self, mm: Any, e: Event) -> int:
        """mbind(2): policies of one mode count as equal, for the nodes were not recorded."""
        mode = e.a[2] & 0xFFFF
        policy = mode + 1 if mode else 0
        ret: int = self._mempolicy.sys_mbind(mm, *self.span(e.a[0], e.a[1]), policy, e.a[5] & 0xFFFFFFFF)
        return ret

    def madvise(self, mm: Any, e: Event) -> int | None:
        advice = e.a[2] & 0xFFFFFFFF
        start, size = self.span(e.a[0], e.a[1]) if e.a[0] & 4095 == 0 else (e.a[0], e.a[1])
        if advice in MADV_POPULATE or advice == MADV_GUARD_INSTALL:
            self._limit_accessible(mm, start, size, e)
        elif advice == MADV_COLLAPSE:
            self._limit(size // 64, e)
        ret: int = self._madvise.sys_madvise(mm, start, size, advice)
        return ret

    def process_madvise(self, mm: Any, e: Event) -> int | None:
        """process_madvise(2): neither the process nor its ranges are recorded."""
        if e.a[3] & 0xFFFFFFFF in (3, 20, 21):  # WILLNEED, COLD, PAGEOUT leave the tables
            self.tell("process_madvise that leaves the tables as they are")
            return None
        raise NotModelled("process_madvise: its process and ranges are not recorded")

    def prctl(self, mm: Any, e: Event) -> int | None:
        option = e.a[0] & 0xFFFFFFFF
        if option == PR_SET_MM:
            raise NotModelled("prctl(PR_SET_MM)")
        if option == PR_SET_THP_DISABLE:
            # The two ways to disable are the model's lowest bits of mm.flags, in the order of prctl's flag.
            off = (2 if e.a[2] & PR_THP_DISABLE_EXCEPT_ADVISED else 1) if e.a[1] else 0
            with self.peek.writing(mm):
                mm.flags = mm.flags & ~3 | off
        if option == PR_SET_VMA and e.a[1] == PR_SET_VMA_ANON_NAME:
            self.tell("names of anonymous memory (equal where the same string in memory was given)")
            ret: int = self._madvise.sys_set_anon_vma_name(mm, *self.span(e.a[2], e.a[3]), e.a[4])
            return ret
        return None

    # --- what is not modelled ------------------------------------------------------------------------------

    def userfaultfd(self, mm: Any, e: Event) -> int | None:
        raise NotModelled("userfaultfd")

    def io_uring(self, mm: Any, e: Event) -> int | None:
        self.tell("tables made by io_uring for buffers that it pins (O_DIRECT), which cause no fault")
        return None

    def io_uring_register(self, mm: Any, e: Event) -> int | None:
        if e.a[1] & 0x7FFFFFFF in _PINNING_REGISTER_OPS:
            raise NotModelled("io_uring_register of buffers: their addresses are not recorded")
        return None

    def map_shadow_stack(self, mm: Any, e: Event) -> int | None:
        raise NotModelled("shadow stacks")

    # --- helpers -------------------------------------------------------------------------------------------

    def _locks_new(self, mm: Any) -> bool:
        """Whether new memory is locked, and so filled at once (mlockall)."""
        return bool(self.peek.get(mm, "def_flags") & self._flags.VM_LOCKED)

    def span(self, start: int, length: int) -> tuple[int, int]:
        """A recorded range in whole pages of the architecture: (start, length)."""
        page = self._arch.page_size
        if start + length > self._arch.task_size:
            self.check_fits(start + length - 1)
        if page == 4096:
            return start, length
        first = start & -page
        return first, (start + length + page - 1 & -page) - first if length else 0

    def check_fits(self, address: int) -> None:
        """Raise CannotFit for an address that the recorded machine has, and the architecture has not."""
        if self._arch.task_size <= address < self._recorded_end:
            raise CannotFit(
                f"the recording uses address {address:#x}, past the end of user space on {self._arch.name}"
                f" ({self._arch.task_size:#x}); try another --arch"
            )

    def _vmas(self, mm: Any, e: Event) -> tuple[int, int, list[Vma]]:
        """The range that a call gives by address and length, and what is mapped there: (start, end, mappings)."""
        start, size = self.span(e.a[0] & ~4095, e.a[1] + (e.a[0] & 4095) + 4095 & ~4095)
        return start, start + size, self.peek.vmas(mm, start, start + size)

    def _has_gap(self, mm: Any, e: Event) -> bool:
        """Whether some page of the call's range is not mapped."""
        at, end, vmas = self._vmas(mm, e)
        for vma in vmas:
            if vma.start > at:
                return True
            at = vma.end
        return at < end

    def _has_forbidden(self, mm: Any, e: Event) -> bool:
        """Whether a mapping in the call's range may not be accessed or has guards: filling the range stops there."""
        vmas = self._vmas(mm, e)[2]
        if any(vma.flags & self._flags.VM_ACCESS_FLAGS == 0 for vma in vmas):
            return True
        small = sum(vma.end - vma.start for vma in vmas) <= MAX_POPULATE_PAGES << self._arch.page_shift
        return small and any(self.peek.has_guard(mm, vma) for vma in vmas)

    def _has_files(self, mm: Any, e: Event) -> bool:
        """Whether the call's range has mappings of files on disk."""
        files = (vma.file for vma in self._vmas(mm, e)[2] if vma.file)
        return any(not self.peek.get(self.peek.get(f, "f_mapping"), "shmem") for f in files)

    def _populate(self, mm: Any, start: int, size: int) -> None:
        for address in range(start, start + size, self._arch.page_size):
            self._fault.do_user_addr_fault(mm, address, False)

    def _limit_accessible(self, mm: Any, start: int, size: int, e: Event) -> None:
        """_limit for the part of the range that is mapped and may be accessed."""
        fills = 0
        for vma in self.peek.vmas(mm, start, start + size):
            if vma.flags & self._flags.VM_ACCESS_FLAGS:
                fills += min(vma.end, start + size) - max(vma.start, start)
        self._limit(fills, e)

    def _limit(self, size: int, e: Event) -> None:
        """Refuse to fill `size` bytes if no machine that was recorded can have done it."""
        if size // self._arch.page_size > MAX_POPULATE_PAGES:
            raise Refused(f"row {e.no}: a call that fills {size >> 30:,} GiB of memory")

    def tell(self, what: str) -> None:
        """Count something that happened and is not known."""
        self.unknowns[what] = self.unknowns.get(what, 0) + 1

    def _count(self, counts: dict[str, int], e: Event) -> None:
        try:
            error = os.strerror(-e.ret)
        except ValueError:
            error = str(e.ret)
        key = f"{name_of(e.nr, e.a)}: {error}"
        counts[key] = counts.get(key, 0) + 1


_KINDS = {"[stack]": "stack", "[heap]": "heap", "[vdso]": "vdso"}
