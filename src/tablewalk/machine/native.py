# SPDX-License-Identifier: GPL-2.0-only
"""Compiling the model with mypyc: the same text, with the accessors of its structs as native classes.

A copy of `machine`, `arch`, `kernel` and `patches` becomes the package `tablewalk_native`.  Struct declarations are
replaced by generated classes, and each function that a patch overrides becomes a variable that holds it, so that an
override can take its place.  Everything else is compiled as it stands.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tablewalk.errors import TablewalkError, escape

from .generate import native_class
from .layout import Layout

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tablewalk_native"
PARTS = ("machine", "arch", "kernel", "patches")
INTERPRETED = frozenset(
    {"machine/checked.py", "machine/drivers.py", "machine/effects.py", "machine/generate.py", "machine/native.py"}
    | {"machine/searched.py", "machine/timed.py", "machine/timed_locks.py", "machine/timing.py", "machine/tlb.py"}
)

UNCOMPILED = frozenset({"machine/__init__.py", "machine/layout.py", "patches/__init__.py"})

VIEWS = '''# SPDX-License-Identifier: GPL-2.0-only
"""The native base of all views."""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(acyclic=True)
class struct:
    """A view: the address in `a`."""

    def __init__(self, a: int = 0) -> None:
        self.a = a

    def __bool__(self) -> bool:
        return self.a != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, struct) and self.a == other.a

    def __ne__(self, other: object) -> bool:
        return not (isinstance(other, struct) and self.a == other.a)

    def __hash__(self) -> int:
        return self.a

    def __index__(self) -> int:
        return self.a

    @property
    def addr(self) -> int:
        return self.a
'''


def write_package(target: Path, layouts: dict[str, Layout], sites: set[str]) -> list[Path]:
    """Write the package below `target`; returns the files to compile.  `sites` are `module.function` of kernel/."""
    package = target / PACKAGE
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    compiled = []
    for part in PARTS:
        for source in sorted((ROOT / part).glob("*.py")):
            relative = f"{part}/{source.name}"
            if relative in INTERPRETED:
                continue
            destination = package / relative
            destination.parent.mkdir(exist_ok=True)
            names = {s.partition(".")[2] for s in sites if s.partition(".")[0] == source.stem and part == "kernel"}
            if relative in UNCOMPILED or (part == "arch" and source.stem != "__init__"):
                shutil.copy(source, destination)
                continue
            destination.write_text(VIEWS if relative == "machine/views.py" else transform(source, layouts, names))
            compiled.append(destination)
    return compiled


def transform(source: Path, layouts: dict[str, Layout], sites: set[str]) -> str:
    """The text of a model file as it is compiled."""
    tree = _Native(layouts, sites).visit(ast.parse(source.read_text()))
    futures = [i for i, n in enumerate(tree.body) if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    for future in futures:
        tree.body[future + 1 : future + 1] = ast.parse("from collections.abc import Callable as _Callable").body
    return ast.unparse(tree)


CELLS = """
from typing import Final as _Final
from mypy_extensions import mypyc_attr as _mypyc_attr
from ..machine.layout import Cell, Field, Guard, Layout, Slot
from ..machine.memory import alloc_cells, free_cells, mem, register
"""


class _Native(ast.NodeTransformer):
    """Structs become native classes, sites variables, marked accesses plain ones."""

    def __init__(self, layouts: dict[str, Layout], sites: set[str]) -> None:
        self.layouts = layouts
        self.sites = sites

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | list[ast.stmt]:
        if not any(isinstance(b, ast.Name) and b.id == "struct" for b in node.bases):
            return self.generic_visit(node)
        layout = self.layouts[node.name]
        text = f"{CELLS}_ID_{node.name}: _Final = register({layout!r})\n"
        return ast.parse(text + native_class(layout, f"_ID_{node.name}")).body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if node.name not in self.sites:
            return node
        name, node.name = node.name, f"_site_{node.name}"
        types = ", ".join(ast.unparse(a.annotation) for a in node.args.args if a.annotation is not None)
        arguments = "..." if node.args.defaults else f"[{types}]"
        returns = ast.unparse(node.returns) if node.returns else "None"
        return [node, *ast.parse(f"{name}: _Callable[{arguments}, {returns}] = {node.name}").body]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "READ_ONCE":
            return ast.Attribute(node.args[0], ast.literal_eval(node.args[1]), ast.Load())
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        call = node.value
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return node
        if call.func.id not in ("WRITE_ONCE", "atomic_or"):
            return node
        target = ast.Attribute(call.args[0], ast.literal_eval(call.args[1]), ast.Store())
        if call.func.id == "WRITE_ONCE":
            return ast.fix_missing_locations(ast.Assign([target], call.args[2], lineno=node.lineno))
        return ast.fix_missing_locations(ast.AugAssign(target, ast.BitOr(), call.args[2]))


def cache_dir() -> Path:
    """Where compiled models are kept: $XDG_CACHE_HOME/tablewalk."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tablewalk"


def fingerprint() -> str:
    """Changes whenever the model's text, the Python or the compiler of it does."""
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {sys.platform}".encode())
    for part in PARTS:
        for source in sorted((ROOT / part).glob("*.py")):
            digest.update(source.name.encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def built() -> Path | None:
    """The directory to import the compiled package from, if it was built from this very text."""
    target = cache_dir() / f"native-{fingerprint()}"
    return target if (target / "complete").exists() else None


def build(opt_level: str = "2") -> Path:
    """Compile the model; returns the directory to import it from.  Takes a minute or two.

    Raises TablewalkError where mypyc or a C compiler is missing, or if the compilation fails.
    """
    done = built()
    if done is not None:
        return done
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        raise TablewalkError("compile: no C compiler (cc, gcc) found; install gcc and the Python headers")
    target = cache_dir() / f"native-{fingerprint()}"
    work = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        _compile(work, opt_level)
        (work / "complete").write_text("")
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _compile(work: Path, opt_level: str) -> None:
    from . import drivers

    model = drivers.load("sequential")
    layouts = {layout.name: layout for layout in model.machine.layouts}
    # a function that only mutants replace stays a function, which is faster
    sites = {row.site for row in model.module("patches").overrides() if not row.mutant}
    files = write_package(work, layouts, sites)
    script = work / "setup.py"
    script.write_text(SETUP.format(files=[str(f.relative_to(work)) for f in files], opt_level=opt_level))
    environment = {**os.environ, "MYPYPATH": str(ROOT.parent), "MYPY_CACHE_DIR": str(work / "mypy")}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    run = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        log = cache_dir() / "native-build.log"
        log.write_text(run.stdout + run.stderr)
        last = (run.stdout + run.stderr).strip().splitlines()[-1:] or ["no output"]
        raise TablewalkError(f"compile: mypyc failed ({escape(last[0])}); the whole output is in {log}")
    for leftover in ("build", "mypy"):
        shutil.rmtree(work / leftover, ignore_errors=True)


SETUP = """from mypyc.build import mypycify
from setuptools import setup

setup(name="tablewalk_native", packages=[], ext_modules=mypycify({files!r}, opt_level="{opt_level}"))
"""
