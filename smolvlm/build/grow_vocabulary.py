"""A checkpoint with more tokens: its folder written anew, two matrices and the tokenizer's files
changed, no more.

In: a checkpoint and texts. Out: a stock checkpoint folder, whole or not at all. Weights are not
loaded into a model: shards without embeddings or output head are copied, so every other weight
keeps its bits and its type, and a folder of any size needs the memory of its largest shard. Then
the result is loaded by plain transformers, as a user would.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils.hub import cached_file

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.load import check_place
from smolvlm.checkpoints.new_folder import check_new_folder, new_folder
from smolvlm.checkpoints.new_tokens import first_rows
from smolvlm.checkpoints.peft_layers import MERGE_COMMAND, is_adapter_folder
from smolvlm.checkpoints.processor_files import PROCESSOR_FILES
from smolvlm.checkpoints.tokenizer_files import add_to_files
from smolvlm.checkpoints.vocabulary import Placement, Wanted
from smolvlm.checkpoints.weight_files import indexed_files, open_tensors
from smolvlm.errors import ConfigError, located

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_MATRICES = ("embed_tokens.weight", "lm_head.weight")
_KEPT = ("config.json", "generation_config.json", "recipe.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grown:
    """What a checkpoint gained."""

    placement: Placement
    rows_before: int
    rows_after: int
    num_new_parameters: int
    """In both matrices together."""


def grow_checkpoint(base: str, out: Path, wanted: Sequence[Wanted]) -> Grown:
    """Write a checkpoint with new tokens, their rows the means of their pieces' rows.

    Args:
        base: hub id or folder.
        out: folder to write; new or empty.
        wanted: the texts.

    Raises:
        ConfigError: no checkpoint, something in the way, a text that cannot become a token, or
            nothing to add.
    """
    check_new_folder(out)
    if is_adapter_folder(base):
        fix = f"merge it first: {MERGE_COMMAND}"
        raise ConfigError("this is an adapter, not a whole model", where=base, fix=fix)
    check_place(base)
    with new_folder(out) as folder:
        for name in (*_KEPT, *PROCESSOR_FILES):
            if (source := _file(base, name)) is not None:
                shutil.copyfile(source, folder / name)
        for name in ("config.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ConfigError(
                    f"no {name} here", where=base, fix="give a checkpoint's folder or a hub id"
                )
        _name_tokenizer_class(folder / "tokenizer_config.json")
        with located(base):
            placement = add_to_files(folder, wanted)
        if not placement.placed:
            fix = "train on it as it is"
            raise ConfigError("it has all of these tokens already", where=base, fix=fix)
        before, after, gained = _write_weights(base, folder, placement)
        _write_config(folder / "config.json", num_rows=after)
        _check_loads(folder, placement)
    return Grown(
        placement=placement, rows_before=before, rows_after=after, num_new_parameters=gained
    )


def _file(base: str, name: str) -> Path | None:
    try:
        path = cached_file(base, name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        reason = str(error).splitlines()[0]
        fix = "check the hub id and the network, or give a local folder"
        raise ConfigError(f"cannot read the checkpoint: {reason}", where=base, fix=fix) from error
    return None if path is None else Path(path)


def _name_tokenizer_class(path: Path) -> None:
    """Let plain transformers read tokenizer.json as it stands (see `processor_files`)."""
    if path.is_file():
        content = read_object(path) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_weights(base: str, folder: Path, placement: Placement) -> tuple[int, int, int]:
    """Write all weights; return the matrices' rows before and after, and the new parameters."""
    names, index = [WEIGHTS], _file(base, INDEX)
    listed: dict[str, Any] = {}
    if index is not None:
        listed = read_object(index)
        names = sorted(set(indexed_files(index).values()))
    before = after = gained = 0
    for name in names:
        if (source := _file(base, name)) is None:
            raise ConfigError(
                f"no {name} here",
                where=base,
                fix="weights are read from safetensors files: add them",
            )
        with open_tensors(source) as shard:
            matrix_keys = [key for key in shard.keys() if key.endswith(_MATRICES)]  # noqa: SIM118 (no mapping)
            if not matrix_keys:
                shutil.copyfile(source, folder / name)
                continue
            tensors = {key: shard.get_tensor(key) for key in shard.keys()}  # noqa: SIM118
            metadata = shard.metadata()
        for key in matrix_keys:
            before = len(tensors[key])
            tensors[key] = _with_rows(tensors[key], placement)
            after = len(tensors[key])
            gained += len(placement.placed) * tensors[key].shape[1]
            if listed:
                listed["metadata"]["total_size"] += (
                    (after - before) * tensors[key].shape[1] * tensors[key].element_size()
                )
        save_file(tensors, folder / name, metadata=metadata)
    if not after:
        raise ConfigError(
            "no embeddings in its weights",
            where=base,
            fix="give a checkpoint of the SmolVLM family",
        )
    if listed:
        (folder / INDEX).write_text(json.dumps(listed, indent=2) + "\n")
    return before, after, gained


def _with_rows(matrix: Tensor, placement: Placement) -> Tensor:
    """Return a matrix with the placed tokens' first rows in it, as many rows as they need."""
    missing = max(0, placement.num_tokens - len(matrix))
    grown = torch.cat([matrix, matrix.new_zeros(missing, matrix.shape[1])])
    grown[[token.token_id for token in placement.placed]] = first_rows(matrix, placement.placed)
    return grown


def _write_config(path: Path, *, num_rows: int) -> None:
    content = read_object(path)
    for holder in (content, content["text_config"]):
        if "vocab_size" in holder:
            holder["vocab_size"] = num_rows
    content["text_config"]["vocab_size"] = num_rows
    path.write_text(json.dumps(content, indent=2) + "\n")


def _check_loads(folder: Path, placement: Placement) -> None:
    """Load the result with plain transformers: every weight in its place, and each text one id."""
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype="auto", output_loading_info=True, trust_remote_code=False
    )
    model, report = loaded
    wrong = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    assert not wrong, f"plain transformers does not find {wrong[:3]}"
    assert model.get_input_embeddings().weight.shape[0] >= placement.num_tokens
    tokenizer: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=False).tokenizer
    for token, token_id in placement.ids.items():
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        assert ids == [token_id], f"{token} reads as {ids}"
