"""Where relative paths start, and files that must be there."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.paths import resolve_paths
from smolvlm.config.problems import Problem
from smolvlm.errors import ConfigError


def test_what_is_read_starts_at_the_run_file_and_what_is_written_at_the_current_folder(
    run_dir: Path, load: Any
) -> None:
    (run_dir / "zero2.json").write_text("{}")
    config = load(
        "data.eval_mixture=eval.yaml", "data.vision_cache_dir=cache", "train.deepspeed=zero2.json"
    )
    assert config.data.mixture == run_dir / "mix.yaml"
    assert config.data.eval_mixture == run_dir / "eval.yaml"
    assert config.data.base_dir == run_dir
    assert config.train.arguments == {"deepspeed": str(run_dir / "zero2.json")}
    assert config.train.output_dir == Path.cwd() / "out"
    assert config.data.vision_cache_dir == Path.cwd() / "cache"


def test_base_dir_moves_the_mixtures(run_dir: Path, load: Any) -> None:
    (run_dir / "sub").mkdir()
    (run_dir / "sub" / "mix.yaml").write_text("[]")
    config = load("data.base_dir=sub")
    assert config.data.base_dir == run_dir / "sub"
    assert config.data.mixture == run_dir / "sub" / "mix.yaml"


def test_the_model_is_a_folder_by_the_run_file_or_here_or_a_hub_id(
    run_dir: Path, load: Any
) -> None:
    assert load().model.path == "someone/some-model"
    (Path.cwd() / "someone" / "some-model").mkdir(parents=True)
    assert load().model.path == str(Path.cwd() / "someone" / "some-model")
    (run_dir / "someone" / "some-model").mkdir(parents=True)
    assert load().model.path == str(run_dir / "someone" / "some-model")
    (run_dir / "embedded").mkdir()
    assert load("model.path=embedded").model.path == "embedded"
    assert load("model.path=./embedded").model.path == str(run_dir / "embedded")


@pytest.mark.parametrize(
    "path", ["./gone", "/gone/away", "~/surely/not/there", "a/b/c", "my model", "tinny"]
)
def test_a_model_that_is_no_folder_and_no_hub_id_is_refused(load: Any, path: str) -> None:
    with pytest.raises(
        ConfigError, match=f"model.path = '{path}' .*: no such folder, and no hub id; looked"
    ):
        load(f"model.path={path}")


def test_missing_files_are_problems(run_dir: Path, load: Any) -> None:
    overrides = (
        "data.mixture=gone.yaml",
        "data.eval_mixture=../runs",
        "train.resume_from_checkpoint=checkpoint-9",
    )
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    text = str(caught.value)
    assert (
        f"data.mixture = 'gone.yaml' (on the command line): no such file: {run_dir / 'gone.yaml'}"
        in text
    )
    assert f"; relative paths start from {run_dir}" in text
    assert "data.eval_mixture = '../runs' (on the command line): this is a folder" in text
    assert "no such folder; name a checkpoint folder, `auto` or `false`" in text


def test_a_checkpoint_folder_is_found_here(load: Any) -> None:
    (Path.cwd() / "checkpoint-9").mkdir()
    config = load("train.resume_from_checkpoint=checkpoint-9")
    assert config.train.resume_from_checkpoint == Path.cwd() / "checkpoint-9"


def test_values_of_another_type_are_left_for_the_types_to_judge(tmp_path: Path) -> None:
    sections = {
        "model": {"path": 3},
        "data": {"mixture": 3, "base_dir": 3},
        "train": {"output_dir": ""},
        "eval": {},
    }
    problems: list[Problem] = []
    assert resolve_paths(sections, run_dir=tmp_path, problems=problems) == sections
    assert not problems
