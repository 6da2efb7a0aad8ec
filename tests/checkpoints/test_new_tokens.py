"""New tokens in models and folders: where rows begin, which of them train, and what is read
back."""

import copy
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.adapters import Adapters, TrainedBeside, attach_adapters
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint, load_processor
from smolvlm.checkpoints.new_tokens import first_rows, matrices
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS, merge_adapter
from smolvlm.checkpoints.processor_files import PROCESSOR_FILES, save_processor
from smolvlm.checkpoints.vocabulary import PlacedToken
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.new_tokens import NewToken
from smolvlm.errors import ConfigError
from smolvlm.export.merge import export_for_transformers
from smolvlm.model.towers import Tower, is_adapter, is_token_rows
from tests.first_release import VOCABULARY, first_release
from tests.media_settings import media_settings

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

BOX, END = NewToken(token="<box>"), NewToken(token="</box>", description="end of a bounding box")
TOKENS = (BOX, END)
IDS = (49191, 49192)
TEXT = "a <box>12</box> b"


def ids_of(processor: Any, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


def attach(
    checkpoint: Checkpoint, adapters: dict[Tower, AdapterConfig], **settings: Any
) -> Adapters:
    attached = attach_adapters(
        checkpoint.model,
        adapters,
        base=checkpoint.path,
        seed=3,
        beside=TrainedBeside(token_rows=IDS),
        **settings,
    )
    for name, value in checkpoint.model.named_parameters():
        value.requires_grad_(is_adapter(name))
    return attached


def learn(model: Any, ids: list[int], *, steps: int = 2) -> None:
    """Take steps on a text."""
    optimizer = torch.optim.Adam(
        [value for value in model.parameters() if value.requires_grad], lr=0.02
    )
    for _ in range(steps):
        optimizer.zero_grad()
        tokens = torch.tensor([ids])
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    model.eval()


@pytest.fixture
def with_tokens(folder: Path) -> Checkpoint:
    return load_checkpoint(str(folder), new_tokens=TOKENS)


@pytest.fixture
def old_release(folder: Path, tmp_path: Path) -> Path:
    return first_release(folder, tmp_path / "first_release")


def test_rows_begin_at_the_mean_of_their_words_pieces(
    folder: Path, with_tokens: Checkpoint
) -> None:
    before = load_checkpoint(str(folder))
    for own, old in zip(matrices(with_tokens.model), matrices(before.model), strict=True):
        for token, token_id in zip(TOKENS, IDS, strict=True):
            pieces = ids_of(before.processor, token.words)
            assert len(pieces) > 1
            torch.testing.assert_close(own[token_id], old[pieces].mean(dim=0))
        kept = [number for number in range(len(old)) if number not in IDS]
        assert torch.equal(own[kept], old[kept])
    assert len(matrices(with_tokens.model)[0]) == len(matrices(before.model)[0])


def test_the_same_pieces_in_another_order_begin_apart_and_always_the_same() -> None:
    matrix = torch.randn(50, 256, generator=torch.Generator().manual_seed(0)) * 0.1

    def placed(token: str, *pieces: int) -> PlacedToken:
        return PlacedToken(token=token, token_id=0, replaces=None, pieces=pieces, is_special=True)

    one, other = placed("<row_1_col_2>", 1, 2, 3), placed("<row_2_col_1>", 1, 3, 2)
    rows = first_rows(matrix, [one, other])
    assert torch.equal(rows[0], matrix[1:4].mean(dim=0))
    distance = (rows[1] - rows[0]).norm() / rows[0].norm()
    assert 0.01 < distance < 0.2
    torch.manual_seed(7)
    assert torch.equal(first_rows(matrix, [one, other]), rows)
    assert torch.equal(first_rows(matrix, [other])[0], first_rows(matrix, [one])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary_without_room_grows_in_both_matrices(
    old_release: Path, dtype: torch.dtype
) -> None:
    model = load_checkpoint(str(old_release), dtype=dtype, new_tokens=TOKENS).model
    old = load_checkpoint(str(old_release), dtype=dtype)
    assert model.config.text_config.vocab_size == VOCABULARY + 2
    for own, before in zip(matrices(model), matrices(old.model), strict=True):
        assert own.shape == (VOCABULARY + 2, before.shape[1])
        assert own.dtype == dtype
        assert torch.equal(own[:VOCABULARY], before)
        pieces = ids_of(old.processor, END.words)
        torch.testing.assert_close(
            own[VOCABULARY + 1], before[pieces].float().mean(dim=0).to(dtype)
        )


def test_padded_rows_are_taken_before_matrices_grow(folder: Path, tmp_path: Path) -> None:
    padded = first_release(folder, tmp_path / "padded", num_rows=VOCABULARY + 5)
    checkpoint = load_checkpoint(str(padded), new_tokens=TOKENS)
    assert {len(matrix) for matrix in matrices(checkpoint.model)} == {VOCABULARY + 5}
    assert ids_of(checkpoint.processor, "<box></box>") == [VOCABULARY, VOCABULARY + 1]
    assert all(matrix[VOCABULARY].abs().sum() > 0 for matrix in matrices(checkpoint.model))


def test_the_processor_given_out_is_the_only_one_changed(folder: Path) -> None:
    plain = load_processor(str(folder))
    own = load_processor(str(folder), new_tokens=TOKENS)
    assert ids_of(own, "<box>") == [IDS[0]]
    assert len(ids_of(plain, "<box>")) > 1
    assert len(ids_of(load_processor(str(folder)), "<box>")) > 1


@pytest.mark.parametrize(
    "adapters", [{"language_model": AdapterConfig(r=4)}, {"vision_tower": AdapterConfig(r=2)}, {}]
)
def test_only_the_new_rows_train_and_peft_loads_them(
    with_tokens: Checkpoint, folder: Path, tmp_path: Path, adapters: Any
) -> None:
    model = with_tokens.model
    start = [matrix.clone() for matrix in matrices(model)]
    attached = attach(with_tokens, adapters)
    assert str(attached).endswith(
        "token rows      2 of model.text_model.embed_tokens\ntoken rows      2 of lm_head"
    )
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert sum(is_token_rows(name) for name in trained) == 2
    ids = ids_of(with_tokens.processor, TEXT)
    learn(model, ids)
    attached.save(model, tmp_path)
    bases = (
        model.model.text_model.embed_tokens.original_module.weight,
        model.lm_head.original_module.weight,
    )
    assert all(torch.equal(own, before) for own, before in zip(bases, start, strict=True)), (
        "the base's rows stay"
    )
    rows = [
        value
        for name, value in load_file(tmp_path / ADAPTER_WEIGHTS).items()
        if is_token_rows(name)
    ]
    assert [tuple(value.shape) for value in rows] == [(2, 64)] * 2
    stock = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert (logits(stock, ids) - logits(model, ids)).abs().max() > 1e-3
    assert torch.equal(
        logits(PeftModel.from_pretrained(stock, str(tmp_path)), ids), logits(model, ids)
    )
    ours = load_checkpoint(str(tmp_path)).model.eval()
    assert torch.equal(logits(ours, ids), logits(model, ids))
    merge_adapter(ours)
    torch.testing.assert_close(logits(ours, ids), logits(model, ids), rtol=0, atol=1e-5)
    assert isinstance(ours.lm_head, nn.Linear)
    assert ours.state_dict().keys() == load_checkpoint(str(folder)).model.state_dict().keys()


@pytest.mark.parametrize("kind", ["lora", "pissa"])
def test_a_run_that_goes_on_has_the_same_rows(
    with_tokens: Checkpoint, folder: Path, tmp_path: Path, kind: Any
) -> None:
    adapters: dict[Tower, AdapterConfig] = {"language_model": AdapterConfig(type=kind, r=2)}
    ids = ids_of(with_tokens.processor, TEXT)
    attached = attach(with_tokens, adapters)
    learn(with_tokens.model, ids)
    attached.save(with_tokens.model, tmp_path)
    again = load_checkpoint(str(folder), new_tokens=TOKENS)
    resumed = attach(again, adapters, resume=tmp_path)
    resumed.restore(again.model, tmp_path)
    own = with_tokens.model.state_dict()
    assert [
        name
        for name, value in again.model.state_dict().items()
        if not torch.equal(own[name], value)
    ] == []


def test_a_matrix_with_an_adapter_trains_through_that(with_tokens: Checkpoint) -> None:
    attached = attach(
        with_tokens, {"language_model": AdapterConfig(targets=["*embed_tokens", "*.q_proj"])}
    )
    assert list(attached.token_rows) == ["lm_head"]


def test_one_matrix_for_both_is_refused(with_tokens: Checkpoint) -> None:
    with_tokens.model.lm_head.weight = with_tokens.model.model.text_model.embed_tokens.weight
    with pytest.raises(ConfigError, match="one matrix in this model"):
        attach(with_tokens, {})


def test_bfloat16_bases_have_float32_rows(folder: Path, tmp_path: Path) -> None:
    half = load_checkpoint(str(folder), dtype=torch.bfloat16, new_tokens=TOKENS)
    attached = attach(half, {})
    assert {value.dtype for name, value in half.model.named_parameters() if is_adapter(name)} == {
        torch.float32
    }
    ids = ids_of(half.processor, TEXT)
    learn(half.model, ids)
    attached.save(half.model, tmp_path)
    loaded = load_checkpoint(str(tmp_path), dtype=torch.bfloat16).model.eval()
    assert torch.equal(logits(loaded, ids), logits(half.model, ids))


@pytest.mark.parametrize("is_old", [False, True])
def test_saved_files_are_read_by_plain_transformers(
    folder: Path,
    tmp_path: Path,
    model_type: ModelType,
    is_old: bool,
    checkpoint_folders: dict[ModelType, Path],
    old_release: Path,
) -> None:
    base = old_release if is_old else checkpoint_folders[model_type]
    save_processor(str(base), tmp_path / "out", media=media_settings(), new_tokens=TOKENS)
    plain = AutoProcessor.from_pretrained(tmp_path / "out")
    first = VOCABULARY if is_old else IDS[0]
    own = ids_of(plain, TEXT + "  2 ½")
    assert Counter(own)[first] == Counter(own)[first + 1] == 1
    assert own == ids_of(load_processor(str(base), new_tokens=TOKENS), TEXT + "  2 ½")
    assert plain.tokenizer.decode(own, skip_special_tokens=True) == TEXT + "  2 ½"
    assert "<box>" not in plain.tokenizer.all_special_tokens
    assert plain.tokenizer.convert_tokens_to_ids("<|reserved_special_token_0|>") in (
        None,
        plain.tokenizer.unk_token_id,
    )
    assert len(plain.tokenizer) == (VOCABULARY + 2 if is_old else 49280)
    save_processor(
        str(tmp_path / "out"), tmp_path / "again", media=media_settings(), new_tokens=TOKENS
    )
    for name in PROCESSOR_FILES:
        if (tmp_path / "out" / name).is_file():
            assert (tmp_path / "again" / name).read_bytes() == (
                tmp_path / "out" / name
            ).read_bytes()


def test_every_file_that_lists_names_is_rewritten(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    reserved = "<|reserved_special_token_0|>"
    contents = {
        "added_tokens.json": {reserved: IDS[0], "<image>": 49190},
        "vocab.json": {"a": 1, reserved: IDS[0]},
        "special_tokens_map.json": {
            "additional_special_tokens": ["<image>", {"content": reserved}]
        },
    }
    for name, content in contents.items():
        (base / name).write_text(json.dumps(content))
    save_processor(str(base), tmp_path / "out", media=media_settings(), new_tokens=TOKENS)

    def read(name: str) -> Any:
        return json.loads((tmp_path / "out" / name).read_text())

    assert read("added_tokens.json") == {"<image>": 49190, "<box>": IDS[0], "</box>": IDS[1]}
    assert read("vocab.json") == {"a": 1, "<box>": IDS[0]}
    assert read("special_tokens_map.json")["additional_special_tokens"] == ["<image>"]
    entry = read("tokenizer_config.json")["added_tokens_decoder"][str(IDS[0])]
    assert (entry["content"], entry["special"]) == ("<box>", False)


def test_merged_and_exported_they_are_single_ids_that_generation_writes(
    with_tokens: Checkpoint, folder: Path, tmp_path: Path
) -> None:
    attached = attach(
        with_tokens, {"language_model": AdapterConfig(r=8, targets=["*_proj", "lm_head"])}
    )
    ids = ids_of(with_tokens.processor, "Where? <box>12</box>")
    learn(with_tokens.model, ids, steps=25)
    attached.save(with_tokens.model, tmp_path / "adapter")
    save_processor(str(folder), tmp_path / "adapter", media=media_settings(), new_tokens=TOKENS)
    export_for_transformers(tmp_path / "adapter", tmp_path / "merged", merge=True)
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    ).eval()
    processor: Any = AutoProcessor.from_pretrained(tmp_path / "merged")
    assert ids_of(processor, "<box>12</box>")[::3] == list(IDS)
    inputs = processor(text="Where?", return_tensors="pt")
    answer = model.generate(
        **inputs, max_new_tokens=len(ids) - len(ids_of(processor, "Where?")), do_sample=False
    )
    assert processor.tokenizer.decode(answer[0], skip_special_tokens=True) == "Where? <box>12</box>"
    again = load_checkpoint(str(tmp_path / "merged"), new_tokens=TOKENS)
    plain = copy.deepcopy(model.state_dict())
    assert all(
        torch.equal(value, plain[name]) for name, value in again.model.state_dict().items()
    ), "nothing anew"


def test_an_adapter_on_rows_that_its_base_lacks_says_so(
    with_tokens: Checkpoint, old_release: Path, tmp_path: Path
) -> None:
    attach(with_tokens, {}).save(with_tokens.model, tmp_path / "out")
    content = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_text())
    content["base_model_name_or_path"] = str(old_release)
    (tmp_path / "out" / ADAPTER_CONFIG).write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=r"rows of 49,193 ids, and its base 49,155(.|\n)*add-token"
    ):
        load_checkpoint(str(tmp_path / "out"))
