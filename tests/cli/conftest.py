"""The command line, called in this process, and one run that it trained."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.build.tiny import tiny_model
from tests.command_line import Outcome, call_smolvlm
from tests.processors import loaded_once

Smolvlm = Callable[..., Outcome]


@pytest.fixture(scope="session")
def json_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads a JSON-lines file."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def write_yaml() -> Callable[[Path, Any], Path]:
    """Writes a value as YAML and returns the file."""

    def write(path: Path, value: Any) -> Path:
        path.write_text(yaml.safe_dump(value))
        return path

    return write


@pytest.fixture(scope="session", autouse=True)
def processors_loaded_once() -> Iterator[None]:
    """A command loads the same processor twice, which takes as long as its work."""
    with loaded_once():
        yield


@pytest.fixture(scope="session")
def smolvlm_command() -> Smolvlm:
    """Calls `smolvlm` with these arguments."""
    return call_smolvlm


@pytest.fixture(scope="session")
def rows_folder(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos.jsonl` (two questions a photograph) and `words.jsonl`; not to be written to."""
    folder = tmp_path_factory.mktemp("rows")
    about_photos = [
        {"image": str(photos[name]), "question": question, "answer": answer}
        for name in ("coffee", "rocket", "chelsea", "horse")
        for question, answer in [
            ("What is shown?", name),
            ("Is it a photograph?", "no" if name == "horse" else "yes"),
        ]
    ]
    words = [
        {"question": f"What is {n} plus {n % 3}?", "answer": f"It is {n + n % 3}."}
        for n in range(8)
    ]
    for name, rows in {"photos": about_photos, "words": words}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def sources(rows_folder: Path) -> list[dict[str, Any]]:
    """The two files as a mixture."""
    return [
        {"name": name, "json_path": str(rows_folder / f"{name}.jsonl")}
        for name in ("photos", "words")
    ]


@pytest.fixture(scope="session")
def settings(
    sources: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """A run file's sections: four steps, evaluated before, amid and after them; not to be
    changed."""
    folder = tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=32)
    return {
        "model": {"path": str(folder)},
        "data": {
            "mixture": sources,
            "eval_mixture": sources,
            "allow_outside_root": True,
            "max_tokens_per_pack": 128,
            "longest_edge_px": 64,
        },
        "train": {
            "output_dir": "out",
            "language_model_lr": 1e-3,
            "packs_per_step": 2,
            "num_train_epochs": 2,
            "use_cpu": True,
            "logging_steps": 1,
            "save_steps": 3,
            "eval_strategy": "epoch",
        },
        "eval": {"max_new_tokens": 8, "batch_size": 8, "max_rows": 3, "at_start": True},
    }


@pytest.fixture(scope="session")
def run_file(settings: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file, alone in its folder."""
    folder = tmp_path_factory.mktemp("run")
    train = settings["train"] | {"output_dir": str(folder / "out")}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings | {"train": train}))
    return folder / "run.yaml"


@pytest.fixture(scope="session")
def trained(run_file: Path, smolvlm_command: Smolvlm) -> Outcome:
    """`smolvlm train` of the run file."""
    return smolvlm_command("train", run_file)


@pytest.fixture(scope="session")
def out(trained: Outcome, run_file: Path) -> Path:
    """The output folder of the trained run; not to be written to."""
    assert trained.status == 0, trained.messages
    return run_file.parent / "out"
