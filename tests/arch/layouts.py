# SPDX-License-Identifier: GPL-2.0-only
"""The program that real kernels ran: what it touches on each of them, and the VmPTE (kB) they showed.

50 GiB: 25 x 1024 times touch one page of the next 2 MiB and MADV_DONTNEED it.  Then a memfd of 64 MiB mapped twice,
each mapping touched, MADV_COLLAPSE of the first, both touched again.  The program is a static executable; what it has
before is its text, heap and stack, and its vDSO where that is in a table of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
MIB = 1 << 20
CHUNK = 2 * MIB
ARENA = 50 * GIB
MEMFD = 64 * MIB
FIRST_MAP, SECOND_MAP = 0x1000_0000_0000, 0x1100_0000_0000
TEXT, HEAP = 0x1000_0000, 0x1400_0000  # in one PMD table, in two PTE tables


@dataclass(frozen=True)
class Row:
    """One kernel: where its program's mappings are, and what it showed at each step."""

    kernel: str
    arch: str
    release: str
    stack: int
    vdso: int  # 0: in the stack's PTE table
    arena: int
    samples: tuple[int, ...]  # start, after the loop, after munmap, mapped once, twice, collapsed, touched again
    has_thp: bool = True

    @property
    def touched_first(self) -> tuple[int, ...]:
        """What the program has touched when it begins."""
        return (TEXT, HEAP, self.stack, *([self.vdso] if self.vdso else []))


def _below(vdso: int) -> int:
    """The highest place for the 50 GiB below `vdso`, aligned as the program wants them."""
    return (vdso - ARENA) & -CHUNK


def _row(kernel: str, arch: str, release: str, top: int, vdso_below: int, *samples: int, has_thp: bool = True) -> Row:
    """`top`: where addresses for the stack end; `vdso_below`: bytes from there to the vDSO, 0 if beside the stack."""
    stack = top - 500 * MIB
    vdso = stack - vdso_below if vdso_below else 0
    return Row(kernel, arch, release, stack, vdso, _below(vdso or stack - 140 * MIB), samples, has_thp)


TOP_47, TOP_46 = 1 << 47, 1 << 46  # TASK_SIZE or DEFAULT_MAP_WINDOW
NEAR, FAR = 20 * GIB, 600 * GIB  # in the stack's PUD table, and beyond it

ROWS = (
    # x86 6.1: the 50 GiB lie below the stack, with a GiB's border between them
    Row("x86-64 6.1", "x86_64", "6.1", 0x7FFC_0000_0000, 0, 0x7F00_0000_0000 + 600 * GIB + 6 * MIB,
        (28, 102632, 28, 164, 300, 172, 172)),
    _row("x86-64 6.12", "x86_64", "6.12", TOP_47, NEAR, 36, 102636, 36, 172, 308, 52, 52),
    _row("x86-64 6.18 PT_RECLAIM", "x86_64", "6.18", TOP_47, NEAR, 36, 236, 36, 172, 308, 52, 52),
    _row("arm64 6.12 (4K pages)", "arm64", "6.12", 1 << 48, NEAR, 36, 102636, 36, 172, 308, 52, 52),
    _row("s390x 6.1 (2K tables)", "s390x", "6.1", 1 << 42, 0, 38, 51638, 38, 214, 358, 358, 358, has_thp=False),
    _row("ppc64le 6.1 (64K pages, table fragments)", "ppc64le", "6.1", TOP_47, FAR, 25, 6625, 25, 41, 57, 49, 49),
    _row("x86-64 7.2", "x86_64", "7.2", TOP_47, FAR, 40, 240, 40, 176, 312, 56, 56),
    _row("arm64 7.2", "arm64", "7.2", 1 << 48, NEAR, 36, 236, 36, 172, 308, 52, 52),
    _row("s390x 7.2 (2K tables)", "s390x", "7.2", 1 << 42, 0, 38, 438, 38, 214, 358, 358, 358, has_thp=False),
    _row("ppc64le 7.2 (4K pages)", "ppc64le", "7.2", TOP_46, FAR, 40, 102640, 40, 176, 312, 56, 56),
    _row("riscv64 7.2", "riscv64", "7.2", TOP_47, NEAR, 36, 236, 36, 172, 308, 52, 52),
)
