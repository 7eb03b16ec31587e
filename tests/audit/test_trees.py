# SPDX-License-Identifier: GPL-2.0-only
"""The audit on real kernels: all that the series changed in 6.1 is reported, and of 7.2 what was argued and no more."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from audit_sites import must
from tablewalk.audit.baseline import read_baseline, without_accepted
from tablewalk.audit.compare import parts_of
from tablewalk.audit.output import census
from tablewalk.audit.run import audit
from tablewalk.errors import TablewalkError
from tablewalk.machine.native import cache_dir
from tablewalk.validate.apt import Archive

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "audit"

pytestmark = pytest.mark.slow


def tree(suite: str, release: str) -> Path:
    """The source that Debian's suite has of this release; fetched once, and unpacked in the cache."""
    where = cache_dir() / "sources"
    unpacked = where / f"linux-source-{release}"
    if not unpacked.exists():
        archive = Archive(suite, "amd64", where / suite)
        try:
            package = archive.download(archive.newest(f"linux-source-{release}".replace(".", r"\.")))
        except TablewalkError as e:
            pytest.skip(f"linux-source-{release} of Debian {suite} cannot be had: {e}")
        subprocess.run(("dpkg-deb", "-x", package, where / suite / "package"), check=True)
        parcel = where / suite / "package" / "usr" / "src" / f"linux-source-{release}.tar.xz"
        subprocess.run(("tar", "-xf", parcel, "-C", where / suite), check=True)
        (where / suite / unpacked.name).rename(unpacked)
    return unpacked


def test_every_site_of_6_1_that_the_series_changed_is_reported() -> None:
    top = tree("bookworm", "6.1")
    run = audit(parts_of(top))
    verdicts = {(s.file, s.line): s.verdict for s in census(run, run.findings)}
    with (PUBLISHED / "sites-6.1.csv").open() as table:
        changed = [row for row in csv.DictReader(table) if must(row["corrected"] or row["change"], row["call"])]
    assert len(changed) > 150
    silent = [row for row in changed if "-" not in verdicts[row["file"], int(row["line"])]]  # rules have a hyphen
    assert silent == []


def test_every_report_on_7_2_is_argued() -> None:
    top = tree("sid", "7.2")
    findings = audit(parts_of(top)).findings
    left, unused = without_accepted(findings, read_baseline(PUBLISHED / "newest.toml"))
    assert (left, unused) == ([], [])
