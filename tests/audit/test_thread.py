# SPDX-License-Identifier: GPL-2.0-only
"""From a C file to a compiler's line and an exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.cli import run

UNCHECKED = """
static int young(struct mm_struct *mm, pmd_t *pmd, unsigned long addr)
{
	spinlock_t *ptl;
	pte_t *pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
	int ret = pte_young(*pte);

	pte_unmap_unlock(pte, ptl);
	return ret;
}
"""


def test_an_unchecked_map_is_a_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "young.c"
    source.write_text(UNCHECKED)
    assert run(["audit", str(source)]) == 1
    out = capsys.readouterr().out
    assert out == (
        f"{source}:6: warning: young(): pte is dereferenced; it is NULL if the map at line 5 fails [unchecked-null]"
        " (explore fault-and-dontneed)\n"
    )


def test_a_checked_map_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "young.c"
    source.write_text(UNCHECKED.replace("\tint ret = ", "\tint ret;\n\n\tif (!pte)\n\t\treturn 0;\n\tret = "))
    assert run(["audit", str(source)]) == 0
    assert capsys.readouterr().out == ""
