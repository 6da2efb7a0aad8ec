"""The judge's parts: tags, damage, the readers that it compares with."""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzz import references
from fuzz.checked import Checker
from fuzz.damage import CHANGES, damaged
from fuzz.judge import ExpectedRow, judge_rows
from fuzz.row_changes import KEPT, changed_row, leaves
from fuzz.settings_files import Number, unseen
from fuzz.tags import PARTS, Tag, picture_bytes, tag_of_picture, tags_in

TAGS = st.builds(Tag, st.integers(0, 4095), st.sampled_from(PARTS), st.integers(0, 15))


@given(tags=st.lists(TAGS, max_size=4))
def test_tags_are_found_in_a_text(tags: list[Tag]) -> None:
    assert tags_in(" and ".join(f"it is {tag}." for tag in tags)) == tags


@given(tag=TAGS, at=st.integers(0, 13), character=st.sampled_from("0123456789abcdefzqx "))
def test_a_damaged_tag_is_none(tag: Tag, at: int, character: str) -> None:
    text = str(tag)
    assert tags_in(text[:at] + character + text[at + 1 :]) in ([], [tag])


@given(row=st.integers(0, 4095), place=st.integers(0, 15))
def test_a_picture_is_its_tag(row: int, place: int) -> None:
    tag = Tag(row, "image", place)
    assert tag_of_picture(Image.open(io.BytesIO(picture_bytes(tag)))) == tag


def test_a_picture_of_another_colour_has_no_tag() -> None:
    assert tag_of_picture(Image.new("RGB", (9, 7), (255, 255, 255))) is None
    red, green, blue = Tag(5, "image", 1).color
    assert tag_of_picture(Image.new("RGB", (9, 7), (red, green, blue ^ 1))) is None


@pytest.mark.parametrize("change", CHANGES)
def test_damage_is_the_generators_alone(change: object) -> None:
    data = bytes(range(256)) * 3
    made = [damaged(data, Random(seed)) for seed in range(50)]
    assert made == [damaged(data, Random(seed)) for seed in range(50)]
    assert sum(own != data for own in made) > 40
    assert callable(change)
    for size in (1, 2, 70):
        for seed in range(20):
            assert isinstance(change(data[:size], Random(seed)), bytes)


def test_what_keeps_a_rows_meaning_keeps_its_values() -> None:
    row = {"question": "a", "answer": "b", "images": ["c", "d"]}
    for seed in range(300):
        changed = changed_row(row, Random(seed))
        if changed.is_same:
            there = [value for _, value in leaves(changed.row) if value is not None]
            assert sorted(there) == ["a", "b", "c", "d"]
    assert len(KEPT) == 2


def test_json_is_read_row_by_row() -> None:
    lines = b'\xef\xbb\xbf{"a": 1}\n \n{"a": 1, "a": 2}\nx\n[{"b": {"a": 1, "a": 2}}]\r\n3'
    bad = references.UNREADABLE
    assert references.json_lines(lines) == [{"a": 1}, bad, bad, bad, 3]
    assert references.json_list(b'[{"a": 1}, {"a": 1, "a": 2}]') == [{"a": 1}, bad]
    assert references.json_list(b'{"a": 1}') is None
    assert references.json_list(b'[{"a": 1}') is None


def test_cells_that_are_empty_are_left_out() -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["a", " b "], ["1", ""], ["x\ny", "2"]])
    rows = references.separated_rows(file.getvalue().encode(), ",")
    assert rows == [{"a": "1"}, {"a": "x\ny", "b": "2"}]
    assert references.separated_rows(b"a,b\n1\n", ",") is None
    assert references.separated_rows(b"a,b\n\xff,2\n", ",") is None


def test_a_shard_is_read_as_long_as_its_headers_are_right() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for name in ("a.json", "b.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            shard.addfile(info, io.BytesIO(b"{}"))
    data = file.getvalue()
    members = references.tar_members(data)
    assert members is not None
    assert [(member.name, member.data) for member in members] == [
        ("a.json", b"{}"),
        ("b.json", b"{}"),
    ]
    for at in (3, 1024 + 3, 1024 + 130):
        changed = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        assert references.tar_members(changed) is None
    assert references.tar_members(data[:1536]) is None


def test_a_png_files_checksums_are_compared() -> None:
    data = picture_bytes(Tag(1, "image", 0))
    assert references.png_problem(data) is None
    for at in (0, 17, 30, 45):
        assert references.png_problem(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert references.png_problem(data[:-9]) == "cut short"


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker()


ROW = {"question": f"What of {Tag(1, 'user', 0)}?", "answer": f"It is {Tag(1, 'assistant', 0)}."}


def faults_of(
    checker: Checker, folder: Path, rows: Sequence[object], expected: Sequence[object]
) -> list[str]:
    (folder / "rows.json").write_text(json.dumps(rows))
    checked = checker({"json_path": "rows.json"}, folder)
    return list(judge_rows(checked, [ExpectedRow(value=value) for value in expected]))


def test_rows_that_are_right_have_no_fault(checker: Checker, tmp_path: Path) -> None:
    rows: list[object] = [ROW, {"id": 1}, ROW | {"id": str(Tag(1, "other", 0))}]
    assert faults_of(checker, tmp_path, rows, rows) == []


def test_what_the_reference_knows_better_is_a_fault(checker: Checker, tmp_path: Path) -> None:
    more = ROW | {"system": f"Say {Tag(1, 'system', 0)}."}
    other = json.loads(json.dumps(ROW).replace(str(Tag(1, "user", 0)), str(Tag(2, "user", 0))))
    for expected, fault in (
        ([more], "row 1's system 0 at `system` is lost without a word"),
        ([other], "row 1's user 0 is none of the row's own"),
        ([references.UNREADABLE], "a row is accepted that the reference cannot read"),
        ([ROW, ROW], "1 rows are read where the reference reads 2"),
    ):
        assert fault in faults_of(checker, tmp_path, [ROW], expected)


@pytest.mark.parametrize(
    ("value", "text", "setting", "is_in"),
    [
        (90, "1:30", "1:30", True),
        (90, "1:30", "/runs/1:30", True),
        (90, "1:30", 90, True),
        (90, "1:30", "90", False),
        (90, "90", "90", False),
        (1000, "1_000", "1_000", True),
        (15, "017", 17, False),
        (True, "yes", "/runs/yes", True),
        (True, "true", "true", False),
        (True, "true", 1, False),
        (1, "1", True, False),
        (10**30, "1" + "0" * 30, 1e30, True),
        (10**30, "1" + "0" * 30, 10**30 + 1, False),
        (10**400, "1" + "0" * 400, float("inf"), False),
        (2**53 + 1, str(2**53 + 1), 2**53, False),
        (2.0, "2.0", 2, True),
        (float("nan"), ".nan", float("nan"), True),
        (0.5, ".5", 0.25, False),
    ],
)
def test_a_number_is_in_a_setting(value: float, text: str, setting: object, is_in: bool) -> None:
    assert Number(value, text).is_in(setting) == is_in


def test_a_number_that_no_setting_holds_is_a_fault() -> None:
    settings = {"train": {"method": "sft", "seed": 3}, "data": {"fps": 1.0}}
    assert list(unseen({"train": {"seed": Number(3, "3")}}, settings)) == []
    for train, name in (({"seed": Number(4, "4")}, "seed"), ({"sead": Number(3, "3")}, "sead")):
        (fault,) = unseen({"train": train}, settings)
        assert f"train.{name}" in fault
    # Defaults of another method are passed over by design; its other values are not.
    assert list(unseen({"train": {"beta": Number(0.1, "0.1")}}, settings)) == []
    assert list(unseen({"train": {"beta": Number(0.2, "0.2")}}, settings))
    assert list(unseen({"data": {"beta": Number(0.1, "0.1")}}, settings))
    settings["train"] = {"method": "dpo", "beta": 0.2}
    assert list(unseen({"train": {"beta": Number(0.1, "0.1")}}, settings))
