"""A reader's folder, as the quickstart says to make it, and the run that comes of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage
from PIL import Image

from smolvlm.build.tiny import tiny_model
from smolvlm.plan import calibration
from tests.markdown_blocks import fenced
from tests.processors import loaded_once

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "quickstart.md"
RELEASED = "HuggingFaceTB/SmolVLM-256M-Instruct"


@pytest.fixture(scope="session", autouse=True)
def processors_loaded_once() -> Iterator[None]:
    """Commands load the same processor again and again, which takes as long as their work."""
    with loaded_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands keep in a folder of its own, and measure this machine with small matrices
    in place of a minute's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMOLVLM_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("_TURNS", "_FEWEST_TURNS", "_ATTENTION_TURNS"):
            patch.setattr(calibration, name, 2)
        patch.setattr(calibration, "_STATE_PARAMETERS", 100_000)
        patch.setattr(calibration, "_PRODUCTS", ((64, 96, 128),))
        patch.setattr(calibration, "_ATTENTIONS", ((1, 2, 64, 32, True),))
        yield


def blocks_of(page: Path, language: str) -> list[str]:
    """Return a page's fenced blocks of a language."""
    return [text for name, text in fenced(page.read_text(encoding="utf-8")) if name == language]


def make_reader_folder(folder: Path, page: Path, pictures: dict[str, str]) -> None:
    """Lay out `my/` as a page says: its first rows, its first run file, real pictures.

    One more row, about another picture, is held out.

    Args:
        folder: where `my/` comes to lie; the model `tiny` beside it stands in for the released one.
        page: Markdown.
        pictures: name in `my/pictures` -> name of a photograph of scikit-image.
    """
    (folder / "my" / "pictures").mkdir(parents=True)
    rows = blocks_of(page, "jsonl")[0]
    (folder / "my" / "train.jsonl").write_text(rows + "\n")
    held_out = {"image": "camera.jpg", "question": "What does he hold?", "answer": "A camera."}
    (folder / "my" / "eval.jsonl").write_text(json.dumps(held_out) + "\n")
    run_file = blocks_of(page, "yaml")[0]
    assert RELEASED in run_file
    tiny_model(folder / "my" / "tiny")
    (folder / "my" / "run.yaml").write_text(run_file.replace(RELEASED, "tiny"))
    for name, original in {**pictures, "camera.jpg": "camera.png"}.items():
        with Image.open(Path(skimage.__file__).parent / "data" / original) as picture:
            picture.convert("RGB").resize((80, 60)).save(folder / "my" / "pictures" / name)


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that a reader of the quickstart types in; the working folder while it lives."""
    folder = tmp_path_factory.mktemp("reader")
    names = {"coffee.jpg": "coffee.png", "rocket.jpg": "rocket.jpg", "chelsea.jpg": "chelsea.png"}
    make_reader_folder(folder, PAGE, names)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
