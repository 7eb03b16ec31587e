# SPDX-License-Identifier: GPL-2.0-only
"""What a patch or commits introduce; two trees; a cache."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tablewalk.audit.changes import of_git, of_patch
from tablewalk.audit.reader import Reader
from tablewalk.audit.run import audit
from tablewalk.cli import run
from tablewalk.errors import TablewalkError

from .test_thread import UNCHECKED

CHECKED = UNCHECKED.replace("\tint ret = ", "\tint ret;\n\n\tif (!pte)\n\t\treturn 0;\n\tret = ")
OTHER = UNCHECKED.replace("young(struct", "other(struct")


def git(top: Path, *words: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e")
    return subprocess.run(["git", "-C", str(top), *who, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits: an unchecked map in other.c stays, one in young.c is introduced."""
    top = tmp_path / "top"
    top.mkdir()
    git(top, "init", "-q")
    for young in (CHECKED, UNCHECKED):
        (top / "young.c").write_text(young)
        (top / "other.c").write_text(OTHER)
        git(top, "add", "-A")
        git(top, "commit", "-qm", "c")
    return top


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(": ")[0].rsplit("/", 1)[-1] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("spec", ["HEAD~", "HEAD~..", "HEAD~..HEAD"])
def test_commits(spec: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--diff", spec, str(repository)]) == 1
    assert lines(capsys) == ["young.c:6"]


def test_what_is_mended_is_no_finding(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--diff", "HEAD..HEAD~", str(repository)]) == 0
    assert run(["audit", "--diff", "HEAD", str(repository)]) == 0
    assert capsys.readouterr().out == ""


def test_between_two_commits_nothing_is_read_from_the_working_tree(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A callee that unmaps, in a file that does not change but that the working tree has otherwise."""
    callee = "void done(pte_t *pte)\n{\n\t%s(pte);\n}\n"
    user = "int f(pmd_t *pmd)\n{\n\tpte_t *pte = pte_offset_map(pmd, 0);\n\n\tif (!pte)\n\t\treturn 0;\n"
    user += "%s\treturn 1;\n}\n"
    (repository / "done.c").write_text(callee % "pte_unmap")
    (repository / "user.c").write_text("\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "c")
    (repository / "user.c").write_text(user % "\tdone(pte);\n")
    git(repository, "commit", "-qam", "c")
    (repository / "done.c").write_text("void done(pte_t *pte)\n{\n}\n")
    (repository / "new.c").write_text(user % "")
    assert run(["audit", "--diff", "HEAD~..HEAD", str(repository)]) == 0
    change = of_git("HEAD~..HEAD", repository)
    rest = change.elsewhere([repository])
    assert rest == {str(repository / "done.c"): (callee % "pte_unmap").encode(), str(repository / "new.c"): None}
    assert of_git("HEAD~..", repository).elsewhere([repository]) == {}
    assert run(["audit", "--diff", "HEAD~", str(repository)]) == 1
    assert "leak" in capsys.readouterr().out


@pytest.mark.parametrize("applied", [False, True])
def test_a_patch_applied_or_not(
    applied: bool, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = tmp_path / "p.patch"
    patch.write_text("From: someone\n\n" + git(repository, "diff", "HEAD~", "HEAD"))
    if not applied:
        git(repository, "checkout", "-q", "HEAD~")
    assert run(["audit", "--diff", str(patch), str(repository)]) == 1
    assert lines(capsys) == ["young.c:6"]


def test_files_added_and_removed_by_a_patch(repository: Path, tmp_path: Path) -> None:
    git(repository, "mv", "young.c", "moved.c")
    git(repository, "commit", "-qam", "c")
    patch = tmp_path / "p.patch"
    patch.write_text(git(repository, "diff", "--no-renames", "HEAD~", "HEAD"))
    change = of_patch(patch, repository)
    old, new = str(repository / "young.c"), str(repository / "moved.c")
    assert (change.before[old], change.after[old]) == (UNCHECKED.encode(), None)
    assert (change.before[new], change.after[new]) == (None, UNCHECKED.encode())


def test_a_series_of_patches_with_lines_moved(tmp_path: Path) -> None:
    """A tree that has all of them, and lines of its own before."""
    (tmp_path / "a.c").write_text("0\n0\n1\n2b\n3c\n4\n")
    one = "--- a/a.c\n+++ b/a.c\n@@ -1,3 +1,3 @@\n 1\n-2\n+2b\n 3\n"
    two = "--- a/a.c\n+++ b/a.c\n@@ -2,3 +2,3 @@\n 2b\n-3\n+3c\n 4\n"
    (tmp_path / "p").write_text(one + two)
    change = of_patch(tmp_path / "p", tmp_path)
    assert change.before[str(tmp_path / "a.c")] == b"0\n0\n1\n2\n3\n4\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing\n", "not a unified diff"),
        ("--- a/young.c\n+++ b/young.c\n@@ -1 +1 @@\n-what is not there\n+x\n", "does not apply to"),
        ("--- a/../young.c\n+++ b/../young.c\n@@ -1 +1 @@\n-a\n+x\n", "outside of the tree"),
    ],
)
def test_patches_that_are_none(text: str, said: str, repository: Path, tmp_path: Path) -> None:
    patch = tmp_path / "p.patch"
    patch.write_text(text)
    with pytest.raises(TablewalkError, match=said):
        run(["audit", "--diff", str(patch), str(repository)])


def test_a_commit_that_is_none(repository: Path) -> None:
    with pytest.raises(TablewalkError, match="nonesuch: neither a patch nor a commit"):
        run(["audit", "--diff", "nonesuch", str(repository)])


def test_two_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("old", UNCHECKED), ("new", "\n\n" + CHECKED)):
        (tmp_path / name / "mm").mkdir(parents=True)
        (tmp_path / name / "include/linux").mkdir(parents=True)
        (tmp_path / name / "include/linux/mm.h").touch()
        (tmp_path / name / "mm/young.c").write_text(text)
        (tmp_path / name / "mm/other.c").write_text(OTHER)
    (tmp_path / "new" / "fs").mkdir()
    (tmp_path / "new" / "fs/young.c").write_text(UNCHECKED)
    trees = [str(tmp_path / "old"), str(tmp_path / "new")]
    assert run(["audit", "--compare", *trees]) == 1
    assert "+ fs/young.c:6" in capsys.readouterr().out
    assert run(["audit", "--compare", *trees, "mm"]) == 0  # in both trees, nothing but mm
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("- mm/young.c:6: warning: young()")
    assert out[-1] == "1 findings gone, 0 new, 1 in both"
    assert run(["audit", "--json", "--compare", *reversed(trees), "mm"]) == 1
    assert [f["file"] for f in json.loads(capsys.readouterr().out)["new"]["findings"]] == ["mm/young.c"]


def test_a_cache_knows_what_has_changed(tmp_path: Path) -> None:
    source, cache = tmp_path / "a.c", tmp_path / "cache" / "c.json"
    source.write_text("int nothing;\n")
    assert audit([tmp_path], reader=Reader(cache)).findings == []
    assert str(source) in json.loads(cache.read_text())["idle"]
    source.write_text(UNCHECKED)
    assert [f.line for f in audit([tmp_path], reader=Reader(cache)).findings] == [6]
    cache.write_text("{broken")
    assert [f.line for f in audit([tmp_path], reader=Reader(cache)).findings] == [6]


def test_several_processes_find_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.c").write_text(UNCHECKED)
    (tmp_path / "b.c").write_text("int nothing;\n")
    monkeypatch.setattr("tablewalk.audit.reader._WORTH", 2)
    got = audit([tmp_path], reader=Reader(jobs=2))
    assert [(f.file.rsplit("/", 1)[-1], f.line) for f in got.findings] == [("a.c", 6)]
    assert (got.coverage.files, got.coverage.files_of_interest) == (2, 1)
