"""The files beside a model's weights, and what marks a checkpoint as whole."""

import json
from pathlib import Path

from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.train.checkpoint import CheckpointFiles
from smolvlm.train.checkpoint_folder import MARKER
from smolvlm.train.resuming import RunIdentity

IDENTITY = RunIdentity(settings={"model.path": "some/model"}, plan="digest")


def files() -> CheckpointFiles:
    return CheckpointFiles(
        save_processor=lambda folder: (folder / "processor").touch(), identity=IDENTITY
    )


def test_a_whole_models_folder_gets_its_processor_and_loses_a_former_adapter(
    tmp_path: Path,
) -> None:
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        (tmp_path / name).touch()
    files().complete(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"processor"}


def test_a_folder_is_whole_from_its_end_until_it_is_written_over(tmp_path: Path) -> None:
    files().finish(tmp_path, step=7)
    assert json.loads((tmp_path / MARKER).read_text()) == {
        "step": 7,
        "settings": {"model.path": "some/model"},
        "plan": "digest",
        "relative": {},
        "files": {},
    }
    files().begin(tmp_path)
    assert not (tmp_path / MARKER).exists()
