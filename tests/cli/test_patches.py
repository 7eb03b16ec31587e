# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue: every row names a site that exists, and can be left out."""

from __future__ import annotations

import inspect
import json

import pytest
from click.testing import CliRunner

from tablewalk.cli.patches import command
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig
from tablewalk.patches import Patch, catalogue

ROWS = catalogue()


def test_json_has_every_row() -> None:
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert [r["id"] for r in listed] == [r.id for r in ROWS]
    assert {"C09", "C10"} <= {r["id"] for r in listed}


def test_text_names_them() -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert all(r.id in result.stdout for r in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.id}-{r.site}")
def test_an_override_has_its_sites_signature(row: Patch) -> None:
    model = drivers.load("sequential")
    module, _, name = row.site.rpartition(".")
    where, _, override = row.override.rpartition(".")
    model.configure(KernelConfig())
    site = getattr(model.kernel(module), name)
    instead = getattr(model.module(f"patches.{where}"), override)
    assert len(inspect.signature(instead).parameters) == len(inspect.signature(site).parameters)
    assert inspect.signature(instead).return_annotation == inspect.signature(site).return_annotation


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.id}-{r.site}")
def test_a_patch_left_out_is_overridden_everywhere_and_comes_back(row: Patch) -> None:
    model = drivers.load("sequential")
    module, _, name = row.site.rpartition(".")
    model.configure(KernelConfig())
    before = getattr(model.kernel(module), name)
    model.configure(KernelConfig(without=(row.id,)))
    assert getattr(model.kernel(module), name) is not before
    model.configure(KernelConfig())
    assert getattr(model.kernel(module), name) is before
