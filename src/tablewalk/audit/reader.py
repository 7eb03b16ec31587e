# SPDX-License-Identifier: GPL-2.0-only
"""Files of an audit: those on disk, or what is to be in their place; and which of them need not be read again."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tablewalk.audit.names import INTEREST, NEARBY, QUICK
from tablewalk.audit.sources import SUFFIXES, CFile, Note, as_text, has_interest, parse_text, read_file

_WORTH = 2000  # files: with fewer of them a second process takes longer than it saves
_CHUNK = 500


def parse(name: str, data: bytes) -> CFile:
    """What is of interest in a file; one without resolutions has nothing but its notes."""
    text, notes = as_text(name, data)
    return parse_text(name, text, notes) if has_interest(data) else CFile(name, notes=notes)


def _parse_files(names: list[tuple[str, int]]) -> list[CFile]:
    """Files by their names and sizes, in another process."""
    found = []
    for name, size in names:
        data = read_file(name, size)
        found.append(CFile(name, notes=[data]) if isinstance(data, Note) else parse(name, data))
    return found


class Reader:
    """Reads files; keeps what it has parsed, so that a second audit with another overlay parses what differs.

    `overlay` is what files have instead of their contents: None for a file that is not there.  With `cache`, a file
    that had nothing of interest is not read again while its size and its time of change stay; `jobs` processes read.
    """

    def __init__(self, cache: Path | None = None, jobs: int = 1) -> None:
        self.overlay: Mapping[str, bytes | None] = {}
        self._jobs = jobs
        self._cache = cache
        self._parsed: dict[str, CFile] = {}
        self._idle: dict[str, list[int]] = {}  # size and time of files without interest
        if cache is not None:
            self._load(cache)

    def with_overlaid(self, names: list[str]) -> list[str]:
        """`names` and the C files that the overlay adds, without those that it takes away."""
        there = [n for n in names if self.overlay.get(n, b"") is not None]
        known = set(there)
        added = [n for n, d in self.overlay.items() if d is not None and n not in known and n.endswith(SUFFIXES)]
        return there + sorted(added)

    def read(self, names: Iterable[str]) -> Iterator[CFile]:
        """The files that are of interest or of which there is something to be said, in the order of `names`."""
        names = list(names)
        fresh: list[tuple[str, int]] = []
        stamps: dict[str, list[int]] = {}
        for name in names:
            if name in self.overlay or name in self._parsed:
                continue
            stamp = _stamp(name)
            stamps[name] = stamp
            if self._idle.get(name) != stamp:
                fresh.append((name, stamp[0]))
        for file in self._fresh(fresh):
            if file.resolutions or file.notes:
                self._parsed[file.name] = file
                self._idle.pop(file.name, None)
            else:
                self._idle[file.name] = stamps[file.name]
        if self._cache is not None and fresh:
            self._save(self._cache)
        for name in names:
            data = self.overlay.get(name)
            found = parse(name, data) if data is not None else self._parsed.get(name)
            if found is not None and (found.resolutions or found.notes):
                yield found

    def _fresh(self, names: list[tuple[str, int]]) -> Iterator[CFile]:
        if self._jobs < 2 or len(names) < _WORTH:
            yield from _parse_files(names)
            return
        chunks = [names[i : i + _CHUNK] for i in range(0, len(names), _CHUNK)]
        with ProcessPoolExecutor(self._jobs, multiprocessing.get_context("spawn")) as pool:
            for files in pool.map(_parse_files, chunks):
                yield from files

    def _load(self, cache: Path) -> None:
        """A cache that cannot be read, or that was made for other words, is none."""
        try:
            data = json.loads(cache.read_bytes())
            if data["words"] == _words():
                self._idle = data["idle"]
        except (OSError, ValueError, KeyError, TypeError):
            return

    def _save(self, cache: Path) -> None:
        part = cache.with_suffix(f".{os.getpid()}")
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"words": _words(), "idle": self._idle}))
            part.replace(cache)
        except OSError:
            part.unlink(missing_ok=True)  # an audit without a cache is slower, and nothing else


def _words() -> list[str]:
    """What decides whether a file is of interest."""
    return [*QUICK, INTEREST.pattern, NEARBY.pattern]


def _stamp(name: str) -> list[int]:
    try:
        st = os.stat(name)
    except OSError:
        return [0, -1]
    return [st.st_size, st.st_mtime_ns]
