"""Supervised fine-tuning: the loss is the mean over the answers' tokens, by their weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from smolvlm.config.method import SftMethod
from smolvlm.model.loss import weighted_mean
from smolvlm.train.batch import PackInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """Learn the answers."""

    settings: SftMethod = field(default_factory=SftMethod)
    metric_names: tuple[str, ...] = ()

    def share(self, info: PackInfo) -> float:
        return info.target_weight

    def loss(
        self, losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        return weighted_mean(losses, pack["target_weights"], normalizer=normalizer), {}

    def prepare(self, *_args: object, **_kwargs: object) -> None:
        """Need nothing but the packs."""
