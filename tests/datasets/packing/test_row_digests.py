"""Digests of rows: equal for equal rows wherever they lie, others for every change in them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.packing.media_reader import MediaReader
from smolvlm.datasets.packing.row_digests import (
    NO_MEDIA,
    content_digest,
    media_sizes_and_times,
    media_state,
)
from smolvlm.media.medium import medium_key
from smolvlm.records import Block, Conversation, ImageRef, Turn, VideoRef

ROOT = Path("/some/root")


def conversation(*blocks: Block, answer: str = "An answer.", weight: float = 1.0) -> Conversation:
    turns = (
        Turn(role="user", blocks=blocks),
        Turn(role="assistant", blocks=(answer,), weight=weight),
    )
    return Conversation(turns=turns, where="rows.jsonl:1", source="rows")


ROW = conversation(ImageRef(path=ROOT / "a.png"), "What is it?")
CHANGES = {
    "answer": conversation(*ROW.turns[0].blocks, answer="Another."),
    "question": conversation(ROW.turns[0].blocks[0], "What is it"),
    "weight": conversation(*ROW.turns[0].blocks, weight=0.5),
    "role": replace(ROW, turns=(replace(ROW.turns[0], role="system"), ROW.turns[1])),
    "order of blocks": conversation(*reversed(ROW.turns[0].blocks)),
    "picture": conversation(ImageRef(path=ROOT / "b.png"), "What is it?"),
    "picture of the same name": conversation(ImageRef(path=ROOT / "b" / "a.png"), "What is it?"),
    "place in a shard": conversation(ImageRef(path=ROOT / "a.png", span=(0, 9)), "What is it?"),
    "address": conversation(ImageRef(path=ROOT / "a.png", url="http://a"), "What is it?"),
    "bytes of the row": conversation(ImageRef(data=b"a"), "What is it?"),
    "other bytes of the row": conversation(ImageRef(data=b"b"), "What is it?"),
    "a clip": conversation(VideoRef(path=ROOT / "a.png"), "What is it?"),
    "its end": conversation(VideoRef(path=ROOT / "a.png", end_s=2.0), "What is it?"),
    "its rate": conversation(VideoRef(path=ROOT / "a.png", source_fps=2.0), "What is it?"),
    "frames": conversation(VideoRef(frames=(ImageRef(path=ROOT / "a.png"),)), "What is it?"),
    "rejected": replace(ROW, rejected=conversation(*ROW.turns[0].blocks, answer="No.").turns),
    "text that looks like a picture": conversation(f"image file {ROOT}/a.png", "What is it?"),
}


def test_every_change_gives_another_digest() -> None:
    rows = {"as it was": ROW, **CHANGES}
    digests = {name: content_digest(row, ROOT) for name, row in rows.items()}
    assert len(set(digests.values())) == len(rows), digests


def test_what_learns_nothing_from_a_change_keeps_its_digest() -> None:
    """Where a row lies and what it is called are no part of what is learned."""
    moved = replace(ROW, where="elsewhere.jsonl:7", source="other", unread_keys=("id",))
    assert content_digest(moved, ROOT) == content_digest(ROW, ROOT)


@pytest.mark.parametrize("name", ["a.png", "deep/er/a.png", "../beside/a.png"])
def test_rows_that_are_moved_with_their_media_keep_their_digests(name: str) -> None:
    digests = {
        content_digest(conversation(ImageRef(path=Path(os.path.normpath(root / name)))), root)
        for root in (ROOT, Path("/another/place/root"))
    }
    assert len(digests) == 1


TEXTS = st.lists(st.text(alphabet="ab\0 1", max_size=4), min_size=1, max_size=4)


@given(one=TEXTS, other=TEXTS)
def test_texts_that_are_cut_otherwise_are_other_texts(one: list[str], other: list[str]) -> None:
    is_same = content_digest(conversation(*one), None) == content_digest(conversation(*other), None)
    assert is_same == (one == other)


def test_a_text_that_is_no_unicode_has_a_digest() -> None:
    assert content_digest(conversation("\ud800"), None) != content_digest(conversation("?"), None)


def test_files_are_told_by_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"some bytes")
    os.utime(path, ns=(1, 10**9))
    media = (ImageRef(path=path),)
    sizes, times = media_sizes_and_times(media)
    os.utime(path, ns=(1, 2 * 10**9))
    assert media_sizes_and_times(media)[0] == sizes
    assert media_sizes_and_times(media)[1] != times
    path.write_bytes(b"some bytes more")
    assert media_sizes_and_times(media)[0] != sizes


def test_what_was_fetched_has_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"some bytes")
    media = (ImageRef(path=path, url="http://example.org/a.png"),)
    before = media_sizes_and_times(media)
    os.utime(path, ns=(1, 1))
    assert media_sizes_and_times(media) == before


def test_two_files_that_changed_places_are_seen(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * (number + 1))
    media = tuple(ImageRef(path=path) for path in paths)
    before = media_sizes_and_times(media)[0]
    for number, path in enumerate(reversed(paths)):
        path.write_bytes(b"x" * (number + 1))
    assert media_sizes_and_times(media)[0] != before


def test_frames_of_a_folder_are_files_each(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"frame")
    clip = VideoRef(path=tmp_path)
    before = media_sizes_and_times((clip,))[0], media_state(0, (clip,), medium_key)
    (tmp_path / "1.png").write_bytes(b"Frame")
    after = media_sizes_and_times((clip,))[0], media_state(0, (clip,), medium_key)
    assert before[0] == after[0]
    assert before[1] is not None
    assert after[1] is not None
    assert before[1].read != after[1].read


def test_a_row_whose_media_lie_in_it_names_no_file() -> None:
    media = (ImageRef(data=b"x"), VideoRef(frames=(ImageRef(data=b"y"),)))
    assert media_sizes_and_times(media) == (NO_MEDIA, NO_MEDIA)
    assert media_state(0, media, medium_key) is None


def test_the_reader_reads_what_a_row_names_and_names_the_row_that_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    rows = [
        conversation(ImageRef(path=tmp_path / "a.png")),
        conversation("no picture"),
        conversation(ImageRef(path=tmp_path / "lost.png")),
    ]
    reader = MediaReader(rows)
    assert [state.row for state in reader([0, 1])] == [0]
    with pytest.raises(Exception, match=r"rows.jsonl:1: picture .*lost.png does not exist"):
        reader([2])
