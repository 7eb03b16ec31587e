# SPDX-License-Identifier: GPL-2.0-only
"""Documents of which a benchmark writes a part, between two marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

BEGIN, END = "<!-- table -->\n", "<!-- end -->"


def between_marks(path: Path, lines: Iterable[str]) -> None:
    """Put lines in the place of those between the marks of a document."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    path.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")
