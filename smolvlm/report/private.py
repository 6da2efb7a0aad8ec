"""What a private run (`train.private`) shows of itself: numbers, switches and names of sources.

In: settings as they lie in the run's folder. Out: the same without paths, for pages and cards that
leave the machine. The files beside them stay as they are: a run is resumed and scored by them.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import yaml

from smolvlm.config.paths import can_be_hub_id
from smolvlm.pages.token_text import without_home
from smolvlm.report.best import settings_of

_PLACES = frozenset(
    {
        *("path", "json_path", "hub", "memory", "mixture", "eval_mixture", "base_dir"),
        *("output_dir", "vision_cache_dir", "resume_from_checkpoint", "run_name", "deepspeed"),
        *("filter", "constants", "columns"),
    }
)
"""Settings whose text names a place, or content of rows, whatever it looks like."""
_NAMES = frozenset({"name", "license", "metric", "best_by", "metric_for_best_model"})
"""Those whose text is none, whatever it looks like."""


def is_private(settings: Mapping[str, Any]) -> bool:
    """Return whether a run's settings (`run.yaml`) say that it is private."""
    train = settings.get("train")
    return isinstance(train, Mapping) and train.get("private") is True


def shown_settings(text: str) -> str:
    """Return the settings of a run as pages show them: home folders shortened, of a private run no
    paths at all.

    Args:
        text: of `run.yaml`; may be empty, or not be YAML.
    """
    settings = settings_of(text)
    return hidden_settings(settings) if is_private(settings) else without_home(text)


def hidden_settings(settings: Mapping[str, Any]) -> str:
    """Return the text of settings with each path replaced by a mark that tells two of them apart.

    A base of the hub keeps its name.
    """
    shown = _hidden(settings, is_place=False)
    model = settings.get("model")
    base = str(model.get("path", "")) if isinstance(model, Mapping) else ""
    if can_be_hub_id(base):
        shown["model"]["path"] = base
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _hidden(value: Any, *, is_place: bool) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _hidden(inner, is_place=is_place or key in _PLACES) if key not in _NAMES else inner
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_hidden(inner, is_place=is_place) for inner in value]
    if value in ("auto", "embedded"):  # words in a path's place
        return value
    if isinstance(value, str) and (is_place or "/" in value or "\\" in value or value[:1] == "~"):
        return f"(private, {blake2b(value.encode(), digest_size=2).hexdigest()})"
    return value
