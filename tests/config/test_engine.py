"""`train.engine`: its spellings, transformers' own, and what contradicts them."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.deepspeed_file import SHIPPED, deepspeed_problem
from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.errors import ConfigError

SFT = ["train.vision_tower_lr=1e-6"]


@pytest.mark.parametrize(
    ("override", "engine"),
    [
        ([], "ddp"),
        (["train.engine=ddp"], "ddp"),
        (["train.engine=fsdp2"], "fsdp2"),
        (["train.engine={type: fsdp2}"], "fsdp2"),
        (["train.fsdp=true"], "fsdp2"),
        (["train.fsdp=full_shard auto_wrap"], "fsdp2"),
        (["train.fsdp=[full_shard, auto_wrap]"], "fsdp2"),
        (["train.fsdp=true", "train.engine=fsdp2"], "fsdp2"),
        (["train.fsdp=false"], "ddp"),
        (["train.deepspeed=zero2.json"], "deepspeed"),
        (["train.engine={type: deepspeed, config: zero2.json}"], "deepspeed"),
        (["train.engine=deepspeed", "train.deepspeed=zero2.json"], "deepspeed"),
    ],
)
def test_an_engine_has_several_spellings(load: Any, override: list[str], engine: str) -> None:
    config = load(*override)
    assert config.train.engine == engine
    assert "fsdp" not in config.train.arguments
    if engine == "deepspeed":
        assert config.train.arguments["deepspeed"] == str(SHIPPED / "zero2.json")


def test_what_is_written_down_is_read_again(load: Any, tmp_path: Path) -> None:
    config = load("train.engine={type: deepspeed, config: zero2.json}")
    (tmp_path / "again.yaml").write_text(dump_run_config(config))
    assert load_run_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.engine=fsdp"], "must be ddp, fsdp2 or deepspeed; did you mean `fsdp2`?"),
        (["train.engine=3"], "train.engine = 3 (on the command line): must be ddp, fsdp2 or"),
        (["train.engine={type: fsdp2, config: a.json}"], "no setting of the engine fsdp2"),
        (["train.engine=deepspeed"], "write engine: {type: deepspeed, config: FILE}"),
        (["train.engine=ddp", "train.fsdp=true"], "asks for fsdp2, and train.engine for ddp"),
        (
            ["train.engine=fsdp2", "train.deepspeed=zero2.json"],
            "asks for deepspeed, and train.engine for fsdp2",
        ),
        (["train.fsdp=shard_grad_op"], "only whole shards are built"),
        (
            ["train.engine={type: deepspeed, config: a.json}", "train.deepspeed=b.json"],
            "given twice: train.deepspeed stands beside it",
        ),
        (["train.engine={type: deepspeed, config: lost.json}"], "lost.json: no such file"),
        (
            ["train.engine=fsdp2", "quantization.bits=8", "adapters.language=lora"],
            "quantised weights cannot be cut into the shards of train.engine: fsdp2",
        ),
        (
            ["train.deepspeed=zero3.json", *SFT, "data.eval_mixture=eval.yaml"],
            "evaluation by generation does not work under ZeRO-3 here",
        ),
        (
            ["train.deepspeed=zero3.json", *SFT, "train.method=dpo"],
            "preference training does not work under ZeRO-3 here",
        ),
        (["train.deepspeed=zero3.json"], "a frozen vision tower does not work under ZeRO-3 here"),
    ],
)
def test_what_cannot_be_is_refused(load: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("path", sorted(SHIPPED.iterdir()), ids=lambda path: path.name)
def test_the_packages_own_files_are_not_refused(path: Path) -> None:
    assert deepspeed_problem(str(path), base_dir=Path()) is None
    content = json.loads(path.read_text())
    assert content["zero_optimization"]["stage"] == int(path.name[4])
    assert ("offload" in path.name) == ("offload_optimizer" in content["zero_optimization"])


def test_a_file_beside_the_run_file_goes_before_the_packages(load: Any, run_dir: Path) -> None:
    (run_dir / "zero2.json").write_text('{"zero_optimization": {"stage": 1}}')
    config = load("train.deepspeed=zero2.json")
    assert config.train.arguments["deepspeed"] == str(run_dir / "zero2.json")


@pytest.mark.parametrize(
    "name", ["train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"]
)
def test_batches_of_a_file_are_the_runs(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({name: 8}))
    problem = deepspeed_problem("own.json", base_dir=tmp_path)
    assert problem is not None
    assert f"has its own `{name}`: the packs of a step are the run's" in problem.what
    (tmp_path / "own.json").write_text(json.dumps({name: "auto"}))
    assert deepspeed_problem("own.json", base_dir=tmp_path) is None
