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
    {"machine/checked.py", "machine/drivers.py", "machine/generate.py", "machine/native.py", "machine/tlb.py"}
)

UNCOMPILED = frozenset({"machine/__init__.py", "machine/layout.py", "patches/__init__.py"})

VIEWS = '''# SPDX-License-Identifier: GPL-2.0-only
"""The native base of all views."""

from __future__ import annotations


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
            destination.write_text(VIEWS if relative == "machine/views.py" else transform(source, layouts, names))
            if relative not in UNCOMPILED and (part != "arch" or source.stem == "__init__"):
                compiled.append(destination)
    return compiled


def transform(source: Path, layouts: dict[str, Layout], sites: set[str]) -> str:
    """The text of a model file as it is compiled."""
    text = source.read_text()
    tree = ast.parse(text)
    edits: list[tuple[int, int, str]] = []
    needs_cells = needs_callable = False
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "struct" for b in node.bases):
            edits.append((node.lineno, node.end_lineno or 0, _native_struct(layouts[node.name])))
            needs_cells = True
        elif isinstance(node, ast.FunctionDef) and node.name in sites:
            edits.append((node.lineno, node.end_lineno or 0, _site(text, node)))
            needs_callable = True
    lines = text.split("\n")
    for first, last, replacement in reversed(edits):
        lines[first - 1 : last] = replacement.split("\n")
    extra = []
    if needs_cells:
        extra += ["from typing import Final as _Final", "from ..machine.layout import Layout, Slot, Field, Cell, Guard"]
        extra += ["from ..machine.sequential import alloc_cells, free_cells, mem, register"]
    if needs_callable:
        extra += ["from collections.abc import Callable as _Callable"]
    future = next(i for i, line in enumerate(lines) if line.startswith("from __future__")) + 1 if extra else 0
    lines[future:future] = extra
    return "\n".join(lines)


def _native_struct(layout: Layout) -> str:
    return f"_ID_{layout.name}: _Final = register({layout!r})\n\n\n" + native_class(layout, f"_ID_{layout.name}")


def _site(text: str, node: ast.FunctionDef) -> str:
    """The function under another name, and a variable with its name that holds it."""
    body = "\n".join(text.split("\n")[node.lineno - 1 : node.end_lineno])
    body = body.replace(f"def {node.name}(", f"def _site_{node.name}(", 1)
    arguments = ", ".join(ast.unparse(a.annotation) for a in node.args.args if a.annotation is not None)
    if node.args.defaults:
        arguments = "..."
    else:
        arguments = f"[{arguments}]"
    returns = ast.unparse(node.returns) if node.returns else "None"
    return f"{body}\n\n\n{node.name}: _Callable[{arguments}, {returns}] = _site_{node.name}"


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
    sites = {row.site for row in model.module("patches").catalogue()}
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
