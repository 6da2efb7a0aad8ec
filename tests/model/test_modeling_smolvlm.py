"""The stock classes with packs: every stock way in is untouched, and a pack's forward does what it
says it does."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.model import modeling_smolvlm
from smolvlm.model.attention.rule import SCOPE_ATTENTION
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES, PATCHES_PER_CALL
from smolvlm.model.towers import TOWERS, Tower, parameters_of
from smolvlm.model.vision import normalize_pixels, tower_modules

ROWS_OF_TEXT = [((), "Hi there", "Hello."), ((), "Count to three", "One, two, three.")]


def prompts(folder: Path) -> Any:
    """Two prompts of different lengths, padded on the left, with two pictures and with one."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    pictures = [
        Image.linear_gradient("L").resize(size).convert("RGB")
        for size in ((70, 40), (40, 90), (33, 33))
    ]
    texts = [
        "<|im_start|>User:<image><image>Compare.<end_of_utterance>\nAssistant:",
        "<|im_start|>User:<image>What?",
    ]
    return processor(
        text=texts, images=[pictures[:2], pictures[2:]], padding=True, return_tensors="pt"
    )


def shares(model: Any, pack: Any) -> Any:
    """One pack's output, backward done."""
    model.zero_grad()
    output = model(pack=pack.model_tensors(), normalizer=float(max(pack.target_weights.sum(), 1)))
    output.loss.backward()
    return output


def gradients(model: Any) -> dict[str, Tensor | None]:
    return {name: value.grad for name, value in model.named_parameters()}


@pytest.fixture(scope="module", params=["smolvlm", "idefics3"])
def pair(request: pytest.FixtureRequest, checkpoint_folders, loaded) -> tuple[Any, Any, Any]:
    """(our model, the stock model, inputs) of one model type."""
    folder = checkpoint_folders[request.param]
    stock = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return loaded[request.param].model.eval(), stock.eval(), prompts(folder)


def test_generation_equals_the_stock_class_token_for_token(pair) -> None:
    ours, stock, inputs = pair
    wanted = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    found, expected = ours.generate(**inputs, **wanted), stock.generate(**inputs, **wanted)
    assert found.shape[1] == inputs["input_ids"].shape[1] + 12
    assert torch.equal(found, expected)


def test_a_stock_call_gives_the_stock_loss(pair) -> None:
    ours, stock, inputs = pair
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        found, expected = ours(**inputs, labels=labels), stock(**inputs, labels=labels)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.logits, expected.logits)


def test_classes_bear_the_stock_names_and_save_nothing_of_ours(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for kind in MODEL_CLASSES.values():
        assert kind.__name__ == kind.__mro__[2].__name__
        assert kind.__mro__[2].__module__.startswith("transformers.")
    checkpoint.model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text)["architectures"] == ["SmolVLMForConditionalGeneration"]
    assert "auto_map" not in text
    assert SCOPE_ATTENTION not in text


def test_a_pack_of_text_leaves_tower_and_connector_alone(checkpoint: Checkpoint, pack_of) -> None:
    output = shares(checkpoint.model, pack_of(ROWS_OF_TEXT))
    assert output.computed_features is None
    for tower in ("vision_tower", "connector"):
        assert all(value.grad is None for _, value in parameters_of(checkpoint.model, tower))


def test_where_ranks_must_agree_a_pack_of_text_touches_them_with_gradients_of_zero(
    checkpoint: Checkpoint, pack_of
) -> None:
    pack = pack_of(ROWS_OF_TEXT)
    plain = shares(checkpoint.model, pack)
    expected = gradients(checkpoint.model)
    checkpoint.model.touches_vision = True
    touched = shares(checkpoint.model, pack)
    assert torch.equal(touched.loss, plain.loss)
    assert touched.computed_features is None
    for name, gradient in gradients(checkpoint.model).items():
        own = expected[name]
        assert gradient is not None
        assert torch.equal(gradient, own if own is not None else torch.zeros_like(gradient)), name


def stock_losses(stock: Any, ids: Tensor, places: Tensor, **inputs: Any) -> Tensor:
    """The stock class's loss of the token behind each place."""
    with torch.no_grad():
        logits = stock(
            input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], **inputs
        ).logits[0]
    return cross_entropy(logits[places], ids[places + 1], reduction="none")


def test_the_branches_of_a_tree_are_the_stock_classs_sequences(pair) -> None:
    """Trunk of 5, branches of 3 and 2: the second stands behind the first, at the positions behind
    the trunk."""
    ours, stock, _ = pair
    ids = torch.arange(10) * 37 + 200
    no_tiles = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    nothing = torch.zeros(0, dtype=torch.long)
    pack = {
        "input_ids": ids,
        "position_ids": torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 5, 6]),
        "scope_end": torch.tensor([10] * 5 + [8] * 3 + [10] * 2),
        "image_places": nothing,
        "predict_from": torch.tensor([4, 5, 6, 4, 8]),
        "target_ids": ids[[5, 6, 7, 8, 9]],
        "target_weights": torch.ones(5),
        "tiles": no_tiles,
        "cached_features": None,
        "slot_tiles": nothing,
    }
    found = ours(pack=pack).target_losses
    first = stock_losses(stock, ids[:8], torch.tensor([4, 5, 6]))
    second = stock_losses(stock, torch.cat([ids[:5], ids[8:]]), torch.tensor([4, 5]))
    torch.testing.assert_close(found, torch.cat([first, second]), rtol=1e-5, atol=1e-5)


def test_every_slot_shows_its_own_tile(pair, pack_of, picture) -> None:
    ours, stock, _ = pair
    pack = pack_of([((picture(1), picture(2), picture(1)), "Compare.", "No, not the same.")])
    tiles = pack.tiles[pack.slot_tiles]
    assert len(pack.tiles) == 26
    assert len(tiles) == 39
    pixels = normalize_pixels(tiles, ours.pixel_scaling, dtype=torch.float32)[None]
    mask = torch.ones(1, len(tiles), *pixels.shape[-2:], dtype=torch.long)
    wanted = stock_losses(
        stock, pack.input_ids, pack.predict_from, pixel_values=pixels, pixel_attention_mask=mask
    )
    torch.testing.assert_close(
        ours(pack=pack.model_tensors()).target_losses, wanted, rtol=1e-4, atol=1e-4
    )


def test_a_pack_of_nothing_has_loss_0_and_gradients_of_0(checkpoint: Checkpoint, pack_of) -> None:
    """What fills up the last step of an epoch: one padding token and no target."""
    output = shares(checkpoint.model, pack_of([]))
    assert output.loss.item() == 0.0
    assert len(output.target_losses) == 0
    own = [value.grad for _, value in parameters_of(checkpoint.model, "language_model")]
    assert all(gradient is not None and not gradient.any() for gradient in own)


def test_no_mask_over_the_pack_is_built(
    checkpoint: Checkpoint, pack_of, picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would make one of seq x seq out of positions that restart, for nobody to
    read."""

    def fails(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a mask is built")

    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, SCOPE_ATTENTION, fails)
    shares(checkpoint.model, pack_of([([picture(0)], "What?", "Noise."), *ROWS_OF_TEXT]))
    with pytest.raises(AssertionError, match="a mask is built"):
        checkpoint.model(
            input_ids=torch.ones(1, 5, dtype=torch.long),
            attention_mask=torch.tensor([[0, 1, 1, 1, 1]]),
        )


def test_losses_come_a_target_each_and_detached(checkpoint: Checkpoint, pack_of, picture) -> None:
    pack = pack_of([([picture(0)], "What?", "Noise."), *ROWS_OF_TEXT])
    output = shares(checkpoint.model, pack)
    assert output.target_losses.shape == pack.target_ids.shape
    assert not output.target_losses.requires_grad
    torch.testing.assert_close(output.loss.detach(), output.target_losses.mean())


def test_the_same_picture_twice_is_encoded_once(checkpoint: Checkpoint, pack_of, picture) -> None:
    rows = [([picture(0)], "What?", "Noise."), ([picture(0), picture(0)], "And now?", "The same.")]
    pack = pack_of(rows)
    output = shares(checkpoint.model, pack)
    assert (len(pack.tiles), len(pack.slot_tiles)) == (13, 39)
    assert output.computed_features.shape == (13, 16, 32)


@pytest.mark.parametrize(("vision_lr", "sizes"), [(0.0, [10, 10, 6]), (1.0, [26])])
def test_a_frozen_tower_sees_few_tiles_at_once_and_a_trained_one_all(
    checkpoint: Checkpoint,
    pack_of,
    picture,
    vision_lr: float,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates: dict[Tower, float] = {"vision_tower": vision_lr, "connector": 1.0, "language_model": 1.0}
    freeze(checkpoint.model, LearningRates(full=rates))
    vision = checkpoint.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    assert checkpoint.model.tiles_per_call == PATCHES_PER_CALL["cpu"] // patches
    monkeypatch.setitem(PATCHES_PER_CALL, "cpu", 11 * patches - 1)
    seen: list[int] = []
    run_tower = modeling_smolvlm.run_tower

    def watched(tower: Any, pixel_values: Tensor, *others: Any) -> Tensor:
        seen.append(len(pixel_values))
        features = run_tower(tower, pixel_values, *others)
        assert features.requires_grad == bool(vision_lr)
        return features

    monkeypatch.setattr(modeling_smolvlm, "run_tower", watched)
    output = shares(checkpoint.model, pack_of([([picture(0), picture(1)], "What?", "Noise.")]))
    assert seen == sizes
    assert not output.computed_features.requires_grad
    assert len(output.computed_features) == 26


def test_features_stand_in_the_order_of_their_slots(
    checkpoint: Checkpoint, noise_tiles: Tensor
) -> None:
    model = checkpoint.model.eval()
    with torch.no_grad():
        own, _ = model.image_features(noise_tiles, None, torch.arange(3))
        mixed, computed = model.image_features(noise_tiles, None, torch.tensor([2, 0, 2, 1]))
        cached, nothing = model.image_features(noise_tiles[:0], computed, torch.tensor([2, 0]))
        half, some = model.image_features(noise_tiles[:1], computed[1:], torch.tensor([2, 0, 1]))
    assert torch.equal(mixed, own[[2, 0, 2, 1]])
    assert torch.equal(cached, own[[2, 0]])
    assert nothing is None
    assert some.shape == (1, 16, 32)
    torch.testing.assert_close(
        half, own[[2, 0, 1]], rtol=0, atol=1e-6
    )  # the first tile was computed by itself


@pytest.mark.parametrize(
    "cached_rows", [rows for size in range(1, 4) for rows in combinations(range(3), size)]
)
def test_what_the_cache_had_changes_no_bit_of_the_connectors_gradient(
    checkpoint: Checkpoint,
    noise_tiles: Tensor,
    cached_rows: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient is a sum over rows, which must come in one order whichever tiles were kept."""
    model = checkpoint.model.train()
    freeze(model, LearningRates(full={"connector": 1.0, "language_model": 1.0}))
    with torch.no_grad():
        kept = model.tower_features(noise_tiles)
    shown = [2, 0, 2, 1]

    def gradient(cached_rows: tuple[int, ...]) -> Tensor:
        computed_rows = [row for row in range(3) if row not in cached_rows]
        places = torch.tensor([[*computed_rows, *cached_rows].index(row) for row in shown])
        cached = kept[list(cached_rows)] if cached_rows else None
        # What the tower gives is the same to the bit; tiles computed by themselves need not be.
        monkeypatch.setattr(model, "tower_features", lambda _: kept[computed_rows])
        features, _ = model.image_features(noise_tiles[computed_rows], cached, places)
        weights = torch.arange(features.numel()).view_as(features).sin()
        weight = next(tower_modules(model)[1].parameters())
        return torch.autograd.grad((features * weights).sum(), weight)[0]

    assert torch.equal(gradient(cached_rows), gradient(()))


@pytest.mark.parametrize("caches_connector", [False, True])
def test_slots_of_several_tiles_show_their_mean_and_the_cache_gets_each(
    checkpoint: Checkpoint,
    noise_tiles: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caches_connector: bool,
) -> None:
    model = checkpoint.model.eval()
    monkeypatch.setattr(model, "caches_connector", caches_connector)
    places, sizes = torch.tensor([2, 0, 1, 2, 1]), torch.tensor([2, 1, 2])
    with torch.no_grad():
        own, alone = model.image_features(noise_tiles, None, torch.arange(3))
        means, computed = model.image_features(noise_tiles, None, places, sizes)
        cached, _ = model.image_features(noise_tiles[:0], computed, places, sizes)
        each, _ = model.image_features(noise_tiles, None, places, torch.ones(5, dtype=torch.long))
    torch.testing.assert_close(
        means, torch.stack([(own[2] + own[0]) / 2, own[1], (own[2] + own[1]) / 2])
    )
    assert torch.equal(means[1], own[1])
    assert torch.equal(computed, alone), "what is cached is each tile's own"
    assert torch.equal(cached, means)
    assert torch.equal(each, own[places])


@pytest.mark.parametrize("has_embeddings_frozen", [False, True])
@pytest.mark.parametrize("vision_lr", [0.0, 1.0])
def test_activation_checkpointing_changes_no_gradient(
    checkpoint: Checkpoint, pack_of, picture, has_embeddings_frozen: bool, vision_lr: float
) -> None:
    """Frozen embeddings and connector leave the language model's input without a gradient."""
    rates: dict[Tower, float] = {
        "vision_tower": vision_lr,
        "connector": vision_lr,
        "language_model": 1.0,
    }
    freeze(checkpoint.model, LearningRates(full=rates))
    checkpoint.model.get_input_embeddings().weight.requires_grad_(not has_embeddings_frozen)
    checkpoint.model.train()
    pack = pack_of([([picture(0)], "What?", "Noise."), *ROWS_OF_TEXT])
    plain = shares(checkpoint.model, pack)
    expected = gradients(checkpoint.model)
    checkpoint.model.activation_checkpointing_enable()
    again = shares(checkpoint.model, pack)
    assert torch.equal(again.loss, plain.loss)
    for name, gradient in gradients(checkpoint.model).items():
        other = expected[name]
        assert (gradient is None) == (other is None), name
        assert gradient is None or other is None or torch.equal(gradient, other), name
    trained = {tower for tower in TOWERS if rates[tower]}
    for tower in trained - {"language_model"}:
        assert all(value.grad is not None for _, value in parameters_of(checkpoint.model, tower)), (
            tower
        )


def test_autocast_in_bfloat16_stays_near(checkpoint: Checkpoint, pack_of, picture) -> None:
    """Float32 weights: the loss is float32, its gradients too, and both move by bfloat16's rounding
    alone."""
    pack = pack_of([([picture(0)], "What?", "Noise."), *ROWS_OF_TEXT])
    exact = shares(checkpoint.model, pack)
    before = checkpoint.model.lm_head.weight.grad.clone()
    checkpoint.model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = checkpoint.model(
            pack=pack.model_tensors(), normalizer=float(pack.target_weights.sum())
        )
    output.loss.backward()
    assert output.loss.dtype is torch.float32
    assert abs(output.loss.item() - exact.loss.item()) <= 1e-2 * exact.loss.item()
    after = checkpoint.model.lm_head.weight.grad
    assert after.dtype is torch.float32
    assert (after - before).norm() <= 0.05 * before.norm()


def test_weights_in_bfloat16_learn_from_a_pack(checkpoint: Checkpoint, pack_of, picture) -> None:
    pack = pack_of([([picture(0)], "What?", "Noise."), *ROWS_OF_TEXT])
    expected = shares(checkpoint.model, pack).loss.item()
    output = shares(checkpoint.model.to(torch.bfloat16), pack)
    assert output.loss.dtype is torch.float32
    assert abs(output.loss.item() - expected) <= 2e-2 * expected
    assert {value.grad.dtype for value in checkpoint.model.parameters()} == {torch.bfloat16}
