"""What one pack of a step computes: the reference asked, the model's forward, the method's loss.

In: a model and a pack. Out: loss, metrics and the features that the vision cache may keep. Nothing
here knows of ranks, files or the training loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from smolvlm.model.modeling_smolvlm import PackOutput
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.batch import PackInfo
from smolvlm.train.methods.method import Method
from smolvlm.train.methods.online_reference import OnlineReference
from smolvlm.train.methods.sft import Supervised


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPolicy:
    """What is learned from a pack."""

    method: Method = field(default_factory=Supervised)
    reference: OnlineReference | None = None
    """Asked before each pack's forward; None where packs come with what the reference thinks, or
    need none."""

    def share(self, info: PackInfo) -> float:
        """Return how much a pack adds to the step's normalizer."""
        return self.method.share(info)

    def __call__(
        self,
        model: nn.Module,
        pack: Mapping[str, Any],
        *,
        bare_model: VisionLanguageModel,
        normalizer: Tensor | float,
    ) -> PackOutput:
        """Return the pack's share of the loss, the sums of its metrics, and the computed features.

        Args:
            model: called for the forward that has gradients; may be wrapped for several ranks.
            pack: its tensors, on the model's device.
            bare_model: the model without its wrapper.
            normalizer: what the step's summed loss is divided by.
        """
        computed = None
        if self.reference is not None:
            judged = self.reference.judge(bare_model, pack)
            pack, computed = judged.tensors, judged.computed_features
        output: PackOutput = model(pack=pack, normalizer=normalizer, loss_of=self.method.loss)
        if computed is not None:
            output.computed_features = computed
        return output
