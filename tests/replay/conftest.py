# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tablewalk.machine.drivers import KernelConfig
from tablewalk.replay.results import KernelResult, ProcessResult
from tablewalk.replay.run import replay
from tablewalk.replay.select import Selection

from .story import Story

Replay = Callable[..., KernelResult]


@pytest.fixture
def story() -> Story:
    story = Story()
    story.exec()
    return story


@pytest.fixture
def run(tmp_path: Path) -> Replay:
    """Writes a story and replays it; `checked` looks at the model's own rules while it runs."""

    def run(
        story: Story, release: str = "6.18", *, arch: str = "x86_64", check: bool = False, driver: str = "sequential",
        options: tuple[tuple[str, str], ...] = (),
    ) -> KernelResult:  # fmt: skip
        path = story.write(tmp_path / "story.tw")
        selection = Selection(KernelConfig(release, arch, options), dict(options), {})
        (result,) = replay(path, [selection], check=check, driver=driver).results
        return result

    return run


def only(result: KernelResult) -> ProcessResult:
    """The one process there is."""
    (process,) = result.processes
    return process


def values(process: ProcessResult) -> list[int]:
    """VmPTE over time, kB."""
    return list(process.kbs)
