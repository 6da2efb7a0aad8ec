"""Files of one JSON object: what they are is said, and what is advised makes rows of them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers.json_object import no_list
from smolvlm.datasets.rows.tables import read_rows
from smolvlm.errors import SampleError

ROW = {"question": "What?", "answer": "That."}
COCO = {
    "info": {"year": 2017},
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 8, "caption": "A cat."},
        {"id": 2, "image_id": 7, "caption": "A dog."},
    ],
}


def refusal(path: Path, content: Any, *, indent: int | None = None) -> SampleError:
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=indent))
    with pytest.raises(SampleError) as caught:
        read_rows(path, "json", label=path.name)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        COCO,
        dict(reversed(COCO.items())),
        {**COCO, "images": [{"file_name": f"{number:0400}.jpg"} for number in range(20_000)]},
        {**COCO, "annotations": [{"image_id": 1, "segmentation": [1.5] * 600_000}]},
    ],
)
def test_cocos_layout_is_named(tmp_path: Path, content: dict[str, Any]) -> None:
    error = refusal(tmp_path / "captions.json", content)
    assert "one object of `images` and `annotations` (COCO's layout)" in error.what
    assert "`file_name` of its `image_id`" in (error.fix or "")


def test_the_lines_that_the_docs_show_make_rows_of_it(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[4] / "docs" / "mixtures.md").read_text()
    (code,) = re.findall(r"```python\n(.*?coco.*?)```", docs, re.DOTALL)
    (tmp_path / "captions.json").write_text(json.dumps(COCO))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    mixture = [{"json_path": "captions.jsonl", "path": "pictures"}]
    (source,) = open_sources(load_mixture(mixture, base_dir=tmp_path))
    rows = list(source.all_rows())
    assert [row.turns[-1].blocks for row in rows] == [("A cat.",), ("A dog.",)]
    assert [row.media[0].path for row in rows] == [
        tmp_path / "pictures" / "b.jpg",
        tmp_path / "pictures" / "a.jpg",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data": [ROW, ROW]}, "whose `data` holds a list, and not"),
        ({"version": "v1", "data": [ROW, ROW], "n": 2}, "whose `data` holds a list"),
        ({"train": [ROW, ROW], "test": [ROW]}, "`train` holds a list (so does `test`), and not"),
        ({"row_1": ROW, "row_2": ROW}, "one object of rows by their names"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_advised_makes_rows(
    tmp_path: Path, content: dict[str, Any], words: str, indent: int | None
) -> None:
    error = refusal(tmp_path / "FILE", content, indent=indent)
    assert words in error.what
    python, *arguments = shlex.split((error.fix or "").partition(": ")[2])
    assert python == "python"
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
    assert len(read_rows(tmp_path / "rows.json", "json", label="rows.json")) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"messages": [{"role": "user", "content": "a"}], "image": "a.png"}, "the file is one row"),
        (ROW, "the file is one row"),
        ({"a": 1}, "the file is one object, not a JSON list"),
        ("{}", "the file is one object, not a JSON list"),
        (json.dumps(ROW) + "\n" + json.dumps(ROW), "the file is not a JSON list"),
        ('{"data": [{"a": ' + "[" * 100_000, "whose `data` holds a list"),
        ('{"data" 1', "the file is one object"),
        ("1", "the file is not a JSON list"),
    ],
)
def test_others_are_told_of_both_layouts(tmp_path: Path, content: Any, words: str) -> None:
    assert words in refusal(tmp_path / "rows.json", content).what


@given(st.text(alphabet='{}[]":,1a \\\n', max_size=40))
def test_no_text_does_more_than_give_an_error(text: str) -> None:
    for head in (text, "{" + text, '{"a":' + text):
        error = no_list(head, where="x")
        assert error.what
        assert error.fix
