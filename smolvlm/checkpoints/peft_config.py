"""What peft's `LoraConfig` says of a run's adapters: as it is applied, and as it is saved.

In: each tower's `AdapterConfig`, and the layers that it names. Out: one configuration for all of
them, with full names of layers, and ranks and alphas by tower where these differ.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smolvlm.checkpoints.peft_layers import NO_LAYERS
from smolvlm.config.adapters import AdapterConfig
from smolvlm.model.towers import TOWERS, Tower

if TYPE_CHECKING:
    from peft import LoraConfig

_ROOTS: dict[Tower, tuple[str, ...]] = {
    "vision_tower": ("vision_model",),
    "connector": ("connector",),
    "language_model": ("text_model", "lm_head"),
}
"""The modules that a tower is, as peft finds them by the end of their names."""
_NAMES: dict[Tower, str] = {
    "vision_tower": r"model\.vision_model\..*",
    "connector": r"model\.connector\..*",
    "language_model": r"model\.text_model\..*|lm_head",
}
"""The names of a tower's layers, as a pattern of peft's."""


def first_of(adapters: Mapping[Tower, AdapterConfig]) -> AdapterConfig:
    """Return the settings that stand for all towers: the first one's, the defaults without any."""
    return next(iter(adapters.values()), AdapterConfig())


def peft_config(
    adapters: Mapping[Tower, AdapterConfig],
    layers: Sequence[str],
    token_rows: Mapping[str, Sequence[int]],
    *,
    base: str,
    is_resumed: bool,
) -> "LoraConfig":
    """Return peft's settings of adapters in some layers, by their full names."""
    from peft import LoraConfig

    some = first_of(adapters)
    ranks, alphas = _patterns(adapters)
    return LoraConfig(
        base_model_name_or_path=base,
        r=some.r,
        lora_alpha=_whole_number(some.alpha),  # pyright: ignore[reportArgumentType] - fractions too
        lora_dropout=some.dropout,
        target_modules=list(layers) or NO_LAYERS,
        trainable_token_indices={matrix: list(ids) for matrix, ids in token_rows.items()} or None,
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_dora=some.type == "dora",
        use_rslora=some.type == "rslora",
        init_lora_weights=_first_weights(some, is_resumed=is_resumed),
    )


def _first_weights(adapter: AdapterConfig, *, is_resumed: bool) -> Any:
    """Return what peft calls the way in which the matrices begin."""
    if adapter.type == "pissa":
        return False if is_resumed else "pissa"
    return True if adapter.init == "kaiming" else adapter.init


def _patterns(adapters: Mapping[Tower, AdapterConfig]) -> tuple[dict[str, int], dict[str, float]]:
    """Return rank and alpha by peft's patterns of names; empty where all towers have the same."""
    if len({(adapter.r, adapter.alpha) for adapter in adapters.values()}) == 1:
        return {}, {}
    ranks = {_NAMES[tower]: adapter.r for tower, adapter in adapters.items()}
    alphas = {_NAMES[tower]: _whole_number(adapter.alpha) for tower, adapter in adapters.items()}
    return ranks, alphas


def _whole_number(alpha: float) -> float:
    """Return alpha as an int where it is one: what readers of adapter folders expect."""
    return int(alpha) if alpha.is_integer() else alpha


def saved_config(config: "LoraConfig", *, whole: Collection[Tower], doubled: bool) -> "LoraConfig":
    """Return a copy for the adapter folder; peft shortens the names in the one that it applies."""
    saved = copy.deepcopy(config)
    saved.inference_mode = True
    saved.init_lora_weights = True
    saved.modules_to_save = [
        root for tower in TOWERS if tower in whole for root in _ROOTS[tower]
    ] or None
    if doubled:
        saved.r, saved.lora_alpha = 2 * saved.r, 2 * saved.lora_alpha
        saved.rank_pattern = {names: 2 * rank for names, rank in (saved.rank_pattern or {}).items()}
        saved.alpha_pattern = {
            names: 2 * alpha for names, alpha in (saved.alpha_pattern or {}).items()
        }
    return saved
