# SPDX-License-Identifier: GPL-2.0-only
"""Where recordings are read from and written to: links, FIFOs, devices, directories."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tablewalk.errors import TablewalkError
from tablewalk.record import sampler
from tablewalk.record.recording import Meta, Recording, Writer
from tablewalk.validate.results import Results

if TYPE_CHECKING:
    from tests.record.conftest import PerfDataFile

SOURCES = str(Path(sampler.__file__).parents[2])


def tablewalk(*args: str | Path, stdin: int = subprocess.DEVNULL) -> tuple[int, str]:
    """Status and what was said on stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "tablewalk", *map(str, args)],
        env={**os.environ, "PYTHONPATH": SOURCES}, stdin=stdin, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return run.returncode, run.stderr


@pytest.fixture(params=["fifo", "directory", "device", "link to a fifo"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "special"
    if request.param == "directory":
        path.mkdir()
    elif request.param == "device":
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("device nodes cannot be made here")
    else:
        os.mkfifo(path)
        if request.param != "fifo":
            path.rename(tmp_path / "fifo")
            path.symlink_to("fifo")
    return path


def test_nothing_but_a_file_is_written_over(special: Path, tmp_path: Path) -> None:
    before, listed = special.lstat(), sorted(tmp_path.iterdir())
    for make in (Writer, Results):
        with pytest.raises(TablewalkError, match=f"^{special}: not a regular file, but a "):
            make(special)
    ran = tmp_path / "ran"
    status, said = tablewalk("record", "-o", special, "--", "touch", ran)
    assert status == 2 and said.startswith(f"tablewalk: {special}: not a regular file") and said.count("\n") == 1
    assert special.lstat() == before and sorted(tmp_path.iterdir()) == listed


def test_links_are_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.tw", tmp_path / "link.tw"
    link.symlink_to(target)
    with Writer(link) as out:
        out.finish(Meta())
    assert link.is_symlink() and not target.is_symlink() and Recording.open(target).num_rows == 0
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_fifos_are_not_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    line = f"tablewalk: {fifo}: not a regular file, but a FIFO or pipe\n"
    assert tablewalk("import", fifo, "-o", tmp_path / "x.tw") == (2, line)
    assert tablewalk("replay", fifo) == (2, line)
    status, said = tablewalk("import", "/dev/stdin", "-o", tmp_path / "x.tw", stdin=subprocess.PIPE)
    assert (status, said) == (2, "tablewalk: /dev/stdin: not a regular file, but a FIFO or pipe\n")
    assert list(tmp_path.iterdir()) == [fifo]


def test_default_output_of_import(small_run: PerfDataFile, perf_path: Path) -> None:
    perf_path.write_bytes(small_run.bytes())
    output = perf_path.with_name("perf.data.tw")
    assert tablewalk("import", perf_path)[0] == 0 and Recording.open(output).num_rows
    before = output.read_bytes()
    line = f"tablewalk: {output}: exists already; name the recording with -o\n"
    assert tablewalk("import", perf_path) == (2, line) and output.read_bytes() == before


def test_programs_that_cannot_run(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("text")
    assert tablewalk("record", "-o", tmp_path / "x.tw", text) == (2, f"tablewalk: {text}: not executable\n")
    assert list(tmp_path.iterdir()) == [text]


def test_nothing_gathered_leaves_nothing(perf_works: None, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    status, said = tablewalk("record", "-o", tmp_path / "x.tw", broken)
    assert status == 2 and said.splitlines()[-1].startswith("tablewalk: ")
    assert list(tmp_path.iterdir()) == [broken]
