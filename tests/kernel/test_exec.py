# SPDX-License-Identifier: GPL-2.0-only
"""What execve maps.  The stack's numbers are those that a recording of cat(1) on Linux 6.18 shows."""

from __future__ import annotations

import pytest

from .process import BASE, PAGE, PRIVATE, READ, Process

TOP = (1 << 47) - PAGE
START, LENGTH = 0x7FFC_F63D_7000, 0x21000


@pytest.fixture
def p(driver: str) -> Process:
    return Process(driver=driver)


def exec_map(p: Process, start: int, length: int, kind: str, prot: int = 3) -> int:
    none = p.k("mm_types").file(0)
    ret: int = p.k("exec").exec_map(p.mm, start, length, prot, PRIVATE, none, 0, kind)
    p.done()
    return ret


def test_the_stack_moves_to_its_place_with_what_was_written(p: Process) -> None:
    assert exec_map(p, START, LENGTH, "stack") == 0
    assert p.vmas() == [(START - BASE, START + LENGTH - BASE)]
    assert p.field(START, "vm_pgoff") == TOP - LENGTH >> 12
    assert p.has(START, "VM_GROWSDOWN")
    assert not p.has(START, "VM_SEQ_READ")
    assert (p.vmpte, p.rss) == (12, 1), "the tables of its first place are gone"
    assert p.fault(START - 16 * PAGE) == 0
    p.exit()


def test_arguments_beyond_a_page_and_across_tables(p: Process) -> None:
    start = 0x7FFC_F640_0000 - 0x2000
    assert exec_map(p, start - 0x20000, 0x24000, "stack") == 0
    assert (p.vmpte, p.rss) == (16, 4), "two pages on either side of a table's end"
    p.exit()


def test_an_executable_stack_is_told_of_twice(p: Process) -> None:
    assert exec_map(p, TOP - PAGE, PAGE, "stack", 7) == 0
    assert exec_map(p, TOP - 0x21000, 0x21000, "stack", 7) == 0
    assert p.vmas() == [(TOP - 0x21000 - BASE, TOP - BASE)]
    assert p.has(TOP - 1, "VM_EXEC")
    p.exit()


def test_vdso_and_vvar(p: Process) -> None:
    assert exec_map(p, BASE, 4 * PAGE, "vvar", READ) == 0
    assert exec_map(p, BASE + 4 * PAGE, 2 * PAGE, "vvar_vclock", READ) == 0
    assert exec_map(p, BASE + 6 * PAGE, 2 * PAGE, "vdso", 5) == 0
    assert p.vmas() == [(0, 4 * PAGE), (4 * PAGE, 6 * PAGE), (6 * PAGE, 8 * PAGE)]
    assert p.has(BASE, "VM_PFNMAP")
    assert p.fault(BASE, write=False) & 0x40 == 0
    assert p.vmpte == 12
    p.exit()


def test_segments_and_bss(p: Process) -> None:
    f = p.file(64 * PAGE)
    exec_ = p.k("exec")
    assert exec_.exec_map(p.mm, BASE, 12 * PAGE, READ, PRIVATE, f, 0, "") == 0
    assert exec_.exec_map(p.mm, BASE + 2 * PAGE, 5 * PAGE, 5, PRIVATE, f, 2, "") == 0
    assert exec_.exec_map(p.mm, BASE + 10 * PAGE, 2 * PAGE, 3, PRIVATE, f, 9, "") == 0
    assert exec_map(p, BASE + 12 * PAGE, 3 * PAGE, "heap") == 0
    p.done()
    at = [(a // PAGE, b // PAGE) for a, b in p.vmas()]
    assert at == [(0, 2), (2, 7), (7, 10), (10, 12), (12, 15)]
    p.fill(BASE + 10 * PAGE, 5 * PAGE)
    assert p.vmpte == 12
    p.exit()
