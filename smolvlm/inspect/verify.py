"""The law of packing, checked on a user's own rows and model: packed = alone.

In: a run's settings and some of its samples. Out: how far the loss and the gradient of everything
that the run trains are, of one pack, from those of its conversations run one by one through the
stock classes, on what the stock processor makes of them. What the run does, both sides do: adapters
(ours in place, theirs by peft), quantised weights (theirs the same numbers in ordinary layers), the
preference loss (theirs as the papers write it), the checkpoint that the run resumes from. (Frames
that are averaged: the stock model's features of each, averaged by hand, since it has no such
thing.) What is left out is said.

Weights, activations and losses are float64, but for what transformers computes in float32 always
(norms, rotary tables): what is left is the arithmetic, not its rounding. (In float32 a tower with
large activations is off by 1.4e-5 in some gradient from rounding alone.)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from smolvlm.checkpoints.peft_layers import is_adapter_folder
from smolvlm.config.method import DpoMethod, RowKind
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.pack import Pack
from smolvlm.errors import ConfigError
from smolvlm.inspect.alone_gradients import AloneRows, alone_gradients
from smolvlm.inspect.not_covered import not_covered
from smolvlm.inspect.packed_gradients import PackedGradients, packed_gradients
from smolvlm.model.towers import TOWERS, Tower, tower_of
from smolvlm.protocols import Processor
from smolvlm.train.arguments import is_bf16_default
from smolvlm.train.resuming import find_checkpoint, run_identity
from smolvlm.train.row_record import RowRecord
from smolvlm.train.run_model import check_model

LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5
ZERO_GRADIENT = 1e-7
"""Of the largest gradient's norm: below it a gradient is rounding alone (that of a key bias, which
softmax cancels)."""

ROW_WORDS: Mapping[RowKind, str] = {
    "conversation": "conversations",
    "preference": "pairs of answers",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """How far packed is from alone."""

    num_conversations: int
    """Rows; a preference row, which is a pair of answers, counts once."""
    row_words: str
    """What a row is, in the plural."""
    num_tokens_packed: int
    num_tokens_alone: int
    ids_differ: tuple[str, ...]
    """`file:row` of conversations whose ids are not the stock processor's."""
    loss_packed: float
    loss_alone: float
    gradient_error: Mapping[Tower, float]
    """Of each tower that trains: the largest |difference| / |gradient| over what trains in it."""
    compared: tuple[str, ...] = ()
    """What was compared besides plain weights, in words: adapters, quantisation, method,
    checkpoint."""
    not_covered: tuple[str, ...] = ()
    """What the run does and the comparison does not, in words."""

    @property
    def loss_error(self) -> float:
        return abs(self.loss_packed - self.loss_alone) / max(abs(self.loss_alone), 1.0)

    @property
    def holds(self) -> bool:
        worst = max(self.gradient_error.values())
        return (
            not self.ids_differ
            and self.loss_error <= LOSS_TOLERANCE
            and worst <= GRADIENT_TOLERANCE
        )


def verify_pack(
    dataset: PackDataset,
    pack: Pack,
    rows: Sequence[int],
    *,
    config: RunConfig,
    processor: Processor,
) -> Verification:
    """Compare one pack with its conversations alone.

    Args:
        dataset: which the pack comes from (no vision cache: pixels are needed).
        pack: built by the dataset.
        rows: numbers of the pack's conversations in the dataset.
        config: the run's settings; the model is loaded twice, one after the other.
        processor: of the checkpoint, as `load_processor` gives it, new tokens in it.

    Raises:
        ConfigError: training could not begin at the model, or not resume from the checkpoint that
            the run file names.
    """
    base = check_model(config)
    resume, left_out = _checkpoint(config, dataset)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        packed = packed_gradients(config, base, dataset, pack, resume=resume, adapter_folder=folder)
        adapters = [path for path in (resume, folder) if path and is_adapter_folder(path)]
        alone = alone_gradients(
            config,
            AloneRows(dataset=dataset, numbers=rows, processor=processor),
            trained=packed.shapes,
            resume=resume,
            adapter_folder=adapters[0] if adapters else None,
        )
    trained: set[Tower] = {tower_of(name) for name in packed.gradients}
    errors = gradient_errors(packed.gradients, alone.gradients)
    left_out += _without_gradient(trained, [packed.gradients, alone.gradients])
    return Verification(
        num_conversations=len(rows),
        row_words=ROW_WORDS[config.train.method.ROWS],
        num_tokens_packed=len(pack.input_ids),
        num_tokens_alone=alone.num_tokens,
        ids_differ=alone.ids_differ,
        loss_packed=packed.loss,
        loss_alone=alone.loss,
        gradient_error={tower: errors[tower] for tower in TOWERS if tower in trained},
        compared=tuple(_compared(config, packed, resume)),
        not_covered=(*left_out, *not_covered(config)),
    )


def _checkpoint(config: RunConfig, dataset: PackDataset) -> tuple[Path | None, list[str]]:
    """Return the checkpoint that the run resumes from, and what keeps it from resuming.

    Raises:
        ConfigError: the run file names a checkpoint that cannot be resumed from.
    """
    choice, output_dir = config.train.resume_from_checkpoint, config.train.output_dir
    identity = run_identity(
        config.model_dump(mode="json"),
        dataset.plan,
        is_bf16_default=is_bf16_default(config.train),
        rows=RowRecord.of(dataset.measured, on_change=config.train.on_changed_data),
    )
    try:
        return find_checkpoint(choice, output_dir=output_dir, identity=identity), []
    except ConfigError as error:
        if choice != "auto":
            raise
        reason = error.what.splitlines()[0].removesuffix(":")
        what = f"resuming, which training would refuse: {reason} ({error.where})"
        return None, [f"{what}; compared at the run's start"]


def _without_gradient(
    trained: Collection[Tower], sides: Sequence[Mapping[str, Tensor | None]]
) -> list[str]:
    """Return a line for each tower that trains and has no gradient but 0 on either side."""
    reached = {
        tower_of(name)
        for gradients in sides
        for name, gradient in gradients.items()
        if gradient is not None and gradient.any()
    }
    return [
        f"gradients of the {tower.replace('_', ' ')}: these rows give it none"
        for tower in TOWERS
        if tower in trained and tower not in reached
    ]


def _compared(config: RunConfig, packed: PackedGradients, resume: Path | None) -> list[str]:
    """Return what was compared besides plain weights."""
    lines = [*packed.notes]
    if packed.num_filled:
        lines.append(f"{packed.num_filled} adapter matrices that begin at 0 hold random numbers")
    method = config.train.method
    if isinstance(method, DpoMethod):
        reference = f"reference {method.reference_model or method.reference}"
        known = reference if method.needs_reference else "no reference"
        lines.append(f"{method.type}, loss {method.loss_type}, {known}")
    return [*lines, f"weights of {resume}, which the run resumes from"] if resume else lines


def gradient_errors(
    ours: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor | None]
) -> dict[Tower, float]:
    """Return by tower the largest relative error, in norm, of a parameter's gradient.

    Parameters whose gradients are both below `ZERO_GRADIENT` of the largest count as equal.
    """
    norms = [float(gradient.norm()) for gradient in theirs.values() if gradient is not None]
    floor = ZERO_GRADIENT * max(norms, default=0.0)
    worst: dict[Tower, float] = dict.fromkeys(TOWERS, 0.0)
    for name, gradient in theirs.items():
        other = ours[name]
        size = 0.0 if gradient is None else float(gradient.norm())
        our_size = 0.0 if other is None else float(other.norm())
        if max(size, our_size) <= floor:
            continue
        if gradient is None or other is None:
            worst[tower_of(name)] = float("inf")
            continue
        error = float((other - gradient).norm()) / size if size else float("inf")
        worst[tower_of(name)] = max(worst[tower_of(name)], error)
    return worst
