# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the house: imports point down, the model keeps no state of its own, the repository names no machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tablewalk"
HOUSE = (
    ("cli",),
    ("report",),
    ("scenarios",),
    ("record", "replay", "inspect", "explore", "simulate", "validate", "audit"),
    ("patches",),
    ("kernel",),
    ("arch",),
    ("machine",),
)
FLOOR = {name: floor for floor, names in enumerate(HOUSE) for name in names}
MODEL = ("kernel", "arch", "patches")
UPWARD = {  # machine.drivers puts the parts of the model together; it is what the ways of running import
    ("machine/drivers.py", "patches"),
}


def modules(*parts: str) -> list[Path]:
    return sorted(path for part in parts for path in (PACKAGE / part).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Parts of the house that a module imports."""
    relative = path.relative_to(PACKAGE)
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ("tablewalk", *relative.parts[:-1])[: len(relative.parts) - node.level + 1]
                names = [".".join((*base, node.module or ""))]
                if not node.module:
                    names = [".".join((*base, alias.name)) for alias in node.names]
            else:
                names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "tablewalk" and len(parts) > 1 and parts[1] in FLOOR:
                yield parts[1]


@pytest.mark.parametrize("path", modules(*FLOOR), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    own = FLOOR[relative.parts[0]]
    for part in imported(path):
        assert FLOOR[part] >= own or (str(relative), part) in UPWARD, f"{relative} imports {part}"


@pytest.mark.parametrize("path", modules(*MODEL), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_model_binds_its_machine_by_relative_import(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module in ("tablewalk.errors",) or not (node.module or "").startswith("tablewalk"), node.module


@pytest.mark.parametrize("path", modules("kernel"), ids=lambda p: p.name)
def test_the_model_keeps_no_state_of_its_own(path: Path) -> None:
    """Everything shared lives in cells: no global statement, no mutable container at module level."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"{path.name}:{node.lineno}: global"
    for node in tree.body:
        value = getattr(node, "value", None) if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict) and value.keys and ast.unparse(getattr(node, "annotation", value)) == "Final":
            continue  # a table of constants
        assert not isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp), (
            f"{path.name}:{node.lineno}: mutable module state"
        )


def tracked() -> list[Path]:
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in run.stdout.splitlines()]


FORBIDDEN = re.compile(r"/work/|/root/|/home/\w+/|deb\.debian\.org|pypi\.org|pythonhosted|registry\.npmjs")


def test_no_machine_and_no_mirror_is_named() -> None:
    for path in tracked():
        if path.suffix in (".tw", ".png") or path == Path(__file__) or not path.exists():
            continue
        found = FORBIDDEN.search(path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_licence_line(path: Path) -> None:
    assert path.read_text().startswith("# SPDX-License-Identifier: GPL-2.0-only\n")
