# SPDX-License-Identifier: GPL-2.0-only
"""Finds C files and reads those that have something of interest in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tablewalk.audit.conditionals import Source
from tablewalk.audit.names import INTEREST, NEARBY, QUICK
from tablewalk.audit.text import Function, Lines, code_only, functions, outside
from tablewalk.errors import TablewalkError

SUFFIXES = (".c", ".h")
MAX_FILE = 32 << 20  # bytes
MAX_LINE = 1 << 20
_QUICK = tuple(word.encode() for word in QUICK)
_QUICKER = (
    b"pte_",
    b"pmd_",
    b"get_locked_pte",
    b"huge_pte",
    b"hugetlb_walk",
    b"kmap_",
)  # one of these is in every word of QUICK


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was not looked at, or not understood."""

    file: str
    line: int  # 0: the file as a whole
    what: str


@dataclass(slots=True)
class CFile:
    """What is of interest in one file."""

    name: str
    functions: list[Function] = field(default_factory=list)  # of all resolutions, each text once
    notes: list[Note] = field(default_factory=list)
    macros: list[Note] = field(default_factory=list)  # calls in definitions of macros
    calls: int = 0
    resolutions: int = 0


@dataclass(slots=True)
class Found:
    files: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def find(paths: Iterable[Path]) -> Found:
    """The C files at `paths` and below.  Raises TablewalkError where a path is nothing."""
    found = Found()
    seen: set[tuple[int, int]] = set()
    given: set[str] = set()
    for path in paths:
        try:
            mode = os.stat(path)
        except OSError as e:
            raise TablewalkError(f"{path}: {e.strerror}") from None
        if stat.S_ISDIR(mode.st_mode):
            for name in _walk(str(path), seen, found):
                if name not in given:
                    given.add(name)
                    found.files.append(name)
        elif stat.S_ISREG(mode.st_mode):
            if str(path) not in given:
                given.add(str(path))
                found.files.append(str(path))
        else:
            found.notes.append(Note(str(path), 0, "skipped: not a regular file"))
    return found


def _walk(top: str, seen: set[tuple[int, int]], found: Found) -> Iterator[str]:
    """Files below `top` in order; each directory is entered once, however many links lead to it."""
    try:
        st = os.stat(top)
        if (st.st_dev, st.st_ino) in seen:
            found.notes.append(Note(top, 0, "skipped: a link to a directory that is looked at already"))
            return
        seen.add((st.st_dev, st.st_ino))
        entries = sorted(os.scandir(top), key=lambda e: e.name)
    except OSError as e:
        found.notes.append(Note(top, 0, f"skipped: {e.strerror}"))
        return
    for entry in entries:
        try:
            if entry.is_dir():
                if entry.name != ".git":
                    yield from _walk(entry.path, seen, found)
            elif entry.name.endswith(SUFFIXES):
                if entry.is_file():
                    yield entry.path
                else:
                    what = "a link to nothing" if entry.is_symlink() else "not a regular file"
                    found.notes.append(Note(entry.path, 0, f"skipped: {what}"))
        except OSError as e:
            found.notes.append(Note(entry.path, 0, f"skipped: {e.strerror}"))


def read_file(path: str, size: int) -> bytes | Note:
    """The file, or why it is not looked at."""
    if size > MAX_FILE:
        return Note(path, 0, f"not looked at: {size} bytes")
    try:
        with open(path, "rb", 0) as f:
            return f.read()
    except OSError as e:
        return Note(path, 0, f"not looked at: {e.strerror}")


def as_text(path: str, data: bytes) -> tuple[str, list[Note]]:
    """The file as Latin-1 and what is odd about it."""
    notes = []
    if b"\0" in data:
        notes.append(Note(path, 0, "has NUL bytes, taken as blanks"))
        data = data.replace(b"\0", b" ")
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            notes.append(Note(path, 0, "is not UTF-8"))
    return data.decode("latin-1").replace("\r\n", " \n").replace("\f", " "), notes


def has_interest(data: bytes) -> bool:
    if not any(word in data for word in _QUICKER) or not any(word in data for word in _QUICK):
        return False
    text = data.decode("latin-1")
    return (INTEREST.search(text) or NEARBY.search(text)) is not None


def parse_text(name: str, text: str, notes: list[Note]) -> CFile:
    """The functions of a file under all its resolutions, and the calls that are in none of them."""
    file = CFile(name, notes=list(notes))
    longest = max((len(line) for line in text.split("\n")), default=0)
    if longest > MAX_LINE:
        file.notes.append(Note(name, 0, f"not looked at: a line of {longest} characters"))
        return file
    code = code_only(text)
    source = Source.read(code)
    lines = Lines(code)
    if source.unbalanced:
        file.notes.append(Note(name, 0, f"{source.unbalanced} #if without #endif, or the other way round"))
    places = [m.start() for m in INTEREST.finditer(code)]
    in_macros = {p for p in places if _in_define(source, p)}
    places = [p for p in places if p not in in_macros]
    file.macros = [Note(name, lines.at(p), f"{_word(code, p)} in a macro") for p in sorted(in_macros)]
    lost = set(places)
    known: set[tuple[int, str]] = set()
    for resolved in source.resolutions(places):
        file.resolutions += 1
        found = list(functions(resolved))
        dropped = {p for p in lost if resolved[p] == " "}
        lost &= dropped | set(outside(sorted(lost - dropped), found))
        for f in found:
            if (f.start, f.body) not in known:
                known.add((f.start, f.body))
                file.functions.append(f)
    declared = {p for p in lost if _declaration(code, p)}
    file.calls = len(places) - len(declared)
    for place in sorted(lost - declared):
        file.notes.append(Note(name, lines.at(place), f"{_word(code, place)} outside of every function that was found"))
    return file


def _in_define(source: Source, place: int) -> bool:
    return any(start <= place < end for start, end in source.directives)


def _word(code: str, place: int) -> str:
    return code[place : code.find("(", place)].strip() + "()"


def _declaration(code: str, place: int) -> bool:
    """`pte_t *pte_offset_map(...)`, which calls nothing."""
    line = code.rfind("\n", 0, place) + 1
    before = code[line:place].strip() or code[code.rfind("\n", 0, max(line - 1, 0)) + 1 : line].strip()
    return before.endswith(("pte_t *", "pte_t*", "int", "void", "spinlock_t *", "pmd_t")) or before.startswith("extern")
