"""A finding's kind is the error's own, whatever words stand in the row."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolvlm.check.check_rows import check_rows
from smolvlm.check.findings import finding_of
from smolvlm.checkpoints.load import load_processor
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.measured import RowRequirements
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import SampleError
from smolvlm.media.layout import layout_of
from smolvlm.media.settings import MediaSettings
from tests.media_settings import media_settings

QA = {"question": "q?", "answer": "a"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "role": [
        # Words that other kinds of errors use, in a row's own text.
        {"messages": [{"role": "no video", "content": "damaged"}]},
        {"messages": [{"role": "an empty answer", "content": "cut short"}]},
        {"messages": [{"role": "assistant", "content": "hello"}]},
    ],
    "empty_row": [
        {"question": "is it cut short?", "answer": " "},
        {"question": "outside the folder"},
        {"messages": [{"role": "user", "content": "does not exist"}]},
    ],
    "placeholder_mismatch": [
        {**QA, "question": "<image> <image> not a picture", "image": "one.png"}
    ],
    "outside_root": [{**QA, "image": "../placeholder.png"}],
    "missing_media": [
        {**QA, "image": "placeholder, an empty one.png"},
        {**QA, "video": "no video.mp4"},
    ],
    "empty_media": [{**QA, "image": "damaged.png"}],
    "corrupt_media": [{**QA, "image": "does not exist.png"}, {**QA, "video": "unknown role.mp4"}],
    "bad_row": [{"chosen": "x"}, {**QA, "image": 3}],
}


@pytest.fixture
def settings() -> MediaSettings:
    return media_settings()


@pytest.mark.parametrize("kind", ROWS)
def test_the_kind_comes_from_what_went_wrong_and_not_from_words(
    kind: str, settings: MediaSettings, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "damaged.png").touch()
    (media / "does not exist.png").write_text("text")
    (media / "unknown role.mp4").write_text("text")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]))
    (source,) = open_sources(
        load_mixture([{"json_path": "rows.jsonl", "path": "media"}], base_dir=tmp_path)
    )
    rows = source.all_rows()

    def read(number: int) -> None:
        for medium in rows[number].media:
            layout_of(medium, settings)

    for number in range(len(rows)):
        with pytest.raises(SampleError) as caught:
            read(number)
        assert finding_of(caught.value, where="rows.jsonl:1").kind == kind


def test_special_tokens_in_rows_are_named_with_what_becomes_of_them(tmp_path: Path) -> None:
    from tests.checkpoint_shapes import make_checkpoint

    prompt = read_prompt_settings(
        load_processor(str(make_checkpoint(tmp_path / "model", "document_tags")))
    )
    rows = [
        {"question": "q?", "answer": "<doctag><loc_3></doctag>"},
        {"question": "What ends <end_of_utterance>?", "answer": "<doctag><loc_3></doctag>"},
        {"question": "q2?", "answer": "<text>plain</text>"},
        {"question": "nothing", "answer": "special"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = open_sources(load_mixture([{"json_path": "rows.jsonl"}], base_dir=tmp_path))
    found = check_rows(
        sources,
        (),
        prompt,
        requirements=RowRequirements(budget=Budget(max_tokens=4096, max_tiles=64)),
    )
    own_id, text = "becomes its own id", "stays text here"
    assert [(finding.where, finding.kind) for finding in found.findings] == [
        ("rows.jsonl:1", "special_token_in_text"),
        ("rows.jsonl:2", "prompt_token_in_text"),
        ("rows.jsonl:3", "special_token_in_text"),
    ]
    assert [finding.severity for finding in found.findings] == ["warning"] * 3
    for finding, (token, what) in zip(
        found.findings,
        [("`<doctag>`", own_id), ("`<end_of_utterance>`", text), ("`<text>`", own_id)],
        strict=True,
    ):
        assert token in finding.message
        assert what in finding.message


def test_rows_of_another_kind_than_the_method_reads_are_errors(
    tmp_path: Path, checkpoint_folders: dict[str, Path]
) -> None:
    prompt = read_prompt_settings(load_processor(str(checkpoint_folders["smolvlm"])))
    rows = [QA, {"prompt": "q?", "chosen": "a", "rejected": "b"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "held.jsonl").write_text(json.dumps({**QA, "question": "other?"}) + "\n")
    sources, held_out = (
        open_sources(load_mixture([{"json_path": name}], base_dir=tmp_path))
        for name in ("rows.jsonl", "held.jsonl")
    )
    budget = Budget(max_tokens=4096, max_tiles=64)
    for kind, wrong in (("preference", "rows.jsonl:1"), ("conversation", "rows.jsonl:2")):
        requirements = RowRequirements(budget=budget, kind=kind)  # type: ignore[arg-type]
        found = check_rows(sources, held_out, prompt, requirements=requirements)
        assert [(finding.where, finding.kind) for finding in found.findings] == [
            (wrong, "wrong_method")
        ]
        assert found.num_errors == 1
