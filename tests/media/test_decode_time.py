"""What takes longer than a row may ends the run by name, in our code and in a decoder's."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from smolvlm.config.data import DataConfig
from smolvlm.datasets.packing.workers import over_cores
from smolvlm.datasets.rows.skipped import BadSamples
from smolvlm.errors import SampleError
from smolvlm.media.decode_time import MAX_DECODE_S, check_time, decoding, timed, watched
from smolvlm.media.images import open_rgb
from smolvlm.media.layout import layout_of
from smolvlm.media.medium import open_medium
from smolvlm.media.video.check import check_clip
from smolvlm.records import ImageRef, VideoRef
from tests.media_settings import media_settings

NEVER_S = 1e-9
"""A limit that any work is beyond."""


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_default_is_the_settings() -> None:
    assert DataConfig.model_fields["max_decode_s"].default == MAX_DECODE_S


def test_time_is_that_of_the_block_and_nothing_is_said_outside() -> None:
    burn(0.01)
    check_time()
    with decoding(10.0):
        check_time()
    with (
        pytest.raises(SampleError, match=r"^rows:3: .* data\.max_decode_s = 0\.001 s") as raised,
        decoding(0.001, where="rows:3"),
    ):
        burn(0.01)
    assert raised.value.kind == "too_slow_media"
    check_time()


def test_an_inner_block_has_the_outer_ones_time() -> None:
    def many() -> None:
        for _ in range(10):
            with decoding(1000.0):
                burn(0.001)

    with pytest.raises(SampleError, match=r"= 0\.005 s"), decoding(0.005):
        many()


def test_waiting_is_no_work() -> None:
    with decoding(5.0):
        is_done = threading.Event()
        other = threading.Thread(target=lambda: (burn(0.2), is_done.set()))
        other.start()
        is_done.wait()
        other.join()
        check_time()


def test_a_file_that_is_read_on_looks_at_the_clock() -> None:
    assert timed(io.BytesIO(b"ab")).read(1) == b"a"
    with pytest.raises(SampleError, match="max_decode_s"), decoding(NEVER_S):
        timed(io.BytesIO(b"ab")).read(1)


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((300, 200), 50).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000"])
def test_pictures_of_every_kind_are_held_to_it(kind: str) -> None:
    data = picture(kind)
    assert open_rgb(data).size == (300, 200)
    with pytest.raises(SampleError) as raised, decoding(NEVER_S, where="rows:1"):
        open_rgb(data)
    assert (raised.value.kind, raised.value.where) == ("too_slow_media", "rows:1")


def test_what_opens_media_sets_the_time_itself(real_clips: dict[str, Path]) -> None:
    settings = media_settings()
    slow = replace(settings, max_decode_s=NEVER_S)
    clip = VideoRef(path=real_clips["bigbuckbunny"])
    image = ImageRef(data=picture("PNG"))
    for medium in (clip, image):
        layout = layout_of(medium, settings)
        with pytest.raises(SampleError, match="max_decode_s"):
            open_medium(medium, layout, slow).tiles()
        with pytest.raises(SampleError, match="max_decode_s"):
            layout_of(medium, slow)
    with pytest.raises(SampleError, match="max_decode_s"), decoding(NEVER_S):
        check_clip(clip)


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_it_is_never_skipped(policy: str) -> None:
    bad = BadSamples(policy=policy, max_fraction=1.0)  # pyright: ignore[reportArgumentType]

    def slow() -> None:
        with decoding(NEVER_S):
            burn(0.001)

    with pytest.raises(SampleError, match=r"^rows:7: .*max_decode_s"):
        bad.attempt(slow, where="rows:7")
    assert not bad.skipped


STUCK = """
import hashlib
from smolvlm.media.decode_time import decoding, watched
with decoding(0.2, where="rows.jsonl:3"), watched():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_a_decoder_that_never_returns_is_ended_with_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: rows.jsonl:3: its pictures and clips take more than")
    assert "data.max_decode_s = 0.2 s" in done.stderr
    assert "fix: take the row out" in done.stderr


def stuck_at_two() -> Callable[[int], int]:
    import hashlib

    def work(item: int) -> int:
        with decoding(0.2, where=f"rows:{item}"), watched():
            if item == 2:
                hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        return item

    return work


def test_a_process_that_reads_rows_leaves_word() -> None:
    with pytest.raises(SampleError, match=r"^rows:2: .*data\.max_decode_s = 0\.2 s") as raised:
        list(over_cores(stuck_at_two, (), [1, 2, 3], num_workers=2))
    assert raised.value.kind == "too_slow_media"


def test_a_generator_that_nobody_closed_ends_no_process() -> None:
    def frames() -> Generator[int]:
        with watched():
            yield 1

    shown = frames()
    with decoding(0.2):
        assert next(shown) == 1
    burn(1.5)  # past the limit of a row that is decoded
    shown.close()
