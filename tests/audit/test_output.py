# SPDX-License-Identifier: GPL-2.0-only
"""Options of the verb: JSON, SARIF, census, coverage, baseline, bad input."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tablewalk.audit.rules import RULES
from tablewalk.audit.run import audit
from tablewalk.cli import run
from tablewalk.errors import TablewalkError

from .test_thread import UNCHECKED

PIECES = [b"{", b"}", b"(", b")", b"\0", b"\xff", b"#if 1\n", b"\n#endif\n", b"/*", b'"', b"*" * 50]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "young.c"
    path.write_text(UNCHECKED)
    return path


def test_json(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--json", "--census", str(source)]) == 1
    got = json.loads(capsys.readouterr().out)
    assert [(f["rule"], f["line"], f["function"]) for f in got["findings"]] == [("unchecked-null", 6, "young")]
    assert got["findings"][0]["path"][-1]["line"] == 6
    assert got["findings"][0]["invariant"] == "I1"
    assert (got["coverage"]["files"], got["coverage"]["calls"], got["coverage"]["notes"]) == (1, 2, [])
    sites = [(s["line"], s["call"], s["verdict"]) for s in got["census"]]
    assert sites == [(5, "pte_offset_map_lock", "unchecked-null"), (8, "pte_unmap_unlock", "no finding")]


def test_sarif_has_the_path_as_a_code_flow(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--sarif", str(source)]) == 1
    got = json.loads(capsys.readouterr().out)
    result = got["runs"][0]["results"][0]
    assert (got["version"], result["ruleId"]) == ("2.1.0", "unchecked-null")
    flow = result["codeFlows"][0]["threadFlows"][0]["locations"]
    assert flow[0]["location"]["physicalLocation"]["region"]["startLine"] == 5
    assert result["ruleId"] in {r["id"] for r in got["runs"][0]["tool"]["driver"]["rules"]}


def test_sarif_names_files_by_uri(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = source.rename(tmp_path / "a b#.c")
    assert run(["audit", "--sarif", str(odd)]) == 1
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == f"{tmp_path}/a%20b%23.c"


def test_a_baseline_accepts_with_a_reason(source: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "accepted.toml"
    entry = f'[[accept]]\nrule = "unchecked-null"\nfile = "{source}"\nfunction = "young"\n'
    baseline.write_text(entry + 'reason = "an example"\n')
    assert run(["audit", "--baseline", str(baseline), str(source)]) == 0
    baseline.write_text(entry)
    with pytest.raises(TablewalkError, match="entry 1 needs rule, file, function and reason"):
        run(["audit", "--baseline", str(baseline), str(source)])


def test_an_entry_that_covers_nothing_is_said(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tmp_path / "accepted.toml"
    baseline.write_text('[[accept]]\nrule = "leak"\nfile = "a.c"\nfunction = "g"\nreason = "r"\n')
    assert run(["audit", "--baseline", str(baseline), str(source)]) == 1
    assert "covers nothing: leak in a.c g()" in capsys.readouterr().err


def test_coverage_counts_calls_outside_of_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "lost.c"
    source.write_text(UNCHECKED + "\nWHATEVER(pte_unmap(x))\n")
    run(["audit", "--coverage", str(source)])
    assert f"{source}:12: pte_unmap() outside of every function that was found" in capsys.readouterr().out


def test_links_in_a_circle_and_special_files(source: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.c").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.c")
    got = audit([tmp_path])
    assert [f.line for f in got.findings] == [6]
    assert sorted(n.what.split(":")[0] for n in got.coverage.notes) == ["skipped"] * 3


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t.replace("*pte)", "*pte\0)"), "NUL"),
        (lambda t: t + "/* \xff */\n", "UTF-8"),
        (lambda t: "#if A\n" + t, "#if"),
        (lambda t: t + "/*" + "x" * 10_000_000 + "*/\n", "a line of"),
    ],
)
def test_odd_files_are_said(damage: object, said: str, tmp_path: Path) -> None:
    source = tmp_path / "odd.c"
    assert callable(damage)
    source.write_bytes(damage(UNCHECKED).encode("latin-1"))
    assert any(said in n.what for n in audit([source]).coverage.notes)


def test_mutated_files_never_crash(tmp_path: Path) -> None:
    rng = random.Random(6)
    source = tmp_path / "m.c"
    for _ in range(150):
        data = bytearray(UNCHECKED.encode())
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(4)] = rng.choice(PIECES)
        source.write_bytes(data)
        assert audit([source]).coverage.files == 1


def test_deep_nesting(tmp_path: Path) -> None:
    source = tmp_path / "deep.c"
    deep = "(" * 20_000 + "1" + ")" * 20_000
    source.write_text(UNCHECKED.replace("return ret", f"return {deep}"))
    assert any("too deep" in n.what for n in audit([source]).coverage.notes)


@pytest.mark.parametrize("macro", ["scope", "scoped_guard"])
def test_a_block_where_a_value_is_expected(macro: str, tmp_path: Path) -> None:
    """As an argument of a macro, which is not C to a parser."""
    source = tmp_path / "block.c"
    source.write_text(UNCHECKED.replace("\treturn ret", f"\t{macro}(rcu, {{ ret++; }});\n\treturn ret"))
    assert [f.rule for f in audit([source]).findings] == ["unchecked-null"]


def test_contracts_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "done.c"
    source.write_text("static void done(pte_t *pte, spinlock_t *ptl)\n{\n\tpte_unmap_unlock(pte, ptl);\n}\n")
    assert run(["audit", "--contracts", str(source)]) == 0
    assert capsys.readouterr().out == f"{source}:1: done(): is given pte mapped; pte unmapped\n"


def test_rules_are_printed_with_all_that_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--rules"]) == 0
    text = capsys.readouterr().out
    assert run(["audit", "--rules", "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert [r["id"] for r in rules] == list(RULES)
    for rule in rules:
        said = [rule["statement"], rule["source"], rule["unless"], rule["scenario"], rule["invariant"], rule["without"]]
        assert all(word in text for word in (*said, *rule["bad"].split("\n"), *rule["good"].split("\n")))


def test_a_step_of_what_has_no_name(tmp_path: Path) -> None:
    source = tmp_path / "step.c"
    source.write_text(UNCHECKED.replace("\treturn ret", "\tif (!1++)\n\t\tret = 0;\n\treturn ret"))
    assert [f.rule for f in audit([source]).findings] == ["unchecked-null"]
