"""WebDataset shards: rows out of members, pictures read where they lie, and shards that are
broken."""

import contextlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers.tar import read_tar_row, tar_index
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError
from smolvlm.media.images import open_rgb


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(300))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(300))
    return buffer.getvalue()


def asks(question: str, answer: str = "yes", **more: Any) -> bytes:
    return json.dumps({"question": question, "answer": answer, **more}).encode()


@pytest.fixture
def shards(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """Two shards of three rows: one picture, two pictures, a question written as text members."""
    coffee, rocket = (photos[name].read_bytes() for name in ("coffee", "rocket"))
    write_shard(
        tmp_path / "s-0.tar",
        [
            ("a/1.png", coffee),
            ("a/1.json", asks("one?", image="1.png")),
            ("a/2.left.png", coffee),
            ("a/2.json", asks("2?")),
            ("a/2.right.jpg", rocket),
        ],
    )
    write_shard(
        tmp_path / "s-1.tar", [("b.question", b"three?"), ("b.answer", b"no"), ("b.jpg", rocket)]
    )
    return tmp_path


def test_members_of_one_name_are_a_row(shards: Path, photos: dict[str, Path]) -> None:
    (source,) = open_sources(load_mixture([{"path": "s-*.tar", "name": "shards"}], base_dir=shards))
    rows = list(source.all_rows())
    assert [row.where for row in rows] == ["s-0.tar:1", "s-0.tar:2", "s-1.tar:1"]
    assert [row.turns[0].blocks[-1] for row in rows] == ["one?", "2?", "three?"]
    assert [row.turns[1].blocks for row in rows] == [("yes",), ("yes",), ("no",)]
    names = [["coffee"], ["coffee", "rocket"], ["rocket"]]
    for row, own in zip(rows, names, strict=True):
        for image, name in zip(row.media, own, strict=True):
            assert open_rgb(image).tobytes() == open_rgb(photos[name].read_bytes()).tobytes()
    assert "s-0.tar, bytes " in rows[0].media[0].name


def test_a_shard_that_is_cut_short_or_no_tar_is_refused(shards: Path) -> None:
    whole = (shards / "s-0.tar").read_bytes()
    (shards / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (shards / "text.tar").write_text("not a tar file")
    for name in ("cut.tar", "text.tar"):
        (spec,) = load_mixture([{"path": name}], base_dir=shards)
        with pytest.raises(SampleError, match=rf"{name}: (not a tar file|the shard is cut short)"):
            open_table(spec)


@pytest.fixture
def two_rows(tmp_path: Path) -> Path:
    members = [
        ("1.json", asks("a?")),
        ("1.jpg", b"x" * 700),
        ("2.json", asks("b?")),
        ("2.jpg", b"y" * 1300),
    ]
    return write_shard(tmp_path / "whole.tar", members)


def test_a_shard_is_whole_or_refused_wherever_it_is_cut(two_rows: Path, tmp_path: Path) -> None:
    """Also inside its last member, at the end of a member and within a header, where tarfile sees
    the end."""
    whole = two_rows.read_bytes()
    with tarfile.open(two_rows) as shard:
        last = shard.getmembers()[-1]
    end = last.offset_data + 3 * tarfile.BLOCKSIZE
    for size in [
        *range(0, end + tarfile.BLOCKSIZE, 128),
        last.offset_data + last.size - 1,
        end - 1,
        end + 511,
    ]:
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(SampleError, match=r"cut\.tar: .*cut short"):
            list(tar_index(tmp_path / "cut.tar", label="cut.tar"))
    for size in (end + tarfile.BLOCKSIZE, end + 2 * tarfile.BLOCKSIZE, len(whole)):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        assert len(list(tar_index(tmp_path / "cut.tar", label="cut.tar"))) == 2


def test_a_damaged_header_does_not_pass_for_the_end(two_rows: Path) -> None:
    with tarfile.open(two_rows) as shard:
        third = shard.getmembers()[2].offset
    data = bytearray(two_rows.read_bytes())
    data[third + 5] ^= 0xFF
    two_rows.write_bytes(data)
    with pytest.raises(
        SampleError, match=f"damaged at byte {third:,}: no member and no end mark there"
    ):
        list(tar_index(two_rows, label="whole.tar"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.json", b"{")], r"member \.json cannot be read"),
        ([("1.json", b"[1]")], r"member \.json is no JSON object"),
        (
            [("1.txt", b"\xff\xfe")],
            r"member `1\.txt` is no UTF-8 text(.|\n)*`not_read: \[txt\]`.*text as UTF-8",
        ),
        ([("1.json", asks("a?")), ("1.npy", npy())], r"`1\.npy` is a NumPy array.*\n.*\[npy\]"),
        ([("1.json", asks("a?")), ("1.npz", npz())], r"`1\.npz` is a zip archive.*\n.*\[npz\]"),
        ([("1.json", asks("a?")), ("1.bin", b"a\0b")], r"`1\.bin` is binary data"),
        ([("1.json", asks("a?")), ("1.a.wav", b"RIFF\0\0\0\0WAVE")], r"sound.*\n.*\[a\.wav\]"),
        ([("images/1.jpg", b"x")], r"row `images/1` has media and no text\n  fix: .*`NAME\.json`"),
    ],
)
def test_a_member_that_cannot_be_read_is_its_rows_error(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    write_shard(tmp_path / "x.tar", members)
    (spec,) = load_mixture([{"path": "x.tar"}], base_dir=tmp_path)
    table = open_table(spec)
    with pytest.raises(SampleError, match=message):
        table[0]


@pytest.mark.parametrize("ending", ["npy", "depth.npy"])
def test_members_that_are_not_read_on_purpose_are_left_alone(tmp_path: Path, ending: str) -> None:
    write_shard(tmp_path / "x.tar", [("1.json", asks("a?")), ("1.depth.npy", npy())])
    (source,) = open_sources(
        load_mixture([{"path": "x.tar", "not_read": [ending]}], base_dir=tmp_path)
    )
    (row,) = source.all_rows()
    assert row.turns[0].blocks == ("a?",)


def test_members_of_a_row_that_lie_apart_are_refused(tmp_path: Path) -> None:
    by_ending = [
        ("a/1.jpg", b"x"),
        ("a/2.jpg", b"y"),
        ("a/1.json", asks("1")),
        ("a/2.json", asks("2")),
    ]
    write_shard(tmp_path / "x.tar", by_ending)
    (spec,) = load_mixture([{"path": "x.tar"}], base_dir=tmp_path)
    text = (
        r"^x\.tar: the members of row `a/1` do not lie together: \.jpg at row 1, \.json at row 3\n"
        r"  fix: write the shard in the order of its names: tar --sort=name -cf NEW\.tar FOLDER$"
    )
    with pytest.raises(SampleError, match=text):
        open_table(spec)
    write_shard(tmp_path / "x.tar", sorted(by_ending))
    assert len(open_table(spec)) == 2


def test_the_advice_for_members_that_lie_apart_is_right(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.json").write_bytes(asks(str(number)))
        (folder / f"{number}.question2").write_text("more")
    command = ["tar", "--sort=name", "-cf", str(tmp_path / "x.tar"), "-C", str(tmp_path), "rows"]
    subprocess.run(command, check=True)
    (spec,) = load_mixture([{"path": "x.tar"}], base_dir=tmp_path)
    assert len(open_table(spec)) == 12


def test_joined_shards_may_hold_rows_of_one_name(tmp_path: Path) -> None:
    rows = [("1.json", asks("a")), ("1.jpg", b"x"), ("2.json", asks("b")), ("2.jpg", b"y")]
    write_shard(tmp_path / "x.tar", [*rows, *rows[::-1]])
    (spec,) = load_mixture([{"path": "x.tar"}], base_dir=tmp_path)
    assert len(open_table(spec)) == 3, "the two rows 2 are one by the rule of the shard"


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_shard_does_more_than_a_sample_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    whole = bytearray(
        write_shard(folder / "w.tar", [("1.json", asks("q")), ("1.jpg", b"x" * 600)]).read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, 1535))] = data.draw(st.integers(0, 255))
    path = folder / "f.tar"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(SampleError):
        list(tar_index(path, label="f.tar"))


HEADERS = [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_takes_all_memory_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        header = tarfile.TarInfo("header")
        header.type, header.size = kind, 3 << 30
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(512 + header.size)  # takes no room on the disk
        file.seek(0, 2)
        file.write(bytes(1024))
    with pytest.raises(SampleError, match=r"a header of 3,221,225,472 bytes"):
        list(tar_index(path, label="a.tar"))


@pytest.mark.parametrize("endings", [["txt"], ["json"], ["a.txt", "b.txt"]])
def test_text_above_a_rows_limit_is_a_bad_row(tmp_path: Path, endings: list[str]) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as shard:
        for ending in endings:
            text = json.dumps({"a": "x" * (1500 // len(endings))}).encode()
            member = tarfile.TarInfo(f"0.{ending}")
            member.size = len(text)
            shard.addfile(member, io.BytesIO(text))
    ((_, text),) = tar_index(path, label="a.tar")
    assert read_tar_row(path, json.loads(text))[0]
    with pytest.raises(SampleError, match=r"data\.max_row_bytes = 1,000") as raised:
        read_tar_row(path, json.loads(text), max_text_bytes=1000)
    assert raised.value.kind == "too_large_row"


def write_entries(path: Path, entries: list[tuple[str, bytes, bytes]]) -> Path:
    """Write (name, type, data) into a shard; links lead to `store/a.png`."""
    with tarfile.open(path, "w") as shard:
        for name, kind, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            info.linkname = "store/a.png" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
            shard.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("ending", ["png", "json", "answer", "mp4"])
@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"M", b"9"]
)
def test_a_member_that_is_no_plain_file_is_its_rows_error(
    tmp_path: Path, kind: bytes, ending: str
) -> None:
    plain = tarfile.REGTYPE
    write_entries(
        tmp_path / "x.tar",
        [
            ("1.json", plain, asks("one?")),
            (f"2.{ending}", kind, b""),
            ("2.question", plain, b"two?"),
            ("3.json", plain, asks("three?")),
        ],
    )
    (spec,) = load_mixture([{"path": "x.tar"}], base_dir=tmp_path)
    table = open_table(spec)
    assert len(table) == 3
    with pytest.raises(SampleError, match=rf"member `2\.{ending}` is no plain file"):
        table[1]
    assert [table[row] for row in (0, 2)] == [
        {"question": question, "answer": "yes"} for question in ("one?", "three?")
    ]


def test_folders_and_labels_of_an_archive_belong_to_no_row(tmp_path: Path) -> None:
    entries = [
        ("label", b"V", b""),
        ("a", tarfile.DIRTYPE, b""),
        ("._1.png", tarfile.SYMTYPE, b""),
        ("a/1.json", tarfile.REGTYPE, asks("one?")),
    ]
    write_entries(tmp_path / "x.tar", entries)
    (spec,) = load_mixture([{"path": "x.tar"}], base_dir=tmp_path)
    table = open_table(spec)
    assert [table[row] for row in range(len(table))] == [{"question": "one?", "answer": "yes"}]


def test_links_may_be_left_out_on_purpose_and_the_advice_for_them_is_right(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "1.json").write_bytes(asks("one?"))
    (folder / "1.txt").write_text("seen")
    (folder / "2.json").write_bytes(asks("two?"))
    (folder / "2.txt").hardlink_to(folder / "1.txt")
    (folder / "3.json").write_bytes(asks("three?"))
    (folder / "3.txt").symlink_to("1.txt")

    def texts(*options: str, **more: Any) -> list[Any]:
        command = [
            "tar",
            "--sort=name",
            *options,
            "-cf",
            str(tmp_path / "x.tar"),
            "-C",
            str(folder),
        ]
        subprocess.run([*command, "."], check=True)
        (spec,) = load_mixture([{"path": "x.tar", **more}], base_dir=tmp_path)
        table = open_table(spec)
        rows = [table[row] for row in range(len(table))]
        return [row.get("txt") for row in rows if isinstance(row, dict)]

    with pytest.raises(SampleError, match=r"tar -h --hard-dereference|no plain file"):
        texts()
    assert texts("-h", "--hard-dereference") == ["seen"] * 3
    assert texts(not_read=["txt"]) == [None] * 3


@pytest.mark.parametrize("padding", [0, 512, 1 << 20, 3 << 20])
def test_shards_that_cat_joined_are_refused_wherever_the_second_begins(
    tmp_path: Path, padding: int
) -> None:
    one = write_shard(tmp_path / "1.tar", [("1.json", asks("one?"))]).read_bytes()
    two = write_shard(tmp_path / "2.tar", [("2.json", asks("two?"))]).read_bytes()
    path = tmp_path / "x.tar"
    path.write_bytes(one + bytes(padding))
    assert [number for number, _ in tar_index(path, label="x.tar")] == [1]
    path.write_bytes(one + bytes(padding) + two)
    with pytest.raises(SampleError, match="more data behind the shard's end mark"):
        list(tar_index(path, label="x.tar"))


def test_the_advice_for_joining_shards_is_right(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "1.tar", [("1.json", asks("one?"))])
    write_shard(tmp_path / "2.tar", [("2.json", asks("two?"))])
    subprocess.run(["tar", "--concatenate", "-f", "1.tar", "2.tar"], check=True, cwd=tmp_path)
    assert [number for number, _ in tar_index(path, label="1.tar")] == [1, 2]
