"""The one attention rule, and the function that transformers calls for it.

In: `scope_end` of a pack. Out: an `AttentionPlan` by the kind of device, and from it a `Scope`. The
function is registered with transformers under `SCOPE_ATTENTION`; without a scope (generation, stock
calls) it is transformers' own SDPA attention.
"""

from typing import Any

from jaxtyping import Int
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.plan import AttentionPlan, PlanAttention, Scope
from smolvlm.model.attention.sdpa import plan_sdpa
from smolvlm.model.attention.varlen import plan_varlen
from smolvlm.model.autocast import product_operands

SCOPE_ATTENTION = "smolvlm_scope"


def attention_planner(device_type: str, *, is_varlen: bool = False) -> PlanAttention:
    """Return what plans packs for a kind of device; it can be handed to loader workers.

    Args:
        device_type: "cpu", "cuda", "mps" or another of torch's.
        is_varlen: whether packs without branches go to FlashAttention; CUDA alone has it.
    """
    if device_type != "cuda":
        return plan_sdpa
    return plan_varlen if is_varlen else plan_flex


def attention_kind(device_type: str, *, is_varlen: bool = False) -> str:
    """Return what packs are attended with on a kind of device, in words."""
    return {
        plan_flex: "flex_attention, compiled",
        plan_varlen: "varlen FlashAttention, trees by flex_attention, compiled",
        plan_sdpa: "scope blocks over SDPA",
    }[attention_planner(device_type, is_varlen=is_varlen)]


def make_scope(scope_end: Int[Tensor, " seq"], plan: AttentionPlan | None = None) -> Scope:
    """Return the attention of a pack.

    Args:
        scope_end: on the pack's device.
        plan: as the loader made it. Without one it is made here, for which `scope_end` is read back
            from its device.
    """
    if plan is None:
        plan = attention_planner(scope_end.device.type)(scope_end.cpu().numpy()).to(
            scope_end.device
        )
    return plan.over(scope_end)


def scope_attention(  # noqa: PLR0913 - the signature that transformers calls
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    scope: Scope | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function; (1, heads, seq, head) in, (1, seq, heads, head) out.

    The parameters are those that transformers calls every attention function with.
    """
    if scope is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    # Rotary positions leave queries and keys in float32 beside values in autocast's type, which
    # SDPA would mend itself; other ways want one type, and masks are made once for it.
    query, key, value = product_operands(query, key, value)
    attended = scope.attend(query, key, value, scale=scaling, dropout=dropout)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(SCOPE_ATTENTION, scope_attention)
AttentionMaskInterface.register(SCOPE_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
