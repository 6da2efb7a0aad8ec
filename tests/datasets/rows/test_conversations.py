"""Sources to a set of conversations: order, repeats, bad rows, and a lazy sequence that behaves
like a list."""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from smolvlm.datasets.packing.lengths import Budget, Meter
from smolvlm.datasets.packing.measured import (
    MeasuredSet,
    RowRequirements,
    SourceCount,
    settle_rows,
)
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, ImageRef, Lengths, SkippedRow, Turn
from tests.media_settings import media_settings

GOOD = [{"question": f"q{number}", "answer": "x"} for number in range(8)]
BAD = {"question": "q", "answer": ""}
TILES = media_settings(tile_side_px=32, longest_edge_px=128, image_splitting=False)


def load(
    folder: Path, *entries: dict[str, Any], on_bad_sample: Any = "error", allowed: float = 0.5
) -> MeasuredSet:
    """Return the rows of a mixture of texts, settled without a checkpoint."""
    sources = open_sources(load_mixture(list(entries), base_dir=folder))
    sizes = [
        Meter(WordEncoder(), TILES).sizes(source.all_rows(), source.rows.tolist())
        for source in sources
    ]  # type: ignore[arg-type]
    budget = Budget(max_tokens=1000, max_tiles=10)
    return settle_rows(
        sources,
        sizes,
        requirements=RowRequirements(budget=budget),
        on_bad_sample=on_bad_sample,
        max_bad_fraction=allowed,
    )


class WordEncoder:
    """Counts words: what these tests are about happens around the encoder."""

    def lengths(self, conversation: Conversation, *, layouts: Any) -> Lengths:
        num_tokens = sum(
            len(str(block).split()) for turn in conversation.turns for block in turn.blocks
        )
        return Lengths(
            num_tokens=num_tokens,
            num_positions=num_tokens,
            num_tiles=len(layouts),
            num_supervised_tokens=1,
            prefix_tokens=0,
            prefix_tiles=0,
            prefix_key=b"",
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, [*GOOD[:3], BAD, 3, BAD])))
    return tmp_path


def questions(conversations: Any) -> list[str]:
    return [conversation.turns[0].blocks[0] for conversation in conversations]


def test_sources_follow_one_another_sampled_and_repeated(folder: Path) -> None:
    result = load(
        folder,
        {"json_path": "good.json", "sampling_strategy": "end:2", "repeat": 2},
        {"json_path": "good.json", "sampling_strategy": "first:1", "name": "again"},
    )
    assert questions(result.conversations) == ["q6", "q7", "q0"]
    wheres = ["good.json:7", "good.json:8", "good.json:1"]
    assert [conversation.where for conversation in result.conversations] == wheres
    assert [result.conversations.where(number) for number in range(3)] == wheres
    assert [conversation.source for conversation in result.conversations] == [
        "good",
        "good",
        "again",
    ]
    assert result.conversations.source_names == ("again", "good")
    assert result.lengths.repeats.tolist() == [2.0, 2.0, 1.0]
    assert result.skipped == ()
    assert result.counts[0] == SourceCount(
        name="good",
        num_rows=8,
        num_sampled=2,
        num_skipped=0,
        repeat=2,
        num_tokens=4,
        num_tiles=0,
        modalities={"text": 2},
        skip_reasons={},
    )


def test_the_sequence_behaves_like_a_list(folder: Path) -> None:
    conversations = load(folder, {"json_path": "good.json"}).conversations
    assert len(conversations) == 8
    assert conversations[2] == conversations[-6] == list(conversations)[2]
    assert questions(conversations[1:4]) == ["q1", "q2", "q3"]
    assert list(pickle.loads(pickle.dumps(conversations))) == list(conversations)
    with pytest.raises(IndexError):
        conversations[8]


def test_a_bad_row_is_an_error_where_errors_are_asked_for(folder: Path) -> None:
    with pytest.raises(SampleError, match=r"^bad\.jsonl:4: the answer is empty"):
        load(folder, {"json_path": "bad.jsonl", "sampling_strategy": "first:4"})
    with pytest.raises(
        SampleError,
        match=r"^bad\.jsonl: 3 of 6 rows cannot be used; the first:\n- bad\.jsonl:4: the",
    ):
        load(folder, {"json_path": "bad.jsonl"})
    with pytest.raises(SampleError, match=r"^bad\.jsonl: 3 of 6"):
        load(folder, {"json_path": "bad.jsonl", "on_bad_sample": "error"}, on_bad_sample="skip")


def test_skipped_rows_are_named_and_counted(folder: Path) -> None:
    result = load(folder, {"json_path": "bad.jsonl", "repeat": 2}, on_bad_sample="skip")
    assert questions(result.conversations) == ["q0", "q1", "q2"]
    assert result.skipped == (
        SkippedRow(where="bad.jsonl:4", reason="the answer is empty"),
        SkippedRow(where="bad.jsonl:5", reason="the row is a number, not an object"),
        SkippedRow(where="bad.jsonl:6", reason="the answer is empty"),
    )
    assert result.counts[0].skip_reasons == {
        "the answer is empty": 2,
        "the row is a number, not an object": 1,
    }
    assert (result.counts[0].num_sampled, result.counts[0].num_skipped) == (6, 3)


def test_a_source_may_skip_where_the_run_does_not(folder: Path) -> None:
    result = load(
        folder, {"json_path": "bad.jsonl", "on_bad_sample": "skip"}, {"json_path": "good.json"}
    )
    assert len(result.conversations) == 11


def test_too_many_bad_rows_fail_with_their_reasons(folder: Path) -> None:
    message = (
        r"^bad\.jsonl: 3 of 6 rows cannot be used, more than max_bad_fraction=0\.4 allows: "
        r"2 x the answer is empty; 1 x the row is a number, not an object; the first:\n- "
        r"bad\.jsonl:4(.|\n)*"
        r"  fix: correct the rows, or raise `data\.max_bad_fraction` to 0\.5 or more$"
    )
    with pytest.raises(SampleError, match=message):
        load(folder, {"json_path": "bad.jsonl"}, on_bad_sample="skip", allowed=0.4)


def test_the_share_is_that_of_the_rows_used(folder: Path) -> None:
    entry = {"json_path": "bad.jsonl", "sampling_strategy": "first:4"}
    assert len(load(folder, entry, on_bad_sample="skip", allowed=0.25).conversations) == 3


def test_a_source_without_one_good_row_fails_whatever_is_allowed(folder: Path) -> None:
    with pytest.raises(SampleError, match=r"1 of 1 rows cannot be used"):
        load(
            folder,
            {"json_path": "bad.jsonl", "sampling_strategy": "end:1"},
            on_bad_sample="skip",
            allowed=1.0,
        )


def test_parquet_rows_carry_their_pictures(tmp_path: Path) -> None:
    row = {
        "images": [{"bytes": b"\x89PNG", "path": None}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "text": None}, {"type": "text", "text": "q"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
        ],
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (source,) = open_sources(load_mixture([{"json_path": "rows.parquet"}], base_dir=tmp_path))
    (conversation,) = source.all_rows()
    turns = (
        Turn(role="user", blocks=(ImageRef(data=b"\x89PNG"), "q")),
        Turn(role="assistant", blocks=("x",)),
    )
    assert conversation == Conversation(turns=turns, where="rows.parquet:1", source="rows")


def test_weights_are_shares_and_no_row_is_lost(folder: Path) -> None:
    (folder / "few.json").write_text(json.dumps(GOOD[:2]))
    result = load(
        folder, {"json_path": "good.json", "weight": 1}, {"json_path": "few.json", "weight": 3}
    )
    assert [count.repeat for count in result.counts] == [1.0, 12.0]
    assert result.lengths.repeats.tolist() == [1.0] * 8 + [12.0] * 2
    equal = load(
        folder, {"json_path": "good.json", "weight": 2}, {"json_path": "few.json", "weight": 2}
    )
    assert [count.repeat for count in equal.counts] == [1.0, 4.0]
