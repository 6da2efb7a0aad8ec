"""Checkpoints laid out as other public ones: their own prompts, and packed = alone on them."""

import json
from pathlib import Path

import pytest

from smolvlm import api
from smolvlm.checkpoints.load import load_processor
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.records import Turn
from tests.checkpoint_shapes import DOCUMENT_TAGS, SHAPES, CheckpointShape, make_checkpoint
from tests.packs import verified_pack
from tests.parity.laws import assert_ids_are_the_stock_processors, one_step_config

END = {"role_tags": "<|end_of_text|>"}
TAGGED = "<doctag><loc_3><text>12 cats</text></doctag>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[CheckpointShape, Path]:
    root = tmp_path_factory.mktemp("shapes")
    return {shape: make_checkpoint(root / shape, shape) for shape in SHAPES}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("answer", ["A cat.", "12", TAGGED])
def test_ids_are_those_of_the_stock_processor_with_the_checkpoints_own_template(
    folders: dict[CheckpointShape, Path], shape: CheckpointShape, answer: str
) -> None:
    assert_ids_are_the_stock_processors(folders[shape], answer)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_and_its_own_end_are_learned(
    folders: dict[CheckpointShape, Path], shape: CheckpointShape
) -> None:
    prompt = read_prompt_settings(load_processor(str(folders[shape])))
    turns = [Turn(role="user", blocks=("Hi",)), Turn(role="assistant", blocks=(TAGGED,))]
    encoded = prompt.encoder().encode_turns(turns, layouts=[])
    learned = encoded.input_ids[encoded.learned].tolist()
    assert learned[-1] == prompt.tokens.end_of_turn
    assert prompt.text.pieces(learned)[-1] == END.get(shape, "<end_of_utterance>")
    assert prompt.text.decode(learned).strip() == TAGGED
    has_tags = shape in ("role_tags", "document_tags")
    shown = [piece for piece in prompt.text.pieces(learned) if piece in DOCUMENT_TAGS]
    assert len(shown) == (5 if has_tags else 0), "a tag is one id where the checkpoint has it"


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param("no_template", marks=pytest.mark.grid),
        "role_tags",
        pytest.param("begin_of_text", marks=pytest.mark.grid),
        "document_tags",
    ],
)
def test_packed_equals_alone_and_what_is_saved_prompts_alike(
    folders: dict[CheckpointShape, Path], shape: CheckpointShape, photos: dict[str, Path]
) -> None:
    root = folders[shape].parent
    rows = [
        {"question": "<image>What is 2 + 2?", "answer": TAGGED, "image": str(photos["coffee"])},
        {"question": "<image>And this?", "answer": "4", "image": str(photos["coffee"])},
        {"question": "Hello", "answer": "Hi."},
    ]
    config = one_step_config(folders[shape], root / f"run-{shape}", rows, image_splitting=False)
    assert verified_pack(config, num_samples=2).verification.holds
    api.train(config)
    before = read_prompt_settings(load_processor(str(folders[shape])))
    again = load_processor(str(root / f"run-{shape}"))
    after = read_prompt_settings(again, image_splitting=before.media.pictures.image_splitting)
    assert after.template.source == before.template.source
    assert after.tokens == before.tokens
    assert again.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "a"}]}])
    config_json = json.loads((root / f"run-{shape}" / "config.json").read_text())
    assert config_json["model_type"] == ("smolvlm" if shape == "document_tags" else "idefics3")
