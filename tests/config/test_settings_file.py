"""Files of rows and mixtures given as run files: they are named, and the file that is needed is
shown."""

import json
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.config.load import load_run_config
from smolvlm.config.settings_file import is_mixture, rows_format
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import ConfigError

ROW = {"question": "What?", "answer": "That.", "image": "a.png"}
SOURCE = {"json_path": "rows.jsonl", "path": "pictures"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of rows; not to be written to."""
    import pyarrow as pa
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("rows")
    lines = "".join(json.dumps(ROW) + "\n" for _ in range(3))
    (folder / "rows.jsonl").write_text(lines)
    (folder / "lines.json").write_text(lines)
    (folder / "cut.json").write_text(json.dumps(ROW) + "\n" + '{"question": "' + "x" * 100_000)
    (folder / "list.json").write_text("\ufeff" + json.dumps([ROW, ROW], indent=1))
    (folder / "long.json").write_text(json.dumps([{**ROW, "answer": "x" * 100_000}]))
    pyarrow.parquet.write_table(pa.table({"question": ["What?"]}), folder / "rows.parquet")
    (folder / "parquet").write_bytes((folder / "rows.parquet").read_bytes())
    with tarfile.open(folder / "rows.tar", "w") as shard:
        shard.add(folder / "rows.jsonl", "a.jsonl")
    (folder / "shard").write_bytes((folder / "rows.tar").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rows.jsonl", "JSON lines"),
        ("lines.json", "JSON lines"),
        ("cut.json", "JSON lines"),
        ("list.json", "a JSON list"),
        ("long.json", "a JSON list"),
        ("rows.parquet", "Parquet"),
        ("parquet", "Parquet"),
        ("rows.tar", "a WebDataset shard"),
        ("shard", "a WebDataset shard"),
    ],
)
def test_a_file_of_rows_is_no_run_file(rows: Path, name: str, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(rows / name)
    assert caught.value.what == f"this is a file of rows ({kind}), not a run file"
    assert caught.value.where == str(rows / name)


def shown_file(error: ConfigError) -> str:
    """Return the file that a hint shows."""
    assert error.fix is not None
    return textwrap.dedent(error.fix.partition("\n")[2])


def test_the_run_file_shown_loads(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(rows / "rows.jsonl")
    assert str(caught.value).endswith(
        "  fix: write a run file beside it, such as this one, and name that:\n"
        "    model:\n"
        "      path: HuggingFaceTB/SmolVLM-256M-Instruct\n"
        "    data:\n"
        "      mixture:\n"
        "      - json_path: rows.jsonl\n"
        "    train:\n"
        "      output_dir: runs/first"
    )
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "run.yaml").write_text(shown_file(caught.value))
    data = load_run_config(tmp_path / "run.yaml").data
    assert [source.path for source in load_mixture(data.mixture, base_dir=data.base_dir)] == [
        tmp_path / "rows.jsonl"
    ]


@pytest.mark.parametrize(
    "content", [[SOURCE], {"group": [SOURCE], "other": [{"hub": "a/b"}], "_comment": "x"}]
)
def test_a_mixture_is_no_run_file(tmp_path: Path, content: Any) -> None:
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="this is a mixture, not a run file") as caught:
        load_run_config(tmp_path / "mix.yaml")
    (tmp_path / "run.yaml").write_text(shown_file(caught.value))
    assert load_run_config(tmp_path / "run.yaml").data.mixture == tmp_path / "mix.yaml"


def test_a_file_of_rows_is_no_mixture(rows: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mixture(rows / "list.json", base_dir=rows)
    assert caught.value.what == "this is a file of rows (a JSON list), not a mixture"
    assert yaml.safe_load(shown_file(caught.value)) == {"mixture": [{"json_path": "list.json"}]}


def test_a_source_is_shown_with_the_path_that_it_has_from_the_run_file(rows: Path) -> None:
    (rows / "runs").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_mixture("../list.json", base_dir=rows / "runs")
    shown = yaml.safe_load(shown_file(caught.value))
    assert shown == {"mixture": [{"json_path": "../list.json"}]}
    (source,) = load_mixture(shown["mixture"], base_dir=rows / "runs")
    assert source.path.samefile(rows / "list.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "model: {path: a/b}\n"),
        ("run.json", '{"model": {"path": "a/b"}}'),
        ("run.json", '{"model": {"path": "a/b"},\n "data": {"mixture": []}}\n'),
        ("mix.json", json.dumps([SOURCE])),
        ("mix.yaml", "[{json_path: a.jsonl}]"),
        ("mix.yaml", "- {json_path: a.jsonl}\n"),
        ("bad.json", '[{"json_path": '),
        ("empty.yaml", ""),
    ],
)
def test_settings_are_not_taken_for_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert rows_format(tmp_path / name) is None


def test_what_cannot_be_opened_is_left_to_the_reader(tmp_path: Path) -> None:
    for name in ("gone.jsonl", ".", "a\0b"):
        assert rows_format(tmp_path / name) is None
    with pytest.raises(ConfigError, match="no such file"):
        load_run_config(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        None,
        3,
        [],
        {},
        [1],
        [ROW],
        [{"path": "a.png", "question": "What?"}],
        {"model": {"path": "a/b"}},
        {"model": {"path": "a/b"}, "data": [SOURCE]},
        {"conversations": [{"from": "user", "value": "What?"}]},
    ],
)
def test_other_values_are_no_mixtures(content: Any) -> None:
    assert not is_mixture(content)
