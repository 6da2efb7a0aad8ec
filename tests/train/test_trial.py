"""Settings of transformers that cannot work are refused by name, before a row is measured."""

import importlib.util
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.config.load import config_from
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.train import train as train_module
from smolvlm.train.trial import check_device, try_settings
from tests.train.conftest import TrainRun


def config(tmp_path: Path, **train: Any) -> RunConfig:
    (tmp_path / "rows.jsonl").touch()
    content = {
        "model": {"path": "o/m"},
        "data": {"mixture": [{"json_path": "rows.jsonl"}]},
        "train": {"output_dir": str(tmp_path / "out"), "use_cpu": True, **train},
    }
    return config_from(content, where="test", base_dir=tmp_path)


def refusal(tmp_path: Path, **train: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        try_settings(config(tmp_path, **train))
    assert caught.value.fix
    return str(caught.value)


def skip_where_installed(package: str) -> None:
    """Skip a test of what is said where a package is missing."""
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("report_to", "nonsense", "is not supported, only"),
        ("log_level", "nonsense", ""),
        ("debug", "nonsense", "nonsense is not a valid DebugOption"),
        ("torch_compile_mode", "nonsense", "Unrecognized mode"),
        ("optim_args", "nonsense", ""),
        ("engine", "fsdp2", "one process has nothing to shard over"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_built_is_named(
    tmp_path: Path, setting: str, value: str, words: str
) -> None:
    text = refusal(tmp_path, **{setting: value})
    assert text.startswith("train")
    assert words in text
    if setting != "optim_args":
        assert text.startswith(f"train.{setting}")


@pytest.mark.parametrize(
    ("tracker", "package"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("comet_ml", "comet_ml")]
)
@pytest.mark.filterwarnings("ignore")
def test_a_tracker_that_is_not_installed(tmp_path: Path, tracker: str, package: str) -> None:
    skip_where_installed(package)
    assert refusal(tmp_path, report_to=tracker).startswith(f"train.report_to={tracker}: ")


@pytest.mark.parametrize(
    ("kind", "keywords", "words"),
    [
        ("linear", {"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
        ("cosine", {"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
        ("polynomial", {"lr_end": 1.0}, "must be smaller than initial lr"),
        ("warmup_stable_decay", {}, "missing 1 required positional argument: 'num_decay_steps'"),
        ("cosine_with_min_lr", {}, "One of min_lr or min_lr_rate should be set"),
    ],
)
def test_keywords_of_a_schedule(
    tmp_path: Path, kind: str, keywords: dict[str, Any], words: str
) -> None:
    text = refusal(tmp_path, lr_scheduler_type=kind, lr_scheduler_kwargs=keywords)
    assert text.startswith("train.lr_scheduler_kwargs")
    assert words in text


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("schedule_free_adamw", "schedulefree"),
        ("adamw_torch_4bit", "torchao"),
        ("grokadamw", "grokadamw"),
        ("stable_adamw", "optimi"),
        ("adamw_anyprecision", "torchdistx"),
        ("adamw_torch_xla", "torch_xla"),
    ],
)
def test_an_optimizer_that_is_not_installed(tmp_path: Path, name: str, package: str) -> None:
    skip_where_installed(package)
    assert refusal(tmp_path, optim=name).startswith(f"train.optim={name}: ")


@pytest.mark.parametrize(
    ("is_offline", "words"), [(True, "HF_HUB_OFFLINE is set"), (False, "there is no token")]
)
def test_pushing_where_nothing_can_be_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_offline: bool, words: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert refusal(tmp_path, push_to_hub=True).startswith(f"train.push_to_hub: {words}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have bfloat16")
def test_a_precision_that_the_machine_lacks(tmp_path: Path) -> None:
    text = refusal(tmp_path, bf16=True, use_cpu=False)
    assert text.startswith("train.bf16=True: transformers refuses the settings: ")


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"fp16": True}, "train.fp16=True: float16 needs a CUDA device, and the run trains on cpu"),
        (
            {"master_weights": True, "optim": "sgd"},
            "train.master_weights=true: they are float32 copies of weights that compute in bf",
        ),
        ({"torch_compile": True}, "train.torch_compile=True: on a CPU the model would be compiled"),
        ({"torch_compile_mode": "default"}, "train.torch_compile_mode=default: on a CPU"),
        ({"torch_compile_backend": "eager"}, "train.torch_compile_backend=eager: on a CPU"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_makes_no_sense_on_a_cpu(tmp_path: Path, train: dict[str, Any], words: str) -> None:
    assert refusal(tmp_path, **train).startswith(words)


@pytest.mark.parametrize(
    ("device", "name", "is_refused"),
    [
        ("cuda", "fp16", False),
        ("mps", "fp16", True),
        ("cuda", "torch_compile", False),
        ("mps", "torch_compile", False),
        ("cpu", "bf16", False),
    ],
)
def test_other_devices(tmp_path: Path, device: str, name: str, is_refused: bool) -> None:
    train = config(tmp_path, **{name: True}).train
    refused = pytest.raises(ConfigError, match=f"trains on {device}")
    with refused if is_refused else nullcontext():
        check_device(train, torch.device(device))


def test_a_deepspeed_file_without_the_package(tmp_path: Path) -> None:
    skip_where_installed("deepspeed")
    (tmp_path / "ds.json").write_text("{}")
    assert "deepspeed" in refusal(tmp_path, deepspeed="ds.json")


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"bf16": True},
        {"optim": "adafactor"},
        {"optim": "sgd", "lr_scheduler_type": "cosine", "warmup_steps": 0.1},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"max_steps": 3, "warmup_steps": 10},
    ],
)
def test_what_works_passes(tmp_path: Path, train: dict[str, Any]) -> None:
    try_settings(config(tmp_path, **train))


def test_it_is_tried_before_rows_are_measured(
    train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        train_module, "plan_rows", lambda *_, **__: pytest.fail("rows are measured")
    )
    with pytest.raises(ConfigError, match=r"train\.lr_scheduler_kwargs"):
        train_run(tmp_path, {"train.lr_scheduler_kwargs": {"nonsense": 1}})
    assert not (tmp_path / "out").exists()


def test_an_attention_that_the_device_lacks(tmp_path: Path) -> None:
    asked = config(tmp_path, bf16=True)
    asked = asked.model_copy(
        update={"model": asked.model.model_copy(update={"attention": "varlen"})}
    )
    with pytest.raises(ConfigError, match="it is for CUDA, and the run trains on cpu"):
        try_settings(asked)
