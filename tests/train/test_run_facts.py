"""What a run says of device, precision, kernels and versions is what it computes with."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.load import load_run_config
from smolvlm.train import run_facts as module
from smolvlm.train.run_facts import RunFacts, run_facts
from smolvlm.train.versions import Commit

BLOCKS = "scope blocks over SDPA"
FLEX = "flex_attention, compiled"


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return load_checkpoint(str(tiny_folder)).model


def facts_of(
    write_run: Any, folder: Path, model: Any, *, changes: dict[str, Any], **arguments: Any
) -> RunFacts:
    config = load_run_config(write_run(folder, changes))
    return run_facts(config, TrainingArguments(use_cpu=True, **arguments), model)


def test_a_plain_run_on_a_cpu(write_run: Any, tmp_path: Path, model: Any) -> None:
    facts = facts_of(write_run, tmp_path, model, changes={})
    assert facts.device_type == "cpu"
    assert facts.device_name
    assert (facts.num_ranks, facts.num_threads) == (1, torch.get_num_threads())
    assert (facts.weights_dtype, facts.autocast_dtype, facts.quantization) == (
        "float32",
        None,
        None,
    )
    assert (facts.language_attention, facts.vision_attention) == (BLOCKS, "SDPA")
    assert (facts.activation_checkpointing, facts.is_compiled) == (False, False)
    assert facts.versions["torch"] == torch.__version__


def test_settings_that_choose_kernels_are_named(write_run: Any, tmp_path: Path, model: Any) -> None:
    changes = {
        "model.dtype": "bfloat16",
        "quantization.bits": 4,
        "adapters.language": "lora",
        "train.activation_checkpointing": "language_model",
    }
    chosen = {"bf16": True, "optim": "adafactor"}
    facts = facts_of(write_run, tmp_path, model, changes=changes, **chosen)
    assert (facts.weights_dtype, facts.autocast_dtype) == ("bfloat16", "bfloat16")
    assert facts.quantization == "language in 4 bits (nf4)"
    assert (facts.optimizer, facts.is_optimizer_fused) == ("adafactor", False)
    assert facts.activation_checkpointing == "language_model"
    assert "activation checkpointing in the language model; " in facts.line()
    masters = facts_of(
        write_run, tmp_path, model, changes={"train.master_weights": True}, bf16=True
    )
    assert "float32 master weights, bfloat16 autocast" in masters.line()
    assert "master" not in facts.line()


def test_products_of_float32_that_are_computed_in_less_are_named(
    write_run: Any, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert facts_of(write_run, tmp_path, model, changes={}).float32_products == "float32"
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision="bf16"))
    facts = facts_of(write_run, tmp_path, model, changes={})
    assert facts.float32_products == "bf16"
    assert "no autocast, bf16 for float32 products; " in facts.line()


def test_a_gpu_is_named_with_its_attention(
    write_run: Any, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, arguments = load_run_config(write_run(tmp_path)), TrainingArguments(use_cpu=True)
    monkeypatch.setattr(TrainingArguments, "device", property(lambda _: torch.device("cuda", 0)))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some GPU at {device}")
    facts = run_facts(config, arguments, model)
    assert (facts.device_type, facts.device_name, facts.num_threads) == (
        "cuda",
        "Some GPU at cuda:0",
        None,
    )
    assert facts.language_attention == FLEX


def test_the_processor_is_named_as_linux_knows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(module, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: A CPU: fast\n")
    assert module.device_name(torch.device("cpu")) == "A CPU: fast"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n")
    assert module.device_name(torch.device("cpu")) in (
        module.platform.processor(),
        module.platform.machine(),
    )


FACTS = RunFacts(
    device_type="cpu",
    device_name="A CPU",
    num_ranks=1,
    engine="ddp",
    context_ranks=1,
    context_exchange=None,
    num_threads=2,
    weights_dtype="float32",
    quantization=None,
    autocast_dtype=None,
    has_master_weights=False,
    float32_products="float32",
    language_attention=BLOCKS,
    vision_attention="SDPA",
    optimizer="adamw_torch_fused",
    is_optimizer_fused=True,
    activation_checkpointing=False,
    is_compiled=False,
    versions={"python": "3.11.7", "torch": "2.14.1", "transformers": "5.23.0", "smolvlm": "0.1.0"},
    commit=Commit(name="0123456789abcdef0123456789abcdef01234567", is_modified=True),
)


def test_it_is_one_line() -> None:
    assert FACTS.line() == (
        "runs on         cpu (A CPU, 2 threads); float32 weights, no autocast; attention: language "
        "scope blocks over "
        "SDPA, vision SDPA; adamw_torch_fused; activation checkpointing off; compile off; torch "
        "2.14.1, "
        "transformers 5.23.0, smolvlm 0.1.0 at 0123456789ab (modified)"
    )


def test_ranks_that_hold_a_pack_together_are_named(
    write_run: Any, tmp_path: Path, model: Any
) -> None:
    changes = {"train.context_ranks": 2, "train.context_exchange": "ring"}
    facts = facts_of(write_run, tmp_path, model, changes=changes)
    device = facts.as_json()["device"]
    assert isinstance(device, dict)
    assert (device["context_ranks"], device["context_exchange"]) == (2, "ring")
    of_four = replace(facts, num_ranks=4)
    assert " on 4 ranks (ddp, 2 to a pack, ring); " in of_four.line()


def test_its_json_has_the_keys_that_programs_read() -> None:
    content = json.loads(json.dumps(FACTS.as_json()))
    assert content.keys() == {"device", "kernels", "versions", "commit", "modified"}
    shared = {"num_ranks": 1, "engine": "ddp", "context_ranks": 1, "num_threads": 2}
    assert content["device"] == {"type": "cpu", "name": "A CPU", **shared}
    assert content["kernels"]["autocast_dtype"] is None
    assert content["commit"] == "0123456789abcdef0123456789abcdef01234567"
