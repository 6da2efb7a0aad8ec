"""Attention without structure, by the way that is fastest where it is computed; and within tiles.

In: queries, keys and values, all of which may see each other but for a mask. Out: what torch's SDPA
returns, from SDPA or from `products.py`. `TILE_ATTENTION` names the same to transformers, for the
vision tower.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from smolvlm.model.attention.products import attend_by_products
from smolvlm.model.autocast import product_operands
from smolvlm.model.cpu_choices import current_choices
from smolvlm.model.onednn import takes_onednn

TILE_ATTENTION = "smolvlm_tiles"
MIN_FLOAT32_ROWS = 256
"""Of shorter ones SDPA computes float32 faster: each head is a product of its own in oneDNN."""


def attend(  # noqa: PLR0913 - SDPA's own
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Return SDPA of (batch, heads, query, head) and (batch, key heads, key, head).

    Under autocast all are taken in its type, as SDPA takes them: rotary positions leave queries and
    keys in float32 beside values in bfloat16.

    Args:
        query, key, value: a head of the keys may belong to several of the queries.
        mask: (query, key) added to the scores; gets no gradient.
        is_causal: query q sees the keys up to q; not together with a mask.
        scale: of the scores; None is 1 / sqrt(head).
        dropout: share of the softmax's results that is set to zero.
    """
    query, key, value = product_operands(query, key, value)
    if _is_for_products(query) and not dropout:
        return attend_by_products(query, key, value, scale=scale, mask=mask, is_causal=is_causal)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def tile_attention(  # noqa: PLR0913 - the signature that transformers calls
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of the vision tower; (tile, heads, patch, head) in, (tile, patch,
    heads, head) out.

    The parameters are those that transformers calls every attention function with.
    """
    query, key, value = product_operands(query, key, value)
    if attention_mask is not None or dropout or not _is_for_products(query):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    attended = attend_by_products(query, key, value, scale=scaling)
    return attended.transpose(1, 2).contiguous(), None


def _is_for_products(query: Tensor) -> bool:
    if query.dtype == torch.bfloat16:
        return query.device.type == "cpu" and current_choices().bf16_products
    return query.shape[-2] >= MIN_FLOAT32_ROWS and takes_onednn(query)


AttentionInterface.register(TILE_ATTENTION, tile_attention)
AttentionMaskInterface.register(TILE_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
