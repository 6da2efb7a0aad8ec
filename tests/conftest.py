"""What the tests of every room share: tiny checkpoints, their processors, real pictures, random
conversations."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["SMOLVLM_MEASURE_CPU"] = "0"  # equal runs on machines of any speed
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before the first import of torch, which reads it once

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from smolvlm.build.processor import ModelType
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.records import ImageRef, Role, Turn

LONG_TESTS = frozenset(Path(__file__).with_name("long_tests.txt").read_text().split())
"""What `--quick` leaves out; `scripts/long_tests.py` says how the list is made."""

MODEL_TYPES: tuple[ModelType, ...] = ("smolvlm", "idefics3")

MakeTurns = Callable[..., st.SearchStrategy[tuple[Turn, ...]]]

ODD_TEXTS = (
    *("a  2", "   42", "x=3.14", " 7", "²", "½", "١٢", "1 234"),
    *("\n", "\n\n", " ", "   ", "\t", "\r\n", " \n ", "\u00a0", "\u200b"),
    *("User:", "Assistant:", "\nAssistant: yes", ": ", "<row", "|>"),
    *("don't", "naïve", "é", "日本語", "👩‍👩‍👧", "İ", "ﬁ", "\0"),
)
"""Where tokenizers trip: numerals after spaces, white space of all kinds, the template's own words,
many-byte signs."""
CHARACTERS = st.characters(
    max_codepoint=0x3FFFF, exclude_categories=["Cs"], exclude_characters="\4\6\x13\x14\x16\x1d"
)
"""Those that the vocabulary can write: it lacks tokens for these six, and for planes that nothing
is assigned to."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out the files of long_tests.txt")
    parser.addoption("--engines", action="store_true", help="run the whole grid of engines")
    parser.addoption("--grids", action="store_true", help="run what is marked as `grid` too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the further members of a family, and what takes long for little, to `make grids`."""
    if not config.getoption("--grids"):
        for item in items:
            if item.get_closest_marker("grid") is not None:
                item.add_marker(pytest.mark.skip(reason="one of many: `make grids` runs it"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave long files out before they are imported."""
    if not config.getoption("--quick"):
        return None
    return collection_path.relative_to(config.rootpath).as_posix() in LONG_TESTS or None


_OURS = ("OMP_", "MKL_", "SMOLVLM_", "TOKENIZERS_", "MASTER_", "LOCAL_")
_ALSO_OURS = ("RANK", "WORLD_SIZE", "PYTHONPATH", "HOME", "TMPDIR", "COLUMNS", "HF_HUB_OFFLINE")


def _process_state() -> dict[str, object]:
    """Return what decides how this process and those that it starts compute, and where."""
    state: dict[str, object] = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OURS) or name in _ALSO_OURS
    }
    state["working folder"] = Path.cwd()
    if (torch := sys.modules.get("torch")) is not None:
        state["torch's threads"] = torch.get_num_threads()
        state["torch's linear"] = torch.nn.functional.linear
        state["gradients"] = torch.is_grad_enabled()
    return state


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_process() -> Iterator[None]:
    """A run that computes on other threads than its twin is not equal to it to the last bit, so a
    test that changes what later tests inherit fails itself."""
    before = _process_state()
    yield
    after = _process_state()
    left = {
        name: f"{before.get(name)} before, {after.get(name)} after"
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name) and not _is_torchs_first(name, before)
    }
    assert not left


def _is_torchs_first(name: str, before: dict[str, object]) -> bool:
    """Say whether the test merely imported torch."""
    return name in ("torch's threads", "torch's linear", "gradients") and name not in before


@pytest.fixture(scope="session")
def checkpoint_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[ModelType, Path]:
    """Folders of tiny checkpoints by model type; not to be written to. Tiles of 32 px, longest edge
    128 px."""
    from smolvlm.build.tiny import (
        tiny_model,
    )  # here, since it imports torch, which most rooms do without

    root = tmp_path_factory.mktemp("checkpoints")
    return {
        model_type: tiny_model(root / model_type, model_type=model_type)
        for model_type in MODEL_TYPES
    }


@pytest.fixture(scope="session")
def processors(checkpoint_folders: dict[ModelType, Path]) -> dict[ModelType, Any]:
    """Their processors; not to be changed."""
    from smolvlm.checkpoints.load import load_processor

    return {
        model_type: load_processor(str(folder)) for model_type, folder in checkpoint_folders.items()
    }


@pytest.fixture(scope="session")
def prompts(processors: dict[ModelType, Any]) -> dict[ModelType, PromptSettings]:
    """What encoding needs to know of them."""
    return {
        model_type: read_prompt_settings(processor) for model_type, processor in processors.items()
    }


@pytest.fixture(scope="session")
def prompt(prompts: dict[ModelType, PromptSettings]) -> PromptSettings:
    """What encoding needs to know of the tiny SmolVLM."""
    return prompts["smolvlm"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small files of real pictures, by name: upright and turned, wide and tall, one-channel,
    transparent."""
    import skimage

    originals = Path(skimage.__file__).parent / "data"
    folder = tmp_path_factory.mktemp("photos")

    def save(name: str, source: str, size: tuple[int, int], **options: Any) -> Path:
        with Image.open(originals / source) as picture:
            picture.resize(size, Image.Resampling.LANCZOS).save(folder / name, **options)
        return folder / name

    on_its_side = Image.Exif()
    on_its_side[ExifTag.Orientation] = 6
    return {
        "coffee": save("coffee.png", "coffee.png", (75, 50)),
        "rocket": save("rocket.jpg", "rocket.jpg", (96, 20)),
        "chelsea": save("chelsea.webp", "chelsea.png", (30, 61)),
        "camera": save("camera.png", "camera.png", (40, 40)),
        "horse": save("horse.png", "horse.png", (33, 27)),
        "on_its_side": save("on_its_side.jpg", "astronaut.png", (90, 30), exif=on_its_side),
    }


def make_turns(
    *,
    max_images: int = 3,
    texts: st.SearchStrategy[str] | None = None,
    make_image: Callable[[int], ImageRef],
) -> st.SearchStrategy[tuple[Turn, ...]]:
    """Draw conversations: maybe a system turn, then one to three questions with their answers.

    Args:
        max_images: pictures in all; they stand anywhere in the user's turns, and now and then in
            another's.
        texts: one text block.
        make_image: the picture of a number drawn from 0 to 999.
    """
    own_texts = texts if texts is not None else odd_texts()

    @st.composite
    def turns(draw: st.DrawFn) -> tuple[Turn, ...]:
        left = draw(st.integers(0, max_images))
        has_system, num_questions = draw(st.booleans()), draw(st.integers(1, 3))
        roles: list[Role] = ["system"] if has_system else []
        for _ in range(num_questions):
            roles += "user", "assistant"
        made: list[Turn] = []
        for role in roles:
            blocks: list[str | ImageRef] = [draw(own_texts)]
            num_images = (
                draw(st.integers(0, left)) if role == "user" or draw(st.integers(0, 9)) == 0 else 0
            )
            left -= num_images
            for _ in range(num_images):
                image = make_image(draw(st.integers(0, 999)))
                blocks.insert(draw(st.integers(0, len(blocks))), image)
                if draw(st.booleans()):
                    blocks.insert(draw(st.integers(0, len(blocks))), draw(own_texts))
            if len(blocks) > 1 and draw(st.booleans()):
                blocks = [block for block in blocks if isinstance(block, ImageRef)] or blocks
            made.append(Turn(role=role, blocks=tuple(blocks)))
        return tuple(made)

    return turns()


def odd_texts() -> st.SearchStrategy[str]:
    """Draw texts that hold no special token, some of them empty."""
    piece = (
        st.sampled_from(ODD_TEXTS)
        | st.text(CHARACTERS, max_size=6)
        | st.sampled_from(("What is it?", "A cat.", "yes"))
    )
    return st.lists(piece, max_size=4).map("".join)


@pytest.fixture(scope="session")
def random_turns() -> MakeTurns:
    """`make_turns`, for tests to draw from."""
    return make_turns


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small clips of real pictures, by name: constant and variable rate, a folder of frames, one
    cut short."""
    import numpy as np
    import skimage

    folder = tmp_path_factory.mktemp("clips")
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as picture:
        whole = picture.convert("RGB").resize((120, 80))

    def frame(number: int) -> Image.Image:
        return whole.crop((number % 56, number % 32, number % 56 + 64, number % 32 + 48))

    def write(name: str, times: list[int]) -> Path:
        """Write a clip whose frames are shown at these hundredths of a second."""
        import av

        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream("libx264", rate=25, options={"g": "10"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 100)
            for number, time in enumerate(times):
                shown = av.VideoFrame.from_ndarray(np.asarray(frame(number)), format="rgb24")
                shown.pts, shown.time_base = time, Fraction(1, 100)
                container.mux(stream.encode(shown))
            container.mux(stream.encode(None))
        return folder / name

    (folder / "frames").mkdir()
    for number in range(1, 13):
        frame(5 * number).save(folder / "frames" / f"frame_{number}.png")
    steady = write("steady.mp4", [4 * number for number in range(75)])
    data = steady.read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    uneven = write("uneven.mp4", [0, 1, 2, 100, 101, 230, 231, 300, 420])
    return {
        "steady": steady,
        "uneven": uneven,
        "frames": folder / "frames",
        "cut": folder / "cut.mp4",
    }
