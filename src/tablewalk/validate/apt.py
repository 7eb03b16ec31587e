# SPDX-License-Identifier: GPL-2.0-only
"""Packages of Debian's archives, fetched without touching the machine's package state.

apt runs with lists and a cache of its own, on the mirrors that the machine's apt uses for Debian, for any suite and
architecture; what it fetches is checked by the machine's keyrings as always.  No root is needed.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tablewalk.errors import TablewalkError

SECURITY = {"bookworm": "bookworm-security"}  # suites that have security updates in an archive of their own


@dataclass(frozen=True, slots=True)
class Archive:
    """One suite of Debian for one architecture; lists and packages are kept in `directory`."""

    suite: str
    architecture: str
    directory: Path

    def newest(self, pattern: str) -> str:
        """Fetch the lists of packages: the one whose whole name matches `pattern` and has the highest numbers in it.

        Raises TablewalkError where there is none, or no mirror.  A mirror that has some of the lists is good enough.
        """
        self._configure()
        failure = ""
        try:
            self._apt("apt-get", "update")
        except TablewalkError as e:
            failure = f" ({e})"
        found = [p for p in self._apt("apt-cache", "pkgnames").split() if re.fullmatch(pattern, p)]
        if not found:
            raise TablewalkError(f"Debian {self.suite} for {self.architecture} has no package {pattern}{failure}")
        return max(found, key=lambda package: [int(n) for n in re.findall(r"\d+", package)])

    def download(self, package: str) -> Path:
        """The package's file; one whose download was interrupted is taken up again."""
        fields = dict(
            line.split(": ", 1)
            for line in self._apt("apt-cache", "show", "--no-all-versions", package).splitlines()
            if re.match(r"[A-Z][\w-]*: ", line)
        )
        self._apt("apt-get", "download", package)
        version = fields["Version"].replace(":", "%3a")
        return self.directory / "archives" / f"{package}_{version}_{fields['Architecture']}.deb"

    def _configure(self) -> None:
        (self.directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (self.directory / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (self.directory / "sources.list").write_text("".join(self._sources()))
        (self.directory / "apt.conf").write_text(self._configuration())

    def _apt(self, command: str, *args: str) -> str:
        """What apt prints.  The environment's APT_CONFIG would be read before `apt.conf`, which has the last word."""
        return _output(command, "-c", str(self.directory / "apt.conf"), *args, cwd=self.directory / "archives")

    def _sources(self) -> list[str]:
        mirrors = {("Debian", self.suite)}
        if security := SECURITY.get(self.suite):
            mirrors.add(("Debian-Security", security))
        uris = _mirrors()
        if "Debian" not in uris:
            raise TablewalkError("apt of this machine knows no Debian archive (as apt-get indextargets lists them)")
        return [f"deb {uris[label]} {suite} main\n" for label, suite in sorted(mirrors) if label in uris]

    def _configuration(self) -> str:
        here = self.directory.absolute()
        return f"""\
Dir::Etc::SourceList "{here}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{here}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{here}";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
#clear APT::Architectures;
APT::Architecture "{self.architecture}";
APT::Architectures {{ "{self.architecture}"; }};
APT::Sandbox::User "";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
Acquire::Languages "none";
Acquire::GzipIndexes "true";
"""


def _mirrors() -> dict[str, str]:
    """The machine's own mirrors, by the label of the archive: "Debian", "Debian-Security"."""
    targets = _output("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Origin: Debian")
    mirrors: dict[str, str] = {}
    for line in targets.splitlines():
        label, uri = line.rsplit(" ", 1)
        mirrors.setdefault(label, uri)
    return mirrors


def _output(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise TablewalkError(f"{command[0]} is not here: Debian's kernels are fetched with apt") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        raise TablewalkError(f"{command[0]}: {(errors or [done.stderr.strip()])[0].removeprefix('E: ')}")
    return done.stdout
