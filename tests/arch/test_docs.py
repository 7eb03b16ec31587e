# SPDX-License-Identifier: GPL-2.0-only
"""docs/architectures.md says what the code says."""

from __future__ import annotations

from pathlib import Path

from tablewalk.arch import Arch
from tablewalk.arch.table import _ALIASES, by_name, names

from .layouts import GUESTS, ROWS

DOC = Path(__file__).parents[2] / "docs" / "architectures.md"
NEWEST = (7, 2)


def rows(heading: str) -> list[list[str]]:
    """The cells below the table heading that begins like that."""
    lines = iter(DOC.read_text().splitlines())
    assert any(line.startswith(heading) for line in lines), heading
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def size(n: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n} {unit}"
        n >>= 10
    return f"{n} TiB"


def described(a: Arch) -> list[str]:
    def table(nr_bytes: int, covers: int) -> str:
        return f"{size(nr_bytes)} for {size(covers)}" if nr_bytes else "-"

    return [
        f"`{a.name}`",
        size(a.page_size),
        f"3 to {a.levels}" if a.pud_folded_below else str(a.levels),
        table(a.pte_bytes, a.pmd_size),
        table(a.pmd_bytes, a.pud_size),
        table(a.pud_bytes, 1 << a.p4d_shift),
        size(a.pmd_size) if a.has_thp else "-",
        str(a.tables_per_page),
        size(a.page_size // a.tables_per_page),
    ]


def test_the_table_of_architectures() -> None:
    assert rows("| name | page |") == [described(by_name(name, NEWEST)) for name in names()]


def test_what_else_differs() -> None:
    def since(release: tuple[int, int] | None) -> str:
        return f"{release[0]}.{release[1]}" if release else "never"

    columns = ("x86_64", "x86-pae", "x86-2level", "arm64", "s390x", "ppc64le", "riscv64", "arm-lpae")
    made = [by_name(name, NEWEST) for name in columns]
    assert [row[1:] for row in rows("| | x86_64 |")] == [
        [since(a.pt_reclaim_since) for a in made],
        [since(a.per_vma_lock_since) for a in made],
        ["broadcast" if a.broadcast_flush else "IPI" for a in made],
        [yes(a.split_pmd_reads) for a in made],
        [yes(a.split_pmd_ptlock) for a in made],
        [yes(a.has_move_pud) for a in made],
        [yes(a.file_thp_deposits) for a in made],
    ]
    assert by_name("ppc64le-hash-64k", NEWEST).file_thp_deposits


def test_the_others_of_the_arch_series() -> None:
    first, *_ = (line for line in DOC.read_text().splitlines() if line.startswith("| | arm |"))
    made = [by_name(name.strip(), NEWEST) for name in first.strip("|").split("|")[1:]]
    assert [row[1:] for row in rows("| | arm |")] == more(made)
    assert {a.name for a in made} > {name for name in names() if by_name(name, NEWEST).tlb_fill != "hardware"}


def freed(a: Arch) -> str:
    return "at once" if not a.rcu_table_free else "RCU, its own" if a.own_tlb_remove_table else "RCU"


def flushed(a: Arch) -> str:
    return "one CPU" if not a.smp else "broadcast" if a.broadcast_flush else "IPI"


def yes(what: bool) -> str:
    return "yes" if what else "no"


def more(made: list[Arch]) -> list[list[str]]:
    return [
        [a.tlb_fill for a in made],
        [flushed(a) for a in made],
        [freed(a) for a in made],
        [f"{a.pt_reclaim_since[0]}.{a.pt_reclaim_since[1]}" if a.pt_reclaim_since else "never" for a in made],
        ["halves" if a.split_pmd_reads else "at once" for a in made],
        [yes(a.gup_fast) for a in made],
        [yes(a.highpte) for a in made],
    ]


def test_what_a_gather_flushes() -> None:
    for name, *cells in rows("| | VMAs | range |"):
        a = by_name(name.strip("`"), NEWEST)
        assert cells == [
            "at once" if a.merge_vmas else "one by one",
            "everything" if a.no_range else "what was cleared",
            "one by one" if a.gather_page_size else "at once",
            "at once" if a.no_gather else "after the flush",
        ], name


def test_how_tables_are_freed() -> None:
    def at(name: str, release: tuple[int, int]) -> str:
        a = by_name(name, release)
        if a.pv_ops and release < (6, 15):
            return "RCU in guests"
        return freed(a) if release >= (7, 0) else freed(a).partition(",")[0]

    for name, *cells in rows("| | 6.1 | 6.12 | 7.2 |"):
        a = by_name(name.strip("`"), NEWEST)
        releases = [at(a.name, release) for release in ((6, 1), (6, 12), (7, 2))]
        before = yes(a.tlb_needs_table_invalidate) if a.rcu_table_free else "-"
        assert cells == [*releases, before, yes(a.gup_fast), flushed(a)], name


def test_the_figures_of_real_kernels() -> None:
    assert rows("| kernel | start |") == [[row.kernel, *map(str, row.samples)] for row in ROWS]


def test_the_figures_of_guests() -> None:
    assert rows("| kernel | after the loop |") == [[f"`{row.kernel}`", *map(str, row.samples[1:])] for row in GUESTS]


def test_the_other_spellings() -> None:
    text = DOC.read_text()
    assert all(f"`{alias}`" in text for alias in _ALIASES)


def test_which_architectures_take_a_recording_of_47_bits() -> None:
    text = DOC.read_text()
    refused = {name for name in names() if by_name(name, NEWEST).task_size < (1 << 47) - 4096}
    assert refused == {
        "x86-pae", "x86-2level", "arm64-39bit", "arm64-16k-36bit", "arm64-64k-42bit",
        "ppc64le", "ppc64le-4k", "ppc64le-hash-4k", "riscv64-sv39", "arm-lpae", "arm", "ia64",
        "m68k", "m68k-coldfire", "microblaze", "mips64", "mips32",
        "parisc64", "sh", "sh-x2tlb", "xtensa",
    }  # fmt: skip
    not_these = "not `ppc64le-4k` (64 TiB), `riscv64-sv39`, `x86-pae`, `x86-2level` and `arm-lpae`"
    assert not_these in text.replace("\n  ", " ")
