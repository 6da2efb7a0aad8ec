"""A shard's media in the order that its rows give, members of two rows in one, and litter."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers.tar import is_litter
from smolvlm.datasets.rows.readers.tar_media import MediaMember, with_media
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError
from smolvlm.records import ImageRef
from tests.datasets.rows.readers.test_tar import asks, write_shard

LEFT, RIGHT = b"left", b"rightright"


def row_of(folder: Path, members: list[tuple[str, bytes]], **entry: Any) -> dict[str, Any]:
    write_shard(folder / "s.tar", members)
    (spec,) = load_mixture([{"path": "s.tar", **entry}], base_dir=folder)
    row = open_table(spec)[0]
    assert isinstance(row, dict)
    return row


def contents(media: list[ImageRef]) -> list[bytes]:
    found = []
    for own in media:
        assert own.path is not None
        assert own.span is not None
        offset, size = own.span
        found.append(own.path.read_bytes()[offset : offset + size])
    return found


PAIR = [("d/a.right.png", RIGHT), ("d/a.left.png", LEFT)]


@pytest.mark.parametrize(
    "names",
    [
        ["d/a.left.png", "./d/a.right.png"],
        ["a.left.png", "pictures/a.right.png"],
        ["left.png", ".right.png"],
        [{"path": "a.left.png", "bytes": None}, {"path": "a.right.png", "bytes": None}],
    ],
)
def test_the_rows_own_list_is_the_order(tmp_path: Path, names: list[Any]) -> None:
    row = row_of(tmp_path, [("d/a.json", asks("?", images=names)), *PAIR])
    assert contents(row["images"]) == [LEFT, RIGHT]
    assert "image" not in row


def test_a_column_of_another_name_is_the_list(tmp_path: Path) -> None:
    members = [("d/a.json", asks("?", shots=["left.png", "right.png"])), *PAIR]
    row = row_of(tmp_path, members, columns={"images": "shots"})
    assert contents(row["shots"]) == [LEFT, RIGHT]
    assert "images" not in row


def test_without_a_list_the_shards_order_counts(tmp_path: Path) -> None:
    for empty in ({}, {"images": []}, {"image": None}):
        row = row_of(tmp_path, [("d/a.json", asks("?", **empty)), *PAIR])
        assert contents(row["images"]) == [RIGHT, LEFT]


def test_blocks_of_messages_name_members(tmp_path: Path) -> None:
    content = [
        {"type": "image", "image": "left.png"},
        {"type": "text", "text": "and"},
        {"type": "image", "path": "a.right.png"},
    ]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]
    row = row_of(tmp_path, [("d/a.json", json.dumps({"messages": messages}).encode()), *PAIR])
    blocks = row["messages"][0]["content"]
    assert contents([blocks[0]["image"], blocks[2]["path"]]) == [LEFT, RIGHT]
    assert not {"image", "images"} & row.keys()


def test_frames_of_a_clip_are_members(tmp_path: Path) -> None:
    row = row_of(tmp_path, [("d/a.json", asks("?", video=["left.png", "right.png"])), *PAIR])
    assert contents(row["video"]) == [LEFT, RIGHT]
    assert not {"image", "images"} & row.keys()


def test_a_name_may_be_a_file_of_the_media_root(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "logo.png").write_bytes(b"logo")
    names = ["logo.png", "left.png", "right.png"]
    members = [("d/a.json", asks("?", images=names)), *PAIR]
    row = row_of(tmp_path, members, json_path="s.tar", path="m")
    assert row["images"][0] == "logo.png"
    assert contents(row["images"][1:]) == [LEFT, RIGHT]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["left.png", "gone.png"], r"lists `gone\.png`, which is no member .*`d/a\.right\.png`"),
        (["left.png"], r"lists media, but not `d/a\.right\.png`\n  fix: list it too"),
    ],
)
def test_a_name_without_a_member_and_a_member_without_a_name(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        row_of(tmp_path, [("d/a.json", asks("?", images=names)), *PAIR])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            [("22.05.json", asks("a")), ("22.06.json", asks("b"))],
            r"two \.json members, `22\.05\.json` and `22\.06\.json`\n  fix: .*first dot",
        ),
        (
            [("1.question", b"a"), ("1.Question", b"b")],
            r"two members give `question`, `1\.question` and `1\.Question`",
        ),
        (
            [("1.json", asks("a")), ("1.question", b"b")],
            r"two members give `question`, `1\.json` and `1\.question`",
        ),
        ([("1.question", b"a"), ("1.png", b"x"), ("1.png", b"y")], r"two members of one name"),
    ],
)
def test_two_rows_in_one_are_named(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        row_of(tmp_path, members)


@pytest.mark.parametrize(
    ("name", "litter"),
    [
        *((name, True) for name in ("._1.png", "a/._1.json", "__MACOSX/a/1.png", "a/.DS_Store")),
        *((name, True) for name in ("Thumbs.db", "a/desktop.ini", "PaxHeaders.12/1.png")),
        *((name, True) for name in ("a/.ipynb_checkpoints/1.png", "__meta__/1.json")),
        *((name, False) for name in ("./1.png", "../1.png", "a.b/1.png", "_1.png", "thumbs.png")),
    ],
)
def test_what_systems_add_is_no_row(name: str, litter: bool) -> None:
    assert is_litter(name) == litter


def test_litter_between_members_parts_no_row(tmp_path: Path) -> None:
    members = [("._1.json", b"\0"), ("1.json", asks("a")), ("._1.png", b"\0"), ("1.png", LEFT)]
    row = row_of(tmp_path, members)
    assert contents([row["image"]]) == [LEFT]


@settings(deadline=None)
@given(order=st.permutations(range(6)), shard=st.permutations(range(6)))
def test_any_list_is_followed_whatever_the_shards_order(order: list[int], shard: list[int]) -> None:
    members = [
        MediaMember(name=f"k.{n}.png", ending=f"{n}.png", ref=ImageRef(path=Path("s"), span=(n, 1)))
        for n in shard
    ]
    names = [f"{n}.png" for n in order]
    row = with_media({"images": names}, members, media_root=Path("no/folder"), columns={})
    assert [own.span[0] for own in row["images"]] == order
