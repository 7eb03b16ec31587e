# SPDX-License-Identifier: GPL-2.0-only
"""Executes operations on the model: the same processes and files as the agent's, the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig

from .model_uffd import PREFIX, Uffds
from .observe import Observer
from .ops import MADV_PAGEOUT, MADV_REMOVE, Geometry, Op, advises

SIGBUS, SIGSEGV = 7, 11
EBADF, ENOMEM, EINVAL, EFBIG, EDEADLK, EOPNOTSUPP, ERESTARTNOINTR = 9, 12, 22, 27, 35, 95, 513
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
TMPFS = "tmpfs-"


# What releases and architectures do differently, and the events that tell that it was done (`machine.stat`)
DIFFERENCES = {
    "page tables retracted": ("retracted",),
    "page tables left to other mappings of the file": ("retract_left",),
    "empty page tables reclaimed": ("reclaimed_fast", "reclaimed_slow"),
    "more VMAs moved by one mremap": ("mremap_vmas",),
}


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
        self._page_size = self.model.arch.page_size
        self._no_file = self.k("mm_types").file(0)
        self._open_files()
        mm = self.k("mm_init").mm_alloc()
        mm.start_brk = mm.brk = self._geometry.heap
        self.mms = {0: mm}
        self.observer.tables_at_first = self.k("pgtable_generic").mm_pgtables_bytes(mm)
        self.uffds = Uffds(self.model, self.mms, self._geometry.start)
        self._reclaimed = False  # whether files may lack pages that they had
        self.policies = {(0, 0): 0}  # of each thread that runs: set_mempolicy()'s

    def _open_files(self) -> None:
        filemap, shmem = self.k("filemap"), self.k("shmem")
        self.files: list[Any] = []
        for i, spec in enumerate(self._specs):
            if spec.kind == "readonly":
                f = filemap.open_file(self.files[-1].f_mapping, i + 1)
                f.f_readonly = 1
            elif spec.kind == "memfd":
                f = shmem.shmem_file_setup(spec.size, i + 1)
            elif spec.kind.startswith(TMPFS):
                mapping = shmem.shmem_mapping(spec.size, shmem.HUGE_OPTION[spec.kind.removeprefix(TMPFS)])
                f = filemap.open_file(mapping, i + 1)
                filemap.iput(mapping)
            else:
                mapping = filemap.file_mapping(spec.size, can_collapse=True)
                f = filemap.open_file(mapping, i + 1)
                filemap.iput(mapping)
            self.files.append(f)
            self._fill_holes()
            self.observer.names.setdefault(f.f_mapping.addr, f"f{i}")

    def _fill_holes(self) -> None:
        """Regular files are written where they have holes, so that all their pages are cached, as the agent's are."""
        write = self.k("file_write")
        for mapping, index, value in self._regular_pages():
            if value == 0:
                write.write_end(mapping, write.write_begin(mapping, index), 0)

    def _read_back(self) -> None:
        """What was reclaimed of regular files is cached again, as the agent's is."""
        filemap = self.k("filemap")
        for mapping, index, value in self._regular_pages():
            if value == filemap.XA_SHADOW:
                filemap.page_cache_read(mapping, index)

    def _regular_pages(self) -> Iterator[tuple[Any, int, int]]:
        """(file, index, what is cached there) of all pages of regular files."""
        for f in self.files:
            mapping = f.f_mapping
            if not mapping.shmem and not f.f_readonly:
                pages = self.k("filemap").i_size_pages(mapping)
                cached = dict(self.model.machine.xa_range(mapping.i_pages, 0, pages - 1))
                yield from ((mapping, index, cached.get(index, 0)) for index in range(pages))

    def run(self, op: Op) -> tuple[int, int]:
        """(what it returns, errno or signal)."""
        if op.kind == "reset":
            self.reset()
            return 0, 0
        if self._reclaimed:
            self._read_back()
        self._reclaimed = advises(op, MADV_PAGEOUT)
        self._thread = self._begin_thread(op.process, op.thread)
        if op.kind.startswith(PREFIX):
            result = self.uffds.run(op.process, op.kind, op.args)
        else:
            result = getattr(self, f"_{op.kind}")(op.process, *op.args)
        if op.kind in ("ftruncate", "punch", "pwrite") or (op.kind == "madvise" and op.args[2] == MADV_REMOVE):
            self._fill_holes()
        self.model.machine.quiescent()
        if isinstance(result, tuple):
            return result[0], result[1]
        return (-1, -result) if result < 0 else (result, 0)

    def _begin_thread(self, process: int, thread: int) -> tuple[int, int]:
        """(process, thread), which runs from now on: a user more of the process's memory."""
        key = process, thread
        if key not in self.policies:
            self.policies[key] = self.policies[process, 0]
            self.model.machine.add(self.mms[process].mm_users, 1)
        return key

    def text(self) -> str:
        """The observation of all processes."""
        return self.observer.text(self.mms)

    def differences(self) -> dict[str, int]:
        """How often, since the reset, the model did what other releases or architectures do otherwise."""
        stats = dict(zip(self.model.module("machine.stat").STAT_NAMES, self.model.machine.stats, strict=True))
        found = {what: sum(stats[name] for name in names) for what, names in DIFFERENCES.items()}
        arch = self.model.arch
        if arch.pte_bytes < arch.page_size:
            found[f"page tables of {arch.pte_bytes} bytes, smaller than a page"] = stats["pte_tables_allocated"]
        return found

    def exit(self) -> None:
        """End all processes; the model checks that nothing stays counted."""
        self.uffds.close()
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
        """Where the kernel would begin again for ever, the agent gives up: see there."""
        for _ in range(2):
            ret = int(self.k("madvise").do_madvise(self.mms[p], addr, length, advice))
            if ret != -ERESTARTNOINTR:
                return ret
        return -EDEADLK

    def _process_madvise(self, p: int, target: int, addr: int, length: int, advice: int) -> int:
        call = self.k("madvise").sys_process_madvise
        return int(call(self.mms[target], ((addr, length),), advice, self.mms[target] is not self.mms[p]))

    def _process_madvise_ranges(
        self, p: int, target: int, addr: int, length: int, addr2: int, length2: int, advice: int
    ) -> int:
        ranges = (addr, length), (addr2, length2)
        call = self.k("madvise").sys_process_madvise
        return int(call(self.mms[target], ranges, advice, self.mms[target] is not self.mms[p]))

    def _brk(self, p: int, addr: int) -> tuple[int, int]:
        end = int(self.k("brk").sys_brk(self.mms[p], addr))
        return end, 0 if end == addr else ENOMEM

    def _msync(self, p: int, addr: int, length: int, flags: int) -> int:
        return int(self.k("msync").sys_msync(self.mms[p], addr, length, flags))

    def _mincore(self, p: int, addr: int, length: int) -> int:
        """How many pages are in core."""
        ret, vec = self.k("mincore").sys_mincore(self.mms[p], addr, length)
        return int(ret) or sum(vec)

    def _mseal(self, p: int, addr: int, length: int, flags: int) -> int:
        return int(self.k("mseal").sys_mseal(self.mms[p], addr, length, flags))

    def _pagemap_scan(self, p: int, addr: int, length: int, flags: int, pages: int, nr: int, *masks: int) -> int:
        """A sum of the ranges found, and of where the scan ended."""
        scan = self.k("pagemap_scan")
        size, start = self._page_size, self._geometry.start
        end = -(-(addr + length) // size) * size & (1 << 64) - 1
        found, ended, ranges = scan.do_pagemap_scan(self.mms[p], scan.pm_scan_arg(addr, end, flags, pages, nr, masks))
        if found < 0:
            return int(found)
        total = found
        for begin, end, categories in (*ranges, (ended, ended, 0)):
            for value in ((begin - start) // size, (end - start) // size, categories):
                total = (total * 31 + value) & 0xFFFFFFFF
        return int(total & 0x7FFFFFFF)

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
        return int(self.k("mempolicy").kernel_mbind(self.mms[p], addr, length, mode, nodes, flags))

    def _set_mempolicy(self, p: int, mode: int, nodes: int) -> int:
        policy = int(self.k("mempolicy").mpol_new(mode, nodes))
        if policy < 0:
            return policy
        self.policies[self._thread] = policy
        return 0

    def _get_mempolicy(self, p: int, addr: int, flags: int) -> int:
        return int(self.k("mempolicy").sys_get_mempolicy(self.mms[p], self.policies[self._thread], addr, flags))

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

    def _fallocate(self, p: int, file: int, mode: int, offset: int, length: int) -> int:
        if offset >= 1 << 63 or length == 0 or length >= 1 << 63:
            return -EINVAL
        if mode == FALLOC_FL_PUNCH_HOLE:  # without FALLOC_FL_KEEP_SIZE
            return -EOPNOTSUPP
        f = self._file(file)
        if f.f_readonly:
            return -EBADF
        end = offset + length
        if end >= 1 << 63:
            return -EFBIG
        if mode & ~FALLOC_FL_KEEP_SIZE:
            return -EOPNOTSUPP
        return int(self.k("file_write").shmem_fallocate_range(f.f_mapping, offset, end, mode == FALLOC_FL_KEEP_SIZE))

    def _pread(self, p: int, file: int, offset: int) -> tuple[int, int]:
        f = self._file(file)
        if offset >= 1 << 63 or not f:
            return -1, EINVAL if offset >= 1 << 63 else EBADF
        mapping = f.f_mapping
        index = offset // self._page_size
        if index >= self.k("filemap").i_size_pages(mapping):
            return 0, 0
        folio = self.k("shmem").shmem_lock_folio(mapping, index)
        if not folio:
            return 0, 0
        if not mapping.shmem:
            self.k("filemap").page_cache_async_ra(folio)
        value = int(self.model.machine.load(self._content(folio, index)))
        self._let_go(folio)
        return value, 0

    def _pwrite(self, p: int, file: int, offset: int, value: int) -> tuple[int, int]:
        f, index = self._file(file), offset // self._page_size
        if offset >= 1 << 63 or not f or f.f_readonly:
            return -1, EINVAL if offset >= 1 << 63 else EBADF
        folio = self.k("file_write").write_begin(f.f_mapping, index)
        self.model.machine.store(self._content(folio, index), value)
        self.k("file_write").write_end(f.f_mapping, folio, offset + self._page_size)
        return self._page_size, 0

    def _content(self, folio: Any, index: int) -> int:
        return int(self.k("page_alloc").page_content(self.k("filemap").folio_file_page(folio, index)))

    def _let_go(self, folio: Any) -> None:
        self.model.machine.mutex_unlock(folio.lock)
        self.k("page_alloc").folio_put(folio)

    def _thp_disable(self, p: int, on: int, flags: int) -> int:
        return int(self.k("sys").prctl_set_thp_disable(self.mms[p], on, flags))

    def _fork(self, p: int, child: int) -> int:
        self.mms[child] = self.k("fork").dup_mm(self.mms[p])
        self.uffds.adopt(self.mms[child])
        self.policies[child, 0] = self.policies[self._thread]
        return 0

    def _vfork(self, p: int, child: int) -> int:
        self.mms[child] = self.mms[p]
        self.model.machine.add(self.mms[p].mm_users, 1)
        self.policies[child, 0] = self.policies[p, 0]
        return 0

    def _exit(self, p: int) -> int:
        mm = self.mms.pop(p)
        for key in [key for key in self.policies if key[0] == p]:
            del self.policies[key]
            self.k("mm_init").mmput(mm)
        return 0

    def _clear_refs(self, p: int, kind: int) -> int:
        return int(self.k("soft_dirty").clear_refs_write(self.mms[p], kind))

    def _ksm(self, _: int, passes: int) -> int:
        for _ in range(passes):
            self.k("ksm_scan").ksmd_pass()
        return 0

    # --- accesses ----------------------------------------------------------------------------------------

    def _access(self, p: int, addr: int, write: bool) -> tuple[int, int]:
        """(content cell of the page, 0), or (0, the signal that kills)."""
        fault, flags = self.k("fault"), self.k("vm_flags")
        while True:
            cell = fault.hardware_walk(self.mms[p].addr, self.mms[p], addr, write)
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
