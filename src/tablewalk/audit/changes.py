# SPDX-License-Identifier: GPL-2.0-only
"""Files before and after a change: a patch, or commits of a git repository."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tablewalk.audit.sources import SUFFIXES
from tablewalk.errors import TablewalkError

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NOWHERE = b"/dev/null"


@dataclass(slots=True)
class Change:
    """What differs, by file; None where there is no such file."""

    before: dict[str, bytes | None] = field(default_factory=dict)
    after: dict[str, bytes | None] = field(default_factory=dict)
    end: tuple[Path, str] | None = None  # the repository and the commit that files which do not change are read from

    def elsewhere(self, paths: Iterable[Path]) -> dict[str, bytes | None]:
        """The C files at `paths` that do not change and are otherwise in the working tree than in the last commit."""
        if self.end is None:
            return {}
        top, commit = self.end
        where = ("--", *map(str, paths))
        differ = _git(top, "diff", "--name-only", "-z", "--no-renames", commit, *where)
        differ += _git(top, "ls-files", "--others", "-z", *where)
        names = {raw.decode("utf-8", "surrogateescape") for raw in differ.split(b"\0")}
        files = {str(top / n): n for n in sorted(names) if n.endswith(SUFFIXES)}
        return {path: _blob(top, commit, n) for path, n in files.items() if path not in self.after}


def of_git(spec: str, directory: Path) -> Change:
    """What `A` or `A..` changes up to the working tree, or `A..B` up to B, in the repository around `directory`."""
    old, dots, new = spec.partition("..")
    top = Path(_git(directory, "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    ends = [_git(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{r}^{{commit}}", said=r).decode()
            .strip() for r in (old, new) if r]  # fmt: skip
    change = Change(end=(top, ends[1]) if dots and new else None)
    for raw in _git(top, "diff", "--name-only", "-z", "--no-renames", *ends).split(b"\0"):
        name = raw.decode("utf-8", "surrogateescape")
        if name.endswith(SUFFIXES):
            path = str(top / name)
            change.before[path] = _blob(top, ends[0], name)
            change.after[path] = _blob(top, ends[1], name) if dots and new else _contents(Path(path))
    return change


def _git(directory: Path, *words: str, said: str = "") -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(directory), *words], capture_output=True, check=False)
    except OSError as e:
        raise TablewalkError(f"git: {e.strerror}") from None
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise TablewalkError(f"{said}: neither a patch nor a commit" if said else f"{directory}: {why}")
    return done.stdout


def _blob(top: Path, commit: str, name: str) -> bytes | None:
    done = subprocess.run(["git", "-C", str(top), "cat-file", "blob", f"{commit}:{name}"], capture_output=True)
    return None if done.returncode else done.stdout


def _contents(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise TablewalkError(f"{path}: {e.strerror}") from None


# Patches


@dataclass(slots=True)
class _Hunk:
    at: tuple[int, int]  # first lines, before and after
    before: list[bytes] = field(default_factory=list)
    after: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _FilePatch:
    names: tuple[bytes, bytes]
    hunks: list[_Hunk] = field(default_factory=list)


def of_patch(patch: Path, root: Path) -> Change:
    """What a unified diff, or several in a row, changes in the tree at `root`, which may have it already."""
    try:
        data = patch.read_bytes()
    except OSError as e:
        raise TablewalkError(f"{patch}: {e.strerror}") from None
    found = list(_file_patches(data))
    if not found:
        raise TablewalkError(f"{patch}: not a unified diff")
    there = {path: _contents(Path(path)) for path in {_path(patch, root, f) for f in found} if path}
    unfit = ""
    for way in (0, 1):
        other = dict(there)
        for file in found if way == 0 else reversed(found):
            path = _path(patch, root, file)
            if path and not _apply(other, path, file, way):
                unfit = unfit or path
                break
        else:
            return Change(there, other) if way == 0 else Change(other, there)
    raise TablewalkError(f"{patch}: does not apply to {unfit}, neither forward nor backward")


def _path(patch: Path, root: Path, file: _FilePatch) -> str:
    """The file in the tree; nothing where it is no C."""
    name = next(n for n in reversed(file.names) if n != _NOWHERE).decode("utf-8", "surrogateescape")
    if ".." in Path(name).parts:
        raise TablewalkError(f"{patch}: {name} is outside of the tree")
    return str(root / name) if name.endswith(SUFFIXES) else ""


def _apply(texts: dict[str, bytes | None], path: str, file: _FilePatch, way: int) -> bool:
    """Apply one file's hunks (way 0) or take them back (way 1); whether they fit."""
    text = texts[path]
    if (file.names[way] == _NOWHERE) != (text is None):
        return False
    new = _applied(text or b"", file.hunks, way)
    if new is None:
        return False
    texts[path] = None if file.names[1 - way] == _NOWHERE else new
    return True


def _file_patches(data: bytes) -> Iterator[_FilePatch]:
    lines = data.split(b"\n")
    current: _FilePatch | None = None
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.startswith(b"--- ") and i + 1 < len(lines) and lines[i + 1].startswith(b"+++ "):
            if current is not None and current.hunks:
                yield current
            current = _FilePatch((_name(line), _name(lines[i + 1])))
            i += 1
        elif current is not None and (m := _HUNK.match(line)):
            hunk = _Hunk((int(m[1]), int(m[3])))
            i = _read_hunk(lines, i + 1, [int(x) if x is not None else 1 for x in (m[2], m[4])], hunk)
            current.hunks.append(hunk)
            continue
        i += 1
    if current is not None and current.hunks:
        yield current


def _name(line: bytes) -> bytes:
    name = line[4:].split(b"\t")[0].rstrip()
    return name if name == _NOWHERE else name.split(b"/", 1)[-1]


def _read_hunk(lines: list[bytes], i: int, left: list[int], hunk: _Hunk) -> int:
    """The hunk's lines from `i` on, `left` of them before and after; where it ends."""
    while i < len(lines) and (left[0] > 0 or left[1] > 0):
        kind, text = lines[i][:1], lines[i][1:]
        if kind in (b" ", b"-", b""):
            hunk.before.append(text)
            left[0] -= 1
        if kind in (b" ", b"+", b""):
            hunk.after.append(text)
            left[1] -= 1
        i += 1
    return i


def _applied(text: bytes, hunks: list[_Hunk], way: int) -> bytes | None:
    """`text` with the hunks applied or taken back; None where one does not fit."""
    lines = text.split(b"\n")
    result: list[bytes] = []
    at = shift = 0
    for hunk in hunks:
        old, new = (hunk.before, hunk.after) if way == 0 else (hunk.after, hunk.before)
        said = hunk.at[way] - 1 if old else hunk.at[way]  # of no lines, the number is of the one before
        place = _place(lines, old, said + shift, at)
        if place is None:
            return None
        shift = place - said
        result += [*lines[at:place], *new]
        at = place + len(old)
    return b"\n".join((*result, *lines[at:]))


def _place(lines: list[bytes], old: list[bytes], wanted: int, first: int) -> int | None:
    """Where `old` stands in `lines`, from `first` on, as near as possible to `wanted`."""
    last = len(lines) - len(old)
    for place in sorted(range(first, last + 1), key=lambda i: abs(i - wanted)) if old else [max(wanted, first)]:
        if lines[place : place + len(old)] == old:
            return place
    return None
