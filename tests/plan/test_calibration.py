"""What is measured of this machine is kept, and measured anew where it no longer holds."""

import json
from dataclasses import replace
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
        device=replace(cpu, name=calibration.cpu_name(), threads=torch.get_num_threads()),
        program_bytes=123,
        measured_at=1.0,
    )
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_measured", lambda: measured)
    return tmp_path


def test_a_measurement_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = machine()
    monkeypatch.setattr(calibration, "_measured", lambda: pytest.fail("measured again"))
    assert machine() == first


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


def test_rates_are_measured_and_positive() -> None:
    assert calibration._product_rate(torch.float32) > 1e8
    assert calibration._operation() < 1e-3
