# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue of kernels, fetching with an apt that stands in for the real one, and the verb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tablewalk.arch import table
from tablewalk.cli.kernels import command
from tablewalk.errors import TablewalkError
from tablewalk.machine.drivers import release_of
from tablewalk.validate.kernels import KERNELS, fetch, find
from tablewalk.validate.targets import TARGETS

APT_GET = """\
#!/bin/sh
for word; do case $word in
    indextargets)
        echo 'Debian http://mirror.test/debian/'
        echo 'Debian-Security http://mirror.test/security/'
        exit ;;
    update) exit "${APT_UPDATE:-0}" ;;
    download) cp "$POOL"/"$4"_*.deb . && exit ;;
esac; done
echo 'E: cannot do that' >&2
exit 100
"""
APT_CACHE = """\
#!/bin/sh
for word; do case $word in
    pkgnames) ls "$POOL" | sed 's/_.*//'; exit ;;
    show) dpkg-deb -f "$POOL"/"$5"_*.deb; exit ;;
esac; done
exit 100
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for apt has its packages; the cache is empty."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb")
    (tmp_path / "bin").mkdir()
    for name, text in (("apt-get", APT_GET), ("apt-cache", APT_CACHE)):
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    packages = tmp_path / "pool"
    packages.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("POOL", str(packages))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return packages


def make_package(pool: Path, name: str, version: str, files: dict[str, str]) -> None:
    root = pool.parent / "root"
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@b.test>\nDescription: none\n"
    )
    deb = pool / f"{name}_{version}_amd64.deb"
    subprocess.run(("dpkg-deb", "--build", "-Znone", str(root), str(deb)), check=True, capture_output=True)
    shutil.rmtree(root)


def test_names_are_the_models() -> None:
    for kernel in KERNELS.values():
        assert table.by_name(kernel.arch, release_of(kernel.release)).name
        assert kernel.is_host or kernel.arch in TARGETS


def test_unknown_kernel() -> None:
    with pytest.raises(TablewalkError, match=r"^--kernel nosuch: no such kernel; there are host, x86_64-6\.1,"):
        find("nosuch")


def test_fetch_takes_the_newest_of_the_right_ones(pool: Path) -> None:
    for abi in ("6.1.0-9", "6.1.0-56"):
        make_package(pool, f"linux-image-{abi}-cloud-amd64", "6.1.1", {f"boot/vmlinuz-{abi}-cloud-amd64": abi})
    for other in ("6.1.0-57-rt-amd64", "6.1.0-58-cloud-amd64-dbg", "6.12.5-cloud-amd64"):
        make_package(pool, f"linux-image-{other}", "1", {"boot/vmlinuz-x": other})
    kernel = find("x86_64-6.1")
    assert kernel.version is None
    fetch(kernel)
    assert kernel.version == "linux-image-6.1.0-56-cloud-amd64 6.1.1"
    assert (kernel.directory / "image").read_text() == "6.1.0-56"
    assert not list(kernel.directory.parent.glob("**/*.deb"))


def test_fetch_again_replaces(pool: Path) -> None:
    kernel = find("x86_64-7.x")
    for version in ("7.2.9", "7.2.13"):
        files = {"binary": "vmlinuz", "base": "config", "modules": "kernel/drivers/block/brd.ko"}
        for part, file in files.items():
            content = f"CONFIG_{version.replace('.', '_')}=y\n# CONFIG_NO is not set\n"
            path = f"usr/lib/modules/{version}/{file}"
            make_package(pool, f"linux-{part}-{version}+deb14-cloud-amd64", version, {path: content})
        fetch(kernel)
        assert kernel.version == f"linux-binary-{version}+deb14-cloud-amd64 {version}"
        assert kernel.config() == {version.replace(".", "_"): "y"}
        assert sorted(p.name for p in kernel.directory.iterdir()) == ["brd.ko", "config", "image", "package.json"]
    assert [p.name for p in kernel.directory.parent.iterdir() if p.name.startswith(".")] == [".lock"]


def test_sources_are_the_machines_own(pool: Path) -> None:
    make_package(pool, "linux-image-6.1.0-1-cloud-amd64", "1", {"boot/vmlinuz-x": "image"})
    kernel = find("x86_64-6.1")
    fetch(kernel)
    archive = kernel.directory.parent / "apt-bookworm-amd64"
    assert (archive / "sources.list").read_text().splitlines() == [
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/security/ bookworm-security main",
    ]


def test_some_lists_are_enough(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APT_UPDATE", "100")
    kernel = find("x86_64-6.1")
    with pytest.raises(TablewalkError, match=r"^kernel x86_64-6\.1 cannot be had: Debian bookworm for amd64 has no"):
        fetch(kernel)
    make_package(pool, "linux-image-6.1.0-1-cloud-amd64", "1", {"boot/vmlinuz-x": "image"})
    fetch(kernel)
    assert kernel.version == "linux-image-6.1.0-1-cloud-amd64 1"


def test_package_without_image(pool: Path) -> None:
    make_package(pool, "linux-image-6.1.0-1-cloud-amd64", "1", {"boot/config-x": ""})
    with pytest.raises(TablewalkError, match="has no kernel image"):
        fetch(find("x86_64-6.1"))
    assert find("x86_64-6.1").version is None


def test_no_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TablewalkError, match=r"^kernel s390x-6\.1 cannot be had: apt-get is not here"):
        fetch(find("s390x-6.1"))


def test_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(command, ["--json"], standalone_mode=False)
    rows = json.loads(result.stdout)["kernels"]
    assert result.return_value == 0
    assert [row["name"] for row in rows] == list(KERNELS)
    assert (rows[0]["version"], rows[0]["problem"]) == (os.uname().release, None)
    assert rows[1]["version"] is None
    assert rows[1]["problem"] == "qemu-system-x86_64 is not here: apt-get install qemu-system-x86"


def test_one_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(command, ["fetch", "--kernel", "riscv64-7.x"], standalone_mode=False)
    assert result.return_value == 2
    assert "kernel riscv64-7.x cannot be had: apt-get is not here" in result.stdout
