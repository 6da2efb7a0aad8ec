"""What a pack computes: the reference is asked first, and what was encoded for it is kept."""

from typing import Any

import torch

from smolvlm.model.modeling_smolvlm import PackOutput
from smolvlm.train.methods.online_reference import JudgedPack
from smolvlm.train.step import StepPolicy

COMPUTED, OF_REFERENCE = torch.zeros(1), torch.ones(1)


class Judge:
    """Stands for a reference: notes which model it is asked of."""

    def __init__(self, computed: torch.Tensor | None) -> None:
        self.computed = computed
        self.asked: list[Any] = []

    def judge(self, model: Any, pack: Any) -> JudgedPack:
        self.asked.append(model)
        return JudgedPack(
            tensors={**pack, "reference_logps": "judged"}, computed_features=self.computed
        )


def stepped(reference: Any) -> tuple[PackOutput, dict[str, Any]]:
    seen: dict[str, Any] = {}

    def model(**inputs: Any) -> PackOutput:
        seen.update(inputs)
        return PackOutput(loss=torch.tensor(2.0), computed_features=COMPUTED)

    policy = StepPolicy(reference=reference)
    return policy(model, {"input_ids": "ids"}, bare_model="bare", normalizer=3.0), seen


def test_without_a_reference_the_pack_goes_to_the_model_as_it_is() -> None:
    output, seen = stepped(None)
    assert seen == {"pack": {"input_ids": "ids"}, "normalizer": 3.0, "loss_of": seen["loss_of"]}
    assert output.computed_features is COMPUTED


def test_a_reference_is_asked_of_the_bare_model_and_its_features_are_kept() -> None:
    judge = Judge(OF_REFERENCE)
    output, seen = stepped(judge)
    assert judge.asked == ["bare"]
    assert seen["pack"] == {"input_ids": "ids", "reference_logps": "judged"}
    assert output.computed_features is OF_REFERENCE


def test_where_the_reference_has_a_tower_of_its_own_the_models_features_are_kept() -> None:
    output, _ = stepped(Judge(None))
    assert output.computed_features is COMPUTED
