"""Built models: features and logits are the sources' own, and stock classes load them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Dinov2Model,
    LlamaForCausalLM,
    PaliGemmaForConditionalGeneration,
    SiglipModel,
    SiglipVisionModel,
)

from smolvlm.build.build import build_model, write_build
from smolvlm.build.build_plan import BuildRecipe, plan_build
from smolvlm.build.calibration import drawn_pictures, tower_features
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.errors import ConfigError
from smolvlm.model.vision import PixelScaling


def pixels(side_px: int) -> Tensor:
    return torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(3))


def built(vision: Path, language: Path, **options: object):
    return build_model(
        plan_build(replace(BuildRecipe(language=str(language), vision=str(vision)), **options))
    )[0]


@torch.no_grad()
def features(model, of: Tensor) -> Tensor:
    return model.model.vision_model(of).last_hidden_state


@torch.no_grad()
def test_a_siglip_tower_keeps_its_features(
    siglip: Path, siglip_tower: Path, other_llama: Path
) -> None:
    whole = SiglipModel.from_pretrained(siglip).vision_model
    assert torch.equal(
        features(built(siglip, other_llama), pixels(64)), whole(pixels(64)).last_hidden_state
    )
    alone = SiglipVisionModel.from_pretrained(siglip_tower)
    assert torch.equal(
        features(built(siglip_tower, other_llama), pixels(64)), alone(pixels(64)).last_hidden_state
    )


@torch.no_grad()
def test_a_tower_out_of_a_full_paligemma_keeps_its_features(
    paligemma: Path, other_llama: Path
) -> None:
    source = PaliGemmaForConditionalGeneration.from_pretrained(paligemma).model.vision_tower
    model = built(paligemma, other_llama, model_type="idefics3")
    assert torch.equal(features(model, pixels(64)), source(pixels(64)).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("side_px", [42, 84, 117])
def test_at_another_side_positions_are_resampled_as_siglip_does(
    siglip_tower: Path, other_llama: Path, side_px: int
) -> None:
    source = SiglipVisionModel.from_pretrained(siglip_tower)
    factor = side_px // 14
    found = features(
        built(siglip_tower, other_llama, tile_side_px=side_px, scale_factor=factor), pixels(side_px)
    )
    expected = source(pixels(side_px), interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_dinov2_tower_is_the_source_without_its_class_token(
    dinov2: Path, other_llama: Path
) -> None:
    """Tolerance: layer scale is folded into weights, so sums are rounded in another order."""
    source = Dinov2Model.from_pretrained(dinov2).eval()
    embeddings = source.embeddings
    patches = embeddings.patch_embeddings(pixels(64)) + embeddings.position_embeddings[:, 1:]
    expected = source.layernorm(source.encoder(patches).last_hidden_state)
    found = features(built(dinov2, other_llama), pixels(64))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)
    with_class_token = source(pixels(64)).last_hidden_state[:, 1:]
    assert (found - with_class_token).abs().max() > 0.01, (
        "dropping the class token is what makes a difference"
    )


@torch.no_grad()
def test_text_logits_are_the_language_models_to_the_bit(
    siglip_tower: Path, smollm2: Path, other_llama: Path
) -> None:
    for folder, own_tokens in ((smollm2, 49_152), (other_llama, 280)):
        source = LlamaForCausalLM.from_pretrained(folder).eval()
        ids = torch.randint(0, own_tokens, (2, 40), generator=torch.Generator().manual_seed(1))
        found = built(siglip_tower, folder).eval()(input_ids=ids).logits[..., :own_tokens]
        assert torch.equal(found, source(input_ids=ids).logits[..., :own_tokens])


def test_new_rows_are_drawn_and_spare_ones_kept(siglip_tower: Path, other_llama: Path) -> None:
    plan = plan_build(BuildRecipe(language=str(other_llama), vision=str(siglip_tower)))
    model, vocabulary = build_model(plan)
    source = LlamaForCausalLM.from_pretrained(other_llama)
    assert (vocabulary.first_new_id, vocabulary.end_new_id, vocabulary.ids.vocabulary_size) == (
        280,
        409,
        409,
    )
    for own, theirs in (
        (model.get_input_embeddings().weight, source.get_input_embeddings().weight),
        (model.lm_head.weight, source.lm_head.weight),
    ):
        assert torch.equal(own[:280], theirs[:280])
        assert own[280:].unique(dim=0).shape == (129, 32)
        assert own[280:].detach().std().item() == pytest.approx(
            theirs[:280].detach().std().item(), rel=0.1
        )


@torch.no_grad()
@pytest.mark.parametrize("layers", [None, 2])
def test_what_the_connector_makes_of_pictures_is_as_large_as_the_embeddings(
    siglip: Path, other_llama: Path, layers: int | None
) -> None:
    model = built(siglip, other_llama, vision_layers=layers)
    scaling = PixelScaling(rescale_factor=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = tower_features(model.model.vision_model, drawn_pictures(side_px=64), scaling=scaling)
    spread = (
        model.model.connector(found).square().mean().sqrt()
        / model.get_input_embeddings().weight.std()
    )
    assert 0.7 < spread < 1.4
    if layers:
        torch.testing.assert_close(found.flatten(0, 1).std(0), torch.ones(32), atol=1e-3, rtol=0)


def test_stock_classes_load_what_is_written_and_answer(
    dinov2: Path, other_llama: Path, tmp_path: Path
) -> None:
    recipe = BuildRecipe(
        language=str(other_llama), vision=str(dinov2), tile_side_px=112, longest_edge_px=224
    )
    write_build(plan_build(recipe), tmp_path / "built")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "built")
    processor = AutoProcessor.from_pretrained(tmp_path / "built")
    batch = processor(
        text="<image>What is it?",
        images=[[Image.new("RGB", (64, 64), "teal")]],
        return_tensors="pt",
    )
    assert batch["pixel_values"].shape == (1, 5, 3, 112, 112)
    assert (
        (batch["input_ids"] == model.config.image_token_id).sum()
        == 5 * processor.image_seq_len
        == 5 * 16
    )
    assert processor.image_processor.image_mean == (0.485, 0.456, 0.406)
    generated = model.generate(**batch, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert generated.shape[1] == batch["input_ids"].shape[1] + 2
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    checkpoint = load_checkpoint(
        str(tmp_path / "built")
    )  # checks model and processor against each other
    assert checkpoint.model.pixel_scaling.std == (0.229, 0.224, 0.225)


@torch.no_grad()
def test_the_model_in_memory_is_the_one_that_is_written(
    siglip: Path, other_llama: Path, tmp_path: Path
) -> None:
    plan = plan_build(
        BuildRecipe(language=str(other_llama), vision=str(siglip), image_splitting=False)
    )
    model, _ = build_model(plan)
    write_build(plan, tmp_path / "built")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "built")
    assert all(
        torch.equal(loaded.state_dict()[name], tensor)
        for name, tensor in model.state_dict().items()
    )
    ids = torch.randint(0, 280, (1, 20), generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    assert not AutoProcessor.from_pretrained(tmp_path / "built").image_processor.do_image_splitting


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(
    siglip: Path, other_llama: Path, tmp_path: Path
) -> None:
    recipe = BuildRecipe(language=str(other_llama), vision=str(siglip))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_build(plan_build(replace(recipe, seed=seed)), tmp_path / name, dtype=torch.bfloat16)
    digests = [
        {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in (tmp_path / name).iterdir()
        }
        for name in "abc"
    ]
    assert digests[0] == digests[1]
    assert {name for name, digest in digests[0].items() if digests[2][name] != digest} == {
        "model.safetensors"
    }
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "a").dtype == torch.bfloat16


def test_names_without_weights_say_what_to_download(tmp_path: Path) -> None:
    plan = plan_build(BuildRecipe(language="smollm2-135m", vision="paligemma2-448"))
    with pytest.raises(ConfigError) as caught:
        write_build(plan, tmp_path / "out")
    assert str(caught.value) == (
        "paligemma2-448: a shape without weights: it can be counted, not built\n"
        "  fix: download google/paligemma2-3b-pt-448 (hf download google/paligemma2-3b-pt-448 "
        "--local-dir FOLDER) "
        "and give FOLDER; `vit-s14` comes from the package index; --dry-run needs no weights"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_not_written_to(
    siglip: Path, other_llama: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(ConfigError, match="there is something in it already"):
        write_build(
            plan_build(BuildRecipe(language=str(other_llama), vision=str(siglip))), tmp_path
        )


@pytest.mark.slow
@torch.no_grad()
def test_the_parts_of_the_package_index_become_a_model_that_still_talks(tmp_path: Path) -> None:
    recipe = BuildRecipe(language="smollm2-135m-4bit", vision="vit-s14", tile_side_px=112)
    write_build(plan_build(recipe), tmp_path / "built")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "built")
    processor = AutoProcessor.from_pretrained(tmp_path / "built")
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    batch = processor(text=prompt, return_tensors="pt")
    answer = model.generate(**batch, max_new_tokens=8, do_sample=False)
    assert "The capital of France is Paris." in processor.decode(
        answer[0, batch["input_ids"].shape[1] :]
    )
