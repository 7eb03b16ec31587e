# SPDX-License-Identifier: GPL-2.0-only
"""What the model says when one of its own invariants is broken (BUG_ON, VM_WARN_ON, check_mm)."""

from __future__ import annotations

from tablewalk.errors import TablewalkError


class BugOn(TablewalkError):
    """The kernel would print this and stop: the model, or the change under test, is wrong."""

    def __init__(self, what: str) -> None:
        super().__init__(f"BUG: {what}")
