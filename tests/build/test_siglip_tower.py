"""SigLIP's tower in a folder: found, measured by its tensors, and refused where something is
wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from smolvlm.build.siglip_tower import read_siglip
from smolvlm.errors import ConfigError


def copied(
    source: Path, tmp_path: Path, *, config: dict | None = None, **tensors: torch.Tensor | None
) -> Path:
    """Return a copy of a one-file folder with other settings and tensors (None takes a tensor
    out)."""
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    if config:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | config))
    if tensors:
        state = load_file(folder / "model.safetensors") | tensors
        save_file(
            {name: value for name, value in state.items() if value is not None},
            folder / "model.safetensors",
        )
    return folder


def test_all_three_kinds_of_folder_give_the_same_shape(
    siglip: Path, siglip_tower: Path, paligemma: Path
) -> None:
    parts = [read_siglip(folder) for folder in (siglip, siglip_tower, paligemma)]
    assert len({part.dimensions for part in parts}) == 1
    assert parts[0].dimensions.tile_side_px == 64
    assert parts[0].dimensions.patches_per_side == 4
    assert parts[2].kind == "SigLIP tower of a paligemma checkpoint"
    assert (parts[0].pixel_mean, parts[0].pixel_std) == ((0.5,) * 3, (0.5,) * 3)


def test_names_of_older_files_are_read_too(
    siglip_tower: Path, paligemma: Path, tmp_path: Path
) -> None:
    """Files on the hub say `vision_tower.vision_model.embeddings...`, and carry a table of position
    numbers."""
    state = load_file(siglip_tower / "model.safetensors")
    older = {f"vision_tower.vision_model.{name}": tensor for name, tensor in state.items()}
    older["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(16)
    shutil.copyfile(paligemma / "config.json", tmp_path / "config.json")
    save_file(older, tmp_path / "model.safetensors")
    read = read_siglip(tmp_path).read
    assert read is not None
    found = read(3)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    assert len(found) == 2 + 1 + 2 + 3 * 16


def test_only_the_towers_shards_are_read(paligemma: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(paligemma, folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    towers = {file for name, file in index.items() if name.startswith("vision_tower.")}
    for file in set(index.values()) - towers:
        (folder / file).write_bytes(b"never looked into")
    assert len(set(index.values()) - towers) >= 1
    read = read_siglip(folder).read
    assert read is not None
    assert "post_layernorm.bias" in read(1)


def test_the_table_of_positions_tells_the_side_where_the_configuration_does_not(
    siglip_tower: Path, tmp_path: Path
) -> None:
    assert (
        read_siglip(
            copied(siglip_tower, tmp_path, config={"image_size": 224})
        ).dimensions.tile_side_px
        == 56
    )


def test_pixel_statistics_come_from_the_folders_own_file(
    siglip_tower: Path, tmp_path: Path
) -> None:
    folder = copied(siglip_tower, tmp_path)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}))
    part = read_siglip(folder)
    assert (part.pixel_mean, part.pixel_std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    path.write_text(json.dumps({"image_mean": [0.5]}))
    with pytest.raises(ConfigError, match="is not three numbers"):
        read_siglip(folder)


def test_missing_and_unfitting_tensors_are_named(siglip_tower: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict, str]] = [
        (
            {"encoder.layers.2.mlp.fc2.weight": None},
            "tensors are missing: encoder.layers.2.mlp.fc2.weight\n",
        ),
        (
            {"embeddings.patch_embedding.weight": None},
            "no tensor ends in embeddings.patch_embedding.weight",
        ),
        (
            {"other.embeddings.patch_embedding.weight": torch.zeros(1)},
            "2 tensors end in embeddings.patch_embedding.weight",
        ),
        (
            {"embeddings.position_embedding.weight": torch.zeros(15, 32)},
            "15 position embeddings are not a square of patches",
        ),
        (
            {"encoder.layers.0.mlp.fc1.weight": torch.zeros(64, 32)},
            "encoder.layers.0.mlp.fc1.weight is 64 x 32, config.json means 80 x 32",
        ),
    ]
    for number, (tensors, message) in enumerate(cases):
        with pytest.raises(ConfigError) as caught:
            read_siglip(copied(siglip_tower, tmp_path / str(number), **tensors))
        assert message in str(caught.value)
        assert "\n  fix: " in str(caught.value)


def test_bfloat16_weights_are_read_exactly(siglip_tower: Path, tmp_path: Path) -> None:
    model = SiglipVisionModel(SiglipVisionConfig.from_pretrained(siglip_tower)).bfloat16()
    model.save_pretrained(tmp_path)
    read = read_siglip(tmp_path).read
    assert read is not None
    found = read(1)["post_layernorm.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, model.post_layernorm.weight.detach().float())
