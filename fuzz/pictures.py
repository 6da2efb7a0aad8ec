"""Pictures as fuzzed inputs: every format that is read, in several modes, damaged as bytes.

In: a seeded generator and an empty folder. Out: a row with a picture. What is accepted has to be a
picture by Pillow as it comes, strict and by itself, with the same pixels; a PNG file's checksums
have to be right up to its end mark; and its header has to have said the size that it has.
"""

import io
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from fuzz.checked import CheckedInput, Checker
from fuzz.damage import damaged
from fuzz.references import png_problem
from smolvlm.media.images import header_size, open_rgb
from smolvlm.records import ImageRef

WHOLE = 0.05
"""Share of pictures that are not damaged, and have to be accepted."""
SIZE = (33, 21)
MODES = {"GIF": ("P", "L"), "PNG": ("RGB", "RGBA", "P", "L", "1"), "PPM": ("RGB", "L")}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({"quality": 80}, {"progressive": True}, {"quality": 95, "subsampling": 0}),
    "WEBP": ({"quality": 80}, {"lossless": True}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}),
}
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
ENDINGS = {"JPEG2000": "jp2", "JPEG": "jpg", "TIFF": "tif", "HEIF": "heic"}


def _picture() -> Image.Image:
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    pixels = np.stack([rows * 12, columns * 7, (rows * columns) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@lru_cache(maxsize=1)
def whole_pictures() -> tuple[tuple[str, bytes], ...]:
    """Return (format, bytes) of whole pictures, of the formats that this machine can write."""
    return tuple(_whole_pictures())


def _whole_pictures() -> Iterator[tuple[str, bytes]]:
    Image.init()
    exif = Image.Exif()
    exif[274] = 6
    for name in FORMATS:
        if name not in Image.SAVE:
            continue
        for mode in MODES.get(name, ("RGB",)):
            for options in OPTIONS.get(name, ({},)):
                for more in ({}, {"exif": exif}) if name in ("JPEG", "PNG", "WEBP") else ({},):
                    file = io.BytesIO()
                    _picture().convert(mode).save(file, format=name, **options, **more)
                    yield name, file.getvalue()


def fuzz_pictures(random: Random, folder: Path, checker: Checker) -> tuple[list[str], int]:
    """Make a row with a picture, check it, and return its faults and whether it was accepted."""
    pictures = whole_pictures()
    name, data = random.choice(pictures)
    is_whole = random.random() < WHOLE
    if not is_whole:
        data = damaged(data, random, others=[other for _, other in pictures])
    ending = ENDINGS.get(name, name.lower())
    (folder / f"a.{ending}").write_bytes(data)
    row = f'{{"question": "<image>What is it?", "answer": "This.", "image": "a.{ending}"}}\n'
    (folder / "rows.jsonl").write_text(row)
    checked = checker({"json_path": "rows.jsonl"}, folder)
    faults = list(_judge(checked, data, is_whole=is_whole))
    return faults, sum(row.is_accepted for row in checked.rows)


def _judge(checked: CheckedInput, data: bytes, *, is_whole: bool) -> Iterator[str]:
    if len(checked.rows) != 1:
        yield f"{len(checked.rows)} rows are read of one: {checked.refusal}"
        return
    (row,) = checked.rows
    if is_whole and not row.is_accepted:
        yield f"a whole picture is refused: {[finding.message for finding in row.findings]}"
    if row.is_accepted:
        yield from _judge_pixels(data)


def _judge_pixels(data: bytes) -> Iterator[str]:
    """Yield what is wrong with a picture's having been accepted."""
    if data[:4] == b"\x89PNG" and (problem := png_problem(data)) is not None:
        yield f"a damaged PNG file is accepted: {problem}"
    seen = open_rgb(data)
    if (told := header_size(ImageRef(data=data))) != seen.size:
        yield f"the header says {told}, and the picture is {seen.size}"
    reference = _by_pillow(data)
    if isinstance(reference, str):
        yield f"a picture is accepted that Pillow refuses: {reference}"
    elif reference is not None and (
        reference.size != seen.size or reference.tobytes() != seen.tobytes()
    ):
        yield "the pixels are other than Pillow's"


def _by_pillow(data: bytes) -> Image.Image | str | None:
    """Return what Pillow makes of it: upright pixels, its error, or None where ours are made
    otherwise (transparency, more than 8 bits, a damaged orientation)."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = Image.open(io.BytesIO(data))
            picture.load()
        except (OSError, SyntaxError, ValueError, TypeError, EOFError) as error:
            return str(error)
        try:
            upright = ImageOps.exif_transpose(picture)
        except Exception:  # damaged metadata: whatever Pillow's readers of it raise
            return None
    is_plain = picture.mode in ("RGB", "L", "1") and "transparency" not in picture.info
    return upright.convert("RGB") if is_plain else None
