"""What is evaluated, by what a user names, and with which settings."""

from pathlib import Path

import pytest

from smolvlm.config.schema import EMBEDDED_MODEL
from smolvlm.errors import ConfigError
from smolvlm.runs.evaluation_settings import bare_config, evaluated_config, trained_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a checkpoint, and its run file."""
    (tmp_path / "held-out.yaml").write_text("[{json_path: rows.jsonl}]\n")
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    text = "model: {path: o/m}\ndata: {mixture: [], base_dir: ..}\ntrain: {output_dir: .}\n"
    (tmp_path / "out" / "run.yaml").write_text(text)
    return tmp_path / "out"


def test_a_run_and_its_checkpoints_are_asked_with_their_own_weights(run: Path) -> None:
    for folder in (run, run / "checkpoint-3"):
        for config in (
            trained_config(folder),
            evaluated_config(str(folder), ["eval.batch_size=3"]),
        ):
            assert config is not None
            assert config.model.path == str(folder)
        assert config.eval.batch_size == 3


def test_a_run_file_is_asked_with_the_model_that_it_names(run: Path) -> None:
    assert evaluated_config(str(run / "run.yaml"), []).model.path == "o/m"
    assert trained_config(run / "run.yaml") is None


def test_a_checkpoint_by_itself_needs_held_out_rows(run: Path, tmp_path: Path) -> None:
    mixture = tmp_path / "held-out.yaml"
    for target in ("o/m", EMBEDDED_MODEL, str(tmp_path)):
        assert (
            evaluated_config(target, [], mixture=mixture).model.path
            == bare_config(target).model.path
            == target
        )
        assert evaluated_config(target, [], mixture=mixture).data.eval_mixture == mixture
        with pytest.raises(
            ConfigError, match="neither a run folder nor a run file, so there is no eval_mixture"
        ):
            evaluated_config(target, [])
    assert evaluated_config(str(run), [], mixture=mixture).data.eval_mixture == mixture


def test_a_checkpoint_that_is_gone_is_not_the_run(run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no such folder \(.*checkpoint-9\): neither a run folder"
    ):
        evaluated_config(str(run / "checkpoint-9"), [])


@pytest.mark.parametrize("has_mixture", [False, True])
def test_a_file_of_rows_is_not_evaluated(run: Path, tmp_path: Path, has_mixture: bool) -> None:
    (run / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    with pytest.raises(
        ConfigError,
        match=r"this is a file of rows .*, not a run folder, a run file or a checkpoint",
    ):
        evaluated_config(
            str(run / "rows.jsonl"), [], mixture=tmp_path / "held-out.yaml" if has_mixture else None
        )
