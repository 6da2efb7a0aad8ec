"""Uploaded files are what their content says, bounded, and refused in a sentence."""

import shutil
from pathlib import Path

import pytest

from smolvlm.demo.uploads import UploadLimits, open_uploads
from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.layout import layout_of
from smolvlm.records import ImageRef, Media, VideoRef
from tests.media_settings import media_settings

LIMITS = UploadLimits(max_files=3, max_file_mb=1)


def shown(medium: Media) -> object:
    return layout_of(medium, media_settings())


@pytest.fixture
def upload(tmp_path: Path):
    """Puts a file where an upload lies, under another name."""

    def put(source: Path | bytes, name: str) -> Path:
        path = tmp_path / "0f3a" / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            shutil.copy(source, path)
        return path

    return put


def test_content_decides_what_a_file_is(
    upload, photos: dict[str, Path], clips: dict[str, Path]
) -> None:
    clip = clips["steady"]
    paths = [
        upload(photos["coffee"], "coffee.mp4"),
        upload(clip, "clip.png"),
        upload(photos["chelsea"], "chelsea"),
    ]
    media = open_uploads(paths, LIMITS, check=shown)
    assert media == [ImageRef(path=paths[0]), VideoRef(path=paths[1]), ImageRef(path=paths[2])]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"%PDF-1.7 and more", "page.png", "page.png is a PDF document"),
        (b"<svg xmlns='a'></svg>", "a.jpg", "a.jpg is an SVG drawing"),
        (b"what is it?", "a.jpg", "a.jpg is neither a picture nor a clip of a known kind"),
        (b"", "a.jpg", "a.jpg is empty"),
        (b"\x89PNG\r\n\x1a\n and nothing else", "a.png", r"a\.png"),
        (b"\0\0\0\x18ftypisom and nothing else", "a.mp4", r"a\.mp4"),
        (bytes(2**20 + 1), "large.png", r"large.png has 1.0 MB, at most 1 are taken"),
    ],
)
def test_what_cannot_be_shown_is_said_without_its_folder(
    upload, content: bytes, name: str, words: str
) -> None:
    with pytest.raises(SampleError, match=words) as error:
        open_uploads([upload(content, name)], LIMITS, check=shown)
    assert "0f3a" not in str(error.value)
    assert error.value.fix


def test_too_many_are_refused_before_any_is_opened(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="4 files with one question, at most 3 are taken"):
        open_uploads([tmp_path / "none.png"] * 4, LIMITS, check=shown)


def test_a_models_own_refusal_is_said_without_the_folder(upload, photos: dict[str, Path]) -> None:
    def refuse(medium: Media) -> None:
        raise ConfigError(f"{medium.name} is not for me", where=medium.name, fix="another one")

    with pytest.raises(SampleError, match=r"\Acoffee.png: coffee.png is not for me") as error:
        open_uploads([upload(photos["coffee"], "coffee.png")], LIMITS, check=refuse)
    assert error.value.fix == "another one"


def test_what_is_kept_is_bounded_by_what_a_question_may_bring() -> None:
    assert LIMITS.max_kept_bytes == 5 * 3 * 2**20
