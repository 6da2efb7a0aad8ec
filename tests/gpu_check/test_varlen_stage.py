"""FlashAttention beside flex, on a CPU: a reference stands in for the kernel."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_check.contract import CheckFailed, CheckSkipped, Report, Settings, read_figures
from gpu_check.stages import varlen as stage
from smolvlm.model.attention import varlen
from tests.model.attention.test_varlen import reference

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


def figures_of(folder: Path) -> dict[str, Any]:
    work = folder / "work"
    work.mkdir()
    with (folder / "figures.jsonl").open("w") as file:
        stage.run(Settings(device="cpu", is_tiny=True, work_dir=work), Report(file))
    return read_figures(folder / "figures.jsonl")


def test_without_the_kernel_it_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(CheckSkipped, match="it is for CUDA, and the run trains on cpu"):
        figures_of(tmp_path)


@pytest.fixture
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "check_varlen", lambda *_, **__: None)
    monkeypatch.setattr(varlen, "varlen_kernel", lambda: reference)


@pytest.mark.usefixtures("_kernel")
def test_every_head_layout_is_compared_and_timed(tmp_path: Path) -> None:
    figures = figures_of(tmp_path)
    for layout in ("9/3", "15/5", "32/32"):
        found = figures[f"varlen {layout}"]
        assert found["output"] <= 1
        assert found["varlen_ms"] > 0 < found["flex_ms"]
    assert figures["loss_difference"] < 1e-5
    assert figures["model, flex"]["first_loss"] > 0


@pytest.mark.usefixtures("_kernel")
def test_a_kernel_that_sees_too_much_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(query: Any, key: Any, value: Any, borders: Any, *_: Any, **options: Any) -> Any:
        whole = torch.tensor([0, int(borders[-1])], dtype=torch.int32)
        length = len(query)
        return reference(query, key, value, whole, whole, length, length, **options)

    monkeypatch.setattr(varlen, "varlen_kernel", lambda: leaking)
    with pytest.raises(CheckFailed, match=r"in units of what is allowed: 9/3, output: \d"):
        figures_of(tmp_path)
