# SPDX-License-Identifier: GPL-2.0-only
"""The verb: its options, formats and messages."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tablewalk.inspect import Inspector
from tablewalk.inspect.figures import NAMES
from tablewalk.inspect.procfs import KTHREAD

from .conftest import AREA, Victim

SOURCE = Path(__file__).parents[2] / "src"


def run(*args: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tablewalk", "inspect", *map(str, args)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        **kwargs,
    )


def run_json(*args: object) -> Any:
    result = run(*args, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


@pytest.fixture
def emptied(victim: Victim, inspector: Inspector) -> Victim:
    if not inspector.kernel.shows_empty_tables:
        pytest.skip("this kernel does not show empty tables")
    victim.do("area(64*M); touch(0, 64*M, M); [madvise(a, PAGE, DONTNEED) for a in range(0, 32*M, M)]")
    return victim


def test_json_of_one(emptied: Victim) -> None:
    p = run_json(emptied.pid)
    assert p["pid"] == emptied.pid and p["changed"] is False and set(NAMES) < set(p)
    tables = [p[f"{state}_tables"] for state in ("populated", "empty", "deposited", "unknown")]
    assert sum(tables) * 4 == p["vmpte_kb"]
    assert (p["pte_empty_tables"], p["reclaimable_kb"]) == (32, 128)
    [area] = [v for v in p["vmas"] if v["start"] == AREA]
    assert area["end"] == AREA + 64 * 2**21
    assert (area["populated_tables"], area["empty_tables"], area["reclaimable_kb"]) == (32, 32, 128)
    assert all(v["populated_tables"] or v["empty_tables"] or v["deposited_tables"] for v in p["vmas"])
    assert len(run_json(emptied.pid, "--inc-empty")["vmas"]) > len(p["vmas"])


def test_json_of_several(emptied: Victim) -> None:
    other = Victim()
    try:
        s = run_json("--pid", emptied.pid, "--pid", other.pid, other.pid)
        assert {p["pid"] for p in s["processes"]} == {emptied.pid, other.pid} and not s["skipped"]
        assert s["total"]["processes"] == 2 and "vmas" not in s["processes"][0]
        for name in NAMES:
            assert s["total"][name] == sum(p[name] for p in s["processes"])
        rolled = run_json(emptied.pid, other.pid, "--rollup")
        assert rolled["total"] == s["total"] and "processes" not in rolled
        assert "vmas" in run_json(emptied.pid, other.pid, "--vmas")["processes"][0]
    finally:
        other.close()


def test_all_lists_everybody(victim: Victim) -> None:
    s = run_json("--all")
    seen = [p["pid"] for p in s["processes"]] + [e["pid"] for e in s["skipped"]]
    assert victim.pid in seen and len(seen) == len(set(seen))
    assert all(e["reason"] for e in s["skipped"])
    text = run("--all")
    assert text.returncode == 0
    assert str(victim.pid) in [line.split()[0] for line in text.stdout.splitlines()]
    if kernel_threads := [e for e in s["skipped"] if e["reason"] == KTHREAD]:
        [line] = [line for line in text.stdout.splitlines() if KTHREAD in line]
        assert re.fullmatch(rf"left out \d+, {KTHREAD}", line) and kernel_threads[0]["comm"] not in line


def test_text(emptied: Victim) -> None:
    result = run(emptied.pid)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    [pte] = [line for line in lines if line[:1] == ["PTE"]]
    assert pte[2] == "32"
    [area] = [line for line in lines if line and line[0].startswith(f"{AREA:x}-")]
    assert area[1:] == ["rw-p", str(64 * 2048), "32", "32", "0", "0", "128"]
    assert "on the empty tables alone would give back 128 kB" in result.stdout
    assert "\x1b" not in result.stdout


def test_hostile_names(emptied: Victim, tmp_path: Path) -> None:
    """A mapping's path and a comm cannot speak to the terminal, nor break JSON or OpenMetrics."""
    path = str(tmp_path) + '/a\x1b[31m\n"\\\udcff\u202e'
    emptied.do(f"open({path!r}, 'w').close(); fd = os.open({path!r}, os.O_RDWR); os.ftruncate(fd, M)")
    emptied.do("area(M, SHARED, at=G, fd=fd); touch(G, M)")
    emptied.do(r"""open('/proc/self/comm', 'wb').write(b'a"\\\x1b[2J\n\xff')""")
    shown = r'a"\\x1b[2J\n\xff'
    text = run(emptied.pid).stdout
    assert text.startswith(f"process {emptied.pid} ({shown})\n")
    assert all(c.isprintable() or c == "\n" for c in text)
    assert r"/a\x1b[31m\012" in text
    p = run_json(emptied.pid)
    assert p["comm"] == 'a"\\\x1b[2J\n\\xff'
    assert any("\x1b[31m" in v["name"] for v in p["vmas"])
    metrics = parse_openmetrics(run(emptied.pid, "--format", "openmetrics").stdout)
    assert {labels["comm"] for _, labels, _ in metrics if "comm" in labels} == {shown}


LABELS = r'\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*)?\}'


def parse_openmetrics(text: str) -> list[tuple[str, dict[str, str], int]]:
    """Read OpenMetrics 1.0 text strictly, as far as gauges go: the families, their order, escapes, the end."""
    assert text.endswith("# EOF\n")
    samples: list[tuple[str, dict[str, str], int]] = []
    family, families = "", set()
    for line in text.removesuffix("# EOF\n").splitlines():
        if match := re.fullmatch(r"# TYPE ([a-z_]+) gauge", line):
            family = match[1]
            assert family not in families
            families.add(family)
        elif match := re.fullmatch(r"# UNIT ([a-z_]+) ([a-z]+)", line):
            assert match[1] == family and family.endswith("_" + match[2])
        elif match := re.fullmatch(r"# HELP ([a-z_]+) [^\\\n]+", line):
            assert match[1] == family
        else:
            match = re.fullmatch(rf"([a-z_]+)({LABELS})? (\d+)", line)
            assert match and match[1] == family, line
            pairs = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or "")
            labels = {k: re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], v) for k, v in pairs}
            assert len(labels) == len(pairs)
            assert (family, labels) not in [(f, v) for f, v, _ in samples]
            samples.append((family, labels, int(match[3])))
    return samples


def test_openmetrics(emptied: Victim) -> None:
    samples = parse_openmetrics(run(emptied.pid, "--format", "openmetrics").stdout)
    p = run_json(emptied.pid)
    assert all(labels["pid"] == str(emptied.pid) for _, labels, _ in samples)
    of = {(name, labels.get("level"), labels.get("state")): value for name, labels, value in samples}
    assert of["tablewalk_vmpte_bytes", None, None] == p["vmpte_kb"] * 1024
    assert of["tablewalk_reclaimable_bytes", None, None] == 128 * 1024
    assert of["tablewalk_page_tables", "pte", "empty"] == 32
    tables = [value for name, _, value in samples if name == "tablewalk_page_tables"]
    assert sum(tables) * 4 == p["vmpte_kb"]
    rolled = parse_openmetrics(run(emptied.pid, "--format", "openmetrics", "--rollup").stdout)
    assert all("pid" not in labels for _, labels, _ in rolled)
    assert sum(value for name, _, value in rolled if name == "tablewalk_page_tables") * 4 == p["vmpte_kb"]


def test_output_is_replaced_in_one_step(victim: Victim, tmp_path: Path) -> None:
    out = tmp_path / "tablewalk.prom"
    out.write_text("old")
    old = os.open(out, os.O_RDONLY)
    result = run(victim.pid, "--format", "openmetrics", "-o", out)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert os.read(old, 10) == b"old" and out.read_text().endswith("# EOF\n")
    assert out.stat().st_mode & 0o777 == 0o644 and list(tmp_path.iterdir()) == [out]
    os.close(old)


def test_output_that_cannot_be_written(victim: Victim, tmp_path: Path) -> None:
    out = tmp_path / "no" / "such"
    result = run(victim.pid, "-o", out)
    assert result.returncode == 2
    assert result.stderr == f"tablewalk: {out}: cannot be written: No such file or directory\n"
    result = run(victim.pid, "-o", tmp_path)
    assert result.returncode == 2
    assert result.stderr == f"tablewalk: {tmp_path}: not a regular file, but a directory\n"


def test_output_follows_links(victim: Victim, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to("target")
    for _ in range(2):  # a new one, then one that is there
        assert run(victim.pid, "--json", "-o", link).returncode == 0
        assert link.is_symlink() and json.loads(target.read_text())["pid"] == victim.pid
        target.write_text("old")


def test_output_to_a_fifo_is_written_through(victim: Victim, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    result = run(victim.pid, "--rollup", "--json", "-o", fifo)
    assert (result.returncode, result.stderr) == (0, "") and fifo.is_fifo()
    assert json.loads(os.read(reader, 1 << 16))["total"]["processes"] == 1
    os.close(reader)


def test_output_to_a_device_is_written_through(victim: Victim, tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_text("")
    except PermissionError:
        pytest.skip("device nodes cannot be made or used here")
    result = run(victim.pid, "-o", device)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "") and device.is_char_device()


def test_output_to_a_redirected_standard_output_is_appended(victim: Victim, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as f:
        command = [sys.executable, "-m", "tablewalk", "inspect", str(victim.pid), "--json", "-o", "/dev/stdout"]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, stdout=f, check=True)
    before, told = log.read_text().splitlines()
    assert before == "before" and json.loads(told)["pid"] == victim.pid


def test_cgroup(victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("0\n")
    (tmp_path / "below" / "cgroup.procs").write_text(f"{victim.pid}\n")
    s = run_json("--cgroup", tmp_path)
    assert [p["pid"] for p in s["processes"]] == [victim.pid]
    result = run("--cgroup", tmp_path / "nowhere")
    assert result.returncode == 2 and "not a control group" in result.stderr


@pytest.mark.parametrize("option", [["--watch", "0.05"], ["--periodic", "50"]])
def test_watch(victim: Victim, option: list[str]) -> None:
    result = run(victim.pid, "--json", *option, "--count", 3)
    assert result.returncode == 0
    assert [json.loads(line)["pid"] for line in result.stdout.splitlines()] == [victim.pid] * 3


def watching(pid: int) -> subprocess.Popen[str]:
    """A watch of `pid` that has shown it once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tablewalk", "inspect", str(pid), "--watch", "0.02", "--json"],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and json.loads(process.stdout.readline())["pid"] == pid
    return process


def test_watch_interrupted(victim: Victim) -> None:
    process = watching(victim.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "tablewalk: interrupted\n")


def test_watch_ends_with_the_process(victim: Victim) -> None:
    process = watching(victim.pid)
    victim.close()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.fullmatch(
        rf"tablewalk: process {victim.pid}( \(python\S*\))?: (no such|exited|zombie).*\n", err
    )


def test_one_of_several_is_gone(victim: Victim) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    result = run(victim.pid, gone.pid, "--json")
    assert result.returncode == 2
    assert result.stderr == f"tablewalk: process {gone.pid}: no such process\n"
    s = json.loads(result.stdout)
    assert [p["pid"] for p in s["processes"]] == [victim.pid]
    assert s["skipped"] == [{"pid": gone.pid, "comm": "", "reason": "no such process"}]


@pytest.mark.parametrize(
    "args",
    [[], ["0"], ["-1"], ["x"], ["1", "--all"], ["99999999999"], ["1", "--watch", "1", "--periodic", "50"],
     ["1", "--count", "2"], ["1", "--format", "xml"]],
)  # fmt: skip
def test_wrong_use(args: list[str]) -> None:
    result = run(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tablewalk: ") and len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
@pytest.mark.parametrize("mode", ["dontneed", "free"])
def test_example(mode: str, tmp_path: Path, inspector: Inspector) -> None:
    """examples/empty_tables.c: all its tables but the one it keeps a page in are empty, and all reclaimable."""
    if not inspector.kernel.shows_empty_tables:
        pytest.skip("this kernel does not show empty tables")
    source = SOURCE.parent / "examples" / "empty_tables.c"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", tmp_path / "empty_tables", source], check=True)
    with subprocess.Popen(
        [tmp_path / "empty_tables", "-w", mode, "100"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        pid, vmpte, start, end = (int(x, 0) for x in re.findall(r"0x\w+|\d+", process.stdout.readline()))
        p = run_json(pid)
        process.stdin.close()
    assert pid == process.pid and process.returncode == 0
    assert (p["vmpte_kb"], p["pte_empty_tables"], p["reclaimable_kb"]) == (vmpte, 100, 400)
    [area] = [v for v in p["vmas"] if v["start"] <= start < v["end"]]
    assert (area["end"], area["empty_tables"], area["deposited_tables"]) == (end, 100, 0)
