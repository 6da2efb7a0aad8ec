"""A tiny checkpoint with the vocabulary of the first 2.2B release: 49,155 tokens, no tags of tiles,
none reserved."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

KEPT = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
FIRST = 49152
VOCABULARY = FIRST + len(KEPT)


def first_release(
    base: Path, folder: Path, *, num_rows: int = VOCABULARY, num_shards: int = 1
) -> Path:
    """Write a checkpoint into `folder` that has a tiny one's weights and the first release's ids.

    Args:
        base: a tiny checkpoint with 49,280 tokens.
        num_rows: of both matrices; more than 49,155 is a padded vocabulary.
        num_shards: files that the weights lie in.
    """
    shutil.copytree(base, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    ids = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    own = [
        entry
        for entry in tokenizer["added_tokens"]
        if entry["id"] < FIRST or entry["content"] in KEPT
    ]
    for number, token in enumerate(KEPT):
        next(entry for entry in own if entry["content"] == token)["id"] = FIRST + number
    tokenizer["added_tokens"] = own
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["added_tokens_decoder"] = {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in own
    }
    path.write_text(json.dumps(settings | {"vocab_size": VOCABULARY}))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["image_token_id"] = FIRST + KEPT.index("<image>")
    config["text_config"] |= {
        "vocab_size": num_rows,
        "eos_token_id": FIRST + KEPT.index("<end_of_utterance>"),
    }
    path.write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name in ("model.text_model.embed_tokens.weight", "lm_head.weight"):
        rows = torch.cat([weights[name][:FIRST], weights[name][[ids[token] for token in KEPT]]])
        weights[name] = torch.cat([rows, torch.zeros(num_rows - len(rows), rows.shape[1])])
    _write(weights, folder, num_shards=num_shards)
    return folder


def _write(weights: dict[str, torch.Tensor], folder: Path, *, num_shards: int) -> None:
    if num_shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    (folder / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    names = sorted(weights)
    for number in range(num_shards):
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        own = names[number::num_shards]
        save_file({name: weights[name] for name in own}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    total = sum(value.numel() * value.element_size() for value in weights.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
