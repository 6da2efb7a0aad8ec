"""Batched answers, left-padded, with pictures encoded once, are what the stock `generate` says to
each row alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.errors import SampleError
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.media.layout import layout_of
from smolvlm.media.video.frames import FrameSettings
from smolvlm.media.video.reader import read_frames
from smolvlm.model import modeling_smolvlm
from smolvlm.model.vision_cache import open_vision_cache
from smolvlm.records import Conversation, Frames, ImageRef, Turn, VideoRef

SETTINGS = GenerationSettings(max_new_tokens=6, batch_size=4)


def stock_answer(model: Any, processor: Any, row: Conversation) -> str:
    """Ask the stock classes alone: their template, their pixels, their generate."""
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "image"}
                if isinstance(block, ImageRef)
                else {"type": "text", "text": block}
                for block in turn.blocks
            ],
        }
        for turn in row.turns[:-1]
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    pictures = []
    for image in row.media:
        with Image.open(image.path) as picture:  # pyright: ignore[reportArgumentType] - all rows name files
            pictures.append(ImageOps.exif_transpose(picture).convert("RGB"))
    inputs = processor(text=text, images=[pictures] if pictures else None, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=SETTINGS.max_new_tokens, do_sample=False)
    return processor.tokenizer.decode(
        output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    ).strip()


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
def test_answers_are_the_stock_generates(
    model_type: ModelType,
    loaded: dict[ModelType, Checkpoint],
    stock: dict[ModelType, Any],
    rows: list[Conversation],
) -> None:
    checkpoint = loaded[model_type]
    prompt = read_prompt_settings(checkpoint.processor)
    batched = Generator(checkpoint.model, prompt, SETTINGS).answers(rows)
    alone = [stock_answer(stock[model_type], checkpoint.processor, row) for row in rows]
    assert batched == alone
    assert len(set(alone)) == len(rows), "a model that answers all alike would prove nothing"


def test_an_answer_ends_where_the_context_does(
    loaded: dict[ModelType, Checkpoint], rows: list[Conversation]
) -> None:
    checkpoint = loaded["smolvlm"]
    prompt = read_prompt_settings(checkpoint.processor)
    generator = Generator(checkpoint.model, prompt, SETTINGS)
    prompt_length = len(generator.question(rows[1]).prompt.input_ids)
    whole = generator.answers(rows)[1]
    narrow = [
        replace(prompt, context_tokens=prompt_length + room)
        for room in (0, 2, SETTINGS.max_new_tokens)
    ]
    none, some, all_of_it = (
        Generator(checkpoint.model, own, SETTINGS).answers(rows)[1] for own in narrow
    )
    assert none == ""
    assert 0 < len(some) < len(whole)
    assert whole.startswith(some)
    assert all_of_it == whole


def averaged_answer(
    model: Any, processor: Any, row: Conversation, clip: Frames, pixels: Tensor
) -> str:
    """Ask the stock classes alone about one clip; of every two of its frames' features the mean is
    taken by hand."""
    from transformers.video_utils import VideoMetadata

    times: Any = list(clip.times_s[::2])
    facts = VideoMetadata(
        total_num_frames=len(times), fps=1.0, duration=clip.duration_s, frames_indices=times
    )
    content = [{"type": "video"}, {"type": "text", "text": row.turns[0].blocks[1]}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    options = {"do_sample_frames": False, "size": {"longest_edge": 32}}
    given = {"video_metadata": [facts], **options}
    ids = processor(text=text, videos=[pixels[::2]], videos_kwargs=given, return_tensors="pt")[
        "input_ids"
    ]
    shown = processor.video_processor([pixels], **options, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        features = (
            model.get_image_features(shown, return_dict=True)
            .pooler_output[0]
            .unflatten(0, (len(pixels), -1))
        )
        means = [features[start : start + 2].mean(dim=0) for start in range(0, len(pixels), 2)]
        embeddings = model.get_input_embeddings()(ids)
        embeddings[ids == model.config.image_token_id] = torch.cat(means)
        output = model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=SETTINGS.max_new_tokens,
            do_sample=False,
        )
    return processor.tokenizer.decode(output[0], skip_special_tokens=True).strip()


def test_answers_about_averaged_frames(
    loaded: dict[ModelType, Checkpoint], stock: dict[ModelType, Any], clips: dict[str, Path]
) -> None:
    """One clip whole, with a frame left over, and a part of it: in one batch as each by itself."""
    checkpoint = loaded["smolvlm"]
    prompt = read_prompt_settings(
        checkpoint.processor,
        frames=FrameSettings(fps=3, max_frames=7, sampling="fps", average_frames=2),
    )
    refs = [
        VideoRef(path=clips["steady"]),
        VideoRef(path=clips["steady"], end_s=1.0),
        VideoRef(path=clips["uneven"]),
    ]
    rows = [
        Conversation(
            turns=(
                Turn(role="user", blocks=(ref, "What is it?")),
                Turn(role="assistant", blocks=("A cup.",)),
            ),
            where=f"rows.jsonl:{number}",
            source="rows",
        )
        for number, ref in enumerate(refs)
    ]
    expected: list[str] = []
    for ref, row in zip(refs, rows, strict=True):
        frames = layout_of(ref, prompt.media)
        assert isinstance(frames, Frames)
        read = read_frames(ref, frames, max_side_px=32, backend="pyav")
        pixels = torch.from_numpy(np.stack(list(read))).permute(0, 3, 1, 2)
        expected.append(
            averaged_answer(stock["smolvlm"], checkpoint.processor, row, frames, pixels)
        )
    assert Generator(checkpoint.model, prompt, SETTINGS).answers(rows) == expected
    each = replace(
        prompt, media=replace(prompt.media, frames=replace(prompt.media.frames, average_frames=1))
    )
    assert Generator(checkpoint.model, each, SETTINGS).answers(rows) != expected


@pytest.fixture
def model(loaded: dict[ModelType, Checkpoint]) -> Any:
    return loaded["smolvlm"].model


def test_the_batch_changes_no_answer(
    model: Any, prompt: PromptSettings, rows: list[Conversation]
) -> None:
    answers = [
        Generator(model, prompt, GenerationSettings(max_new_tokens=6, batch_size=size)).answers(
            rows
        )
        for size in (1, 2, 6)
    ]
    assert answers[0] == answers[1] == answers[2]


def test_the_question_is_the_row_without_its_last_answer(
    model: Any, prompt: PromptSettings, rows: list[Conversation]
) -> None:
    question = Generator(model, prompt, SETTINGS).question(rows[5])
    assert question.where == "rows.jsonl:6"
    text = prompt.text.decode(question.prompt.input_ids.tolist())
    assert text.endswith("Assistant: grass and hay\nUser: And what does it eat?\nAssistant:")
    assert len(question.prompt.media) == 1


def test_mode_weights_and_gradients_are_left_alone(
    model: Any, prompt: PromptSettings, rows: list[Conversation]
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for is_training in (True, False):
        model.train(is_training)
        Generator(model, prompt, SETTINGS).answers(rows[:2])
        assert model.training == is_training
        assert model.model.text_model.training == is_training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize("keeps_connector", [False, True])
def test_the_cache_changes_no_answer_and_spares_the_tower(
    model: Any,
    prompt: PromptSettings,
    rows: list[Conversation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keeps_connector: bool,
) -> None:
    without = Generator(model, prompt, SETTINGS).answers(rows)
    monkeypatch.setattr(model, "caches_connector", keeps_connector)
    cache = open_vision_cache(
        tmp_path, model, compute_dtype="float32", keeps_connector=keeps_connector
    )
    generator = Generator(model, prompt, SETTINGS, cache=cache)
    assert generator.answers(rows) == without
    assert cache.count() > 0

    def never(*_: Any) -> None:
        raise AssertionError("every tile is in the cache")

    monkeypatch.setattr(modeling_smolvlm, "run_tower", never)
    assert generator.answers(rows) == without
    cache.close()


def test_bfloat16_answers_under_autocast(
    model: Any, prompt: PromptSettings, rows: list[Conversation]
) -> None:
    settings = GenerationSettings(max_new_tokens=2, batch_size=2, compute_dtype=torch.bfloat16)
    answers = Generator(model, prompt, settings).answers(rows[:2])
    assert len(answers) == 2
    assert model.dtype == torch.float32


def test_no_rows_no_answers(model: Any, prompt: PromptSettings) -> None:
    assert Generator(model, prompt, SETTINGS).answers([]) == []


def test_a_picture_that_cannot_be_read_names_its_row(
    model: Any, prompt: PromptSettings, tmp_path: Path
) -> None:
    missing = ImageRef(path=tmp_path / "missing.png")
    turns = (
        Turn(role="user", blocks=(missing, "What?")),
        Turn(role="assistant", blocks=("Nothing.",)),
    )
    row = Conversation(turns=turns, where="rows.jsonl:9", source="rows")
    with pytest.raises(SampleError, match=r"^rows\.jsonl:9: "):
        Generator(model, prompt, SETTINGS).answers([row])
