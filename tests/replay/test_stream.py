# SPDX-License-Identifier: GPL-2.0-only
"""Events find their calls, across row groups too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.record import recording
from tablewalk.record.recording import Recording
from tablewalk.record.rows import Kind, Row
from tablewalk.replay.stream import Event, How, chunks

from .story import ANON, TABLE, Story


def events(story: Story, path: Path) -> list[Event]:
    return [e for chunk in chunks(Recording.open(story.write(path / "story.tw"))) for e in chunk.events]


@pytest.mark.parametrize("group", [1, 2, 3, 100])
def test_a_mapping_behind_its_call_s_row(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(recording, "ROW_GROUP", group)
    story.mmap(ANON, TABLE, inside=[story.mapping(ANON, TABLE)])
    story.touch(ANON, 3)
    call, mapping = events(story, tmp_path)[-2:]
    assert call.inside == [mapping]
    assert mapping.call is call


def test_a_mapping_before_its_call_s_row(story: Story, tmp_path: Path) -> None:
    """Where mmap_lock was not recorded a call stands at its end."""
    row = story.row(Kind.MMAP, 0, (ANON, TABLE, 0, 3, 2, 0), name="//anon")
    story.rows.append(Row(Kind.SYSCALL, row.t + 20, row.t - 20, row.t + 20, 100, 100, 9, (0, TABLE), ANON))
    mapping, call = events(story, tmp_path)[-2:]
    assert (call.inside, mapping.call) == ([mapping], call)


def test_other_threads_and_other_times_don_t_match(story: Story, tmp_path: Path) -> None:
    story.mmap(ANON, TABLE)
    story.tid = 101
    story.row(Kind.MMAP, 0, (ANON, TABLE, 0, 3, 2, 0), name="//anon")
    story.tid = 100
    story.row(Kind.MMAP, 0, (ANON, TABLE, 0, 3, 2, 0), name="//anon")
    assert all(e.call is None and not e.inside for e in events(story, tmp_path))


def test_mappings_of_an_exec_are_in_no_call(story: Story, tmp_path: Path) -> None:
    found = events(story, tmp_path)
    assert [e.kind for e in found] == [Kind.COMM, Kind.MMAP, Kind.SYSCALL]
    assert not found[2].inside


def test_faults_come_between_their_events(story: Story, tmp_path: Path) -> None:
    story.touch(ANON, 2)
    story.munmap(ANON, TABLE)
    story.fault(ANON, write=False)
    story.fault(ANON, served=False)
    story.fault(ANON, served=False, user=False)
    story.row(Kind.FAULT, 0, (ANON, 0, 1))
    (chunk,) = chunks(Recording.open(story.write(tmp_path / "story.tw")))
    assert chunk.before == [0, 0, 0, 2]
    assert chunk.how == [How.WRITE, How.WRITE, How.READ, How.FAILED, How.FAILED_IN_KERNEL, How.UNKNOWN]
    assert [e.no for e in chunk.events] == [1, 2, 3, 6]
