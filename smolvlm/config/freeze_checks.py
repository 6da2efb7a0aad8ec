"""What `freeze` cannot ask for beside the other settings, as far as it is known before the checkpoint is."""

from collections.abc import Iterator

from smolvlm.config.adapters import PARTS, AdapterConfig, PartName
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import RunConfig


def freeze_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield parts frozen in a tower that is frozen anyway, and checkpointing that would lose gradients."""
    parts: tuple[PartName, ...] = ("language", "vision")
    for part in parts:
        for name in config.freeze.asked(part):
            cause = _cause_without_effect(config, part)
            if cause is not None:
                what, fix = cause
                value = shown_value(getattr(config.freeze, name))
                yield Problem(key=f"freeze.{name}", value=value, what=f"has no effect: {what}", fix=fix)
    yield from _checkpointing_problems(config)


def _cause_without_effect(config: RunConfig, part: PartName) -> tuple[str, str] | None:
    """Return (why nothing can be frozen in a tower, what to do), or None where something can."""
    if _adapter(config, part) is not None:
        what = f"adapters.{part} freezes all of the tower's own weights"
        return what, f"take it out; adapters.{part}.targets says which layers get an adapter"
    if config.rate_of(part) == 0:
        return f"the tower is frozen, train.{PARTS[part]} is 0", "take it out, or give the tower a rate above 0"
    return None


def _adapter(config: RunConfig, part: PartName) -> AdapterConfig | None:
    entry = dict(config.adapters.entries()).get(part)
    return entry if entry is not None and entry.is_adapter else None


def _checkpointing_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield the reentrant kind of checkpointing where it would leave the tower's layers without gradient and word.

    It passes gradients on only where a layer's input needs one, which behind frozen embeddings it does not. (Those of
    the language model are made to by transformers; `tests/model/test_checkpointing.py` shows both.)
    """
    arguments = config.train.arguments
    settings = arguments.get("activation_checkpointing_kwargs") or {}
    is_reentrant = arguments.get("activation_checkpointing") and settings.get("use_reentrant")
    is_adapted = _adapter(config, "vision") is not None
    if is_reentrant and config.rate_of("vision") and (is_adapted or config.freeze.vision_embeddings):
        cause = "adapters.vision" if is_adapted else "freeze.vision_embeddings"
        what = f"the vision tower's layers would get no gradient, its embeddings being frozen ({cause})"
        fix = "take use_reentrant out: without it gradients are the same in every case"
        yield Problem(key="train.activation_checkpointing_kwargs", value=shown_value(settings), what=what, fix=fix)
