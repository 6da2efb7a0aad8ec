"""What the reference model thinks of every answer, computed once before training and kept on disk.

At the start of training the model is its own reference, whatever is trained later (all of it, a tower, adapters), so
no second model is held: one pass over the packs without gradient gives each answer's summed log-probability. With a
frozen tower the pass fills the vision cache, so training then never runs the tower.
"""

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float32
from safetensors.numpy import load_file, save_file
from transformers import TrainingArguments

from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import one_pass
from smolvlm.datasets.dataset import SupervisedDataset
from smolvlm.datasets.plan import plan_training
from smolvlm.model.vision_cache import VisionCache
from smolvlm.train.batch import as_batch
from smolvlm.train.preference import pairs_of
from smolvlm.train.run_model import RunModel

FILE_NAME = "reference.safetensors"


def reference_of_run(
    config: RunConfig, own: RunModel, dataset: SupervisedDataset, arguments: TrainingArguments
) -> Float32[np.ndarray, "row 2"]:
    """Return what the model as it is now thinks of every row's answers, each row once."""
    measured, cache = dataset.measured, own.vision_cache
    once = replace(measured, lengths=replace(measured.lengths, repeats=np.ones(len(measured.lengths), np.float32)))
    packs = SupervisedDataset(
        once,
        plan_training(once.lengths, one_pass(config.data)),
        encoder=dataset.encoder,
        settings=dataset.settings,
        read_features=cache.read if cache else None,
        on_bad_sample=config.data.on_bad_sample,
    )
    return reference_logps(
        own.checkpoint.model.to(arguments.device),
        packs,
        folder=Path(config.train.output_dir),
        identity="\0".join((config.model.path, config.model.dtype, repr(dataset.settings))),
        rank=arguments.process_index,
        num_ranks=arguments.world_size,
        compute_dtype=torch.bfloat16 if arguments.bf16 else torch.float32,
        cache=cache,
    )


def reference_logps(
    model: Any,
    packs: SupervisedDataset,
    *,
    folder: Path,
    identity: str,
    rank: int = 0,
    num_ranks: int = 1,
    compute_dtype: torch.dtype = torch.float32,
    cache: VisionCache | None = None,
) -> Float32[np.ndarray, "row 2"]:
    """Return (chosen, rejected) log-probabilities of every measured row under the model as it is now.

    Args:
        model: not yet trained.
        packs: each row in exactly one of them; rows that cannot be decoded are left NaN, under `on_bad_sample: skip`.
        folder: the run's; what is found there for the same rows and model is read.
        identity: of model and prompts.
        rank: this process.
        num_ranks: processes that share the work.
        compute_dtype: bfloat16 runs under autocast, as in training.
        cache: filled on the way.
    """
    rows = packs.measured.conversations
    key = _key(packs, identity)
    path = folder / FILE_NAME
    kept = load_file(path) if path.is_file() else {}
    if "logps" in kept and bytes(kept["key"]) == key:
        return kept["logps"]
    logps = np.full((len(rows), 2), np.nan, np.float32)
    found: list[tuple[int, float, float]] = []
    was_training = model.training
    model.eval()
    autocast = torch.autocast(model.device.type, dtype=compute_dtype, enabled=compute_dtype != torch.float32)
    with torch.no_grad(), autocast:
        for number in range(rank, len(packs), num_ranks):
            found += _of_pack(model, packs, number, cache)
    model.train(was_training)
    for row, chosen, rejected in gather_object(found) if num_ranks > 1 else found:
        logps[row] = chosen, rejected
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"logps": logps, "key": np.frombuffer(key, np.uint8)}, path)
    return logps


def _of_pack(
    model: Any, packs: SupervisedDataset, number: int, cache: VisionCache | None
) -> list[tuple[int, float, float]]:
    pack = packs[number]
    batch = as_batch([pack])
    tensors = {name: None if own is None else own.to(model.device) for name, own in batch["pack"].items()}
    output = model(pack=tensors)
    if cache is not None and output.computed_features is not None:
        cache.write(pack.tile_keys, output.computed_features)
    left_out = {row.where for row in pack.skipped}
    rows = [row for sample in packs.planned(number).samples for row in sample if packs.where(row) not in left_out]
    groups = pack.target_groups.to(model.device)
    pairs = pairs_of(output.target_losses.float(), groups, None)
    return list(zip(rows, pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))


def _key(packs: SupervisedDataset, identity: str) -> bytes:
    made = blake2b(identity.encode(), digest_size=16)
    lengths = packs.measured.lengths
    for column in (lengths.num_tokens, lengths.num_supervised_tokens, lengths.num_tiles):
        made.update(np.ascontiguousarray(column).tobytes())
    for row in range(len(packs.measured.conversations)):
        made.update(packs.where(row).encode() + b"\0")
    return made.digest()
