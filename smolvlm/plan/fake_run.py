"""A run's model without weights, and its step without values.

In: a run's settings and the configuration of its model. Out: a `FakeRun`, which holds the model as
the run would train it (types, adapters, quantised layers, frozen parts, checkpointing), made of
torch's fake tensors: they know their sizes and compute nothing. A step over one of them dispatches
what a true step would.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from smolvlm.checkpoints.base import Base
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import RunConfig
from smolvlm.model.checkpointing import checkpointed_towers
from smolvlm.model.cpu_choices import STOCK_CHOICES, using_choices
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.vision import PixelScaling
from smolvlm.model.vision_cache import feature_shape
from smolvlm.plan.pack_shape import PackShape, pack_inputs
from smolvlm.plan.quantized import put_stand_ins
from smolvlm.plan.trace import Tape, Trace
from smolvlm.protocols import Processor, VisionLanguageConfig, VisionLanguageModel
from smolvlm.train.methods.method import Method, method_of
from smolvlm.train.run_model import attach_run_adapters, feature_dtype, learning_rates

_SCALING = PixelScaling(rescale_factor=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Any: no pixel is seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedModel:
    """What a run trains, before any weight is read."""

    config: VisionLanguageConfig
    processor: Processor | None = None
    """Asked for the ids of single tokens that train; a run without them needs none."""
    num_rows: int | None = None
    """Of the embedding with new tokens in it; None is as many as the configuration says."""

    @classmethod
    def of(cls, base: Base) -> "PlannedModel":
        """Return what a checkpoint's small files say."""
        num_rows = base.config.text_config.vocab_size
        if base.new_tokens:
            num_rows = max(num_rows, base.placement.num_tokens)
        return cls(config=base.config, processor=base.run_processor(), num_rows=num_rows)


class FakeRun:
    """One run's model and method over fake tensors; close it by leaving `fake_run`."""

    def __init__(
        self,
        config: RunConfig,
        model: VisionLanguageModel,
        rates: LearningRates,
        *,
        uses_bf16: bool,
    ) -> None:
        self.config, self.model, self.rates, self.uses_bf16 = config, model, rates, uses_bf16
        self.method: Method = method_of(config.train.method)
        self._traces: dict[tuple[object, ...], Trace] = {}

    @property
    def is_tower_frozen(self) -> bool:
        return not self.rates.of_tower("vision_tower")

    @property
    def keeps_features(self) -> bool:
        """Whether a tile's features are computed once and kept."""
        return self.is_tower_frozen and self.config.data.vision_cache

    def cached_tile(self) -> tuple[int, int, torch.dtype]:
        """Return rows, width and type of a tile's kept features."""
        shape = feature_shape(self.model.config, keeps_connector=self.model.caches_connector)
        return *shape, getattr(torch, feature_dtype(self.config, uses_bf16=self.uses_bf16))

    def trace(
        self,
        shape: PackShape,
        *,
        is_cached: bool = False,
        accumulates: bool = False,
        learns: bool = True,
    ) -> Trace:
        """Return what forward and backward of one pack are.

        Args:
            shape: of the pack.
            is_cached: whether its tiles' features come from the vision cache.
            accumulates: whether gradients of an earlier pack are there.
            learns: whether there is a backward pass; without it no gradient is kept in mind either.
        """
        key = (id(shape), is_cached, accumulates, learns)
        if key not in self._traces:
            self._traces[key] = self._trace(
                shape, is_cached=is_cached, accumulates=accumulates, learns=learns
            )
        return self._traces[key]

    def _trace(
        self, shape: PackShape, *, is_cached: bool, accumulates: bool, learns: bool
    ) -> Trace:
        pack = pack_inputs(
            shape,
            self.model.config,
            cached=self.cached_tile() if is_cached else None,
            has_reference=isinstance(self.config.train.method, DpoMethod),
        )
        trained = [value for value in self.model.parameters() if value.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter) if accumulates else None
        tape = Tape(vocabulary_size=self.model.config.text_config.vocab_size)
        tape.hold((*self.model.parameters(), *self.model.buffers()), "weights")
        tape.hold((value for value in pack.values() if isinstance(value, Tensor)), "inputs")
        tape.hold((value.grad for value in trained if value.grad is not None), "gradients")
        with tape, nullcontext() if learns else torch.no_grad():
            self._run(pack, learns=learns)
        trace = tape.trace(value.grad for value in trained if value.grad is not None)
        for parameter in trained:
            parameter.grad = None
        return trace

    def _run(self, pack: dict[str, Any], *, learns: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16) if self.uses_bf16 else nullcontext():
            output = self.model(pack=pack, normalizer=1.0, loss_of=self.method.loss)
        if learns:
            output.loss.float().backward()


@contextmanager
def fake_run(
    config: RunConfig, planned: PlannedModel, *, uses_bf16: bool = False
) -> Iterator[FakeRun]:
    """Open a run over fake tensors.

    Args:
        config: the settings.
        planned: its model.
        uses_bf16: whether products are computed in bfloat16, under autocast.

    Raises:
        ConfigError: the settings do not fit the model.
    """
    rates = learning_rates(config, planned.config)
    model = _model(config, planned, rates)
    # torch's own operations are those that `trace.py` knows; rates are of the ways that are chosen.
    with using_choices(STOCK_CHOICES), FakeTensorMode():
        _make_fake(model)
        model.set_pixel_scaling(_SCALING)
        yield FakeRun(config, model, rates, uses_bf16=uses_bf16)


def _model(config: RunConfig, planned: PlannedModel, rates: LearningRates) -> VisionLanguageModel:
    model_config = copy.deepcopy(planned.config)
    if planned.num_rows is not None:
        model_config.text_config.vocab_size = planned.num_rows
    build = cast(Any, MODEL_CLASSES[model_config.model_type])
    with torch.device("meta"), _default_dtype(getattr(torch, config.model.dtype)):
        model: VisionLanguageModel = build(model_config)
        put_stand_ins(model, config.quantization)
        processor = cast(Processor, planned.processor)
        checkpoint = Checkpoint(model=model, processor=processor, path=config.model.path)
        attach_run_adapters(_without_pissa(config), checkpoint, rates)
    model.use_scope_attention()
    freeze(model, rates)
    model.caches_connector = (
        not (rates.of_tower("vision_tower") or rates.of_tower("connector"))
        and config.data.vision_cache
    )
    model.touches_vision = not rates.of_tower("language_model")
    model.checkpointed_towers = checkpointed_towers(config.train.activation_checkpointing)
    if model.checkpointed_towers:
        stock = cast(Any, model)
        stock.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _make_fake(model: nn.Module) -> None:
    """Put fake tensors of the CPU in place of a model's "meta" ones: it then takes the CPU's ways.

    A model that is built of fake tensors from the start could not be given adapters: torch cannot
    change their type.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if id(value) not in made:
                blank = torch.empty(value.shape, dtype=value.dtype)
                made[id(value)] = nn.Parameter(blank, requires_grad=value.requires_grad)
            module._parameters[name] = made[id(value)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _without_pissa(config: RunConfig) -> RunConfig:
    """Return the settings with LoRA in place of PiSSA: of the same size, and nothing to take
    apart."""
    entries = {
        part: entry.model_copy(update={"type": "lora"})
        for part, entry in config.adapters.entries()
        if entry.type == "pissa"
    }
    return config.model_copy(update={"adapters": config.adapters.model_copy(update=entries)})
