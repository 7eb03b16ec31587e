# SPDX-License-Identifier: GPL-2.0-only
"""What every HTML page is made of: one file that needs no network, light and dark, from 400 pixels up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final

from tablewalk import __version__
from tablewalk.report.markup import Markup, element

COLOURS: Final = 6  # as many as the style has: classes s0, s1, ... of lines, k0, k1, ... of keys


def part(name: str) -> str:
    """A style or script that lies beside this module."""
    return files("tablewalk.report").joinpath(name).read_text(encoding="utf-8")


def document(title: str, sections: Iterable[object], styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """A whole page; `styles` and `scripts` are names of parts beside the style that all have."""
    style = "".join(map(part, ("style.css", *styles)))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )
    footer = element("footer", f"Made by Tablewalk {__version__}.", cls="dim")
    body = [element("main", *sections), footer, *(element("script", Markup(part(name))) for name in scripts)]
    return "<!doctype html>\n" + element("html", head, element("body", *body), lang="en") + "\n"


def table(columns: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> Markup:
    """A table whose first `left` columns are text; it scrolls by itself where it is too wide."""
    head = element("tr", *(element("th", c, cls="left" if i < left else "") for i, c in enumerate(columns)))
    body = []
    for row in rows:
        body.append(element("tr", *(element("td", c, cls="left wide" if i < left else "") for i, c in enumerate(row))))
    return element("div", element("table", element("thead", head), element("tbody", *body)), cls="scroll")


def legend(names: Sequence[str], *more: tuple[str, str]) -> Markup:
    """What each colour is; `more` are a class of key and its name."""
    keys = [(f"k{i % COLOURS}", name) for i, name in enumerate(names)] + list(more)
    return element("p", *(element("span", element("span", cls=f"key {cls}"), name) for cls, name in keys), cls="legend")


def folded(title: str, *parts: object) -> Markup:
    """What is shown when asked for."""
    return element("details", element("summary", title), *parts)
