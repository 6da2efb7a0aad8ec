"""Supervised fine-tuning: the loss is the mean over the answers' tokens, by their weights."""

from dataclasses import dataclass, field

from smolvlm.config.method import SftMethod
from smolvlm.model.loss import mean_of_pack
from smolvlm.train.batch import PackInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """Learn the answers."""

    settings: SftMethod = field(default_factory=SftMethod)
    metric_names: tuple[str, ...] = ()

    def share(self, info: PackInfo) -> float:
        return info.target_weight

    # The function itself: the model knows it, and then keeps no logits.
    loss = staticmethod(mean_of_pack)

    def prepare(self, *_args: object, **_kwargs: object) -> None:
        """Need nothing but the packs."""
