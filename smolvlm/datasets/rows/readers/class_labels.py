"""Class labels of Hugging Face data sets by their names: the number that stands in a file tells
nobody anything.

In: a data set's features, as `datasets` writes them to JSON (saved data sets, Parquet's metadata).
Out: what turns a column's values into the names.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smolvlm.errors import SampleError

Named = Callable[[Any], Any]
_METADATA_KEY = b"huggingface"
_UNLABELLED = -1
"""What `datasets` writes where there is no label."""


def features_in(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, object]:
    """Return the features that a schema's metadata names; empty without any that can be read."""
    try:
        features = json.loads((metadata or {}).get(_METADATA_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def namers(features: Mapping[str, object]) -> dict[str, Named]:
    """Return, for each column with class labels in it, what names them in a value."""
    found = {column: _namer(feature, column) for column, feature in features.items()}
    return {column: name for column, name in found.items() if name is not None}


def _namer(feature: object, column: str) -> Named | None:
    """Return what names the labels in a value of a feature; None where it has none."""
    if isinstance(feature, list) and len(feature) == 1:
        return _each(_namer(feature[0], column))
    if not isinstance(feature, dict):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        return _label(names, column) if isinstance(names, list) and names else None
    if kind in ("Sequence", "List", "LargeList"):
        inner = feature.get("feature")
        # `datasets` before version 4 keeps a sequence of structs as a struct of lists.
        if kind == "Sequence" and isinstance(inner, dict) and "_type" not in inner:
            return _members({key: _each(_namer(own, column)) for key, own in inner.items()})
        return _each(_namer(inner, column))
    if kind is None or not isinstance(kind, str):
        return _members({key: _namer(own, column) for key, own in feature.items()})
    return None


def _label(names: Sequence[object], column: str) -> Named:
    def named(value: Any) -> Any:
        if not isinstance(value, int) or value == _UNLABELLED:
            return None if value == _UNLABELLED else value
        if not 0 <= value < len(names):
            what = f"column `{column}` has class label {value}, and {len(names)} names"
            raise SampleError(what, fix="save the data set anew with all names of the feature")
        return names[value]

    return named


def _each(name: Named | None) -> Named | None:
    if name is None:
        return None
    return lambda value: [name(own) for own in value] if isinstance(value, list) else name(value)


def _members(found: Mapping[str, Named | None]) -> Named | None:
    names = {key: name for key, name in found.items() if name is not None}
    if not names:
        return None

    def named(value: Any) -> Any:
        if isinstance(value, list):  # a sequence of structs, whichever way round it is kept
            return [named(own) for own in value]
        if not isinstance(value, dict):
            return value
        return {key: names[key](own) if key in names else own for key, own in value.items()}

    return named
