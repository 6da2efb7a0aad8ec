"""A run whose head makes its gradients in the forward is the run whose head keeps logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from smolvlm.model import fused_loss, loss


def test_losses_and_weights_are_those_of_the_other_way(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Plain gradient descent: Adam would make much of the last bits of a gradient near 0.
    changes = words_alone | {"train.optim": "sgd", "train.num_train_epochs": 1}
    monkeypatch.setitem(fused_loss.TARGETS_PER_CHUNK, "cpu", 7)
    made, calls = loss.fused_mean, []
    monkeypatch.setattr(
        loss, "fused_mean", lambda *args, **named: (calls.append(1), made(*args, **named))[1]
    )
    fused = train_run(tmp_path / "fused", changes)
    num_calls = len(calls)
    monkeypatch.setattr(loss, "can_fuse", lambda *_: False)
    kept = train_run(tmp_path / "kept", changes)
    assert len(calls) == num_calls >= len(fused.losses) > 1
    assert fused.losses == pytest.approx(kept.losses, rel=1e-6)
    weights = [load_file(run.folder / "model.safetensors") for run in (fused, kept)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-6, atol=1e-7)
