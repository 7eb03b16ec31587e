# SPDX-License-Identifier: GPL-2.0-only
"""Counterexamples that are kept in a file and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tablewalk.cli import run
from tablewalk.errors import TablewalkError
from tablewalk.explore.run import explore, from_file
from tablewalk.explore.trace import as_table

NO_RESCAN = Path(__file__).parent / "no_rescan.py"


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "no_rescan.py"
    path.write_text(NO_RESCAN.read_text())
    return path


def saved(scenario: Path, path: Path, *options: str) -> Path:
    assert run(["explore", str(scenario), "--save", str(path), *options]) == 1
    return path


@pytest.mark.parametrize(
    "options", [(), ("--reduction", "none"), ("--reduction", "futures"), ("--depth-first",), ("--workers", "2")]
)
def test_counterexample_replays_to_the_same_table(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    path = saved(scenario, tmp_path / "c.json", *options)
    told = capfd.readouterr().out.splitlines()
    assert run(["explore", "--replay", str(path)]) == 1
    again = capfd.readouterr().out.splitlines()
    assert again[0] == f"no-rescan: violation, replayed from {path}"
    assert again[1:] == told[1:] and len(told) > 10


def test_counterexample_of_another_text_is_refused(scenario: Path, tmp_path: Path) -> None:
    path = saved(scenario, tmp_path / "c.json")
    changed = tmp_path / "no_rescan.py"
    changed.write_text(scenario.read_text() + "# changed\n")
    with pytest.raises(TablewalkError, match="of another text of the model or scenario"):
        run(["explore", str(changed), "--replay", str(path)])


def test_counterexample_that_does_not_replay_is_told(scenario: Path, tmp_path: Path) -> None:
    path = saved(scenario, tmp_path / "c.json")
    kept = json.loads(path.read_text())
    damages: list[dict[str, object]] = [
        {"schedule": kept["schedule"][1:]}, {"schedule": ["x"]}, {"found": {}}, {"format": "x"},
    ]  # fmt: skip
    for damage in damages:
        path.write_text(json.dumps(kept | damage))
        with pytest.raises(TablewalkError, match=r"does not replay|no counterexample") as e:
            run(["explore", "--replay", str(path)])
        assert "\n" not in str(e.value)


def test_counterexample_as_a_page_and_as_a_trace(
    scenario: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page, trace = tmp_path / "c.html", tmp_path / "c.json"
    assert run(["explore", str(scenario), "--html", str(page), "--perfetto", str(trace)]) == 1
    lines = capfd.readouterr().out.splitlines()[4:]
    assert any("holds ptdesc@" in line for line in lines)
    html = page.read_text()
    assert html.count('class="step"') == len(lines)
    assert "://" not in html and "pte_free_now" in html and "RCU readers: CPU1 (dontneed)" in html
    assert re.search(r"TLB: table @\d+ → table @\d+ → page 0 of folio @\d+, writable, young, dirty<", html)
    assert re.search(r"table @\d+, detached<", html) and re.search(r"table @\d+, CPU0 \(faults\).{1,6}s own<", html)
    events = json.loads(trace.read_text())["traceEvents"]
    assert sum(e["ph"] == "X" for e in events) == len(lines)
    begun = [(e["id"], e["cat"]) for e in events if e["ph"] == "b"]
    assert sorted(begun) == sorted((e["id"], e["cat"]) for e in events if e["ph"] == "e")
    assert any(e["name"] == "RCU" for e in events) and any(e["name"].endswith(".ptl") for e in events)


def test_table_is_as_wide_as_is_asked_for(scenario: Path) -> None:
    (program,) = from_file(scenario).values()
    outcome = explore(program)
    assert outcome.trace is not None
    wide, narrow = (as_table(outcome.trace, outcome.threads, width) for width in (0, 120))
    assert max(map(len, wide)) > 200 and 100 < max(map(len, narrow)) <= 120
    assert sum(len(line.split()) for line in narrow) > sum(len(line.split()) for line in wide)
    assert any(": none -> page 0 of folio @" in line for line in wide)


LOST_UPDATE = """
from tablewalk.explore.scenario import scenario
@scenario()
def lost_update(s):
    p = s.process()
    p.mmap(s.A, s.huge)
    p.write(s.A, 1)
    for name in ("first", "second"):
        s.thread(name, lambda: p.write(s.A, p.read(s.A) + 1))
    s.finally_(lambda results: None if p.read(s.A) == 3 else f"the page reads {p.read(s.A)}, not 3")
"""


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_what_is_wrong_in_the_end_has_a_schedule(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    source = tmp_path / "lost.py"
    source.write_text(LOST_UPDATE)
    path = saved(source, tmp_path / "c.json", *options)
    told = capfd.readouterr().out.splitlines()
    assert told[1] == "  in the end the page reads 2, not 3"
    assert {"store", "load"} <= {word for line in told[4:] for word in line.split()}
    assert run(["explore", "--replay", str(path), "--html", str(tmp_path / "c.html")]) == 1
    assert capfd.readouterr().out.splitlines()[1:] == told[1:]


def test_of_a_loop_without_end_one_round_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["explore", "huge-migrate-and-damon", "--without", "K18"]) == 1
    told = capfd.readouterr().out.splitlines()
    rounds = [line for line in told if "neither_huge_nor_table" in line]
    assert "goes round a loop" in told[1] and 1 <= len(rounds) <= 2
