"""A run begins in a folder of its own, or not at all."""

from pathlib import Path

import pytest

from smolvlm.config.load import config_from
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.train.run_folder import check_run_folder


def config(model: Path, out: Path, **sections: object) -> RunConfig:
    model.mkdir(exist_ok=True)
    content = {
        "model": {"path": str(model)},
        "data": {"mixture": [{"json_path": "rows.jsonl"}]},
        "train": {"output_dir": str(out)},
        **sections,
    }
    return config_from(content, where="test")


@pytest.mark.parametrize("spelling", ["model", "model/", "model/../model", "link"])
def test_the_models_own_folder_is_refused(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(ConfigError, match="the folder of the model itself"):
        check_run_folder(config(tmp_path / "model", tmp_path / spelling))


def test_an_adapter_beside_whole_weights_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "checkpoint-3").mkdir(parents=True)
    (out / "checkpoint-3" / "model.safetensors").touch()
    adapters = {"language": "lora"}
    check_run_folder(config(tmp_path / "m", out, adapters=adapters))
    (out / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(ConfigError, match=r"whole weights ended here \(model-00001-of-00002"):
        check_run_folder(config(tmp_path / "m", out, adapters=adapters))
    check_run_folder(config(tmp_path / "m", out))


def test_a_folder_that_is_not_there_is_fine(tmp_path: Path) -> None:
    check_run_folder(config(tmp_path / "m", tmp_path / "run", adapters={"language": "lora"}))


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file is a file, not a folder"):
        check_run_folder(config(tmp_path / "m", tmp_path / name))


def test_a_folder_that_may_not_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"nothing may be written in "):
        check_run_folder(config(tmp_path / "m", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_folder_above_the_model_is_a_run_of_its_own(tmp_path: Path) -> None:
    """Its files stand beside the model's folder, not in it."""
    check_run_folder(config(tmp_path / "model", tmp_path))
