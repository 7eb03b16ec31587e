# SPDX-License-Identifier: GPL-2.0-only
"""Tables by level for touched addresses, by arithmetic alone: what the model's walks have to come to."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tablewalk.arch import Arch, arch, use, variant
from tablewalk.arch.table import by_name, names
from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import release_of

from .layouts import ARENA, CHUNK, FIRST_MAP, MEMFD, ROWS, SECOND_MAP, Row

EVERY = [(name, release) for name in names() for release in ((6, 1), (6, 12), (6, 18), (7, 2))]
BITS = {  # address bits that the levels add up to
    "x86_64": 48, "x86_64-5level": 57, "x86-pae": 32, "x86-2level": 32, "arm-lpae": 32,
    "s390x": 64, "s390x-no-edat1": 64,
    "riscv64": 48, "riscv64-sv39": 39, "riscv64-sv57": 57,
    "arm64": 48, "arm64-39bit": 39, "arm64-52bit": 52,
    "arm64-16k": 48, "arm64-16k-36bit": 36, "arm64-16k-47bit": 47, "arm64-16k-52bit": 52,
    "arm64-64k": 52, "arm64-64k-42bit": 42, "arm64-64k-48bit": 48,
    "ppc64le-4k": 52, "ppc64le-64k": 52, "ppc64le-hash-4k": 46, "ppc64le-hash-64k": 52,
    "arm": 32, "ia64": 44, "m68k": 32, "m68k-coldfire": 32, "microblaze": 32, "mips64": 40, "mips32": 32,
    "loongarch64": 47, "parisc64": 42, "sh": 32, "sh-x2tlb": 32, "sparc64": 53, "xtensa": 32,
}  # fmt: skip
WORDS = {"arm", "x86-2level", "m68k", "m68k-coldfire", "microblaze", "mips32", "sh", "xtensa"}  # entries have 32 bits


def vmpte(a: Arch, present: Iterable[int], empty_ptes: int = 0, huge: Iterable[int] = (), highest: int = 0) -> int:
    """VmPTE in kB: `present` addresses have a PTE table, `huge` ones none; `highest` is the highest mapped."""
    present, huge = set(present), set(huge)
    every = present | huge
    ptes = len({address >> a.pmd_shift for address in present}) + empty_ptes
    pmds = len({address >> a.pud_shift for address in every})
    puds = len({address >> a.p4d_shift for address in every})
    if highest <= a.pud_folded_below and a.pud_folded_below:
        puds = 0
    return ptes * a.pte_bytes + pmds * a.pmd_bytes + puds * a.pud_bytes >> 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kernel)
def test_real_kernels_by_arithmetic(row: Row) -> None:
    a = by_name(row.arch, release_of(row.release))
    first = set(row.touched_first)
    chunks = set(range(row.arena, row.arena + ARENA, CHUNK))
    reclaims = a.pt_reclaim_since is not None and release_of(row.release) >= a.pt_reclaim_since
    one = set(range(FIRST_MAP, FIRST_MAP + MEMFD, a.page_size))
    two = set(range(SECOND_MAP, SECOND_MAP + MEMFD, a.page_size))
    high = SECOND_MAP + MEMFD
    kept = two if release_of(row.release) < (6, 6) else set()  # 1d65b771bc08: retract every mapping's tables
    if row.has_thp:
        collapsed = vmpte(a, first | kept, huge=one | two, highest=high)
    else:
        collapsed = vmpte(a, first | one | two, highest=high)
    assert row.samples == (
        vmpte(a, first),
        vmpte(a, first, huge=chunks) if reclaims else vmpte(a, first | chunks),
        vmpte(a, first),
        vmpte(a, first | one, highest=FIRST_MAP + MEMFD),
        vmpte(a, first | one | two, highest=high),
        collapsed,
        collapsed,
    )


@pytest.mark.parametrize(("name", "release"), EVERY)
def test_levels_add_up(name: str, release: tuple[int, int]) -> None:
    a = by_name(name, release)
    bits = a.page_shift + a.pte_bits + a.pmd_bits + a.pud_bits + a.p4d_bits + a.pgd_bits
    if name != "ppc64le":
        assert bits == BITS[name]
    assert a.name == name
    assert a.pgdir_shift + a.pgd_bits == bits
    assert a.task_size <= 1 << bits
    assert a.task_size % a.page_size == 0
    assert a.levels == 1 + sum(b > 0 for b in (a.pmd_bits, a.pud_bits, a.p4d_bits, a.pgd_bits))
    assert not (a.pud_bits and not a.pmd_bits) and not (a.p4d_bits and not a.pud_bits)
    assert a.pte_bytes * a.tables_per_page <= a.page_size
    assert a.pte_bytes == (4 if name in WORDS else 8) << a.pte_bits


@pytest.mark.parametrize(("name", "huge"), [
    ("x86_64", 2 << 20), ("x86-pae", 2 << 20), ("x86-2level", 4 << 20),
    ("arm64", 2 << 20), ("arm64-16k", 32 << 20), ("arm64-64k", 512 << 20),
    ("s390x", 1 << 20), ("ppc64le-64k", 2 << 20), ("ppc64le-hash-64k", 16 << 20), ("riscv64", 2 << 20),
    ("arm-lpae", 2 << 20), ("mips64", 2 << 20), ("sparc64", 8 << 20),
])  # fmt: skip
def test_size_of_a_huge_page(name: str, huge: int) -> None:
    a = by_name(name, (7, 2))
    assert a.has_thp
    assert a.pmd_size == huge == a.hpage_pmd_nr << a.page_shift


def test_what_changes_with_the_release() -> None:
    assert by_name("ppc64le", (6, 1)).page_size == 65536
    assert by_name("ppc64le", (6, 12)).page_size == 4096
    assert by_name("s390x", (6, 6)).tables_per_page == 2
    assert by_name("s390x", (6, 7)).tables_per_page == 1
    assert len(by_name("x86-pae", (6, 15)).preallocated_pmds) == 3
    assert len(by_name("x86-pae", (6, 16)).preallocated_pmds) == 4
    assert not by_name("riscv64", (6, 8)).rcu_table_free
    assert by_name("riscv64", (6, 9)).rcu_table_free


def test_which_reclaim_tables_since_when() -> None:
    since = {name: by_name(name, (7, 2)).pt_reclaim_since for name in names()}
    assert since["x86_64"] == since["x86_64-5level"] == (6, 14)
    own = {name for name in names() if by_name(name, (7, 2)).own_tlb_remove_table}
    assert own == {"sparc64", *(name for name in names() if name.startswith("ppc64le"))}
    at_once = {name for name in names() if not by_name(name, (7, 2)).rcu_table_free}
    assert at_once == {"ia64", *WORDS} - {"mips32", "x86-2level"} | {"sh-x2tlb"}
    assert {name for name in names() if since[name] is None} == own | at_once
    assert {value for name, value in since.items() if value and not name.startswith("x86_64")} == {(7, 0)}


def test_vma_locks_where_they_were_asked_for() -> None:
    lacking = {n for n in names() if by_name(n, (7, 2)).per_vma_lock_since is None}
    assert lacking == {"x86-pae", "ia64", "mips64", "parisc64", "sparc64", "sh-x2tlb", *WORDS} - {"arm"}
    assert by_name("arm", (7, 2)).per_vma_lock_since == (6, 8)
    assert by_name("arm-lpae", (7, 2)).per_vma_lock_since == (6, 8)


def test_other_spellings() -> None:
    for spelling, name in (("amd64", "x86_64"), ("aarch64", "arm64"), ("ppc64el", "ppc64le"), ("i686", "x86-pae")):
        assert by_name(spelling, (6, 12)).name == name


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(TablewalkError, match=r"^--arch vax: no such architecture; there are x86_64, .*xtensa$"):
        by_name("vax", (7, 2))


def test_a_variant_derives_again() -> None:
    a = variant(by_name("arm64", (7, 2)), page_shift=14, pte_bits=11)
    assert (a.page_size, a.pmd_size, a.pte_bytes) == (16384, 32 << 20, 16384)


def test_use_makes_it_current() -> None:
    use(by_name("s390x", (7, 2)))
    assert (arch.name, arch.pmd_size, arch.pmd_bytes) == ("s390x", 1 << 20, 16384)
    use(Arch())
    assert (arch.name, arch.pmd_size, arch.levels) == ("x86_64", 2 << 20, 4)
