"""A run with `train.use_liger_kernel` calls the kernels and nothing else of the package."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from smolvlm.train import run_model, trial
from tests.model.test_fused_layers import counted
from tests.train.conftest import TrainRun


def test_the_model_calls_the_kernels_and_the_run_is_the_same(
    train_run: TrainRun, words_alone: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """Of functions that compute as the stock layers do."""
    changes = words_alone | {"train.optim": "sgd", "train.num_train_epochs": 1}
    plain = train_run(tmp_path / "plain", changes)
    calls, asked = Counter[str](), []
    for module in (run_model, trial):
        monkeypatch.setattr(
            module, "liger_kernels", lambda kind: (asked.append(kind), counted(calls))[1]
        )
    fused = train_run(tmp_path / "fused", changes | {"train.use_liger_kernel": True})
    assert asked == ["cpu", "cpu"]
    assert calls["gate"] >= len(fused.losses) > 1
    assert fused.losses == pytest.approx(plain.losses, rel=1e-5)
    # transformers would have put its own loss into the model.
    assert fused.trained.trainer.args.use_liger_kernel is False
