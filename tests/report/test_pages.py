# SPDX-License-Identifier: GPL-2.0-only
"""Pages in a real browser: no network, no error, no overflow, enough contrast, and keys for everything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tablewalk.cli import demo, run
from tablewalk.machine.drivers import fastest
from tablewalk.record.recording import Recording
from tablewalk.replay.run import replay
from tablewalk.replay.select import select
from tablewalk.report import story

from .browser import Browser, chromium

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "examples/recordings/arena.tw"

pytestmark = pytest.mark.skipif(not chromium(), reason="needs Debian's chromium (as root, ./test installs it)")

# Texts whose contrast with what is behind them is below 4.5, and lines and keys below 3 (WCAG 2.2 AA).
CONTRAST = """
(() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  function behind(e) {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  }
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const low = [];
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest("svg, script")) continue;
    seen += 1;
    const r = ratio(rgb(getComputedStyle(e).color), behind(e));
    if (r < 4.5) low.push(`${r.toFixed(2)} ${walk.currentNode.data.slice(0, 40)}`);
  }
  for (const e of document.querySelectorAll(".line, .key, .amount")) {
    if (!e.checkVisibility()) continue;
    const style = getComputedStyle(e), drawn = e.matches(".line") ? style.stroke : style.backgroundColor;
    const r = ratio(rgb(drawn), behind(e.parentElement));
    if (r < 3) low.push(`${r.toFixed(2)} ${e.getAttribute("class")}`);
  }
  return { seen, low };
})()
"""
FOCUS = """
(() => {
  const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  const all = [...document.querySelectorAll("*")];
  return { at: all.indexOf(e), tag: e.tagName, text: e.textContent.slice(0, 30), width: box.width,
           ring: style.outlineStyle !== "none" };
})()
"""


def replayed(path: Path) -> None:
    run(["replay", str(BUNDLED), "--kernel", "6.1", "--kernel", "6.18", "--check", "--html", str(path)])


def simulated(path: Path) -> None:
    assert run(["simulate", "shmem-collapse", "--kernel", "6.1", "--kernel", "7.x", "--html", str(path)]) == 0


def explored(path: Path) -> None:
    assert run(["explore", "anon-collapse-dontneed", "--without", "K19", "--html", str(path)]) == 1


def told(path: Path) -> None:
    """The demo's report, of the bundled recording."""
    report = replay(BUNDLED, select(Recording.open(BUNDLED).meta, ("6.1", "6.18"), None, (), ()), check=True,
                    driver=fastest())  # fmt: skip
    report.checked = False
    path.write_text(story.page(demo.story_of(report, demo.waits(), demo.schedule())), encoding="utf-8")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


@pytest.mark.parametrize("make", [replayed, simulated, explored, told])
def test_a_page_in_a_browser(make: Callable[[Path], None], browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    make(page)
    for width in (1280, 400):
        for dark in (False, True):
            browser.open(page, width, dark)
            assert browser.requests == [page.as_uri()] and browser.told == []
            assert browser.run("document.documentElement.scrollWidth") == width
            assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
            browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
            assert browser.run("document.documentElement.scrollWidth") == width
            contrast = browser.run(CONTRAST)
            assert contrast["seen"] > 20 and contrast["low"] == []
            small = "Math.min(...[...document.querySelectorAll('p, td, th, .plot span')].map("
            assert browser.run(small + "(e) => parseFloat(getComputedStyle(e).fontSize)))") >= 11
    assert browser.told == []
    check_keys(browser)


def check_keys(browser: Browser) -> None:
    """Tab goes through all that can be used, in its order, and shows where it is."""
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = false; })")
    browser.run("all = [...document.querySelectorAll('*')]; null")
    wanted = browser.run("[...document.querySelectorAll('a, button, canvas, input, summary, .stepper')]"
                         ".filter((e) => e.checkVisibility()).map((e) => all.indexOf(e))")
    reached = []
    for _ in range(len(wanted) + 40):
        browser.press("Tab")
        focus = browser.run(FOCUS)
        if focus["tag"] == "BODY" or focus["at"] in reached:
            break
        assert focus["ring"] and focus["width"] > 0, focus
        reached.append(focus["at"])
    assert reached == sorted(reached) and set(wanted) <= set(reached)


def test_arrow_keys_step_a_counterexample(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    explored(page)
    browser.open(page, 1280)
    shown = ("[...document.querySelectorAll('.step')].filter((e) => e.checkVisibility())"
             ".map((e) => e.firstChild.textContent)")  # fmt: skip
    count = browser.run("document.querySelectorAll('.step').length")
    assert browser.run(shown) == [f"step 1 of {count}"] and count > 50
    for keys, step in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", count), ("ArrowRight", count),
                       ("Home", 1)):  # fmt: skip
        browser.press(keys)
        assert browser.run(shown) == [f"step {step} of {count}"]
        assert browser.run("location.hash") == f"#{step}"
    browser.run("document.querySelector('[data-do=on]').focus()")
    browser.press("Enter")
    assert browser.run(shown) == [f"step 2 of {count}"]
    assert browser.told == []


def test_a_timeline_goes_from_wait_to_wait(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    simulated(page)
    browser.open(page, 1280)
    ink = "document.querySelector('canvas').toDataURL()"
    before = browser.run(ink)
    browser.run("document.querySelector('canvas').focus()")
    browser.press("n")
    said = browser.run("document.querySelector('.told').textContent")
    assert re.match(r"\w+ in \w+ waits [\d.]+ .s for [\w.]+: \w+ in \w+ for ", said)
    assert browser.run(ink) != before
    browser.press("Home")
    assert browser.run(ink) == before, "everything is shown again"
    browser.press("+")
    assert browser.run(ink) != before and browser.told == []
