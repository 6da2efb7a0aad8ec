"""`smolvlm.media.regular_files`: what is no file is refused and never waited for."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.regular_files import open_regular
from smolvlm.media.video.check import check_clip
from smolvlm.media.video.files import open_stream
from smolvlm.records import ImageRef, VideoRef

pytestmark = pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="makes named pipes, which this system has not"
)


def listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def links_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": listens,
    "a device": links_to_a_device,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    KINDS[kind](Path("a.png"))
    with pytest.raises(OSError, match=f"it is {kind}, not a file"):
        open_regular(Path("a.png"))
    picture, clip = ImageRef(path=Path("a.png")), VideoRef(path=Path("a.png"))
    for read in (header_size, open_rgb):
        with pytest.raises(SampleError, match=rf"picture a\.png cannot be read \(it is {kind}"):
            read(picture)
    for reads in (open_stream, check_clip):
        with pytest.raises(SampleError, match=rf"clip a\.png cannot be read \(.*it is {kind}"):
            reads(clip)


def test_a_pipe_among_frames_is_no_frame(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(SampleError, match=r"1\.png cannot be read \(it is a pipe"):
        check_clip(VideoRef(path=tmp_path))


def test_a_pipe_that_takes_a_files_place_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a file when it is looked at")
    looked = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: looked)
    with pytest.raises(OSError, match="it is a pipe"):
        open_regular(path)


def test_files_and_folders_are_as_ever(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"data"
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "b")
