# SPDX-License-Identifier: GPL-2.0-only
"""A walk over the page tables of a model mm: which mapping holds which table, and which tables are empty."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from tablewalk.machine.drivers import Model
from tablewalk.replay.files import Files
from tablewalk.replay.peek import Peek, Vma
from tablewalk.replay.results import Holder

HOLDERS_SHOWN = 10


class Walker:
    """Walks mms of a model; `files` names the files of their mappings."""

    def __init__(self, model: Model, files: Files, peek: Peek) -> None:
        self._arch = model.arch
        self._machine, self._files, self._peek = model.machine, files, peek
        self._pgtable = model.kernel("pgtable")
        self._flags = model.kernel("vm_flags")

    def holders(self, mm: Any) -> list[Holder]:
        """Every mapping that holds a table or a huge page, by address."""
        vmas = self._peek.vmas(mm, 0, self._arch.task_size)
        ends = [vma.end for vma in vmas]
        found: dict[int, Holder] = {}
        for address, entry in self._pmd_entries(mm):
            i = bisect_right(ends, address)
            if i == len(vmas):
                continue
            holder = found.get(i)
            if holder is None:
                vma = vmas[i]
                holder = found[i] = Holder(vma.start, vma.end, self.what(mm, vma))
            if self._pgtable.pmd_is_table(entry):
                holder.pte += 1
                table = self._pgtable.pmd_pgtable(entry)
                holder.empty += not any(self._machine.load_range(table.entry, self._arch.ptrs_per_pte))
            else:
                holder.huge += 1
        return [found[i] for i in sorted(found)]

    def what(self, mm: Any, vma: Vma) -> str:
        """What a mapping is, in a few words."""
        if vma.file:
            return self._files.name(vma.file)
        if vma.flags & self._flags.VM_GROWSDOWN:
            return "[stack]"
        if vma.flags & self._flags.VM_SPECIAL_MAPPING:
            return "[vdso]"
        start_brk, brk = self._peek.get(mm, "start_brk"), self._peek.get(mm, "brk")
        if start_brk <= vma.start < brk or vma.start <= start_brk < vma.end:
            return "[heap]"
        return "anonymous memory"

    def _pmd_entries(self, mm: Any) -> Iterator[tuple[int, int]]:
        """(address, value) of every PMD entry that is not none."""
        a = self._arch
        levels = [(a.pgdir_shift, a.ptrs_per_pgd)]
        if a.p4d_bits:
            levels.append((a.p4d_shift, a.ptrs_per_p4d))
        if a.pud_bits:
            levels.append((a.pud_shift, a.ptrs_per_pud))
        if a.pmd_bits:
            levels.append((a.pmd_shift, a.ptrs_per_pmd))
        return self._entries(self._peek.get(mm, "pgd"), 0, levels)

    def _entries(self, table: Any, base: int, levels: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        shift, nr = levels[0]
        for i, entry in enumerate(self._machine.load_range(table.entry, nr)):
            if entry and len(levels) == 1:
                yield base + (i << shift), entry
            elif entry:
                yield from self._entries(self._pgtable.pmd_pgtable(entry), base + (i << shift), levels[1:])
