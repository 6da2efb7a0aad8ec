"""What the reference model thinks of every answer: computed once before training and kept on disk,
or asked a step.

At the start of training the model is its own reference, whatever is trained later (all of it, a
tower, adapters), so there is no second model in memory: one pass over the packs without gradient
gives each answer's summed log-probability. With a frozen tower the pass fills the vision cache, so
training then never runs the tower. Another model can be the reference; its memory is freed after
its pass. `online_reference.py` holds those that are asked in the step instead.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from transformers import TrainingArguments

from smolvlm.checkpoints.context import context_tokens
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import one_pass, read_prompt
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.packing.pack import on_device
from smolvlm.datasets.packing.plan import plan_training
from smolvlm.disk.atomic_files import replacing
from smolvlm.errors import ConfigError
from smolvlm.media.settings import MediaSettings
from smolvlm.model.evaluating import evaluating
from smolvlm.model.vision_cache import VisionCache
from smolvlm.notices import notice
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.methods.online_reference import OnlineReference, frozen_copy
from smolvlm.train.methods.preference_losses import answer_logps
from smolvlm.train.run_model import RunModel

FILE_NAME = "reference.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferencePass:
    """How the one pass over the packs runs."""

    rank: int = 0
    """This process."""
    num_ranks: int = 1
    """Processes that share the work."""
    compute_dtype: torch.dtype = torch.float32
    """bfloat16 runs under autocast, as in training."""
    cache: VisionCache | None = None
    """Filled on the way."""


def attach_reference(
    config: RunConfig,
    settings: DpoMethod,
    run_model: RunModel,
    dataset: PackDataset,
    *,
    prompt: PromptSettings,
    arguments: TrainingArguments,
) -> OnlineReference | None:
    """Give packs their reference: into the data set now, or one to be asked in the step.

    Args:
        settings: where the reference comes from.
        run_model: before its first step, and before a checkpoint is read into it: as it was at the
            start.
        dataset: the run's; its packs come with what the reference thinks, unless that is asked in
            the step.
        prompt: of the model.
        arguments: the run's.

    Raises:
        ConfigError: `train.reference_model` cannot be loaded, or reads prompts that are not the
            run's.
    """
    model = run_model.checkpoint.model.to(arguments.device)
    compute_dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    if settings.reference != "precomputed":
        return OnlineReference(
            copied=frozen_copy(model) if settings.reference == "copy" else None,
            has_frozen_tower=run_model.learning_rates.of_tower("vision_tower") == 0,
            compute_dtype=compute_dtype,
        )
    name = settings.reference_model
    ranks = ReferencePass(
        rank=arguments.process_index,
        num_ranks=arguments.world_size,
        compute_dtype=compute_dtype,
        # Another tower's features are not this one's.
        cache=run_model.vision_cache if name is None else None,
    )
    packs = _each_row_once(dataset, config, ranks.cache)
    folder = Path(config.train.output_dir)
    identity = _identity(config, name, dataset.settings)
    logps = kept_logps(packs, folder=folder, identity=identity)
    if logps is None:
        if name is not None:
            model = other_model(name, config, prompt, packs.measured).to(arguments.device)
        logps = reference_logps(model, packs, folder=folder, identity=identity, settings=ranks)
    dataset.reference_logps = logps
    return None


def _identity(config: RunConfig, name: str | None, media: MediaSettings) -> str:
    """Return what tells the reference and its prompts from others; `name` is another model's."""
    parts = (
        weights_identity(name or config.model.path),
        config.model.dtype,
        repr(config.quantization if name is None else None),
        repr(config.model.new_tokens),
        repr(config.model.rope_scaling),
        repr(media),
    )
    return "\0".join(parts)


def weights_identity(path: str) -> str:
    """Return what identifies a checkpoint's weights; for a folder, its files' times as well."""
    files = sorted(Path(path).glob("*.safetensors"))
    return repr(
        (path, [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    )


def _each_row_once(
    dataset: PackDataset, config: RunConfig, cache: VisionCache | None
) -> PackDataset:
    """Return packs of every row, each in one of them."""
    measured = dataset.measured
    once = replace(
        measured,
        lengths=replace(measured.lengths, repeats=np.ones(len(measured.lengths), np.float32)),
    )
    return PackDataset(
        once,
        plan_training(once.lengths, one_pass(config.data)),
        encoder=dataset.encoder,
        settings=dataset.settings,
        options=PackOptions(
            read_features=cache.read if cache else None,
            plan_attention=dataset.options.plan_attention,
            on_bad_sample=config.data.on_bad_sample,
        ),
    )


def other_model(
    path: str, config: RunConfig, prompt: PromptSettings, measured: MeasuredSet
) -> VisionLanguageModel:
    """Load another checkpoint as the reference.

    Raises:
        ConfigError: there is none, or it does not read what the run's model reads, or not all of
            it.
    """
    where = f"train.reference_model={path}"
    try:
        checkpoint = load_checkpoint(path, dtype=getattr(torch, config.model.dtype))
        its_prompt = read_prompt(
            checkpoint.processor,
            config.data,
            num_rows=checkpoint.model.config.text_config.vocab_size,
        )
    except ConfigError as error:
        raise ConfigError(error.what, where=where, fix=error.fix) from error
    if its_prompt.identity != prompt.identity:
        what = f"its tokenizer, tiles or frames are not those of the model, {config.model.path}"
        raise ConfigError(what, where=where, fix="name a checkpoint that comes of the same base")
    longest, context = (
        int(measured.lengths.num_tokens.max()),
        context_tokens(checkpoint.model.config),
    )
    # Both answers of the pair are counted, so the true longest may be a little less.
    if longest > context:
        what = f"its context is {context} tokens, and a pair has {longest}"
        raise ConfigError(what, where=where, fix="name a checkpoint with a longer context")
    checkpoint.model.requires_grad_(False)  # on a CPU such a tower is laid out once
    return checkpoint.model


def kept_logps(
    packs: PackDataset, *, folder: Path, identity: str
) -> Float32[np.ndarray, "row 2"] | None:
    """Return what a run's folder holds for the same rows and model, or None."""
    path = folder / FILE_NAME
    try:
        kept = load_file(path) if path.is_file() else {}
    except (OSError, SafetensorError):
        notice(f"{path} is damaged and is made anew")
        return None
    return (
        kept["logps"] if "logps" in kept and bytes(kept["key"]) == _key(packs, identity) else None
    )


def reference_logps(
    model: VisionLanguageModel,
    packs: PackDataset,
    *,
    folder: Path,
    identity: str,
    settings: ReferencePass | None = None,
) -> Float32[np.ndarray, "row 2"]:
    """Return (chosen, rejected) log-probabilities of every row under the model as it is now.

    Args:
        model: not yet trained.
        packs: each row in exactly one of them; rows that cannot be decoded are left NaN, under
            `on_bad_sample: skip`.
        folder: the run's; what is found there for the same rows and model is read.
        identity: of model and prompts.
        settings: how the pass runs; alone and in float32 by default.
    """
    kept = kept_logps(packs, folder=folder, identity=identity)
    if kept is not None:
        return kept
    settings = settings or ReferencePass()
    rows, key, path = packs.measured.conversations, _key(packs, identity), folder / FILE_NAME
    logps = np.full((len(rows), 2), np.nan, np.float32)
    judged: list[tuple[int, float, float]] = []
    with evaluating(model, settings.compute_dtype):
        for number in range(settings.rank, len(packs), settings.num_ranks):
            judged += _of_pack(model, packs, number, settings.cache)
    for row, chosen, rejected in gather_object(judged) if settings.num_ranks > 1 else judged:
        logps[row] = chosen, rejected
    if settings.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(save({"logps": logps, "key": np.frombuffer(key, np.uint8)}))
    return logps


def _of_pack(
    model: VisionLanguageModel, packs: PackDataset, number: int, cache: VisionCache | None
) -> list[tuple[int, float, float]]:
    pack = packs[number]
    output = model(pack=on_device(pack.model_tensors(), model.device))
    if cache is not None and output.computed_features is not None:
        cache.write(pack.tile_keys, output.computed_features)
    left_out = {row.where for row in pack.skipped}
    rows = [
        row
        for sample in packs.planned(number).samples
        for row in sample
        if packs.where(row) not in left_out
    ]
    logps = answer_logps(
        output.target_losses.float().cpu(), pack.target_groups, pack.num_groups
    ).tolist()
    return list(zip(rows, logps[0::2], logps[1::2], strict=True))


def _key(packs: PackDataset, identity: str) -> bytes:
    made = blake2b(identity.encode(), digest_size=16)
    lengths = packs.measured.lengths
    for column in (lengths.num_tokens, lengths.num_supervised_tokens, lengths.num_tiles):
        made.update(np.ascontiguousarray(column).tobytes())
    if (digests := packs.measured.digests) is not None:
        made.update(digests.content.tobytes() + digests.media_sizes.tobytes())
    for row in range(len(packs.measured.conversations)):
        made.update(packs.where(row).encode(errors="surrogatepass") + b"\0")
    return made.digest()
