# SPDX-License-Identifier: GPL-2.0-only
"""The table of locking rules says what the declarations say."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tablewalk.cli import run
from tablewalk.cli.guards import SOURCES, command, rows
from tablewalk.errors import TablewalkError
from tablewalk.machine import drivers


def test_every_struct_that_is_shared_has_its_source() -> None:
    machine = drivers.load("searched").machine
    shared = {name for name, view in machine.views.items() if view.__module__.endswith(".mm_types")}
    assert shared == SOURCES.keys() == {row.struct for row in rows()}
    fields = sum(len(layout.slots) for layout in machine.layouts if layout.name in shared)
    assert len(rows()) == fields


def test_json_has_the_rule_of_a_field() -> None:
    result = CliRunner().invoke(command, ["--json", "vm_area_struct", "ptdesc"])
    assert result.exit_code == 0
    found = {(row["struct"], row["field"]): row for row in json.loads(result.stdout)["guards"]}
    start = found["vm_area_struct", "vm_start"]
    assert start["write"] == "vm_mm.mmap_lock:w and vm_lock:w"
    assert start["read"].startswith("vm_lock or vm_mm.mmap_lock or ")
    assert start["lockless"] == "nothing"
    entry = found["ptdesc", "entry"]
    assert (entry["write"], entry["read"], entry["lockless"]) == ("ptl or pt_mm.page_table_lock", "", "reading once")
    assert found["vm_area_struct", "vm_flags"]["lockless"] == "READ_ONCE"


def test_text_is_a_line_a_field() -> None:
    result = CliRunner().invoke(command, ["anon_vma"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()[1:]
    assert lines[0].split()[0] == "anon_vma" and "mm/rmap.c" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [row.field for row in rows() if row.struct == "anon_vma"]
    assert any(line.startswith("  rb_root ") and " root.rwsem:w " in line for line in lines)


def test_struct_that_is_none() -> None:
    with pytest.raises(TablewalkError, match="no such struct: nothing"):
        run(["guards", "nothing"])
