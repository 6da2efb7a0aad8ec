"""Tiny random checkpoints whose files are laid out as those of other public ones.

What differs from the released SmolVLM in each: the chat template, what begins and ends a turn,
which tokens are special.
"""

import json
from pathlib import Path
from typing import Any, Literal

from smolvlm.build.tiny import tiny_model
from tests.chat_templates import BEGIN_OF_TEXT, RELEASED, ROLE_TAGS

CheckpointShape = Literal["no_template", "role_tags", "begin_of_text", "document_tags"]
SHAPES: tuple[CheckpointShape, ...] = (
    "no_template",
    "role_tags",
    "begin_of_text",
    "document_tags",
)
DOCUMENT_TAGS = ("<doctag>", "</doctag>", "<loc_3>", "<text>", "</text>")


def make_checkpoint(folder: Path, shape: CheckpointShape) -> Path:
    """Write a checkpoint of a shape and return its folder."""
    import torch
    from transformers import AutoModelForImageTextToText

    tiny_model(folder, model_type="smolvlm" if shape == "document_tags" else "idefics3")
    template = {"role_tags": ROLE_TAGS, "begin_of_text": BEGIN_OF_TEXT}.get(shape, RELEASED)
    new_tokens = [
        token for token in template.special_tokens if token not in RELEASED.special_tokens
    ]
    if shape in ("role_tags", "document_tags"):
        new_tokens += DOCUMENT_TAGS
    ids = _add_special(folder, new_tokens)
    (folder / "chat_template.json").unlink()
    changes: dict[str, Any] = {"chat_template": None}
    if shape == "role_tags":  # one token begins, another one ends and pads
        changes |= {"bos_token": "<|start_of_role|>", "eos_token": "<|end_of_text|>"}
        changes |= {"pad_token": "<|end_of_text|>"}
    if shape == "begin_of_text":
        changes |= {"bos_token": "<|begin_of_text|>"}
    _update(folder / "tokenizer_config.json", changes)
    _update(folder / "special_tokens_map.json", {k: v for k, v in changes.items() if v})
    if shape != "no_template":
        (folder / "chat_template.jinja").write_text(template.source)
    if ids:
        torch.manual_seed(1)
        model = AutoModelForImageTextToText.from_pretrained(folder)
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        model.save_pretrained(folder)
    return folder


def _add_special(folder: Path, tokens: list[str]) -> list[int]:
    content = json.loads((folder / "tokenizer.json").read_text())
    first = max(
        max(content["model"]["vocab"].values()), *(own["id"] for own in content["added_tokens"])
    )
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": first + number, "content": token, **flags, "special": True}
        for number, token in enumerate(tokens, start=1)
    ]
    content["added_tokens"] += added
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))
    _update(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {
                str(own["id"]): {"content": own["content"], **flags, "special": True}
                for own in content["added_tokens"]
            }
        },
    )
    return [int(own["id"]) for own in added]


def _update(path: Path, values: dict[str, Any]) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    content |= values
    path.write_text(json.dumps({key: own for key, own in content.items() if own is not None}))
