"""Preference training: two answers of a row, the two branches of a tree, compared with a reference.

The losses' arithmetic is in `preference_losses.py`; where the reference comes from, in
`reference.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import TrainingArguments

from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.train.batch import PackInfo
from smolvlm.train.methods.online_reference import OnlineReference
from smolvlm.train.methods.preference_losses import pair_losses, pairs_of, rewards
from smolvlm.train.methods.reference import attach_reference
from smolvlm.train.run_model import RunModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """Learn to prefer `chosen` over `rejected`."""

    settings: DpoMethod
    metric_names: tuple[str, ...] = (
        *("logps_chosen", "logps_rejected", "rewards_chosen", "rewards_rejected", "rewards_margin"),
        "rewards_accuracy",
    )

    def share(self, info: PackInfo) -> float:
        return info.num_groups / 2

    def loss(
        self, losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        pairs = pairs_of(
            losses, pack["target_groups"], pack["group_sizes"], pack["reference_logps"]
        )
        chosen, rejected = rewards(pairs, self.settings)
        margins = chosen - rejected
        values = (
            pairs.chosen,
            pairs.rejected,
            chosen,
            rejected,
            margins,
            (chosen > rejected).float(),
        )
        metrics = {
            name: value.detach().sum()
            for name, value in zip(self.metric_names, values, strict=True)
        }
        return pair_losses(pairs, self.settings).sum() / normalizer, metrics

    def prepare(
        self,
        config: RunConfig,
        run_model: RunModel,
        dataset: PackDataset,
        *,
        prompt: PromptSettings,
        arguments: TrainingArguments,
    ) -> OnlineReference | None:
        """Give the packs their reference, where the loss compares with one."""
        if not self.settings.needs_reference:
            return None
        return attach_reference(
            config, self.settings, run_model, dataset, prompt=prompt, arguments=arguments
        )
