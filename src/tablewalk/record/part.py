# SPDX-License-Identifier: GPL-2.0-only
"""FILE.part, the directory in which a recording is gathered before it becomes FILE.

perf.data       as perf writes it
meta.json       Meta: command and host; `complete` is false until the recording has ended well
formats.json    tracepoint formats by system:event, for a perf.data whose perf was killed
samples         of the sampler
exact.samples   of the recorded program itself ($TABLEWALK_SAMPLES)
strace          of strace, where perf may not trace system calls (record/strace.py)
start.tw        the start state of a process that ran already, as a recording
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tablewalk.errors import TablewalkError
from tablewalk.record.attach import State
from tablewalk.record.convert import convert
from tablewalk.record.perf_data import PerfData
from tablewalk.record.perf_header import parse_format
from tablewalk.record.recording import Meta, Recording, Writer
from tablewalk.record.rows import Kind, Rows, by_time
from tablewalk.record.samples import read_samples
from tablewalk.record.strace import WithStrace


def format_file(tracefs: Path, event: str) -> Path:
    """Where the format of a tracepoint (system:event) stands."""
    return tracefs / "events" / event.replace(":", "/") / "format"


class Part:
    """The directory beside the recording `output`, or one that is there already (`Part.at`)."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".part")
        self.perf_data = self.path / "perf.data"
        self.samples = self.path / "samples"
        self.exact_samples = self.path / "exact.samples"
        self._meta = self.path / "meta.json"
        self.strace = self.path / "strace"
        self._formats = self.path / "formats.json"
        self._start = self.path / "start.tw"

    @classmethod
    def at(cls, path: Path) -> Part:
        """The part at this path, which ends in .part."""
        path = Path(os.path.abspath(path))
        if path.suffix != ".part" or not (path / "meta.json").exists():
            raise TablewalkError(f"{path}: no directory that a recording left (FILE.part)")
        return cls(path.with_name(path.name.removesuffix(".part")))

    def create(self) -> None:
        """Make the directory. Raises TablewalkError where one is left of an earlier recording."""
        try:
            self.path.mkdir()
        except FileExistsError:
            raise TablewalkError(
                f"{self.path}: there is a recording that was cut short, or still runs; run"
                f" tablewalk import {self.path}, or remove it"
            ) from None
        except OSError as e:
            raise TablewalkError(f"{self.path}: cannot be made: {e.strerror}") from None

    def write_meta(self, meta: Meta) -> None:
        """Note what is known of the recording so far."""
        fresh = self._meta.with_suffix(".new")
        fresh.write_text(meta.to_json())
        fresh.replace(self._meta)

    def write_formats(self, tracefs: Path, events: list[str]) -> None:
        """Keep the formats of these tracepoints (system:event)."""
        texts = {e: format_file(tracefs, e).read_text() for e in events}
        self._formats.write_text(json.dumps(texts))

    def write_start(self, state: State) -> None:
        """Keep the start state of a process that ran already."""
        with Writer(self._start) as out:
            out.add(state.rows)
            out.finish(Meta(attach=state.attach))

    def convert(self, output: Path, progress: Callable[[int], None] = lambda _: None) -> tuple[Meta, dict[Kind, int]]:
        """Make the recording `output` of what was gathered; returns its Meta and its rows by kind.

        Raises TablewalkError; what was gathered stays.
        """
        try:
            meta = Meta.from_json(self._meta.read_bytes())
            texts = json.loads(self._formats.read_text())
            formats = [parse_format(event.partition(":")[0], text) for event, text in texts.items()]
        except OSError as e:
            raise TablewalkError(f"{e.filename}: {e.strerror}") from None
        except (ValueError, AttributeError, TypeError, TablewalkError) as e:
            raise TablewalkError(f"{self.path}: its meta.json or formats.json is damaged: {e}") from None
        perf = PerfData(self.perf_data, {f.id: f for f in formats})
        source = WithStrace(perf, self.strace) if self.strace.exists() else perf
        samples = [Rows.zeros(0, source.names)]
        for path, exact in ((self.samples, False), (self.exact_samples, True)):
            if path.exists():
                samples.append(read_samples(path, source.names, exact=exact, whole=False))
        start = None
        if self._start.exists():
            recorded = Recording.open(self._start)
            meta.attach = recorded.meta.attach
            start = Rows.concat([rows.renamed(source.names) for rows in recorded.batches()])
        return meta, convert(source, by_time(samples), output, meta, progress, start)

    @property
    def gathered(self) -> int:
        """Bytes that perf has written."""
        return self.perf_data.stat().st_size if self.perf_data.exists() else 0

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
