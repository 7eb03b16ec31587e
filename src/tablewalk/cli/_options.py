# SPDX-License-Identifier: GPL-2.0-only
"""What several verbs do alike with what their command lines say."""

from __future__ import annotations

from pathlib import Path

from tablewalk.errors import TablewalkError, escape


def kconfig_option(text: str) -> tuple[str, str]:
    """Name and value of a --set.  Raises TablewalkError for a text without =."""
    name, is_set, value = text.partition("=")
    if not is_set:
        raise TablewalkError(f"--set {text}: OPTION=VALUE is wanted")
    return name, value


def write(path: Path, text: str) -> None:
    """Write a file, or say why not."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise TablewalkError(f"{escape(str(path))}: cannot be written: {e.strerror}") from None
