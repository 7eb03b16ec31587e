# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import dataclasses
from pathlib import Path

from tablewalk.record.events import EVENTS, FILTERS, SYS_ENTER, SYSCALLS
from tablewalk.record.recording import SCHEMA, Meta
from tablewalk.record.rows import Kind

TEXT = " ".join((Path(__file__).parents[2] / "docs" / "recording.md").read_text().split())


def test_the_page_tells_all() -> None:
    assert FILTERS[SYS_ENTER] in TEXT
    assert all(f"-e {event}" in TEXT for event in EVENTS)
    assert all(f"{name} ({nr})" in TEXT for nr, name in SYSCALLS.items())
    assert all(f"{kind.value} {kind.name}" in TEXT for kind in Kind)
    assert all(f"`{f.name}`" in TEXT for f in dataclasses.fields(Meta))
    single = [n for n in SCHEMA.names if n[0] != "a"]
    assert all(name in TEXT.split("| column | type | |")[1].split("| kind | t |")[0] for name in single)
