"""One source of a mixture: what every key means, and what a source cannot be."""

import re
from pathlib import Path

import pytest

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.sources import parse_sampling
from smolvlm.errors import ConfigError


def test_every_key_takes_effect(folder: Path) -> None:
    entry = {
        "json_path": "b.jsonl",
        "path": "pictures",
        "name": "charts",
        "modality": "image",
        "sampling_strategy": "random:5",
        "repeat": 3,
        "columns": {"question": ["hint", "query"], "images": ["left", "right"], "answer": "label"},
        "not_read": ["id", "choices"],
        "seed": 7,
        "on_bad_sample": "skip",
    }
    (source,) = load_mixture([entry], base_dir=folder)
    assert (source.name, source.format, source.media_root) == (
        "charts",
        "jsonl",
        folder / "pictures",
    )
    assert (source.modality, source.sampling, source.repeat) == (
        "image",
        parse_sampling("random:5"),
        3,
    )
    assert (dict(source.columns), source.seed, source.on_bad_sample) == (
        {"question": ("hint", "query"), "images": ("left", "right"), "answer": "label"},
        7,
        "skip",
    )
    assert source.not_read == {"id", "choices"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"columns": {"answer": ["a", "b"]}}, "`answer` is read from one column; several may be"),
        ({"columns": {"images": []}}, "`images` must name a column of the file's"),
        ({"columns": {"images": ["a", 3]}}, "`images` must name a column of the file's"),
        ({"columns": {"images": 3}}, "`images` must name a column of the file's"),
        ({"columns": ["images"]}, "must map our column names to the file's"),
        ({"not_read": "id"}, "must be a list of keys; write `not_read: [hint, choices]`"),
        ({"not_read": {"id": 1}}, "must be a list of keys"),
    ],
)
def test_columns_and_keys_left_alone_are_checked(
    folder: Path, entry: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_mixture([{"json_path": "b.jsonl", **entry}], base_dir=folder)


def test_path_names_the_rows_where_json_path_is_missing(folder: Path) -> None:
    (source,) = load_mixture([{"path": "c.parquet"}], base_dir=folder)
    assert (source.path, source.format, source.media_root) == (
        folder / "c.parquet",
        "parquet",
        folder,
    )


def test_an_empty_media_root_is_the_rows_folder(folder: Path) -> None:
    (source,) = load_mixture([{"json_path": "sub/a.json", "path": ""}], base_dir=folder)
    assert source.media_root == folder / "sub"


def test_keys_of_published_mixtures_are_ignored(folder: Path) -> None:
    entry = {
        "json_path": "a.json",
        "source": "x",
        "category": "y",
        "quality": 1,
        "duration": "s",
        "_comment": "z",
    }
    assert load_mixture([entry], base_dir=folder) == load_mixture(
        [{"json_path": "a.json"}], base_dir=folder
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"json_path": "a.json", "split": "train"},
            "splits belong to Hugging Face data sets; name the split's own file",
        ),
        (
            {"json_path": "a.json", "weight": 2, "repeat": 2},
            "with `repeat` besides; keep one of the two",
        ),
        ({"json_path": "a.json", "weight": 0}, "must be a number above 0"),
        ({"json_path": "a.json", "source_fps": 0}, "must be a number above 0"),
        ({"json_path": "a.json", "source_fps": "2"}, "must be a number above 0"),
        (
            {"path": "sub"},
            "a folder that `save_to_disk` did not write; name its files: `sub/*.parquet`",
        ),
        ({"path": "shard-{00..10}.tar"}, "no such file"),
        (
            {"path": "*.md"},
            "the ending '.md' is no known format of rows; rows are read from a JSON list",
        ),
        ({"path": "?.*"}, "names files of several formats"),
        ({"path": "a{b.json"}, "no pattern of files"),
    ],
)
def test_what_a_source_cannot_be_is_said(folder: Path, entry: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mixture([entry], base_dir=folder)
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)


def test_a_pattern_names_several_files_in_order(folder: Path) -> None:
    for number in (10, 9, 11):
        (folder / f"part-{number:02d}.jsonl").write_text("{}")
    names = ["part-09.jsonl", "part-10.jsonl", "part-11.jsonl"]
    for pattern in ("part-*.jsonl", "part-{09..11}.jsonl", "part-{09,10,11}.jsonl"):
        (source,) = load_mixture([{"path": pattern, "name": "parts"}], base_dir=folder)
        assert [file.name for file in source.files] == names
        assert (source.format, source.label) == ("jsonl", pattern)


def test_a_hub_name_and_a_saved_folder(folder: Path) -> None:
    (folder / "saved").mkdir()
    (folder / "saved" / "dataset_dict.json").write_text("{}")
    entries = [{"hub": "someone/charts", "split": "validation", "path": "media"}, {"path": "saved"}]
    hub, saved = load_mixture(entries, base_dir=folder)
    assert (hub.format, hub.label, hub.name, hub.split) == (
        "hub",
        "someone/charts",
        "charts",
        "validation",
    )
    assert hub.media_root == folder / "media"
    assert (saved.format, saved.path, saved.split) == ("saved", folder / "saved", None)
