"""A stock model, or one of ours, with every weight from its checkpoint: none drawn at random, none
left behind.

transformers fills in what a checkpoint lacks with random values, passes over what it has besides,
and writes a table about it. Here both are refused, by name. All models of this program are loaded
by `load_whole`; `check_weights` asks the same of the headers alone, on no device, before rows are
measured.
"""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from smolvlm.checkpoints.weight_files import weight_files
from smolvlm.errors import ConfigError, SmolVLMError
from smolvlm.model.stock_classes import STOCK_CLASSES

_SHOWN = 3
_LOADING = "transformers.modeling_utils"


@dataclass(frozen=True, kw_only=True, slots=True)
class Harmless:
    """Names that a checkpoint may lack, or have besides, and why."""

    names: str
    """A pattern that is searched for in the name."""
    why: str
    is_tied_only: bool = False
    """Only where the configuration says that head and embeddings are one matrix."""


MAY_LACK = (
    Harmless(
        names=r"^lm_head\.weight$",
        why="the embeddings' own matrix, written once",
        is_tied_only=True,
    ),
)
MAY_HAVE_BESIDES = (
    Harmless(
        names=r"(^|\.)rotary_emb\.inv_freq$",
        why="computed from the configuration; older releases saved it",
    ),
    Harmless(
        names=r"(^|\.)position_ids$",
        why="the numbers 0, 1, 2, ...; older releases saved them",
    ),
)


def load_whole(
    model_class: Any, source: str, *, config: Any, dtype: torch.dtype, **arguments: Any
) -> Any:
    """Return `model_class.from_pretrained(source)` with every weight from the checkpoint.

    Args:
        model_class: of transformers, or one of its auto classes.
        source: hub id or folder of a whole model.
        config: of the model.
        dtype: of the weights in memory.
        arguments: of `from_pretrained`.

    Raises:
        ConfigError: a file is missing or damaged; or tensors are missing, unknown, or of another
            shape than the configuration's model has.
    """
    weight_files(source)
    try:
        with _without_report():
            model, report = model_class.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                **arguments,
            )
    except (SmolVLMError, MemoryError):
        raise
    except Exception as error:  # of safetensors, of torch's reader of .bin files, of transformers
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"cannot load the weights: {reason}",
            where=source,
            fix="download the weights again; a file may be cut short, or of another program",
        ) from error
    _check_report(report, source=source, config=config)
    return model


def check_weights(source: str, config: Any) -> None:
    """Raise ConfigError where `load_whole` would; of safetensors no tensor is read.

    Args:
        source: hub id or folder of a whole model.
        config: of the model.
    """
    on_no_device = {"device_map": {"": "meta"}}
    load_whole(
        STOCK_CLASSES[config.model_type],
        source,
        config=config,
        dtype=torch.float32,
        **on_no_device,
    )


def _check_report(report: Mapping[str, Any], *, source: str, config: PreTrainedConfig) -> None:
    """Refuse what transformers' report of loading says was not loaded as it stands."""
    is_tied = bool(config.tie_word_embeddings)
    missing = _beyond(MAY_LACK, report["missing_keys"], is_tied=is_tied)
    besides = _beyond(MAY_HAVE_BESIDES, report["unexpected_keys"], is_tied=is_tied)
    misshaped = [
        f"{name} {_sizes(there)} instead of {_sizes(wanted)}"
        for name, there, wanted in sorted(report["mismatched_keys"], key=str)
    ]
    problems = [
        f"- {len(names)} {words}: {_first(names)}"
        for names, words in (
            (missing, "missing"),
            (besides, "that the model has no place for"),
            (misshaped, "of another shape"),
            (list(map(str, report["error_msgs"])), "that could not be read"),
        )
        if names
    ]
    if problems:
        raise ConfigError(
            "the weights are not those of the model that config.json describes; tensors\n"
            + "\n".join(problems),
            where=source,
            fix=_fix(config, missing=missing, besides=besides),
        )


def _beyond(known: Sequence[Harmless], names: Collection[str], *, is_tied: bool) -> list[str]:
    patterns = [one.names for one in known if is_tied or not one.is_tied_only]
    return sorted(name for name in names if not any(re.search(own, name) for own in patterns))


def _fix(config: PreTrainedConfig, *, missing: Sequence[str], besides: Sequence[str]) -> str:
    """Return what to do: another class's checkpoint is told by its names, or by config.json."""
    wanted = STOCK_CLASSES[config.model_type].__name__
    others = [name for name in config.architectures or () if name != wanted]
    if others:
        return (
            f"config.json names {', '.join(others)}; save the model as {wanted}, or give the "
            "checkpoint that it was made from"
        )
    if missing == ["lm_head.weight"] and not besides:
        return (
            "where the output head is the embeddings' matrix, set tie_word_embeddings: true in "
            "config.json; else download the weights again"
        )
    return f"download weights and config.json again, both of one {wanted}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _sizes(shape: Collection[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers' own table of what it did not load off the screen: it is refused here."""
    logger = logging.getLogger(_LOADING)
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
