"""The ways of a CPU: measured once a machine, kept with the run, and taken over by one that
resumes."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smolvlm.model.cpu_choices import (
    CpuChoices,
    current_choices,
    default_choices,
    has_unit,
)
from smolvlm.train import cpu_ways
from smolvlm.train.cpu_ways import (
    RUN_FILE,
    computing_as_chosen,
    computing_as_trained,
    machine_choices,
    measure,
)

FAST = CpuChoices(bf16_products=True, onednn_products=True)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[CpuChoices]:
    """Count measurements, whose result is `FAST`, in a cache folder of their own."""
    seen: list[CpuChoices] = []

    def pretended() -> CpuChoices:
        seen.append(FAST)
        return FAST

    monkeypatch.setenv("SMOLVLM_MEASURE_CPU", "1")
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cpu_ways, "measure", pretended)
    return seen


def arguments(folder: Path, device: str = "cpu") -> Any:
    return SimpleNamespace(
        device=torch.device(device), output_dir=str(folder), process_index=0, world_size=1
    )


def chosen(folder: Path, *, resume: Path | None = None) -> CpuChoices:
    with computing_as_chosen(arguments(folder), resume=resume):
        return current_choices()


def test_a_machine_is_measured_until_two_measurements_agree(
    measured: list[CpuChoices], tmp_path: Path
) -> None:
    names = ("one", "two", "three", "four")
    assert {chosen(tmp_path / name) for name in names} == {FAST}
    assert len(measured) == 2
    assert current_choices() == default_choices()


def test_a_measurement_that_was_disturbed_does_not_stay(
    measured: list[CpuChoices], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are those of the first that agreed, so that runs on a quiet machine are equal."""
    slow = replace(FAST, bf16_products=False)
    sized = replace(FAST, bf16_scores=2 * FAST.bf16_scores)
    found = iter([slow, FAST, slow, sized, FAST])
    monkeypatch.setattr(cpu_ways, "measure", lambda: next(found))
    assert [machine_choices() for _ in range(7)] == [slow, FAST, slow, sized, sized, sized, sized]
    assert not list(found)
    assert not measured


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"bf16_products": 1}', "\0"])
def test_a_damaged_file_is_measured_anew(
    damage: str, measured: list[CpuChoices], tmp_path: Path
) -> None:
    machine_choices()
    (file,) = (tmp_path / "home" / "cpu_choices").iterdir()
    file.write_text(damage)
    assert machine_choices() == FAST
    assert len(measured) == 2
    assert json.loads(file.read_text())["bf16_products"] is True


def test_a_folder_that_cannot_be_written_is_gone_without(
    measured: list[CpuChoices], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "file"))
    assert machine_choices() == machine_choices() == FAST
    assert len(measured) == 2


def test_a_resumed_run_takes_its_own_ways(measured: list[CpuChoices], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert chosen(run) == FAST
    slow = CpuChoices(bf16_products=False, packed_tower=False, onednn_products=True)
    (run / RUN_FILE).write_text(cpu_ways._as_json(slow))
    assert chosen(run, resume=run / "checkpoint-2") == slow
    assert chosen(run) == FAST  # begun anew
    (run / RUN_FILE).write_text(cpu_ways._as_json(slow))
    other = tmp_path / "other"
    assert chosen(other, resume=run / "checkpoint-2") == slow  # from another run's checkpoint
    assert chosen(other, resume=other / "checkpoint-4") == slow
    (run / RUN_FILE).unlink()
    assert chosen(run, resume=run / "checkpoint-2") == FAST  # begun before there were any


def test_a_trained_model_answers_in_its_runs_ways(
    measured: list[CpuChoices], tmp_path: Path
) -> None:
    slow = CpuChoices(bf16_products=False, packed_tower=False, onednn_products=True)
    (tmp_path / RUN_FILE).write_text(cpu_ways._as_json(slow))
    for path in (tmp_path, tmp_path / "checkpoint-2"):
        with computing_as_trained(str(path), "cpu"):
            assert current_choices() == slow
    assert not measured
    with computing_as_trained("somebody/model", "cpu"):
        assert current_choices() == FAST
    with computing_as_trained(str(tmp_path), "meta"):
        assert current_choices() == default_choices()


def test_nothing_is_measured_on_a_gpu_or_where_that_is_asked(
    measured: list[CpuChoices], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with computing_as_chosen(arguments(tmp_path, "meta"), resume=None):
        assert current_choices() == default_choices()
    assert not (tmp_path / RUN_FILE).exists()
    monkeypatch.setenv("SMOLVLM_MEASURE_CPU", "0")
    assert machine_choices() == default_choices()
    assert not measured


def test_a_file_of_an_earlier_version_has_the_sizes_that_it_took(
    measured: list[CpuChoices], tmp_path: Path
) -> None:
    """Of a run that is resumed; another key, or one of the ways missing, is no file of any."""
    run = tmp_path / "run"
    run.mkdir()
    ways = {"bf16_products": True, "onednn_products": False, "packed_tower": False}
    (run / RUN_FILE).write_text(json.dumps(ways))
    assert chosen(run, resume=run / "checkpoint-2") == CpuChoices(
        bf16_products=True, packed_tower=False, bf16_scores=2**20, float32_scores=2**18
    )
    assert json.loads((run / RUN_FILE).read_text())["float32_scores"] == 2**18
    for content in (ways | {"more": 1}, ways | {"bf16_scores": True}, {"bf16_scores": 2}):
        (run / RUN_FILE).write_text(json.dumps(content))
        assert chosen(run, resume=run / "checkpoint-2") == FAST


def test_the_faster_way_is_taken_and_a_draw_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_ways, "best_sizes", lambda found: found)
    monkeypatch.setattr(cpu_ways, "has_bf16_units", lambda: True)
    monkeypatch.setattr(cpu_ways, "has_onednn", lambda: True)
    monkeypatch.setattr(cpu_ways, "_gain", lambda *_: 2.0)
    assert measure() == FAST
    monkeypatch.setattr(cpu_ways, "_gain", lambda *_: 1.05)
    assert measure() == CpuChoices(bf16_products=False)
    monkeypatch.setattr(cpu_ways, "_gain", lambda *_: 2.0)
    monkeypatch.setattr(cpu_ways, "has_bf16_units", lambda: False)
    monkeypatch.setattr(cpu_ways, "has_onednn", lambda: False)
    assert measure() == CpuChoices(bf16_products=False)


def test_what_is_measured_computes_the_same() -> None:
    for torchs, ours in (cpu_ways._attentions(), cpu_ways._linears()):
        for stock, own in zip(torchs(), ours(), strict=True):
            torch.testing.assert_close(own, stock, rtol=2e-2, atol=2e-2)


def test_units_decide_where_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for units, expected in (
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: units, raising=False)
        default_choices.cache_clear()
        assert default_choices().bf16_products is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert has_unit("avx512_bf16")
    assert not has_unit("never_heard_of")
    default_choices.cache_clear()


def test_tests_measure_nothing() -> None:
    assert os.environ["SMOLVLM_MEASURE_CPU"] == "0"
