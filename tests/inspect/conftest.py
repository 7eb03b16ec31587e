# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tablewalk.inspect import Inspector
from tablewalk.inspect.pagemap import Kernel

AREA, AREA_END = 0x100000000000, 0x108000000000


class Victim:
    """A process of ours that does what it is told: see victim.py."""

    def __init__(self) -> None:
        # Without address randomization: what shares a table with what must not change from run to run.
        script = str(Path(__file__).with_name("victim.py"))
        self.process = subprocess.Popen(
            ["setarch", "-R", sys.executable, "-I", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.do("touch(0, 0); madvise(0, 0, DONTNEED)")  # warm: the interpreter's own tables stand now

    def do(self, code: str) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the victim died: see its standard error"
        return json.loads(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.close()


@pytest.fixture(scope="session")
def inspector() -> Inspector:
    return Inspector()


@pytest.fixture(scope="session")
def old_kernel() -> Inspector:
    """As if this kernel had no PAGEMAP_SCAN."""
    return Inspector(Kernel(pagemap_scan=False, shows_empty_tables=False, pt_reclaim=False))
