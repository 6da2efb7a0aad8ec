"""What is measured of this machine is kept, and measured anew where it no longer holds."""

import json
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from smolvlm.plan import calibration
from smolvlm.plan.calibration import FILE, Machine, machine
from smolvlm.plan.devices import Device


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: Device) -> Path:
    """A home folder, and a measurement that takes no time."""
    measured = Machine(
        device=replace(
            cpu,
            name=calibration.cpu_name(),
            threads=torch.get_num_threads(),
            measured_at=time.time(),
        ),
        program_bytes=123,
    )
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_measured", lambda: measured)
    return tmp_path


def test_a_measurement_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = machine()
    monkeypatch.setattr(calibration, "_measured", lambda: pytest.fail("measured again"))
    assert machine() == first


def test_a_note_is_made_where_it_is_measured_or_old(home: Path) -> None:
    notes: list[str] = []
    machine(say=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("measuring this machine's speed")
    machine(say=notes.append)
    assert len(notes) == 1
    content = json.loads((home / FILE).read_text())
    content["measured_at"] -= 3.5 * calibration.DAY_S
    (home / FILE).write_text(json.dumps(content))
    machine(say=notes.append)
    assert notes[1:] == [
        "this machine's speed was measured 3 days ago; --calibrate measures it anew"
    ]


def test_what_another_method_measured_is_not_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine()
    content = json.loads((home / FILE).read_text()) | {"program_bytes": 7}
    (home / FILE).write_text(json.dumps(content))
    monkeypatch.setattr(calibration, "_METHOD", calibration._METHOD + 1)
    assert machine().program_bytes == 123


def test_another_number_of_threads_is_another_machine(home: Path) -> None:
    machine()
    path = home / FILE
    content = json.loads(path.read_text())
    content["key"][-1] += 1
    content["program_bytes"] = 7
    path.write_text(json.dumps(content))
    assert machine().program_bytes == 123


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": null}'])
def test_a_damaged_file_is_made_anew(home: Path, text: str) -> None:
    (home / FILE).write_text(text)
    assert machine().program_bytes == 123
    assert json.loads((home / FILE).read_text())["program_bytes"] == 123


def test_anew_measures_in_any_case(home: Path) -> None:
    machine()
    content = json.loads((home / FILE).read_text()) | {"program_bytes": 7}
    (home / FILE).write_text(json.dumps(content))
    assert machine().program_bytes == 7
    assert machine(anew=True).program_bytes == 123


@pytest.fixture
def few_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TURNS", "_FEWEST_TURNS", "_ATTENTION_TURNS"):
        monkeypatch.setattr(calibration, name, 2)
    monkeypatch.setattr(calibration, "_STATE_PARAMETERS", 100_000)
    monkeypatch.setattr(calibration, "_PRODUCTS", ((64, 96, 128),))
    monkeypatch.setattr(calibration, "_ATTENTIONS", ((1, 2, 64, 32, True),))


@pytest.mark.usefixtures("few_operands")
def test_rates_are_measured_and_positive() -> None:
    rates = calibration._rates(torch.float32)
    assert min(getattr(rates, field.name) for field in fields(rates)) > 1e6
    assert calibration._optimizer() > 1e6
    assert 0 < calibration._operation() < 1e-3


@pytest.mark.usefixtures("few_operands")
def test_new_pages_cost_more_than_old_ones_whatever_was_freed_before() -> None:
    freed = [torch.ones(16_000_000) for _ in range(2)]
    small = torch.ones(10)
    del freed
    assert len(small) == 10
    # 64 MB are written within 10 ms where they are there already.
    assert 1e8 < calibration._fresh() < 3e10
