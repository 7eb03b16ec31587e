# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue: every row names a site that exists, and can be left out."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from tablewalk.cli.patches import as_matrix, as_table, command
from tablewalk.explore.measure import measures
from tablewalk.explore.rules import RULES
from tablewalk.explore.run import built_in
from tablewalk.explore.verify import rows, verify
from tablewalk.machine import drivers
from tablewalk.machine.drivers import KernelConfig
from tablewalk.patches import KINDS, Patch, catalogue, overrides

ROWS = overrides()


def test_json_has_every_row() -> None:
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert {r["id"] for r in listed} == {r.id for r in catalogue()}
    assert {"id", "commit", "title", "series", "kind", "scenario", "invariant", "command"} <= listed[0].keys()


def test_a_claim_names_what_there_is() -> None:
    scenarios, rules = built_in(), {rule.id for rule in RULES}
    for row in rows():
        claim = row.claim
        assert claim.kind in KINDS
        assert not claim.scenario or claim.scenario in scenarios, row.id
        assert not claim.measure or claim.measure in measures(), row.id
        assert not claim.invariant or claim.invariant in rules, row.id
        shown = {"race": claim.scenario and claim.invariant, "count": claim.measure, "latency": claim.measure}
        assert shown.get(claim.kind, claim.note or claim.scenario or claim.kind == "release"), row.id


def test_a_claim_that_is_wrong_is_not_reproduced() -> None:
    (row,) = (r for r in rows() if r.id == "B04")
    wrong = replace(row, claim=replace(row.claim, invariant="I13"))
    (result,) = verify((wrong,), 1, lambda done, of: None)
    assert not result.reproduced
    assert result.found == "violation I1; exhausted with it"


def test_documents_have_every_row() -> None:
    """`tablewalk patches --matrix` prints what README.md has, `--table` what docs/patches.md has."""
    root = Path(__file__).parent.parent.parent
    assert as_matrix(rows()) in (root / "README.md").read_text()
    assert as_table(rows()) in (root / "docs" / "patches.md").read_text()


def test_verify_says_what_it_found() -> None:
    result = CliRunner().invoke(command, ["D09", "--verify", "--json"])
    (found,) = json.loads(result.stdout)
    assert found["reproduced"]
    assert [run["figure"] for run in found["runs"]] == [1, 0]


@pytest.mark.parametrize("release", ["6.1", "6.12", "6.18", "7.x"])
def test_only_what_a_release_lacks_is_overridden(release: str) -> None:
    """A row that is left out by name only does not change what a release is."""
    model = drivers.load("sequential")
    lacking = {r.site for r in ROWS if not r.mutant and r.since > drivers.version_of(release)}
    model.configure(KernelConfig(release))
    replaced = {f"{where['__name__'].rpartition('.')[2]}.{key}" for where, key, _ in model._replaced}
    assert {site for site in {r.site for r in ROWS} if site in replaced} == lacking
    model.configure(KernelConfig())


def test_text_names_them() -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0
    assert all(r.id in result.stdout for r in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.id}-{r.site}")
def test_an_override_has_its_sites_signature(row: Patch) -> None:
    model = drivers.load("sequential")
    where, _, override = row.override.rpartition(".")
    model.configure(KernelConfig())
    module, name = model.resolve(row.site)
    site = getattr(module, name)
    instead = getattr(model.module(f"patches.{where}"), override)
    assert len(inspect.signature(instead).parameters) == len(inspect.signature(site).parameters)
    assert inspect.signature(instead).return_annotation == inspect.signature(site).return_annotation


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.id}-{r.site}")
def test_a_patch_left_out_is_overridden_everywhere_and_comes_back(row: Patch) -> None:
    model = drivers.load("sequential")
    model.configure(KernelConfig())
    module, name = model.resolve(row.site)
    before = getattr(module, name)
    model.configure(KernelConfig(without=(row.id,)))
    assert getattr(module, name) is not before
    model.configure(KernelConfig())
    assert getattr(module, name) is before


def test_a_release_lacks_what_the_overrides_of_others_call() -> None:
    """A module of overrides keeps what it overrides, so that these may call it; nothing else there may."""
    releases = [row for row in ROWS if not row.mutant and ":" not in row.site]
    for row in releases:
        where, _, _ = row.override.rpartition(".")
        overrides = import_module(f"tablewalk.patches.{where}")
        module, _, function = row.site.rpartition(".")
        site = getattr(import_module(f"tablewalk.kernel.{module}"), function, None)
        names = {name for name, value in vars(overrides).items() if value is site}
        of_site = {r.override.rpartition(".")[2] for r in releases if r.site == row.site}
        for name, caller in vars(overrides).items():
            if inspect.isfunction(caller) and caller.__module__ == overrides.__name__ and name not in of_site:
                assert not names & set(caller.__code__.co_names), f"{where}.{name} calls {row.site}"
