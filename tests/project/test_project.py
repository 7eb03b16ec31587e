# SPDX-License-Identifier: GPL-2.0-only
"""What ./run and ./test rely on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, str]:
    """package: version, of a lock file."""
    return dict(re.findall(r"^([a-z][\w-]*)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_have_hashes_and_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(name)) > 0
    assert all("--hash=sha256:" in entry for entry in entries)


def test_locks_hold_all_dependencies_in_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert run.items() <= dev.items()
    assert {re.split(r"[^\w-]", d)[0] for d in project["dependencies"]} <= run.keys()
    assert {re.split(r"[^\w-]", d)[0] for d in project["optional-dependencies"]["dev"]} <= dev.keys()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without a virtual environment, in a place whose name has a space."""
    copy = tmp_path / "check out"
    copy.mkdir()
    for name in ("run", "requirements.lock", "tools"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    return copy


def run(checkout: Path, path: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": path}
    return subprocess.run([checkout / "run", "--version"], capture_output=True, text=True, env=env)


def test_run_says_that_python_is_too_old(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname", "sha256sum", "cat"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tools / "python3").chmod(0o755)
    out = run(checkout, str(tools))
    assert out.returncode == 2
    assert out.stderr == "tablewalk: needs Python 3.11 or newer (on Debian: apt-get install python3)\n"


def test_run_takes_what_is_installed_without_asking_again(checkout: Path) -> None:
    """With the right stamps, nothing is installed: the interpreter in .venv runs at once."""
    (checkout / ".venv/bin").mkdir(parents=True)
    python = checkout / ".venv/bin/python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    lock = subprocess.run(
        "sha256sum <requirements.lock", shell=True, cwd=checkout, capture_output=True, text=True, check=True
    )
    (checkout / ".venv/requirements.lock.installed").write_text(f"{lock.stdout.rstrip()} {checkout}\n")
    out = run(checkout, os.environ["PATH"])
    assert (out.returncode, out.stdout, out.stderr) == (0, "-P -m tablewalk --version\n", "")
