"""The preference benchmark at tiny dimensions: both systems learn the same from the same pairs."""

import pytest

pytest.importorskip("trl", reason="the peer: in the extra `dev`")
from benchmarks.preferences import main

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning"
)  # the peer's own


@pytest.mark.parametrize(
    "more", [pytest.param([], marks=pytest.mark.grid), ["--adapters"]], ids=["whole", "adapters"]
)
def test_the_losses_of_both_agree(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--rounds", "1", "--epochs", "2", *more]) == 0
    output = capsys.readouterr()
    assert "step 0: losses TRL 0.693147, smolvlm 0.693147" in output.err
    assert "epoch 2, medians of 1 steps" in output.out
    assert output.out.count("x as fast") == 6
