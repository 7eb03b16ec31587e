# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tablewalk.record.recording import Recording

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "examples/recordings/arena.tw"


def tablewalk(*args: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": path}
    return subprocess.run(
        [sys.executable, "-P", "-m", "tablewalk", *args], capture_output=True, text=True, env=env
    )


def recorded_samples() -> list[int]:
    return [sample.vmpte for sample in Recording.open(BUNDLED).samples()]


def test_bundled_recording_agrees_and_shows_what_pt_reclaim_changes() -> None:
    kernels = ("--kernel", "6.1", "--kernel", "6.18")
    out = tablewalk("replay", str(BUNDLED), *kernels, "--check", "--json")
    old, new = json.loads(out.stdout)["results"]
    recorded = recorded_samples()
    assert new["compared"] == len(recorded) > 100
    assert new["disagreements"] == new["disagreements_strict"] == 0
    assert new["peak_kb"] == max(recorded)
    # 6.1 keeps the table of each of the arena's 512 slots. That disagrees with a recording made under 6.18.
    assert old["peak_kb"] > 512 * 4 > new["peak_kb"]
    assert old["disagreements"] > 0 and out.returncode == 1


def test_demo_replays_the_bundled_recording_where_perf_is_missing(tmp_path: Path) -> None:
    out = tablewalk("demo", "--directory", str(tmp_path), path=str(tmp_path))
    assert out.returncode == 0, out.stderr
    assert "This machine cannot record: " in out.stderr and "arena.tw" in out.stderr
    assert all(kernel in out.stdout for kernel in ("6.1", "6.12", "6.18", "7.x"))
    assert "\x1b" not in out.stdout + out.stderr
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|https?:", page)
    titles = re.findall(r'<section id="\w+"><h2>(.*?)</h2>', page)
    assert titles == ["Memory over time", "Who waits for whom", "A schedule that breaks it",
                      "Which patch is needed for what", "Is that right?"]  # fmt: skip
    assert page.count('class="step"') > 50 and page.count("<canvas") == 2
    assert "PER_VMA_LOCK=n" in page and "benchmarks/RESULTS.md" in page
    assert f"{len(recorded_samples())} samples of VmPTE were recorded beside the program. Under the same kernel the " \
        "model disagrees with none of them" in page


def test_demo_refuses_to_pass_off_the_bundled_recording_as_another_program(tmp_path: Path) -> None:
    out = tablewalk("demo", "--directory", str(tmp_path), "--", sys.executable, "--version", path=str(tmp_path))
    assert out.returncode == 2 and out.stdout == ""
    assert out.stderr.startswith("tablewalk: ") and out.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
