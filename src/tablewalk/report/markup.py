# SPDX-License-Identifier: GPL-2.0-only
"""HTML and SVG elements whose text is always escaped."""

from __future__ import annotations

import html

from tablewalk.errors import escape

VOID = frozenset({"meta", "br", "hr", "input"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as markup: Markup stays, everything else is escaped (control characters too)."""
    return value if isinstance(value, Markup) else Markup(html.escape(escape(str(value))))


def element(tag: str, *children: object, cls: str = "", **attributes: str) -> Markup:
    """An element; an attribute's underscores become hyphens."""
    given = {"class": cls, **attributes} if cls else attributes
    head = "".join(f' {name.replace("_", "-")}="{text(value)}"' for name, value in given.items())
    if tag in VOID:
        return Markup(f"<{tag}{head}>")
    return Markup(f"<{tag}{head}>{join(children)}</{tag}>")


def join(parts: object) -> Markup:
    """Several pieces, one after the other."""
    assert isinstance(parts, list | tuple)
    return Markup("".join(map(text, parts)))
