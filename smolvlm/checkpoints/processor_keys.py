"""What a processor's files may say otherwise than the family's: read as it is meant, or refused.

In: a processor as transformers loaded it, whatever its files hold. Out: the scaling of its pixels;
or an error that names the key. What other programs read differently, or fail on, is refused, since
a checkpoint that trains well and answers nothing elsewhere helps nobody.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from smolvlm.config.problems import Problem, problems_error, shown_value
from smolvlm.errors import ConfigError
from smolvlm.model.vision import PixelScaling
from smolvlm.protocols import ImageProcessor, Processor

_IMAGES = "preprocessor_config.json"


def check_processor(processor: Processor, *, where: str) -> None:
    """Refuse a processor whose settings are of another kind than the family's.

    Args:
        processor: with an image processor and a tokenizer.
        where: what errors call it.

    Raises:
        ConfigError: lists each key, its value and what it must be.
    """
    problems = [*_size_problems(processor), *_other_problems(processor)]
    if problems:
        raise problems_error(problems, where=where)


def check_ids(tokenizer: Tokenizer, file: Path) -> None:
    """Refuse a tokenizer whose added tokens are read with other ids than their file gives them.

    The tokenizers library counts on from the vocabulary's size, whatever ids the file says, so a
    gap between them moves every later token to another row of the embedding.

    Raises:
        ConfigError: names the first of them.
    """
    for token in json.loads(file.read_text(encoding="utf-8")).get("added_tokens", ()):
        is_read_as = tokenizer.token_to_id(token["content"])
        if is_read_as != token["id"]:
            what = (
                f"the file gives {token['content']} the id {token['id']:,}, and it is read as "
                f"{is_read_as:,}: there is a gap between the ids before it"
            )
            fix = "add a token for every id between, such as <|reserved_special_token_0|>"
            raise ConfigError(what, where=str(file), fix=fix)


def _size_problems(processor: Processor) -> Iterator[Problem]:
    images: Any = processor.image_processor
    for name in ("size", "max_image_size"):
        value = _as_written(getattr(images, name, None))
        if not isinstance(value, dict) or not _is_whole(value.get("longest_edge")):
            fix = f"write {name}: {{longest_edge: PIXELS}} in {_IMAGES}"
            what = "must be a mapping with `longest_edge`, in pixels"
            yield Problem(key=name, value=shown_value(value), what=what, fix=fix)


def _other_problems(processor: Processor) -> Iterator[Problem]:
    images: Any = processor.image_processor
    if not _is_whole(processor.image_seq_len):
        value, fix = shown_value(processor.image_seq_len), "set it in processor_config.json"
        yield Problem(
            key="image_seq_len", value=value, what="must be a whole number of tokens", fix=fix
        )
    if not _is_whole(getattr(images, "resample", None)):
        value, fix = shown_value(getattr(images, "resample", None)), f"set it to 1 in {_IMAGES}"
        yield Problem(key="resample", value=value, what="must be the number of a filter", fix=fix)
    if images.do_resize is False:
        what = "pictures are always scaled, to whole tiles"
        yield Problem(key="do_resize", value="false", what=what, fix=f"set it to true in {_IMAGES}")
    for name in ("image_mean", "image_std"):
        value = getattr(images, name)
        if images.do_normalize is not False and not _is_colour(value):
            what, fix = "must be a number for each of red, green and blue", f"set it in {_IMAGES}"
            yield Problem(key=name, value=shown_value(value), what=what, fix=fix)


def _as_written(value: Any) -> Any:
    """Return a size as its file writes it: transformers 5 makes an object with every key of it."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {key: own for key, own in asdict(value).items() if own is not None}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_colour(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    return all(isinstance(own, int | float) for own in value)


def pixel_scaling(images: ImageProcessor) -> PixelScaling:
    """Return what becomes of a pixel of 0 to 255 before the vision tower sees it.

    Args:
        images: checked; either of the two steps may be switched off.
    """
    is_scaled, is_normalized = images.do_rescale is not False, images.do_normalize is not False
    return PixelScaling(
        rescale_factor=float(images.rescale_factor) if is_scaled else 1.0,
        mean=_three(images.image_mean) if is_normalized else (0.0, 0.0, 0.0),
        std=_three(images.image_std) if is_normalized else (1.0, 1.0, 1.0),
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
