# SPDX-License-Identifier: GPL-2.0-only
"""What verbs that configure a kernel of the model read from their command lines."""

from __future__ import annotations

from tablewalk.errors import TablewalkError


def kconfig_option(text: str) -> tuple[str, str]:
    """Name and value of a --set.  Raises TablewalkError for a text without =."""
    name, is_set, value = text.partition("=")
    if not is_set:
        raise TablewalkError(f"--set {text}: OPTION=VALUE is wanted")
    return name, value
