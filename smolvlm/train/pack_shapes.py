"""What a run makes of its packs before they reach the device: planned, padded, or cut among ranks.

In: a run's settings and where it computes. Out: the parts of `PackOptions` that say so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from transformers import TrainingArguments

from smolvlm.config.schema import RunConfig
from smolvlm.datasets.packing.buckets import PackBuckets
from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.attention.plan import PlanAttention
from smolvlm.model.attention.rule import attention_planner
from smolvlm.model.attention.sdpa import DENSE_TOKENS, plan_sdpa
from smolvlm.model.cpu_choices import current_choices
from smolvlm.train.context_packs import context_cut


@dataclass(frozen=True, kw_only=True, slots=True)
class PackShapes:
    """How packs are handed out; one of the two plans their attention."""

    plan_attention: PlanAttention | None
    reshape: Callable[[Pack], Pack] | None


def pack_shapes(config: RunConfig, arguments: TrainingArguments, *, pad_id: int) -> PackShapes:
    """Return how packs are handed out.

    Args:
        config: the run's.
        arguments: the run's, which know the device and the ranks.
        pad_id: token that stands for nothing.
    """
    if (cut := context_cut(config.train, arguments)) is not None:
        return PackShapes(plan_attention=None, reshape=cut)
    plan_attention = _planner(config, arguments)
    if config.data.pad_packs:
        buckets = PackBuckets(pad_id=pad_id, plan_attention=plan_attention)
        return PackShapes(plan_attention=None, reshape=buckets)
    return PackShapes(plan_attention=plan_attention, reshape=None)


def _planner(config: RunConfig, arguments: TrainingArguments) -> PlanAttention:
    """Return what plans packs; on a CPU in float32 small conversations are gathered as chosen."""
    kind = arguments.device.type
    dense_tokens = current_choices().float32_dense_tokens
    if kind != "cpu" or arguments.bf16 or config.model.dtype != "float32":
        dense_tokens = DENSE_TOKENS
    if dense_tokens == DENSE_TOKENS:
        return attention_planner(kind, is_varlen=config.model.attention == "varlen")
    return partial(plan_sdpa, dense_tokens=dense_tokens)
