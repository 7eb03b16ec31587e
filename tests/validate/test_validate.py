# SPDX-License-Identifier: GPL-2.0-only
"""The comparison with a real kernel: agent, generator, disagreements that are made on purpose, the verb."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tablewalk.cli import run as tablewalk
from tablewalk.errors import TablewalkError
from tablewalk.validate.compare import Answer, Comparison, host_difference
from tablewalk.validate.coverage import coverage_rows, lacking, never_succeeded, seldom
from tablewalk.validate.emit import c_program, python_test
from tablewalk.validate.generate import Generator
from tablewalk.validate.kernels import KERNELS, find
from tablewalk.validate.mix import FOCUS
from tablewalk.validate.model_run import ModelRun
from tablewalk.validate.observe import digest
from tablewalk.validate.ops import ARGUMENTS, Geometry, Op, kind_of, program_text
from tablewalk.validate.results import Key, Results, Row
from tablewalk.validate.run import run
from tablewalk.validate.session import validate
from tablewalk.validate.setup import setup
from tablewalk.validate.shrink import shrink, valid

GEOMETRY = Geometry(4096, 512, 0x1000_3F00_0000)
ANON = 0x32
NO_FILE = (1 << 64) - 1

needs_host = pytest.mark.skipif(
    sys.platform != "linux"
    or platform.machine() != "x86_64"
    or os.geteuid() != 0
    or tuple(map(int, platform.release().split(".")[:2])) < (6, 18)
    or not shutil.which("gcc"),
    reason="compares with the running kernel: needs Linux 6.18 or newer on x86-64, root, and gcc",
)


def anon(addr: int, length: int, prot: int = 3) -> Op:
    return Op(0, "mmap", (addr, length, prot, ANON, NO_FILE, 0))


HUGE_SPLIT = [
    Op(0, "reset"),
    anon(GEOMETRY.start, 0x400000),
    Op(0, "madvise", (GEOMETRY.start, 0x400000, 14)),
    Op(0, "write", (GEOMETRY.start, 5)),
    Op(0, "fork", (1,)),
    Op(1, "write", (GEOMETRY.start + 0x1000, 6)),
    Op(0, "madvise", (GEOMETRY.start, 0x100000, 4)),
    Op(0, "sum", (GEOMETRY.start, 0x400000)),
]


@pytest.mark.parametrize("focus", ["", *FOCUS])
def test_programs_are_those_of_their_seed(focus: str) -> None:
    program = Generator(7, focus, GEOMETRY).program(200)
    assert program == Generator(7, focus, GEOMETRY).program(200)
    assert program != Generator(8, focus, GEOMETRY).program(200)
    assert program[0] == Op(0, "reset") and len(program) == 200
    assert valid(program) == program
    for op in program:
        assert len(op.args) == len(ARGUMENTS[op.kind].split()), op
        assert kind_of(op)


def test_digest_is_that_of_the_agent() -> None:
    assert digest("") == 1
    assert digest("abc") == 0x352441C2 << 32 | 0x024D0127


@needs_host
@pytest.mark.parametrize(("seed", "focus"), [(s, "") for s in range(4)] + [(1, focus) for focus in FOCUS])
def test_host_agrees(seed: int, focus: str) -> None:
    program = Generator(seed, focus, setup(find("host")).geometry).program(120)
    assert host_difference(program) == []


@needs_host
def test_agent_tells_what_it_sees() -> None:
    lines = list(run(find("host"), program_text(HUGE_SPLIT[:4], GEOMETRY, True), 3))
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["0", "1", "2", "3"]
    assert lines[3].split()[1:3] == ["0", "0"]
    seen = [line[1:] for line in lines if line.startswith(" ")]
    assert seen[0] == "p0 pte=12 anon=2048 file=0 shmem=0 swap=0 lck=0"
    assert seen[1] == "v10003f000000-10003f400000 rw-p 0 - 2048,2048,2048,2048,0,0,0,0,0 rdwrmrmwmeachg"
    assert seen[2:] == ["m10003f000000 512 xp", "c10003f000000 512"]
    assert int(lines[3].split()[3], 16) == digest("\n".join([*seen, ""]))


@needs_host
def test_a_program_that_makes_no_sense_is_one_line() -> None:
    comparison = Comparison(setup(find("host")), "sequential")
    with pytest.raises(TablewalkError, match="no such operation or process") as e:
        list(comparison.compare([[Op(0, "reset"), Op(5, "read", (1,))]]))
    assert "\n" not in str(e.value)


@needs_host
def test_what_differs_each_time_elsewhere_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison(setup(find("host")), "sequential")
    rightly, wrong = Comparison._answers, iter([1, 3, 2, 3, 3])
    at: list[int] = []

    def disturbed(self: Comparison, ops: Sequence[Op], verbose_from: int | None = None) -> Iterator[Answer]:
        at.append(next(wrong))
        for i, answer in enumerate(rightly(self, ops, verbose_from)):
            yield answer._replace(digest=len(at)) if i == at[-1] else answer

    monkeypatch.setattr(Comparison, "_answers", disturbed)
    start = GEOMETRY.start
    program = [Op(0, "reset"), anon(start, 0x3000), *(Op(0, "write", (start, value)) for value in (1, 2))]
    outcome = next(comparison.compare([program]))
    assert at == [1, 3, 2, 3, 3] and outcome.noise and outcome.at is None


@needs_host
def test_an_error_of_the_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison(setup(find("host")), "sequential")
    rightly = ModelRun._munlock

    def forgetful(self: ModelRun, p: int, addr: int, length: int) -> int:
        return 0 if self.mms[p].locked_vm else rightly(self, p, addr, length)

    monkeypatch.setattr(ModelRun, "_munlock", forgetful)
    start = GEOMETRY.start
    program = [Op(0, "reset"), anon(start, 0x3000), Op(0, "mlock", (start, 0x3000)), Op(0, "munlock", (start, 0x1000))]
    outcome = next(comparison.compare([program]))
    assert outcome.at == 3 and outcome.compared == 4 and not outcome.noise
    assert "  kernel p0 pte=12 anon=12 file=0 shmem=0 swap=0 lck=8" in outcome.report
    assert "  model  p0 pte=12 anon=12 file=0 shmem=0 swap=0 lck=12" in outcome.report
    small = shrink(program, comparison.disagree, GEOMETRY)
    assert [op.kind for op in small] == ["reset", "mmap", "mlock", "munlock"]
    monkeypatch.setattr(ModelRun, "_munlock", rightly)
    assert next(comparison.compare([program])).at is None


def test_shrinking_leaves_what_is_needed() -> None:
    program = Generator(3, "", GEOMETRY).program(150)
    wanted = next(op for op in program if op.kind == "mremap")

    def disagree(candidates: list[list[Op]]) -> list[bool]:
        return [any(op.kind == "mremap" and op.process == wanted.process for op in ops) for ops in candidates]

    small = shrink(program, disagree, GEOMETRY)  # type: ignore[arg-type]
    assert [op.kind for op in small if op.kind != "fork"] == ["reset", "mremap"]
    assert valid(small) == small


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_reduced_programs_compile(tmp_path: Path) -> None:
    source = tmp_path / "p.c"
    ops = [*HUGE_SPLIT, *(op for focus in ("", "uffd") for op in Generator(5, focus, GEOMETRY).program(150))]
    source.write_text(c_program(valid(ops), GEOMETRY, "A title", ["operation 1", "  kernel /* x */"]))
    done = subprocess.run(["gcc", "-Wall", "-o", tmp_path / "p", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = python_test(HUGE_SPLIT, "seed_1", "host", ["operation 1"])
    compile(text, "test.py", "exec")
    assert 'Op(0, "fork", (1,)),' in text


def test_outcomes_are_kept(tmp_path: Path) -> None:
    key = Key("host", "v", "", 1, 250)
    row = Row(100, -1, [], False, {"read": [3, 1]}, {"page tables retracted": 2})
    results = Results(tmp_path / "r.sqlite")
    assert results.get(key) is None
    results.put(key, row)
    results.close()
    assert Results(tmp_path / "r.sqlite").get(key) == row
    with pytest.raises(TablewalkError, match="not a regular file, but a directory"):
        Results(tmp_path)


SHARED_MEMORY = [
    Op(0, "reset"),
    anon(GEOMETRY.start, 0x400000),
    Op(0, "write", (GEOMETRY.start, 5), 1),
    Op(0, "fork", (1,), 2),
    Op(1, "vfork", (2,)),
    Op(2, "write", (GEOMETRY.start + 0x1000, 6)),
    Op(2, "fork", (3,)),
    Op(3, "munmap", (GEOMETRY.start, 0x400000)),
    Op(2, "exit"),
    Op(1, "sum", (GEOMETRY.start, 0x400000), 1),
    Op(0, "exit"),
    Op(1, "brk", (GEOMETRY.heap + 0x3008,)),
    Op(1, "write", (GEOMETRY.heap + 0x3000, 7)),
    Op(1, "brk", (GEOMETRY.heap - 0x1000,)),
]


@needs_host
def test_threads_and_children_that_share_memory() -> None:
    comparison = Comparison(setup(find("host")), "sequential")
    assert setup(find("host")).geometry == GEOMETRY
    outcome = next(comparison.compare([SHARED_MEMORY]))
    assert outcome.report == [] and outcome.compared == len(SHARED_MEMORY)
    assert outcome.coverage["brk"] == [1, 1]
    assert valid(SHARED_MEMORY) == SHARED_MEMORY
    of_who_waits = [*SHARED_MEMORY[:5], Op(1, "read", (GEOMETRY.start,))]
    assert valid(of_who_waits) == SHARED_MEMORY[:5]


def test_coverage_says_what_is_seldom() -> None:
    coverage = {"read": [500, 50], "write": [499, 50], "msync": [500, 49], "fork": [500, 0], "madvise unknown": [0, 59]}
    coverage |= {"mseal": [0, 60], "mlock": [0, 60]}
    lacks = {"mseal": "new in 6.10"}
    remarks = {kind: remark for kind, _, _, remark in coverage_rows(coverage, lacks)}
    assert remarks == {
        "read": "",
        "write": "seldom succeeds",
        "msync": "seldom fails",
        "fork": "cannot fail: no argument can be wrong",
        "madvise unknown": "cannot succeed: it asks for what there is not",
        "mseal": "cannot succeed: new in 6.10",
        "mlock": "never succeeds",
    }
    assert seldom(coverage, lacks) == ["msync", "write"]
    assert never_succeeded(coverage, lacks) == ["mlock"]


def test_what_a_kernel_lacks_is_known() -> None:
    assert lacking(setup(KERNELS["x86_64-7.x"])) == {}
    of_6_1 = lacking(setup(KERNELS["x86_64-6.1"]))
    assert of_6_1["mseal"] == "new in 6.10" and of_6_1["process_madvise FREE"] == "new in 6.13"
    assert "madvise COLLAPSE" not in of_6_1
    assert lacking(setup(KERNELS["s390x-6.1"]))["madvise COLLAPSE"] == "no huge pages"
    assert lacking(setup(KERNELS["arm-lpae-7.x"]))["mseal"] == "64-bit kernels alone have it"


@needs_host
def test_jobs_change_nothing(tmp_path: Path) -> None:
    host = find("host")
    one, two = (validate(host, 1000, 21, "", "sequential", Results(tmp_path / f"{n}.sqlite"), jobs=n) for n in (1, 2))
    one.noise = two.noise = 0  # what other tasks did meanwhile
    assert one == two and one.operations == 1000


@needs_host
def test_a_run_that_was_killed_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "r.sqlite"
    args = ["validate", "--ops", "2000", "--seed", "31", "--json", "-o", str(kept)]
    killed = subprocess.Popen([sys.executable, "-m", "tablewalk", *args], stdout=subprocess.DEVNULL)
    key = "select count(*) from outcomes"
    done, deadline = 0, time.monotonic() + 60
    while done == 0 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        if kept.exists() and kept.stat().st_size:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(kept)) as db:
                done = db.execute(key).fetchone()[0]
    killed.kill()
    killed.wait()
    assert 0 < done < 8
    assert tablewalk(args) == 0
    assert json.loads(capsys.readouterr().out)["kernels"][0]["programs"] == 8
    with contextlib.closing(sqlite3.connect(kept)) as db:
        assert db.execute(key).fetchone()[0] == 8


@needs_host
def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["validate", "--ops", "250", "--seed", "11", "--json", "-o", str(tmp_path / "r.sqlite")]
    assert tablewalk(args) == 0
    first = json.loads(capsys.readouterr().out)["kernels"]
    assert first[0]["kernel"] == "host" and first[0]["operations"] == 250 and first[0]["disagreements"] == []
    assert sum(c["succeeded"] + c["failed"] for c in first[0]["coverage"].values()) == 250
    assert tablewalk(args) == 0  # from what was kept
    assert json.loads(capsys.readouterr().out)["kernels"] == first


@pytest.mark.parametrize("focus", sorted(FOCUS))
def test_where_mprotect_loses_the_zero_page_programs_do_without(focus: str) -> None:
    """mips 6.1: a special entry is none any more, and the zero page is counted and freed as others are."""

    def kinds(geometry: Geometry) -> set[str]:
        return {op.kind for seed in range(4) for op in Generator(seed, focus, geometry).program(250)}

    assert "mprotect" not in kinds(GEOMETRY._replace(mprotect=False))
    without = {kernel for kernel in KERNELS if not setup(find(kernel)).geometry.mprotect}
    assert without == {"mips64-6.1", "mips32-6.1"}
