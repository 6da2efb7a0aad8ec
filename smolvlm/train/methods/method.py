"""Training methods: a loss over groups of (predict_from, target, weight), and what its logs say.

A method says how much of a step a pack is (its share of the normalizer) and turns the targets' negative
log-likelihoods into the pack's share of the step's loss. It never sees the model. Adding one is a class here and a
name in `method_of`; rows, packing, trees, ranks and the trainer stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from smolvlm.config.schema import TrainConfig
from smolvlm.model.loss import weighted_mean
from smolvlm.train.batch import PackInfo
from smolvlm.train.methods.preference import PreferenceLoss, PreferenceSettings, pair_losses, pairs_of, rewards


class Method(Protocol):
    """What the trainer asks of a method."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `loss` reports; the log line has each one's sum over the step by the number of its pairs or rows."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether rows must come with what the reference model thinks of their answers."""
        ...

    def share(self, info: PackInfo) -> float:
        """Return how much a pack adds to the step's normalizer."""
        ...

    def loss(
        self, losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """Return the pack's share of the step's loss, and the sums of its metrics, detached."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """Learn the answers."""

    metric_names: tuple[str, ...] = ()
    needs_reference: bool = False

    def share(self, info: PackInfo) -> float:
        return info.target_weight

    def loss(
        self, losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        return weighted_mean(losses, pack["target_weights"], normalizer=normalizer), {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """Learn to prefer: `chosen` over `rejected`, the two branches of a tree."""

    settings: PreferenceSettings
    metric_names: tuple[str, ...] = (
        *("logps_chosen", "logps_rejected", "rewards_chosen", "rewards_rejected", "rewards_margin"),
        "rewards_accuracy",
    )

    @property
    def needs_reference(self) -> bool:
        return self.settings.needs_reference

    def share(self, info: PackInfo) -> float:
        return info.num_groups / 2

    def loss(
        self, losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        pairs = pairs_of(losses, pack["target_groups"], pack["group_sizes"], pack["reference_logps"])
        chosen, rejected = rewards(pairs, self.settings)
        values = (pairs.chosen, pairs.rejected, chosen, rejected, chosen - rejected, (chosen > rejected).float())
        metrics = {name: value.detach().sum() for name, value in zip(self.metric_names, values, strict=True)}
        return pair_losses(pairs, self.settings).sum() / normalizer, metrics


def method_of(train: TrainConfig) -> Method:
    """Return the method that a run file's `train` section names."""
    if train.method == "sft":
        return Supervised()
    loss_type: PreferenceLoss = train.loss_type
    return Preference(
        settings=PreferenceSettings(
            loss_type=loss_type,
            beta=train.beta,
            label_smoothing=train.label_smoothing,
            margin=train.margin,
            sft_weight=train.sft_weight,
        )
    )
