# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest


@pytest.fixture(params=["sequential", "checked"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver that runs one task: the fast one, and the one that looks at the rules."""
    name: str = request.param
    return name
