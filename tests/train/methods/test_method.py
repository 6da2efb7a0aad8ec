"""Every setting of a method, from the run file to the loss: what is written is what acts."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from smolvlm.config.load import load_run_config
from smolvlm.config.method import DpoMethod
from smolvlm.errors import ConfigError
from smolvlm.train.batch import PackInfo
from smolvlm.train.methods.method import Method, Preference, Supervised, method_of
from smolvlm.train.methods.preference_losses import pair_losses, pairs_of

LOSSES = torch.tensor([1.0, 0.5, 2.0, 0.25, 1.5], dtype=torch.float64)
PACK = {
    "target_groups": torch.tensor([0, 0, 1, 2, 3]),
    "group_sizes": torch.tensor([2, 1, 1, 1]),
    "reference_logps": torch.tensor([-1.0, -2.5, -0.5, -1.0], dtype=torch.float64),
    "target_weights": torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0], dtype=torch.float64),
}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """The method of a run file whose `train` section has these settings."""

    def make(**settings: Any) -> Method:
        content = {
            "model": {"path": "some/model"},
            "data": {"mixture": []},
            "train": {"output_dir": "out", **settings},
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
        return method_of(load_run_config(tmp_path / "run.yaml").train.method)

    return make


def loss_of(method: Method) -> float:
    return float(method.loss(LOSSES, PACK, 2.0)[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "sigmoid", "beta": 0.5},
        {"loss_type": "sigmoid", "label_smoothing": 0.2},
        {"loss_type": "sigmoid", "sft_weight": 0.7},
        {"loss_type": "robust", "label_smoothing": 0.2},
        {"loss_type": "hinge", "beta": 0.9},
        {"loss_type": "ipo", "beta": 0.3},
        {"loss_type": "simpo", "beta": 2.0, "margin": 0.6},
        {"loss_type": "simpo", "margin": 1.5},
        {"loss_type": "orpo", "beta": 0.4},
        {"loss_type": "orpo", "sft_weight": 0.2},
    ],
)
def test_what_a_run_file_says_acts_upon_the_loss(written: Any, settings: dict[str, Any]) -> None:
    method = written(method="dpo", **settings)
    wanted = DpoMethod(**({"beta": 0.1} | settings))
    pairs = pairs_of(LOSSES, PACK["target_groups"], PACK["group_sizes"], PACK["reference_logps"])
    assert loss_of(method) == pytest.approx(float(pair_losses(pairs, wanted).sum()) / 2)
    for name in settings:
        others = {key: value for key, value in settings.items() if key != name}
        if name != "loss_type":
            assert loss_of(method) != pytest.approx(loss_of(written(method="dpo", **others))), name
    assert wanted.needs_reference == (settings["loss_type"] not in ("simpo", "orpo"))


def test_every_setting_of_the_loss_is_tried_above() -> None:
    names = {"type", "loss_type", "beta", "label_smoothing", "margin", "sft_weight"}
    assert set(DpoMethod.model_fields) - {"reference", "reference_model"} == names


@pytest.mark.parametrize("loss_type", ["hinge", "ipo", "simpo", "orpo"])
def test_smoothing_is_refused_where_the_loss_does_not_read_it(written: Any, loss_type: str) -> None:
    with pytest.raises(ConfigError, match=f"has no effect with train.loss_type = {loss_type}"):
        written(method="dpo", loss_type=loss_type, label_smoothing=0.1)


def test_rewards_are_logged_with_the_run_files_beta(written: Any) -> None:
    _, metrics = written(method="dpo", beta=0.5).loss(LOSSES, PACK, 2.0)
    assert metrics["logps_chosen"] == pytest.approx(-1.75)
    assert metrics["rewards_chosen"] == pytest.approx(0.5 * ((-1.5 + 1.0) + (-0.25 + 0.5)))
    assert metrics["rewards_rejected"] == pytest.approx(0.5 * ((-2.0 + 2.5) + (-1.5 + 1.0)))
    assert metrics["rewards_accuracy"] == 1.0


def test_answers_are_learned_by_their_weights(written: Any) -> None:
    method = written(method="sft")
    assert isinstance(method, Supervised)
    assert loss_of(method) == pytest.approx((1.0 + 0.5 + 1.0 + 0.25 + 1.5) / 2)


def test_a_packs_share_is_its_pairs_or_its_weights() -> None:
    info = PackInfo(
        num_tokens=9,
        budget_tokens=16,
        num_supervised_tokens=5,
        target_weight=4.5,
        num_groups=4,
        num_tiles=0,
        num_computed_tiles=0,
        tile_keys=(),
        media_states=(),
        where=("a", "b"),
        rows=("a", "b"),
        skipped=(),
    )
    assert Supervised().share(info) == 4.5
    assert Preference(settings=DpoMethod(loss_type="sigmoid", beta=0.1)).share(info) == 2
