# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from tablewalk import __version__
from tablewalk.cli import group, main
from tablewalk.errors import TablewalkError, escape


def run_verb(monkeypatch: pytest.MonkeyPatch, body: Callable[[], object]) -> int:
    monkeypatch.setattr(group, "get_command", lambda ctx, name: click.Command(name, callback=body))
    with pytest.raises(SystemExit) as e:
        main(["verb"])
    assert isinstance(e.value.code, int)
    return e.value.code


def test_version() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "tablewalk", "--version"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": "src"}, check=True,
    )
    assert out.stdout == f"tablewalk {__version__}\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (TablewalkError("a.tw: truncated"), 2, "tablewalk: a.tw: truncated\n"),
        (TablewalkError("x\x1b[31m\ny"), 2, "tablewalk: x\\x1b[31m y\n"),
        (KeyboardInterrupt(), 130, "tablewalk: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "tablewalk: No space left on device\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a\tb"), 2,
         "tablewalk: a\\tb: No such file or directory\n"),
        (MemoryError(), 2, "tablewalk: out of memory\n"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: BaseException, status: int, line: str,
) -> None:
    def body() -> None:
        raise error

    assert run_verb(monkeypatch, body) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("value", "status"), [(None, 0), (0, 0), (1, 1)])
def test_verb_return_value_is_the_status(monkeypatch: pytest.MonkeyPatch, value: object, status: int) -> None:
    assert run_verb(monkeypatch, lambda: value) == status


def test_no_verb_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main([])
    assert e.value.code == 2
    assert capsys.readouterr() == ("", "tablewalk: give a command; tablewalk --help lists them\n")


def test_unknown_verb_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["no-such-verb"])
    assert e.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("tablewalk: No such command") and err.count("\n") == 1


RICH_VERB = """
import click, rich.console
from tablewalk.cli import group, main
group.get_command = lambda ctx, name: click.Command(name, callback=lambda: rich.console.Console().print("x"))
main(["verb"])
"""


@pytest.mark.parametrize("args", [["-m", "tablewalk", "--help"], ["-c", RICH_VERB]])
def test_broken_pipe_is_quiet(args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    out = subprocess.run(
        [sys.executable, *args], stdout=writer, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src"}
    )
    os.close(writer)
    assert out.stderr == b"" and out.returncode == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_is_one_line(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        out = subprocess.run(
            [sys.executable, "-m", "tablewalk", "--help"], stdout=full, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "src", "PYTHONUNBUFFERED": unbuffered},
        )
    assert out.stderr == b"tablewalk: standard output: No space left on device\n" and out.returncode == 2


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/usr/lib/libc.so.6", "/usr/lib/libc.so.6"),
        ("größe 日本", "größe 日本"),
        ("a\x1b]0;x\x07\x9b", "a\\x1b]0;x\\x07\\x9b"),
        ("a\\b", "a\\b"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202etxt\u2028", "\\u202etxt\\u2028"),
        (b"\xff\xfe".decode(errors="surrogateescape"), "\\xff\\xfe"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escape(escape(text)) == escaped
