"""Tiny random checkpoints whose files carry keys and spellings of other public ones.

Each variant changes the tiny model's folder in one way in which a released checkpoint differs from
it; how prompts are laid out is `checkpoint_shapes.py`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smolvlm.build.tiny import tiny_model

Change = Callable[[Path], None]
ROWS = 49_280
"""Rows of the tiny model's embedding."""
BEYOND = "<end_of_document>"
"""A token whose id has no row."""
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def make_variant(folder: Path, name: str) -> Path:
    """Write the checkpoint of a variant and return its folder."""
    tiny_model(folder, model_type="smolvlm" if name in SMOLVLM else "idefics3")
    VARIANTS[name](folder)
    return folder


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def update(path: Path, **changes: Any) -> None:
    """Write values over a file's; None takes a key out."""
    content = (read(path) if path.is_file() else {}) | changes
    path.write_text(json.dumps({key: own for key, own in content.items() if own is not None}))


def update_part(folder: Path, part: str, **changes: Any) -> None:
    """Write values over those of a part of the model's configuration."""
    content = read(folder / "config.json")[part] | changes
    kept = {key: own for key, own in content.items() if own is not None}
    update(folder / "config.json", **{part: kept})


def _legacy_keys(folder: Path) -> None:
    """Keys that transformers 4.46 wrote, and that nothing reads now."""
    update(
        folder / "config.json",
        pad_token_id=2,
        use_cache=True,
        torch_dtype="bfloat16",
        dtype=None,
        vocab_size=ROWS,
        **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}},
    )
    update_part(
        folder,
        "text_config",
        _flash_attn_2_enabled=True,
        _name_or_path="None",
        architectures=["VLlama3ForCausalLM"],
        is_llama_config=True,
        pixel_shuffle_factor=4,
        use_resampler=False,
        qk_layer_norms=False,
        neftune_noise_alpha=0.0,
        rope_interleaved=False,
        eos_token_id=2,
        perceiver_config={"model_type": "vllama3", "resampler_n_latents": 64},
    )
    update_part(
        folder,
        "vision_config",
        use_base_siglip=True,
        max_image_size={"longest_edge": 32},
        size={"longest_edge": 128},
        model_type="idefics3",
    )
    update(folder / "generation_config.json", eos_token_id=49_279, bos_token_id=0, pad_token_id=2)


def _pad_is_end(folder: Path) -> None:
    end = "<end_of_utterance>"
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        update(folder / name, pad_token=end, eos_token=end)
    update(folder / "config.json", pad_token_id=49_279, eos_token_id=49_279)
    update_part(folder, "text_config", pad_token_id=49_279, eos_token_id=49_279)
    update(folder / "generation_config.json", pad_token_id=49_279, eos_token_id=[49_279, 2])


def _tied(folder: Path, *, text: bool | None = True, top: bool | None = True) -> None:
    """Output head and embedding are one matrix, stored once."""
    from safetensors.torch import load_file, save_file

    update(folder / "config.json", tie_word_embeddings=top)
    update_part(folder, "text_config", tie_word_embeddings=text)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tokens(folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the tokenizer's added tokens, in both files that list them."""
    content = read(folder / "tokenizer.json")
    added = change(content["added_tokens"])
    content["added_tokens"] = added
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))
    kept = {str(own["id"]): {k: v for k, v in own.items() if k != "id"} for own in added}
    update(folder / "tokenizer_config.json", added_tokens_decoder=kept)


def _holes(folder: Path) -> None:
    """Ids that no token has: the reserved ones between <image> and <end_of_utterance>."""
    _tokens(
        folder, lambda added: [own for own in added if "reserved_special" not in own["content"]]
    )


def _beyond(folder: Path) -> None:
    """A token behind the last row of the embedding, as where a processor added one on its own."""
    token = {"id": ROWS, "content": BEYOND, **FLAGS, "special": True}
    _tokens(folder, lambda added: [*added, token])
    update(folder / "added_tokens.json", **{BEYOND: ROWS})


def _more_rows(folder: Path) -> None:
    """More rows than tokens, as where they were padded to a round number."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.resize_token_embeddings(49_408, mean_resizing=False)
    model.save_pretrained(folder)


def _scale(folder: Path, *, factor: int) -> None:
    """A tile of 12 x 12 patches, of which `factor` x `factor` become a token."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    side = 48
    update(folder / "config.json", scale_factor=factor)
    update_part(
        folder,
        "vision_config",
        image_size=side,
        patch_size=4,
        max_image_size={"longest_edge": side},
        size={"longest_edge": 4 * side},
    )
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(folder)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    image_sizes = {"max_image_size": {"longest_edge": side}, "size": {"longest_edge": 4 * side}}
    update(folder / "preprocessor_config.json", **image_sizes)
    update(folder / "processor_config.json", image_seq_len=(12 // factor) ** 2)


def _one_file(folder: Path) -> None:
    """The layout of transformers 5: `processor_config.json` holds the image processor too."""
    images = read(folder / "preprocessor_config.json")
    (folder / "preprocessor_config.json").unlink()
    update(folder / "processor_config.json", image_processor=images)


def _saved_anew(folder: Path) -> None:
    """All files as the installed transformers writes them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor, tokenizer_json = AutoProcessor.from_pretrained(folder), folder / "tokenizer.json"
    text = tokenizer_json.read_text()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for path in folder.iterdir():
        path.unlink()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer_json.write_text(text)  # transformers 5.23 writes another splitting of digits


def _video_in_pictures_file(folder: Path) -> None:
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}}
    update(folder / "preprocessor_config.json", video_sampling=sampling)
    (folder / "video_preprocessor_config.json").unlink(missing_ok=True)
    update(folder / "config.json", image_seq_len=4)


def _video_file(folder: Path) -> None:
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}}
    images = read(folder / "preprocessor_config.json")
    images.pop("image_processor_type")
    own = {"size": {"longest_edge": 32}, "video_processor_type": "SmolVLMVideoProcessor"}
    changes = images | own | {"video_sampling": sampling}
    update(folder / "video_preprocessor_config.json", **changes)


def _named_tokens(folder: Path) -> None:
    """`extra_special_tokens`, in which later tokenizers name the tokens of pictures."""
    names = {
        "end_of_utterance_token": "<end_of_utterance>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "image_token": "<image>",
    }
    update(
        folder / "tokenizer_config.json",
        extra_special_tokens=names,
        clean_up_tokenization_spaces=True,
        padding_side="left",
        add_bos_token=False,
        errors="replace",
    )


def _llama3_rope(folder: Path) -> None:
    rope = {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    update_part(
        folder,
        "text_config",
        rope_scaling={**rope, "rope_theta": 500_000.0},
        rope_parameters=None,
        rope_theta=500_000.0,
        max_position_embeddings=131_072,
    )


VARIANTS: Mapping[str, Change] = {
    "legacy_keys": _legacy_keys,
    "pad_is_end": _pad_is_end,
    "tied": _tied,
    "tied_by_text_config": lambda folder: _tied(folder, top=None),
    "tied_by_top": lambda folder: _tied(folder, text=None),
    "holes": _holes,
    "beyond": _beyond,
    "more_rows": _more_rows,
    "scale_3": lambda folder: _scale(folder, factor=3),
    "scale_4": lambda folder: _scale(folder, factor=4),
    "one_file": _one_file,
    "saved_anew": _saved_anew,
    "video_in_pictures_file": _video_in_pictures_file,
    "video_file": _video_file,
    "named_tokens": _named_tokens,
    "llama3_rope": _llama3_rope,
}
SMOLVLM = frozenset({"saved_anew", "video_in_pictures_file", "video_file", "named_tokens"})
"""Variants of the later model type; the others are of the first one, `idefics3`."""
