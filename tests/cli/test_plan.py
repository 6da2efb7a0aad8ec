"""`smolvlm plan`: tables, an object, proposals, many devices; and the report that compares."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolvlm.cli import plan as command

H100 = ("--device", "H100")
SMALLEST = (
    *("adapters.language.type=lora", "train.connector_lr=0", "quantization.bits=4"),
    "train.activation_checkpointing=true",
)
"""Leaves nothing to propose but smaller packs, each of which is a plan."""


@pytest.fixture
def run_file(
    settings: dict[str, Any], tmp_path: Path, write_yaml: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    content = {**settings, "train": {**settings["train"], "output_dir": str(tmp_path / "run")}}
    return write_yaml(tmp_path / "run.yaml", content)


def test_a_plan_is_printed_and_kept(run_file: Path, smolvlm_command: Any) -> None:
    outcome = smolvlm_command("plan", run_file, *SMALLEST, *H100, "--json", "--fits", "80GB")
    assert outcome.status == 0, outcome.messages
    (found,) = outcome.objects
    assert found["device"] == "H100"
    assert found["memory"]["total"] == sum(
        value for name, value in found["memory"].items() if name != "total"
    )
    assert found["steps"] > 0
    assert found["energy_kwh"] > 0
    assert [] in [proposal["overrides"] for proposal in found["fits"]]
    assert "in all" in outcome.messages
    cache = found["vision_cache"]
    assert cache["shown"] >= 2 * cache["tiles"] > 0
    assert cache["is_written"]
    assert f"for {cache['tiles']} tiles, shown {cache['shown']} times" in outcome.messages
    assert "assumed: 1 GB/s from and to the vision cache's disk" in outcome.messages
    assert "of its maker" in outcome.messages
    assert "speed is measured" not in outcome.messages
    assert "what fits into 80GB" in outcome.messages
    kept = json.loads((run_file.parent / "run" / "plan.json").read_text())
    assert kept["memory"] == found["memory"]
    assert "language_model_lr" in kept["settings"]


def test_nothing_that_fits_is_status_1(
    run_file: Path, smolvlm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "proposals", lambda *_, **__: [])  # each of them takes seconds
    outcome = smolvlm_command("plan", run_file, *SMALLEST, *H100, "--fits", "1MB")
    assert outcome.status == 1
    assert "nothing that was tried fits into 1MB" in outcome.messages


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "B9000"), "no such device is known"),
        (("--fits", "much"), "no size of memory"),
    ],
)
def test_mistakes_are_named(
    run_file: Path, smolvlm_command: Any, arguments: tuple[str, ...], words: str
) -> None:
    outcome = smolvlm_command("plan", run_file, *arguments)
    assert outcome.status == 1
    assert words in outcome.messages


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--gpus", "8", "--fits", "1GB"),
        ("--gpus", "8", "--engine", "zero9"),
        ("--gpus", "8", "--size", "3B"),
    ],
)
def test_wrong_usage_is_status_2(smolvlm_command: Any, arguments: tuple[str, ...]) -> None:
    assert smolvlm_command("plan", *arguments).status == 2


def test_a_run_on_many_devices(run_file: Path, smolvlm_command: Any) -> None:
    outcome = smolvlm_command(
        "plan", run_file, "train.packs_per_step=8", *H100, "--gpus", "8", "--hosts", "2", "--json"
    )
    assert outcome.status == 0, outcome.messages
    rows = [(found["engine"], found["context_ranks"]) for found in outcome.objects]
    assert rows == [
        *(("ddp", ranks) for ranks in (1, 2, 4)),
        ("zero2", 1),
        *(("fsdp2", ranks) for ranks in (1, 2, 4)),
        ("zero3", 1),
    ]
    first = outcome.objects[0]
    assert (first["device"], first["devices"], first["hosts"]) == ("H100", 8, 2)
    assert first["packs_per_step"] == 8
    assert first["tokens_per_step"] > 0
    above, _, below = outcome.messages.partition("waiting")
    lines = dict(line.split(maxsplit=1) for line in above.splitlines() if line[:1].isalpha())
    assert lines["model"].startswith(first["model_path"])
    assert "8 packs; on average" in lines["a"]
    assert "8 on 2 hosts, each H100, bfloat16" in lines["devices"]
    assert "450 GB/s of a device within a host, 50 between hosts (stated" in lines["links"]
    assert "not possible: zero2, zero3 with 2, 4 context ranks" in below


def test_packs_that_cannot_be_dealt_are_refused(run_file: Path, smolvlm_command: Any) -> None:
    arguments = ("train.packs_per_step=4", *H100, "--gpus", "8", "--context-ranks", "1")
    outcome = smolvlm_command("plan", run_file, *arguments)
    assert outcome.status == 1
    assert "set it to a multiple of 8" in outcome.messages
