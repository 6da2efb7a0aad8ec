"""Answered rows as files: JSON lines, which the report reads, and Parquet beside them.

In: predictions. Out: `NAME.jsonl`, an object a row, and `NAME.parquet` with the same rows in
columns; each is there whole or not at all. `docs/evaluating.md` lists the columns.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smolvlm.disk.atomic_files import replacing
from smolvlm.eval.prediction import Prediction

SCHEMA = pa.schema(
    [
        ("where", pa.string()),
        ("source", pa.string()),
        ("group", pa.string()),
        ("question", pa.string()),
        ("prediction", pa.string()),
        ("references", pa.list_(pa.string())),
        ("correct", pa.float64()),
        ("images", pa.list_(pa.string())),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("loss", pa.float64()),
        ("token_accuracy", pa.float64()),
        ("num_tokens", pa.int64()),
        ("key", pa.string()),
    ]
)


BASE_SCHEMA = pa.schema(
    [
        *SCHEMA,
        ("base_prediction", pa.string()),
        ("base_scores", pa.map_(pa.string(), pa.float64())),
        ("base_key", pa.string()),
    ]
)
"""Where the base answered too."""


def write_predictions(
    predictions: Sequence[Prediction], path: Path, *, base: Sequence[Prediction] | None = None
) -> None:
    """Write the rows in place of what is there, and their Parquet twin beside them.

    Args:
        predictions: in their order.
        path: of the JSON lines; a pipe or a device gets no twin.
        base: what another model said to the rows; stands beside each answer.
    """
    rows = [_row(prediction) for prediction in predictions]
    if base is not None:
        others = {(row.where, row.source): row for row in base}
        for row in rows:
            row |= _beside(others.get((row["where"], row["source"])))
    schema = SCHEMA if base is None else BASE_SCHEMA
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(map(_utf8, lines)))
    if path.is_file():
        with replacing(path.with_suffix(".parquet")) as temporary:
            pq.write_table(_table(rows, schema), temporary)


def _row(prediction: Prediction) -> dict[str, Any]:
    tokens = prediction.tokens
    count = None if tokens is None else tokens.num_tokens
    return {
        "where": prediction.where,
        "source": prediction.source,
        "group": prediction.group,
        "question": prediction.question,
        "prediction": prediction.answer,
        "references": list(prediction.references),
        "correct": prediction.correct,
        "images": list(prediction.images),
        "scores": dict(prediction.scores),
        "loss": tokens.loss / tokens.num_tokens if tokens else None,
        "token_accuracy": tokens.num_right / tokens.num_tokens if tokens else None,
        "num_tokens": count,
        "key": prediction.key or None,
    }


def _beside(base: Prediction | None) -> dict[str, Any]:
    return {
        "base_prediction": None if base is None else base.answer,
        "base_scores": None if base is None else dict(base.scores),
        "base_key": None if base is None else base.key or None,
    }


def _table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = {name: [_cell(row[name]) for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _utf8(value).decode()
    if isinstance(value, dict):
        return list(value.items())
    return [_cell(member) for member in value] if isinstance(value, list) else value


def _utf8(text: str) -> bytes:
    """Return a text's bytes; half a surrogate pair, which has none, as JSON escapes it."""
    return text.encode("utf-8", "backslashreplace")
