"""A run file that loads, for tests to spoil."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig

RUN = """\
model:
  path: someone/some-model
data:
  mixture: mix.yaml
train:
  output_dir: out
"""
Load = Callable[..., RunConfig]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `run.yaml`, its mixtures, and beside it the current folder `here`."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "runs"
    (folder / "run.yaml").write_text(RUN)
    (folder / "mix.yaml").write_text("[]")
    (folder / "eval.yaml").write_text("[]")
    return folder


@pytest.fixture
def load(run_dir: Path) -> Load:
    """Load the run file with these overrides."""
    return lambda *overrides: load_run_config(run_dir / "run.yaml", overrides)
