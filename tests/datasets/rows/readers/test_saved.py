"""Data sets that `save_to_disk` wrote, and what becomes of damaged ones."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError

ROWS = [{"question": f"question {number}", "answer": "yes"} for number in range(5)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def opened(folder: Path) -> RowTable:
    (spec,) = load_mixture([{"json_path": folder.name}], base_dir=folder.parent)
    return open_table(spec)


def edit(path: Path, **values: Any) -> None:
    """Change keys of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: own for key, own in content.items() if own is not None}))


def test_rows_are_read(saved: Path) -> None:
    table = opened(saved)
    assert [table[row] for row in range(len(table))] == ROWS


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("state.json", {"_format_kwargs": None}),
        ("state.json", {"_data_files": [{"file": "x"}]}),
        ("state.json", {"_data_files": "x"}),
        ("state.json", {"_fingerprint": None}),
        ("dataset_info.json", {"features": {"question": "x"}}),
        ("dataset_info.json", {"features": {"question": {"dtype": "x", "_type": "Value"}}}),
        ("dataset_info.json", {"features": {"question": {"_type": "NoSuchType"}}}),
    ],
)
def test_a_damaged_description_is_the_files_error(
    saved: Path, name: str, values: dict[str, Any]
) -> None:
    edit(saved / name, **values)
    with pytest.raises(SampleError) as caught:
        opened(saved)
    assert (caught.value.kind, caught.value.where) == ("bad_file", "saved")


@pytest.mark.parametrize("byte", [0x80, 0xFF])
def test_text_that_is_no_utf8_spoils_its_own_row(saved: Path, byte: int) -> None:
    (path,) = saved.glob("*.arrow")
    data = bytearray(path.read_bytes())
    data[data.index(b"question 2") + 4] = byte
    path.write_bytes(data)
    table = opened(saved)
    with pytest.raises(SampleError, match=r"its columns are damaged: .*UTF8"):
        table[2]
    assert [table[row] for row in (1, 3)] == [ROWS[1], ROWS[3]]


def test_offsets_that_lead_out_of_the_file_are_not_followed(saved: Path) -> None:
    (path,) = saved.glob("*.arrow")
    data = path.read_bytes()
    offsets = pa.array(["question 0"] * 5).buffers()[1]
    assert offsets is not None
    begin = bytes(offsets)[:24]
    assert data.count(begin) == 1
    far = b"".join(number.to_bytes(4, "little") for number in (0, 1 << 30, 1 << 30, 1 << 30))
    at = data.index(begin)
    path.write_bytes(data[:at] + far + data[at + len(far) :])
    table = opened(saved)
    with pytest.raises(SampleError, match="its columns are damaged"):
        table[1]
