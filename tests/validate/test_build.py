# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.validate.build import static_program
from tablewalk.validate.targets import TARGETS, host_arch


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_compiled_once(echo_agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = static_program(echo_agent, host_arch())
    assert subprocess.run((program,), input=b"a\n", capture_output=True, check=True).stdout == b"0 0 0 a\n"
    made = program.stat().st_mtime_ns
    assert static_program(echo_agent, host_arch()) == program
    assert program.stat().st_mtime_ns == made


def test_compiled_again_when_the_text_changes(echo_agent: Path, tmp_path: Path) -> None:
    sources = tmp_path / "changed"
    sources.mkdir()
    (sources / "a.c").write_text("int main(void) { return 7; }\n")
    first = static_program(sources, host_arch())
    (sources / "cflags").write_text("-DSTATUS=8\n")
    (sources / "a.c").write_text("int main(void) { return STATUS; }\n")
    second = static_program(sources, host_arch())
    assert [subprocess.run((p,)).returncode for p in (first, second)] == [7, 8]


def test_error_of_the_compiler_is_one_line(echo_agent: Path, tmp_path: Path) -> None:
    sources = tmp_path / "wrong"
    sources.mkdir()
    (sources / "a.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(TablewalkError, match=r"^cannot compile the wrong program for \w+: .*'nothing' undeclared.*$"):
        static_program(sources, host_arch())


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    other = next(arch for arch in ("s390x", "x86_64") if arch != host_arch())
    message = f"no C compiler for {other}: apt-get install gcc-{TARGETS[other].triplet}"
    with pytest.raises(TablewalkError, match=message):
        static_program(tmp_path, other)
