"""A finding's kind is the error's own, whatever words stand in the row."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.check.check_rows import CheckResult, check_rows
from smolvlm.check.findings import finding_of
from smolvlm.check.page import write_check_page
from smolvlm.checkpoints.load import load_processor
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
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


def checked(
    rows: list[dict[str, Any]], folder: Path, prompt: PromptSettings, **source: Any
) -> CheckResult:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    sources = open_sources(load_mixture([{"json_path": "rows.jsonl", **source}], base_dir=folder))
    budget = Budget(max_tokens=4096, max_tiles=64)
    return check_rows(sources, (), prompt, requirements=RowRequirements(budget=budget))


def test_what_is_not_read_is_named_once_a_source(tmp_path: Path, prompt: PromptSettings) -> None:
    rows: list[dict[str, Any]] = [{**QA, "id": number} for number in range(3)]
    rows[2] = {**rows[2], "question": "other", "score": 0.5}
    rows[1]["question"] = "another"
    result = checked(rows, tmp_path, prompt)
    assert [
        (found.where, found.severity, found.kind, found.message) for found in result.remarks
    ] == [("rows.jsonl", "info", "unread_key", "not read: id, score")]
    assert (result.num_errors, result.num_warnings, len(result.kinds())) == (0, 0, 0)
    page = write_check_page(result, path=tmp_path / "check.html", title="t").read_text()
    assert "not read: id, score" in page
    assert "nothing looks odd" in page


def test_keys_and_media_that_would_be_lost_are_errors(
    tmp_path: Path, prompt: PromptSettings
) -> None:
    rows = [{**QA, "choices": ["a", "b"]}, {**QA, "imgae": "a.png"}, QA]
    result = checked(rows, tmp_path, prompt)
    assert [(found.where, found.severity, found.kind) for found in result.findings] == [
        ("rows.jsonl:1", "error", "unread_key"),
        ("rows.jsonl:2", "error", "unread_media"),
    ]


@pytest.mark.parametrize(
    ("question", "answer", "image", "kinds"),
    [
        ("q", "see <image>", "a.png", ["mark_outside_user"]),
        ("<image>q", "see <image>", "a.png", ["mark_outside_user"]),
        ("<image>q", "see <image 1>", "a.png", ["mark_outside_user"]),
        ("<IMG_CONTEXT> q", "a", None, ["mark_without_media"]),
        ("<image>Find <bbox>", "a", "a.png", ["mark_learned_as_text"]),
        ('<image>Where is <img src="b.png">?', "x", "a.png", ["mark_learned_as_text"]),
        ("<image>Where is ![b](b.png)?", "x", "a.png", ["mark_learned_as_text"]),
        ("q", "see <image>", None, []),
        ("q <IMAGE>", "a", None, ["mark_without_media"]),
        ("<image> q <|image_pad|>", "a", "a.png", ["mark_learned_as_text"]),
    ],
)
def test_marks_that_stay_text_are_warned_of(
    question: str, answer: str, image: str | None, kinds: list[str], tmp_path: Path, prompt: Any
) -> None:
    row = {"question": question, "answer": answer, "image": image}
    result = checked([row], tmp_path, prompt)
    assert [found.kind for found in result.findings if found.kind.startswith("mark")] == kinds


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


def test_what_is_left_out_and_what_is_doubtful_is_said(
    tmp_path: Path, prompt: PromptSettings
) -> None:
    rows = [
        {"question": "Which?", "choices": ["cat", "dog"], "answer": "a bird", "scene": "one.png"},
        {"question": "Which?", "choices": ["cat", "dog"], "answer": "cat"},
    ]
    source = {"columns": {"question": ["question", "choices"]}, "not_read": ["scene", "absent"]}
    result = checked(rows, tmp_path, prompt, **source)
    assert [(found.severity, found.kind, found.message) for found in result.findings] == [
        ("warning", "doubtful", "`answer`, 'a bird', is none of the options"),
        ("info", "left_out", "left out by `not_read`: scene"),
        ("warning", "left_out", "`not_read` names `absent`, which no row has"),
    ]


def test_a_part_that_ends_behind_the_clip_is_said(tmp_path: Path, prompt: PromptSettings) -> None:
    frames = [f"{number}.png" for number in range(4)]
    for name in frames:
        Image.new("RGB", (32, 32), (9, 9, len(name))).save(tmp_path / name)
    rows = [{**QA, "video": frames, "end_s": end_s} for end_s in (3, 4.5, 9)]
    result = checked(rows, tmp_path, prompt)
    assert [(found.where, found.severity, found.kind) for found in result.findings] == [
        ("rows.jsonl:3", "warning", "clip_bounds")
    ]
    assert "`end_s` is 9, and the clip ends at 4.00 s" in result.findings[0].message


def test_a_mark_beside_a_blocks_picture_is_warned_of(
    tmp_path: Path, prompt: PromptSettings
) -> None:
    blocks = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "<image>q"}]
    turns = [{"role": "user", "content": blocks}, {"role": "assistant", "content": "x"}]
    result = checked([{"messages": turns}], tmp_path, prompt)
    assert [found.kind for found in result.findings] == ["mark_learned_as_text"]
