"""Training methods: a loss over groups of (predict_from, target, weight), and what its logs say.

A method says how much of a step a pack is (its share of the normalizer) and turns the targets'
negative log-likelihoods into the pack's share of the step's loss. To add one: its section in
`smolvlm/config/method.py`, a class in a file beside this one, and its line in `METHODS`; packing,
trees, ranks and the trainer stay as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor
from transformers import TrainingArguments

from smolvlm.config.method import DpoMethod, MethodConfig, SftMethod
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.train.batch import PackInfo
from smolvlm.train.methods.dpo import Preference
from smolvlm.train.methods.online_reference import OnlineReference
from smolvlm.train.methods.sft import Supervised
from smolvlm.train.run_model import RunModel


class Method(Protocol):
    """What training asks of a method."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `loss` reports; a log line has the mean over the step's pairs or rows."""
        ...

    def share(self, info: PackInfo) -> float:
        """Return how much a pack adds to the step's normalizer."""
        ...

    def loss(
        self, losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
        """Return the pack's share of the step's loss, and the sums of its metrics, detached."""
        ...

    def prepare(
        self,
        config: RunConfig,
        run_model: RunModel,
        dataset: PackDataset,
        *,
        prompt: PromptSettings,
        arguments: TrainingArguments,
    ) -> OnlineReference | None:
        """Compute what the loss needs before the first step; return the reference asked in each."""
        ...


METHODS: Mapping[type[MethodConfig], Callable[..., Method]] = {
    SftMethod: Supervised,
    DpoMethod: Preference,
}
"""Section of the run file -> the method with these settings."""


def method_of(settings: MethodConfig) -> Method:
    """Return the method of a run file's `train.method`."""
    return METHODS[type(settings)](settings=settings)
