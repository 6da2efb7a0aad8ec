"""What cannot work where several ranks hold a pack together is refused before anything is read."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.context_ranks import data_ranks
from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.errors import ConfigError


def test_what_is_written_down_is_read_again(load: Any, tmp_path: Path) -> None:
    config = load("train.context_ranks=4", "train.context_exchange=ring")
    assert (config.train.context_ranks, config.train.context_exchange) == (4, "ring")
    (tmp_path / "again.yaml").write_text(dump_run_config(config))
    assert load_run_config(tmp_path / "again.yaml") == config
    assert load().train.context_ranks == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.context_ranks=0"], "train.context_ranks = 0"),
        (["train.context_exchange=star"], "train.context_exchange"),
        (["train.context_exchange=ring"], "no effect while each rank has whole packs"),
        (["train.context_ranks=2", "train.method=dpo"], "take out train.method: dpo"),
        (
            ["train.context_ranks=2", "train.engine={type: deepspeed, config: zero2.json}"],
            "take out the engine deepspeed: ddp and fsdp2 work",
        ),
        (["train.context_ranks=2", "train.torch_compile=true"], "take out train.torch_compile"),
        (["train.context_ranks=2", "model.attention=varlen"], "has no effect where several ranks"),
        (["train.context_ranks=2", "data.pad_packs=true"], "take out data.pad_packs"),
    ],
)
def test_what_cannot_work_is_refused(load: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)


def test_the_groups_of_a_run(load: Any) -> None:
    train = load("train.context_ranks=2", "train.packs_per_step=6").train
    assert data_ranks(train, num_ranks=2) == 1
    assert data_ranks(train, num_ranks=4) == 2
    with pytest.raises(ConfigError, match="1 rank cannot be cut into groups of 2") as caught:
        data_ranks(train, num_ranks=1)
    assert "start a multiple of 2 ranks" in str(caught.value)
    with pytest.raises(ConfigError, match="3 ranks cannot be cut into groups of 2"):
        data_ranks(train, num_ranks=3)
    with pytest.raises(ConfigError, match="cannot be dealt to 4 groups of ranks") as caught:
        data_ranks(train, num_ranks=8)
    assert "set it to a multiple of 4" in str(caught.value)
