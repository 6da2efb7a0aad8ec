"""Sources that mark places distinctly: their marks are places, and a literal `<image>` is text."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.check.findings import mark_findings
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import index_folder
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.sources import MediaMarkers, SourceSpec
from smolvlm.errors import ConfigError, SampleError, located
from smolvlm.records import Block, Conversation, ImageRef, VideoRef

ROOT = Path("/media")
A, CLIP = ImageRef(path=ROOT / "a.png"), VideoRef(path=ROOT / "c.mp4")


def convert(row: Any, markers: MediaMarkers, *, keeps_mark_newlines: bool = False) -> Conversation:
    spec = SourceSpec(
        name="s",
        path=Path("/rows.jsonl"),
        label="rows",
        format="jsonl",
        media_root=ROOT,
        media_markers=markers,
        keeps_mark_newlines=keeps_mark_newlines,
    )
    with located("rows.jsonl:7"):
        return to_conversation(row, spec=spec, where="rows.jsonl:7")


def rows_of(text: str, **media: Any) -> list[dict[str, Any]]:
    """The same question in every format whose user text is plain."""
    said = [{"role": "user", "content": text}]
    answer = {"role": "assistant", "content": "x"}
    return [
        {
            "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}],
            **media,
        },
        {"messages": [*said, answer], **media},
        {"question": text, "answer": "x", **media},
        {"texts": [{"user": text, "assistant": "x"}], **media},
        {"prompt": text, "chosen": "x", "rejected": "y", **media},
        {"chosen": [*said, answer], "rejected": [*said, {**answer, "content": "y"}], **media},
    ]


@pytest.mark.parametrize(
    ("markers", "text", "media", "blocks"),
    [
        ("distinct", "<|image_token|>\nWhat?", {"image": "a.png"}, (A, "What?")),
        (
            "distinct",
            "Is <image> a tag?<|image_token|>",
            {"image": "a.png"},
            ("Is <image> a tag?", A),
        ),
        ("distinct", "Is <image> a tag?", {"image": "a.png"}, (A, "Is <image> a tag?")),
        ("distinct", "<|video_token|>: <video>?", {"video": "c.mp4"}, (CLIP, ": <video>?")),
        (
            "distinct",
            "<|image_token|> or <|video_token|>",
            {"image": "a.png", "video": "c.mp4"},
            (A, " or ", CLIP),
        ),
        ("plain", "<|image_token|> <image>", {"image": "a.png"}, ("<|image_token|> ", A)),
        ("plain", "<|image_token|>", {"image": "a.png"}, (A, "<|image_token|>")),
        ("plain", "<image>", {"video": "c.mp4"}, (CLIP,)),
    ],
)
def test_each_kind_of_mark_is_a_place_in_its_own_sources_alone(
    markers: MediaMarkers, text: str, media: dict[str, str], blocks: tuple[Block, ...]
) -> None:
    for row in rows_of(text, **media):
        assert convert(row, markers).turns[0].blocks == blocks


def test_an_answer_is_text_whatever_it_says() -> None:
    answer = "<|image_token|> and <image>"
    row = {"question": "<|image_token|>Which marks?", "answer": answer, "image": "a.png"}
    assert convert(row, "distinct").turns[1].blocks == (answer,)


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        (
            "<|image_token|>" * 2,
            {"image": "a.png"},
            "2 <|image_token|> placeholders in the user's turns, 1 image listed",
        ),
        # a clip's place is marked as a picture's by published sets with plain marks only
        (
            "<|image_token|>",
            {"video": "c.mp4"},
            "1 <|image_token|> placeholder in the user's turns, 0 images listed",
        ),
    ],
)
def test_numbers_that_differ_name_row_and_mark(
    text: str, media: dict[str, str], message: str
) -> None:
    for row in rows_of(text, **media):
        with pytest.raises(SampleError) as caught:
            convert(row, "distinct")
        assert (caught.value.where, caught.value.what) == ("rows.jsonl:7", message)


@settings(deadline=None)
@given(
    pieces=st.lists(
        st.text() | st.sampled_from(["<image>", "<video>", "<|image_token|"]),
        min_size=2,
        max_size=5,
    )
)
def test_every_other_character_is_kept(pieces: list[str]) -> None:
    text = "<|image_token|>".join(pieces)
    if text.count("<|image_token|>") != len(pieces) - 1 or "<|video_token|>" in text:
        return
    names = [f"{number}.png" for number in range(len(pieces) - 1)]
    row = {"question": text, "answer": "x", "images": names}
    blocks = convert(row, "distinct", keeps_mark_newlines=True).turns[0].blocks
    assert [
        block.path.name for block in blocks if isinstance(block, ImageRef) and block.path
    ] == names
    assert (
        "".join(
            "<|image_token|>" if isinstance(block, ImageRef) else str(block) for block in blocks
        )
        == text
    )


def test_a_mixture_says_it_source_by_source(tmp_path: Path, prompt: PromptSettings) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    entries: list[dict[str, Any]] = [{"json_path": "rows.jsonl"}, {"json_path": "rows.jsonl"}]
    entries[1]["media_markers"] = "distinct"
    sources = load_mixture(entries, base_dir=tmp_path)
    assert [source.media_markers for source in sources] == ["plain", "distinct"]
    kept = {index_folder(source, prompt) for source in open_sources(sources)}
    assert len(kept) == 2, "sizes measured with the one kind of mark are not read for the other"
    entries[1]["media_markers"] = "distinctly"
    with pytest.raises(ConfigError, match=r"must be one of plain, distinct(.|\n)*distinct"):
        load_mixture(entries, base_dir=tmp_path)


@pytest.mark.parametrize(
    ("markers", "text", "media", "kinds"),
    [
        ("plain", "a <image>", {}, ["mark_without_media"]),
        ("distinct", "a <image>", {}, []),
        ("distinct", "a <|video_token|>", {}, ["mark_without_media"]),
        ("plain", "a <|image_token|>", {"image": "a.png"}, ["mark_learned_as_text"]),
        ("plain", "a <|image_token|>", {}, ["mark_learned_as_text"]),
        ("distinct", "<image> <|image_token|>", {"image": "a.png"}, []),
    ],
)
def test_check_names_marks_that_stay_text(
    markers: MediaMarkers, text: str, media: dict[str, str], kinds: list[str]
) -> None:
    row = {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}],
        **media,
    }
    found = mark_findings(convert(row, markers), markers)
    assert [(finding.kind, finding.where) for finding in found] == [
        (kind, "rows.jsonl:7") for kind in kinds
    ]
