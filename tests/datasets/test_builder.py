"""From a run's `data` section to measured rows and a plan."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import PlannedData, measure_mixture, plan_data, read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """Six good rows, four of them about one picture; and beside them a row without answer and one
    without picture."""
    good = [
        {"question": f"{number}?", "answer": "yes", "image": str(photos["coffee"])}
        for number in range(4)
    ]
    good += [{"question": "Hi", "answer": "Ho"}, {"question": "Ho", "answer": "Hi"}]
    bad = [{"question": "q", "answer": ""}, {"question": "q", "answer": "a", "image": "no.png"}]
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / "mixed.json").write_text(json.dumps([*good, *bad]))
    return tmp_path


def planned(folder: Path, prompt: PromptSettings, *names: str, **settings: Any) -> PlannedData:
    data = DataConfig(
        mixture=[{"json_path": name} for name in names],
        base_dir=folder,
        allow_outside_root=True,
        **settings,
    )
    measured = measure_mixture(data.mixture, data, prompt=prompt)
    return plan_data(measured, data, packs_per_step=2, seed=0)


def test_the_seed_asked_for_draws_the_plan(folder: Path, prompt: PromptSettings) -> None:
    data = DataConfig(
        mixture=[{"json_path": "good.json"}],
        base_dir=folder,
        allow_outside_root=True,
        share_media=False,
    )
    measured = measure_mixture(data.mixture, data, prompt=prompt)
    plans = [
        plan_data(measured, data, packs_per_step=2, seed=seed).plan.packs for seed in (0, 1, 2, 0)
    ]
    assert plans[0] == plans[3]
    assert len({plan.digest() for plan in plans}) == 3


def test_rows_are_measured_and_planned(folder: Path, prompt: PromptSettings) -> None:
    data = planned(folder, prompt, "good.json")
    assert len(data.measured.conversations) == len(data.measured.lengths) == 6
    assert sorted(len(rows) for pack in data.plan.packs for rows in pack.samples) == [1, 1, 4]
    assert (data.plan.num_steps, data.skipped) == (1, ())
    assert (data.plan.budget.max_tokens, data.plan.budget.max_tiles) == (4096, 64)
    assert [(count.name, count.num_rows) for count in data.counts] == [("good", 6)]


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"share_media": False}, [1] * 6),
        ({"max_branches": 1}, [1] * 6),
        ({"max_branches": 3}, [1, 1, 1, 3]),
    ],
)
def test_sharing_is_as_set(
    folder: Path, prompt: PromptSettings, settings: dict[str, Any], sizes: list[int]
) -> None:
    data = planned(folder, prompt, "good.json", **settings)
    assert sorted(len(rows) for pack in data.plan.packs for rows in pack.samples) == sizes


def test_bad_rows_of_both_stages_are_skipped_and_named(
    folder: Path, prompt: PromptSettings
) -> None:
    data = planned(folder, prompt, "mixed.json", on_bad_sample="skip", max_bad_fraction=0.5)
    assert len(data.measured.conversations) == 6
    assert [row.where for row in data.skipped] == ["mixed.json:7", "mixed.json:8"]
    assert isinstance(data.skipped[1], SkippedRow)
    assert "does not exist" in data.skipped[1].reason


def test_a_bad_row_is_an_error_unless_skipped(folder: Path, prompt: PromptSettings) -> None:
    with pytest.raises(
        SampleError, match=r"mixed\.json: 2 of 8 rows cannot be used; the first:\n- mixed\.json:7: "
    ):
        planned(folder, prompt, "mixed.json")
    with pytest.raises(SampleError, match=r"max_bad_fraction"):
        planned(folder, prompt, "mixed.json", on_bad_sample="skip", max_bad_fraction=0.01)


def test_budgets_are_the_runs(folder: Path, prompt: PromptSettings) -> None:
    with pytest.raises(
        SampleError,
        match=r"4 of 6 rows cannot be used(.|\n)*13 tiles, a pack holds data\.max_tiles_per",
    ):
        planned(folder, prompt, "good.json", max_tiles_per_pack=5)


def test_a_conversation_has_to_fit_the_models_context_and_a_pack_may_be_longer(
    folder: Path, prompt: PromptSettings
) -> None:
    rows = planned(folder, prompt, "good.json").measured.lengths.num_tokens
    longest, shortest = int(rows.max()), int(rows.min())
    fitting = planned(
        folder,
        replace(prompt, context_tokens=longest),
        "good.json",
        max_tokens_per_pack=8 * longest,
    )
    assert len(fitting.measured.conversations) == 6
    short = replace(prompt, context_tokens=longest - 1)
    with pytest.raises(SampleError) as caught:
        planned(folder, short, "good.json", max_tokens_per_pack=longest - 1)
    assert (
        f"good.json:1: {longest} tokens in one conversation, the model's context is {longest - 1}"
        in str(caught.value)
    )
    kept = planned(folder, short, "good.json", on_bad_sample="skip", max_bad_fraction=0.9)
    assert kept.measured.lengths.num_tokens.tolist() == [shortest, shortest]
    assert len(kept.skipped) == 4


def test_of_a_preference_row_the_longer_answer_has_to_fit(
    tmp_path: Path, prompt: PromptSettings
) -> None:
    row = {
        "prompt": "Why?",
        "chosen": "Because it rained all day long.",
        "rejected": "Nobody knows, I think.",
    }
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    data = DataConfig(mixture=[{"json_path": "pairs.jsonl"}], base_dir=tmp_path)

    def measure(context_tokens: int | None) -> MeasuredSet:
        own = replace(prompt, context_tokens=context_tokens)
        return measure_mixture(data.mixture, data, prompt=own, kind="preference")

    whole = measure(None)
    pair, encoder = whole.conversations[0], prompt.encoder()
    longer = max(
        len(encoder.encode_turns(turns, layouts=[]).input_ids)
        for turns in (pair.turns, pair.rejected)
    )
    assert longer < whole.lengths.num_tokens[0]
    assert len(measure(longer).conversations) == 1
    with pytest.raises(
        SampleError,
        match=rf"{longer} tokens in one conversation, the model's context is {longer - 1}",
    ):
        measure(longer - 1)


def test_nothing_is_left_to_train_on(folder: Path, prompt: PromptSettings) -> None:
    with pytest.raises(SampleError, match=r"6 of 6 rows cannot be used"):
        planned(
            folder,
            prompt,
            "good.json",
            on_bad_sample="skip",
            max_bad_fraction=1.0,
            max_tokens_per_pack=5,
        )


def test_what_a_header_tells_is_settled_before_training(
    folder: Path, prompt: PromptSettings
) -> None:
    deep = Image.fromarray(np.ones((4, 4), dtype=np.float32))
    deep.save(folder / "deep.tif")
    rows = [{"question": "q", "answer": "a", "image": "deep.tif"}, {"question": "q", "answer": "a"}]
    (folder / "deep.json").write_text(json.dumps(rows))
    with pytest.raises(SampleError, match=r"deep\.json:1: picture \S*deep\.tif has 32-bit pixels"):
        planned(folder, prompt, "deep.json")
    data = planned(
        folder, prompt, "good.json", "deep.json", on_bad_sample="skip", max_bad_fraction=1.0
    )
    assert [row.where.rpartition("/")[2] for row in data.skipped] == ["deep.json:1"]


def test_the_largest_picture_is_a_setting_of_the_run(
    folder: Path, processors: dict[str, Any], photos: dict[str, Path]
) -> None:
    with Image.open(photos["coffee"]) as opened:
        num_pixels = opened.width * opened.height
    for limit, is_refused in ((num_pixels, False), (num_pixels - 1, True)):
        data = DataConfig(
            mixture=[{"json_path": "good.json"}],
            base_dir=folder,
            allow_outside_root=True,
            max_image_pixels=limit,
        )
        prompt = read_prompt(processors["smolvlm"], data)
        action = partial(measure_mixture, data.mixture, data, prompt=prompt)
        if is_refused:
            with pytest.raises(SampleError, match=f"limit of {limit} pixels"):
                action()
        else:
            assert len(action().lengths) == 6
