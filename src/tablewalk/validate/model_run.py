# SPDX-License-Identifier: GPL-2.0-only
"""Executes operations on the model: the same processes and files as the agent's, the same answers."""

from __future__ import annotations

from typing import Any

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .observe import Observer
from .ops import Geometry, Op

LOCKONFAULT_TOLD = (6, 12)  # a release whose smaps tells VM_LOCKONFAULT; 6.1 does not
HUGE_BY_HEAD = (6, 15)  # first release whose pagemap tells of a huge page what is true of its first page
SIGBUS, SIGSEGV = 7, 11
EBADF, EINVAL = 9, 22
MPOL_MAX_MODE = 6
MADV_REMOVE = 9


class ModelRun:
    """The processes of a program on a model; `run` executes an operation."""

    def __init__(
        self, config: KernelConfig, geometry: Geometry, exact_rss: bool = True, driver: str = "sequential"
    ) -> None:
        self._config, self._geometry, self._specs = config, geometry, geometry.files
        self._exact_rss = exact_rss
        self.model = drivers.load(driver)
        self.mms: dict[int, Any] = {}
        self.reset()

    def reset(self) -> None:
        """A kernel just booted, with process 0 and the files."""
        self.model.configure(self._config)
        self.k = self.model.kernel
        self.observer = Observer(self.model)
        self.observer.exact_rss = self._exact_rss
        self.observer.lockonfault_told = drivers.release_of(self._config.release) >= LOCKONFAULT_TOLD
        self.observer.huge_by_head = drivers.release_of(self._config.release) >= HUGE_BY_HEAD
        self._page_size = self.model.module("arch").arch.page_size
        self._no_file = self.k("mm_types").file(0)
        self._open_files()
        self.mms = {0: self.k("mm_init").mm_alloc()}

    def _open_files(self) -> None:
        filemap, shmem = self.k("filemap"), self.k("shmem")
        self.files: list[Any] = []
        for i, spec in enumerate(self._specs):
            if spec.kind == "readonly":
                f = filemap.open_file(self.files[-1].f_mapping, i + 1)
                f.f_readonly = 1
            elif spec.kind == "memfd":
                f = shmem.shmem_file_setup(spec.size, i + 1)
            else:
                mapping = filemap.file_mapping(spec.size)
                f = filemap.open_file(mapping, i + 1)
                filemap.iput(mapping)
            self.files.append(f)
            self._fill_holes()
            self.observer.names.setdefault(f.f_mapping.addr, f"f{i}")

    def _fill_holes(self) -> None:
        """Regular files are written where they have holes: all pages are cached and dirty, as the agent's are."""
        filemap, page_alloc, folio = self.k("filemap"), self.k("page_alloc"), self.k("mm_types").folio
        machine = self.model.machine
        for f in self.files:
            mapping = f.f_mapping
            if mapping.shmem:
                continue
            last = filemap.i_size_pages(mapping) - 1
            filemap.page_cache_present(mapping, 0, last)
            for _, cached in machine.xa_range(mapping.i_pages, 0, last):
                page = folio(cached)
                machine.WRITE_ONCE(page, "flags", page.flags | page_alloc.PG_DIRTY)

    def run(self, op: Op) -> tuple[int, int]:
        """(what it returns, errno or signal)."""
        if op.kind == "reset":
            self.reset()
            return 0, 0
        result = getattr(self, f"_{op.kind}")(op.process, *op.args)
        if op.kind in ("ftruncate", "punch") or (op.kind == "madvise" and op.args[2] == MADV_REMOVE):
            self._fill_holes()
        self.model.machine.quiescent()
        if isinstance(result, tuple):
            return result[0], result[1]
        return (-1, -result) if result < 0 else (result, 0)

    def text(self) -> str:
        """The observation of all processes."""
        return self.observer.text(self.mms)

    def exit(self) -> None:
        """End all processes; the model checks that nothing stays counted."""
        for process in sorted(self.mms):
            self._exit(process)
        for f in self.files:
            self.k("filemap").fput(f)
        self.model.machine.quiescent()

    # --- system calls ------------------------------------------------------------------------------------

    def _file(self, n: int) -> Any:
        return self.files[n] if n < len(self.files) else None

    def _mmap(self, p: int, addr: int, length: int, prot: int, flags: int, file: int, offset: int) -> int:
        f = self._no_file
        if not flags & 0x20:
            f = self._file(file)
            if f is None:
                return -EBADF
        if offset % self._page_size:
            return -EINVAL
        ret: int = self.k("mmap").sys_mmap(self.mms[p], addr, length, prot, flags, f, offset // self._page_size)
        return ret

    def _munmap(self, p: int, addr: int, length: int) -> int:
        return int(self.k("mmap").sys_munmap(self.mms[p], addr, length))

    def _mprotect(self, p: int, addr: int, length: int, prot: int) -> int:
        return int(self.k("mprotect").sys_mprotect(self.mms[p], addr, length, prot))

    def _madvise(self, p: int, addr: int, length: int, advice: int) -> int:
        return int(self.k("madvise").sys_madvise(self.mms[p], addr, length, advice))

    def _process_madvise(self, p: int, target: int, addr: int, length: int, advice: int) -> int:
        call = self.k("madvise").sys_process_madvise
        return int(call(self.mms[target], ((addr, length),), advice, target != p))

    def _mremap(self, p: int, addr: int, old: int, new: int, flags: int, to: int) -> int:
        return int(self.k("mremap").sys_mremap(self.mms[p], addr, old, new, flags, to))

    def _mlock(self, p: int, addr: int, length: int, flags: int = 0) -> int:
        return int(self.k("mlock").sys_mlock(self.mms[p], addr, length, flags))

    _mlock2 = _mlock

    def _munlock(self, p: int, addr: int, length: int) -> int:
        return int(self.k("mlock").sys_munlock(self.mms[p], addr, length))

    def _mlockall(self, p: int, flags: int) -> int:
        return int(self.k("mlock").sys_mlockall(self.mms[p], flags))

    def _munlockall(self, p: int) -> int:
        return int(self.k("mlock").sys_munlockall(self.mms[p]))

    def _mbind(self, p: int, addr: int, length: int, mode: int, nodes: int, flags: int) -> int:
        if mode > MPOL_MAX_MODE or bool(mode) != bool(nodes):
            return -EINVAL
        return int(self.k("mempolicy").sys_mbind(self.mms[p], addr, length, mode, flags))

    def _remap_file_pages(self, p: int, addr: int, length: int, prot: int, pgoff: int, flags: int) -> int:
        return int(self.k("mmap").sys_remap_file_pages(self.mms[p], addr, length, prot, pgoff, flags))

    def _ftruncate(self, p: int, file: int, size: int) -> int:
        f = self._file(file)
        if f.f_readonly or size >= 1 << 63:
            return -EINVAL
        self.k("truncate").truncate_setsize(f.f_mapping, size)
        return 0

    def _punch(self, p: int, file: int, offset: int, length: int) -> int:
        f = self._file(file)
        if length == 0 or length >= 1 << 63:
            return -EINVAL
        if f.f_readonly:
            return -EBADF
        first = offset // self._page_size
        nr = (offset + length) // self._page_size - first
        return int(self.k("truncate").shmem_fallocate(f.f_mapping, first, nr))

    def _thp_disable(self, p: int, on: int) -> int:
        bit = self.k("huge_mm").MMF_DISABLE_THP_COMPLETELY
        lock, mm = self.k("mmap_lock"), self.mms[p]
        lock.mmap_write_lock(mm)
        flags = self.model.machine.READ_ONCE(mm, "flags")
        self.model.machine.WRITE_ONCE(mm, "flags", flags | bit if on else flags & ~bit)
        lock.mmap_write_unlock(mm)
        return 0

    def _fork(self, p: int, child: int) -> int:
        self.mms[child] = self.k("fork").dup_mm(self.mms[p])
        return 0

    def _exit(self, p: int) -> int:
        self.k("mm_init").mmput(self.mms.pop(p))
        return 0

    # --- accesses ----------------------------------------------------------------------------------------

    def _access(self, p: int, addr: int, write: bool) -> tuple[int, int]:
        """(content cell of the page, 0), or (0, the signal that kills)."""
        fault, flags = self.k("fault"), self.k("vm_flags")
        while True:
            cell = fault.hardware_walk(self.mms[p], addr, write)
            if cell:
                if write:
                    self._set_dirty(p, addr)
                return cell, 0
            ret = fault.do_user_addr_fault(self.mms[p], addr, write)
            if ret & flags.VM_FAULT_ERROR:
                return 0, SIGBUS if ret & (flags.VM_FAULT_SIGBUS | flags.VM_FAULT_HWPOISON) else SIGSEGV

    def _set_dirty(self, p: int, addr: int) -> None:
        """What the CPU does to the entry that it writes through."""
        k, machine = self.k("pgtable"), self.model.machine
        entry = k.mm_find_pmd(self.mms[p], addr)
        if machine.load(entry) & k.LEAF == 0:
            entry = k.pmd_pgtable(machine.load(entry)).entry + k.pte_index(addr)
        machine.store(entry, machine.load(entry) | k.ACCESSED | k.DIRTY)

    def _read(self, p: int, addr: int) -> tuple[int, int]:
        cell, signal = self._access(p, addr, False)
        return (-1, signal) if signal else (self.model.machine.load(cell), 0)

    def _write(self, p: int, addr: int, value: int) -> tuple[int, int]:
        cell, signal = self._access(p, addr, True)
        if signal:
            return -1, signal
        self.model.machine.store(cell, value)
        return 0, 0

    def _fill(self, p: int, addr: int, length: int, step: int, value: int) -> tuple[int, int]:
        done = 0
        for at in range(addr, addr + length, step):
            signal = self._write(p, at, value)[1] if value else self._read(p, at)[1]
            if signal:
                return done, signal
            done += 1
        return done, 0

    def _sum(self, p: int, addr: int, length: int) -> int:
        size = self._page_size
        total = 0
        for at in self.observer.present(self.mms[p], addr, addr + length):
            value, signal = self._read(p, at)
            seen = 0xFFFFFFFF if signal else value
            total = ((total * 31 + (at - self._geometry.start) // size) * 31 + seen) & 0xFFFFFFFF
        return total & 0x7FFFFFFF
