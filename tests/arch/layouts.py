# SPDX-License-Identifier: GPL-2.0-only
"""The programs that real kernels ran: what they touch on each of them, and the VmPTE (kB) they showed.

`ROWS`: in 50 GiB, 25 x 1024 times touch one page of the next 2 MiB and MADV_DONTNEED it.  Then a memfd of 64 MiB
mapped twice, each mapping touched, MADV_COLLAPSE of the first, both touched again.  The program is a static executable;
what it has before is its text, heap and stack, and its vDSO where that is in a table of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tablewalk.arch.table import by_name
from tablewalk.machine.drivers import release_of
from tablewalk.validate.kernels import find
from tablewalk.validate.targets import target

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
    arena_bytes: int = ARENA
    first: int = FIRST_MAP
    second: int = SECOND_MAP

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


def _guest(kernel: str, *deltas: int) -> Row:
    """`deltas`: what VmPTE has more than at the start, from the loop on."""
    has = find(kernel)
    name = target(has.arch).model or has.arch
    arch = by_name(name, release_of(has.release))
    stack = (arch.pud_folded_below or arch.task_size) - MIB
    row = Row(kernel, name, has.release, stack, vdso=0, arena=0x2000_0000_0000, samples=(0, *deltas))
    if arch.long_bits == 32:
        return replace(row, arena=0x4000_0000, arena_bytes=512 * MIB, first=0x2000_0000, second=0x6000_0000)
    if arch.task_size <= 1 << 40:
        return replace(row, arena=256 * GIB, first=64 * GIB, second=512 * GIB)
    return row


GUESTS = (
    _guest("x86_64-6.1", 102604, 0, 136, 272, 144, 144),
    _guest("x86_64-6.12", 102604, 0, 136, 272, 16, 16),
    _guest("x86_64-7.x", 204, 0, 136, 272, 16, 16),
    _guest("arm64-6.12", 102604, 0, 136, 272, 16, 16),
    _guest("arm64-7.x", 204, 0, 136, 272, 16, 16),
    _guest("s390x-6.1", 51632, 16, 176, 320, 320, 320),
    _guest("s390x-7.x", 432, 16, 176, 320, 320, 320),
    _guest("ppc64le-6.1", 6604, 0, 16, 32, 24, 24),
    _guest("ppc64le-7.x", 102604, 0, 136, 272, 16, 16),
    _guest("riscv64-7.x", 204, 0, 136, 272, 16, 16),
    _guest("loongarch64-7.x", 25616, 0, 48, 96, 32, 32),
    _guest("arm-lpae-6.1", 1028, 0, 128, 260, 132, 132),
    _guest("arm-lpae-7.x", 4, 0, 128, 260, 4, 4),
    _guest("arm-6.1", 512, 0, 64, 128, 128, 128),
    _guest("x86-pae-6.1", 1024, -4, 124, 256, 128, 128),
    _guest("x86-2level-6.1", 512, 0, 64, 128, 64, 64),
    _guest("mips64-6.1", 102600, 0, 132, 264, 136, 136),
    _guest("mips32-6.1", 512, 0, 64, 128, 128, 128),
)
