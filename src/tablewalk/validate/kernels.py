# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that the model is compared with: the one that runs here, and Debian's, which QEMU boots.

What was fetched of a kernel stays in the cache, and `ensure` takes it from there; `fetch` looks for a newer package.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import lzma
import os
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.machine.native import cache_dir

from .apt import Archive
from .targets import host_arch, target

# Modules for ext4 on a RAM disk, in the order in which they are loaded, and where they may be; others are built in.
MODULES = {
    "crc32": "lib(?:/crc)?",
    "crc16": "lib(?:/crc)?",
    "crc32c_generic": "crypto",
    "mbcache": "fs",
    "jbd2": "fs/jbd2",
    "ext4": "fs/ext4",
    "brd": "drivers/block",
}

# What is taken from the packages, and the name it gets: the image, its configuration, and the modules to load.
PARTS = {
    "image": re.compile(r"\./(?:boot|usr/lib/modules/[^/]+)/vmlinu[xz](?:-[^/]+)?"),
    "config": re.compile(r"\./(?:boot/config-[^/]+|usr/lib/modules/[^/]+/config)"),
} | {
    f"{name}.ko": re.compile(rf"\./(?:usr/)?lib/modules/[^/]+/kernel/{place}/{name}\.ko(?:\.xz)?")
    for name, place in MODULES.items()
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel to compare with; `arch` and `release` are the model's names.

    `package` is a regular expression of the Debian package's name in `suite`, empty for the kernel that runs here.
    `beside` are packages that have the rest: what stands in their names in the place of `linux-binary`.
    """

    name: str
    arch: str
    release: str
    suite: str = ""
    package: str = ""
    beside: tuple[str, ...] = ()

    @property
    def is_host(self) -> bool:
        return not self.package

    @property
    def has_swap(self) -> bool:
        """Whether it is compared with swap; that of the kernel that runs here is left alone."""
        return not self.is_host and self.arch == "x86_64"

    @property
    def directory(self) -> Path:
        """Where its parts are cached."""
        return cache_dir() / "kernels" / self.name

    @property
    def version(self) -> str | None:
        """The package and its version, of the cached one; of the kernel that runs here what uname says."""
        if self.is_host:
            return os.uname().release
        try:
            found = json.loads((self.directory / "package.json").read_text())
        except FileNotFoundError:
            return None
        return str(found["version"]) if found.get("parts") == list(PARTS) else None

    @property
    def modules(self) -> list[Path]:
        """The cached modules, in the order in which they are to be loaded."""
        return [file for name in MODULES if (file := self.directory / f"{name}.ko").exists()]

    def config(self) -> dict[str, str]:
        """Its Kconfig options that are set, without CONFIG_; none where nothing says them.  The kernel is cached."""
        host = (Path("/proc/config.gz"), Path(f"/boot/config-{os.uname().release}"))
        for path in host if self.is_host else (self.directory / "config",):
            if path.exists():
                text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
                return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))
        return {}


def _bookworm(name: str, arch: str, release: str, flavour: str) -> Kernel:
    return Kernel(name, arch, release, "bookworm", rf"linux-image-{re.escape(release)}\.[\d.+-]+(deb12)?-{flavour}")


def _sid(arch: str, flavour: str) -> Kernel:
    package = rf"linux-binary-7\.[\d.+]+(deb\d+)?-{flavour}"
    return Kernel(f"{arch}-7.x", arch, "7.x", "sid", package, ("linux-base", "linux-modules"))


def _host() -> Kernel:
    return Kernel("host", host_arch(), ".".join(os.uname().release.split(".")[:2]))


KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        _host(),
        _bookworm("x86_64-6.1", "x86_64", "6.1", "cloud-amd64"),
        _bookworm("x86_64-6.12", "x86_64", "6.12", "cloud-amd64"),
        _sid("x86_64", "cloud-amd64"),
        _bookworm("arm64-6.12", "arm64", "6.12", "cloud-arm64"),
        _sid("arm64", "cloud-arm64"),
        _bookworm("s390x-6.1", "s390x", "6.1", "s390x"),
        _sid("s390x", "s390x"),
        _bookworm("ppc64le-6.1", "ppc64le", "6.1", "powerpc64le"),
        _sid("ppc64le", "powerpc64le"),
        _sid("riscv64", "riscv64"),
        _sid("loongarch64", "loong64"),
        _bookworm("arm-lpae-6.1", "arm-lpae", "6.1", "armmp-lpae"),
        _sid("arm-lpae", "armmp-lpae"),
        _bookworm("arm-6.1", "arm", "6.1", "armmp"),
        _bookworm("x86-pae-6.1", "x86-pae", "6.1", "686-pae"),
        _bookworm("x86-2level-6.1", "x86-2level", "6.1", "686"),
        _bookworm("mips64-6.1", "mips64", "6.1", "5kc-malta"),
        _bookworm("mips32-6.1", "mips32", "6.1", "4kc-malta"),
    )
}


def find(name: str) -> Kernel:
    """The kernel `name`.  Raises TablewalkError if there is none of this name."""
    if kernel := KERNELS.get(name):
        return kernel
    raise TablewalkError(f"--kernel {name}: no such kernel; there are {', '.join(KERNELS)}")


def ensure(kernel: Kernel) -> None:
    """See that `kernel` is cached; raises TablewalkError with its name where it cannot be had."""
    if kernel.version is None:
        fetch(kernel)


def fetch(kernel: Kernel) -> None:
    """Cache the newest package of `kernel`; raises TablewalkError with its name where it cannot be had."""
    if kernel.is_host:
        return
    kernel.directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        architecture = target(kernel.arch).debian
        archive = Archive(kernel.suite, architecture, cache_dir() / "kernels" / f"apt-{kernel.suite}-{architecture}")
        with (kernel.directory.parent / ".lock").open("w") as lock:  # one at a time: others find it done
            fcntl.flock(lock, fcntl.LOCK_EX)
            package = archive.newest(kernel.package)
            if kernel.version is None or not kernel.version.startswith(f"{package} "):
                _unpack(kernel, archive, package)
    except TablewalkError as e:
        raise TablewalkError(f"kernel {kernel.name} cannot be had: {e}") from None


def _unpack(kernel: Kernel, archive: Archive, package: str) -> None:
    """Replace the cached kernel by that of `package`, in one step."""
    files = [archive.download(package)]
    files += [archive.download(package.replace("linux-binary", other)) for other in kernel.beside]
    with tempfile.TemporaryDirectory(dir=kernel.directory.parent, prefix=f".{kernel.name}.") as name:
        parts = Path(name) / "parts"
        parts.mkdir()
        for file in files:
            _take_parts(file, parts)
        if not (parts / "image").exists():
            raise TablewalkError(f"package {package} has no kernel image")
        version = f"{package} {files[0].name.split('_')[1]}"
        (parts / "package.json").write_text(json.dumps({"version": version, "parts": list(PARTS)}) + "\n")
        if kernel.directory.exists():
            kernel.directory.rename(Path(name) / "old")
        parts.rename(kernel.directory)
    for file in files:
        file.unlink()


def _take_parts(package: Path, directory: Path) -> None:
    """Put what `PARTS` names in the file `package` into `directory`."""
    with (
        subprocess.Popen(("dpkg-deb", "--fsys-tarfile", str(package)), stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar,
    ):
        for member in tar:
            for name, pattern in PARTS.items():
                if member.isreg() and pattern.fullmatch(member.name):
                    content = tar.extractfile(member)
                    assert content is not None
                    data = content.read()
                    (directory / name).write_bytes(lzma.decompress(data) if member.name.endswith(".xz") else data)
    if unpacking.returncode:
        raise TablewalkError(f"{package}: dpkg-deb cannot unpack it; remove it and fetch again")
