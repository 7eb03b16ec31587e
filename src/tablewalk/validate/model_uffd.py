# SPDX-License-Identifier: GPL-2.0-only
"""userfaultfds on the model as agent/uffd.c has them: numbered for all processes, and their monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tablewalk.machine.drivers import Model

MAX_UFFDS = 8
EBADF, EAGAIN, EBUSY, EINVAL = 9, 11, 16, 22
MODE_WP = 2  # of UFFDIO_COPY and UFFDIO_CONTINUE
PREFIX = "uffd_"

Result = int | tuple[int, int]  # 0 or -errno, or (output field, errno)


class Uffds:
    """The userfaultfds of all processes `mms` by number, and the monitor."""

    def __init__(self, model: Model, mms: dict[int, Any], arena: int) -> None:
        self._k, self._machine, self._mms, self._arena = model.kernel, model.machine, mms, arena
        self._calls = model.kernel("fs_userfaultfd")
        self._types = model.kernel("mm_types")
        self._lock = model.kernel("mmap_lock")
        self._flags = model.kernel("vm_flags")
        self._shift = model.arch.page_shift
        self._open: dict[int, Any] = {}
        self._monitor: Any = None  # its mm
        self._unresolved: Any = None  # (context, address) of a fault that waits for an event that waits for the fault
        config = model.kernel("config").config
        config.userfault_reader, config.userfault_reader_again = self._resolve, self._unregister

    def run(self, process: int, kind: str, args: tuple[int, ...]) -> Result:
        """Execute `uffd_KIND`; the last argument is the number of the userfaultfd."""
        *rest, n = args
        if kind == "uffd_open":
            flags, features = rest
            return self._new(self._mms[process], flags, features, n)
        ctx = self._open.get(n)
        if ctx is None:
            return self._no_file(kind)
        if kind == "uffd_close":
            self._calls.uffd_close(self._open.pop(n))
            return 0
        call: Callable[..., Any] = getattr(self._calls, kind.replace(PREFIX, "uffdio_"))
        caller = (self._mms[process],) if kind in ("uffd_copy", "uffd_move") else ()
        result = call(ctx, *rest, *caller)
        return (result[1], -result[0]) if isinstance(result, tuple) else int(result)

    def adopt(self, mm: Any) -> None:
        """The monitor reads the fork events of a new process: its userfaultfds get free numbers, or are closed."""
        self._lock.mmap_read_lock(mm)
        vmas = [self._types.vm_area_struct(found) for found in self._machine.mt_values(mm.mm_mt)]
        contexts = dict.fromkeys(vma.vm_userfaultfd_ctx for vma in vmas)
        self._lock.mmap_read_unlock(mm)
        for address in contexts:
            if address:
                self._install(self._types.userfaultfd_ctx(address))

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._calls.uffd_close(self._open.popitem()[1])
        if self._monitor is not None:
            self._k("mm_init").mmput(self._monitor)
            self._monitor = None

    def _no_file(self, kind: str) -> Result:
        """What an ioctl without its file returns: what has an output field left it as it was."""
        plain = ("uffd_close", "uffd_unregister", "uffd_wake", "uffd_writeprotect")
        return -EBADF if kind in plain else (0, EBADF)

    def _new(self, mm: Any, flags: int, features: int, n: int) -> Result:
        if n >= MAX_UFFDS or n in self._open:
            return -EBUSY
        ctx = self._calls.sys_userfaultfd(mm, flags)
        if not ctx:
            return -EINVAL
        error, known = self._calls.uffdio_api(ctx, features)
        if error:
            self._calls.uffd_close(ctx)
            return int(error)
        self._open[n] = ctx
        return known, 0

    def _install(self, ctx: Any) -> None:
        free = next((n for n in range(MAX_UFFDS) if n not in self._open), None)
        if free is None:
            self._calls.uffd_close(ctx)
        else:
            self._open[free] = ctx

    # --- the monitor -------------------------------------------------------------------------------------

    def _resolve(self, ctx_address: int, address: int, reason: int) -> bool:
        """Resolve a fault; false if everything that would is refused until an event has been read."""
        ctx = self._types.userfaultfd_ctx(ctx_address)
        size = 1 << self._shift
        page = address & -size
        index = page - self._arena >> self._shift
        if reason == self._flags.VM_UFFD_WP:
            error = self._calls.uffdio_writeprotect(ctx, page, size, 0)
        elif reason == self._flags.VM_UFFD_MINOR:
            error = self._with_wp(index, lambda mode: self._calls.uffdio_continue(ctx, page, size, mode))
        elif index % 3 or self._calls.uffdio_zeropage(ctx, page, size)[0]:
            mm = self._page_with(index & 0xFFFFFFFF)
            error = self._with_wp(index, lambda mode: self._calls.uffdio_copy(ctx, page, self._arena, size, mode, mm))
        else:
            error = 0
        self._unresolved = (ctx, page)
        return bool(error != -EAGAIN)

    def _unregister(self) -> None:
        """What is still possible then: the page is registered no longer."""
        ctx, page = self._unresolved
        self._calls.uffdio_unregister(ctx, page, 1 << self._shift)

    def _with_wp(self, index: int, fill: Callable[[int], tuple[int, int]]) -> int:
        """Every third page is write-protected, if that is possible; 0 or -errno."""
        error = fill(MODE_WP)[0] if index % 3 == 2 else -EINVAL
        return fill(0)[0] if error == -EINVAL else error

    def _page_with(self, value: int) -> Any:
        """The monitor's mm, with `value` in the page where in others the arena begins."""
        if self._monitor is None:
            self._monitor = self._k("mm_init").mm_alloc()
            no_file = self._types.file(0)
            self._k("mmap").sys_mmap(self._monitor, self._arena, 1 << self._shift, 3, 0x32, no_file, 0)
        self._k("fault").user_write(self._monitor, self._arena, value)
        return self._monitor
