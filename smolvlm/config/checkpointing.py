"""`train.activation_checkpointing`: which towers compute their activations again in the backward
pass."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from smolvlm.config.problems import Problem, shown_value

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

Checkpointing = Literal["language_model", "vision_tower"] | bool
"""One tower, both (true) or none."""


def checkpointing_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield a tower that keeps no activations anyway, and the kind that loses gradients."""
    choice = config.train.activation_checkpointing
    if choice == "vision_tower" and not config.rate_of("vision"):
        yield Problem(
            key="train.activation_checkpointing",
            value=shown_value(choice),
            what="has no effect: the tower is frozen, train.vision_tower_lr is 0, and keeps no "
            "activations",
            fix="set it to language_model, or give the tower a rate above 0",
        )
    yield from _reentrant_problems(config)


def _reentrant_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield reentrant checkpointing where it would silently leave layers without gradient.

    It passes gradients on only where a layer's input needs one, which behind frozen embeddings it
    does not. (Those of the language model are made to by transformers;
    `tests/model/test_checkpointing.py` shows both.)
    """
    settings = config.train.arguments.get("activation_checkpointing_kwargs") or {}
    is_reentrant = config.train.activation_checkpointing in (True, "vision_tower") and settings.get(
        "use_reentrant"
    )
    is_adapted = config.adapters.adapter_of("vision") is not None
    if (
        is_reentrant
        and config.rate_of("vision")
        and (is_adapted or config.freeze.vision_embeddings)
    ):
        cause = "adapters.vision" if is_adapted else "freeze.vision_embeddings"
        what = (
            f"the vision tower's layers would get no gradient, its embeddings being frozen "
            f"({cause})"
        )
        fix = "take use_reentrant out: without it gradients are the same in every case"
        yield Problem(
            key="train.activation_checkpointing_kwargs",
            value=shown_value(settings),
            what=what,
            fix=fix,
        )
