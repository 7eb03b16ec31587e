# SPDX-License-Identifier: GPL-2.0-only
"""tablewalk replay, as it is used."""

from __future__ import annotations

import json
import os
import re
import signal
import xml.dom.minidom
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tablewalk.cli import main
from tablewalk.machine.drivers import KernelConfig
from tablewalk.record import recording
from tablewalk.record.recording import Recording
from tablewalk.replay.engine import Engine
from tablewalk.replay.run import replay
from tablewalk.replay.select import Selection, select
from tablewalk.report.chart import nice_step
from tablewalk.report.html import page
from tablewalk.report.terminal import show

from .story import ANON, EXECUTED_KB, TABLE, Story

FIRST = EXECUTED_KB + 12
EVIL = "<script>alert(1)</script>\x1b[31m\x07\u202e"


@pytest.fixture
def recorded(story: Story, tmp_path: Path) -> Path:
    """Touches eight tables, gives them back by MADV_DONTNEED, and is sampled meanwhile."""
    story.mmap(ANON, 8 * TABLE)
    story.touch(ANON, 8)
    story.sample(FIRST + 28, exact=True)
    story.madvise(ANON, 8 * TABLE, 4)
    story.sample(FIRST - 4, exact=True)
    story.exit()
    return story.write(tmp_path / "prog.tw")


def tablewalk(*args: object) -> int:
    with pytest.raises(SystemExit) as e:
        main([*map(str, args)])
    assert isinstance(e.value.code, int)
    return e.value.code


def as_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out = capsys.readouterr()
    assert out.err == ""
    found = json.loads(out.out)
    assert isinstance(found, dict)
    return found


def test_json_of_several_kernels(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tablewalk("replay", recorded, "--kernel", "6.1", "--kernel", "6.18", "--json") == 0
    found = as_json(capsys)
    assert [(r["kernel"], r["arch"], r["process"], r["peak_kb"], r["final_kb"]) for r in found["results"]] == [
        ("6.1", "x86_64", "prog", FIRST + 28, FIRST + 28),
        ("6.18", "x86_64", "prog", FIRST + 28, FIRST - 4),
    ]
    assert "compared" not in found["results"][0]
    old, new = found["results"]
    assert (old["at_end"]["empty"], new["at_end"]["empty"]) == (8, 0)
    reclaimed = [r["counts"]["reclaimed_fast"] + r["counts"]["reclaimed_slow"] for r in (old, new)]
    assert reclaimed == [0, 8]
    assert new["history"][-1][1] == FIRST - 4
    (given_back,) = [c for c in new["calls"] if c["call"] == "madvise(MADV_DONTNEED)"]
    assert (given_back["calls"], given_back["freed_kb"]) == (1, 32)
    assert {m["what"]: m["pte"] for m in old["mappings_at_peak"]["mappings"]} == {"anonymous memory": 8, "[stack]": 1}
    assert not found["partial"]


def test_check_agrees(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tablewalk("replay", recorded, "--check", "--json") == 0
    (result,) = as_json(capsys)["results"]
    assert (result["compared"], result["disagreements"], result["disagreements_strict"]) == (2, 0, 0)
    assert [s["model_kb"] for s in result["samples"]] == [FIRST + 28, FIRST - 4]


@pytest.mark.parametrize("options", [("--set", "PT_RECLAIM=n"), ("--kernel", "6.12")])
def test_check_finds_a_kernel_that_does_otherwise(
    recorded: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert tablewalk("replay", recorded, "--check", "--json", *options) == 1
    (result,) = as_json(capsys)["results"]
    assert (result["disagreements"], result["max_error_kb"]) == (1, 32)
    assert result["first_disagreements"][0]["model_kb"] == FIRST + 28


def test_the_terminal_report(
    recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert tablewalk("replay", recorded, "--check", "--kernel", "6.1", "--kernel", "7.x") == 1
    out = capsys.readouterr().out
    assert re.search(r"prog \(100\) +52 / 20 +52 / 52 +52 / 20\n", out)
    assert re.search(r"of these empty at the end +8 +0\n", out)
    assert re.search(r"7\.x +2 +2 +0 +0 +0 +0\.000 / 0\n", out)
    assert "6.1: prog (100) at 0.000 s: recorded 20 kB, model 52 kB" in out


def test_the_page_stands_alone(recorded: Path, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    assert tablewalk("replay", recorded, "--kernel", "6.1", "--kernel", "6.18", "--check", "--html", html) == 1
    text = html.read_text()
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    document = xml.dom.minidom.parseString(re.sub(r"<meta[^>]*>", "", text.removeprefix("<!doctype html>")))
    (chart, rss) = document.getElementsByTagName("svg")
    paths = chart.getElementsByTagName("path")
    lines = [p for p in paths if p.getAttribute("class").startswith("line")]
    assert [p.getElementsByTagName("title")[0].toxml() for p in lines] == ["<title>6.1</title>", "<title>6.18</title>"]
    assert sum(p.getAttribute("class") == "dot" for p in paths) == 2
    assert rss.getElementsByTagName("path")


def test_names_from_outside_do_no_harm(story: Story, tmp_path: Path) -> None:
    story.meta.command = [EVIL]
    story.meta.kernel = "6.18 " + EVIL
    story.meta.missing = [EVIL]
    story.exec(EVIL)
    row = story.mapping(ANON, TABLE, file=(5, 5, EVIL))
    story.mmap(ANON, TABLE, flags=2, fd=3, inside=[row])
    story.touch(ANON)
    path = story.write(tmp_path / "evil.tw")
    report = replay(path, [Selection(KernelConfig("6.18"), {}, {})])
    text = page(report)
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    console = Console(width=200, record=True, force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115
    show(report, console)
    told = console.export_text()
    assert "<script>" in told
    assert "\x1b" not in told and "\x07" not in told and "\u202e" not in told


def test_a_pipe_and_no_color(
    recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert tablewalk("replay", recorded) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--kernel", "banana"), "not a release"),
        (("--arch", "vax"), "no such architecture"),
        (("--set", "PT_RECLAIM=perhaps"), "y or n is wanted"),
        (("--without", "nothing"), "no such patch"),
        (("--driver", "native-ish"), "is not one of"),
    ],
)
def test_wrong_use_is_one_line(
    recorded: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], line: str
) -> None:
    assert tablewalk("replay", recorded, *args) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


def test_what_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.tw"
    path.write_bytes(b"PAR1" + bytes(100))
    assert tablewalk("replay", path) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_process_that_stopped_is_told(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story.call(323, 1, ret=3)
    path = story.write(tmp_path / "uffd.tw")
    assert tablewalk("replay", path) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "PARTIAL: prog (100) is followed up to 0.000 s only: not modelled: userfaultfd (userfaultfd)" in out
    assert tablewalk("replay", path, "--json") == 0
    found = as_json(capsys)
    assert found["partial"] and found["results"][0]["stopped"] == "not modelled: userfaultfd (userfaultfd)"


def long_story(story: Story) -> None:
    story.mmap(ANON, 64 * TABLE)
    for _ in range(600):
        story.touch(ANON, 8)
        story.madvise(ANON, 8 * TABLE, 4)


def test_interrupted_alone(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "ROW_GROUP", 1000)
    long_story(story)
    path = story.write(tmp_path / "long.tw")
    report = replay(
        path, select(Recording.open(path).meta, [], None, [], []), check=True,
        progress=lambda done, total: os.kill(os.getpid(), signal.SIGINT) if done[0] == 2000 else None,
    )  # fmt: skip
    (result,) = report.results
    assert 2000 <= result.rows < 2010
    assert (result.rows_total, result.interrupted, result.partial) == (len(story.rows), True, True)
    assert result.processes[0].peak_kb == FIRST + 28
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupted_together(story: Story, tmp_path: Path) -> None:
    for _ in range(20):
        long_story(story)
    path = story.write(tmp_path / "long.tw")
    asked: list[list[int]] = []

    def interrupt(done: list[int], total: int) -> None:
        if not asked:
            asked.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    report = replay(path, select(Recording.open(path).meta, ["6.1", "6.18"], None, [], []), progress=interrupt)
    assert [r.kernel for r in report.results] == ["6.1", "6.18"]
    assert all(r.interrupted for r in report.results)


def test_interrupted_command(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long_story(story)
    path = story.write(tmp_path / "long.tw")
    original = Engine.run

    def interrupted(self: Engine, look: None) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original(self, look)

    monkeypatch.setattr(Engine, "run", interrupted)
    assert tablewalk("replay", path, "--driver", "sequential") == 130
    assert "PARTIAL: interrupted after 0 of" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("top", "ticks", "step"), [(0, 5, 1), (4, 5, 1), (6, 5, 2), (101, 5, 50), (10**9, 8, 2 * 10**8)]
)
def test_nice_steps(top: int, ticks: int, step: int) -> None:
    assert nice_step(top, ticks) == step
