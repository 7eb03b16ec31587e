# SPDX-License-Identifier: GPL-2.0-only
"""What the model says instead of a wrong answer."""

from __future__ import annotations

from tablewalk.errors import TablewalkError


class NotModelled(TablewalkError):
    """A kernel feature that the model does not have; `feature` names it."""

    def __init__(self, feature: str) -> None:
        super().__init__(f"not modelled: {feature}")
        self.feature = feature
