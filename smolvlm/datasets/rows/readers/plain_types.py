"""Arrow's types brought to those that rows are made of: text, bytes, numbers, lists and structs.

In: a schema and batches as Parquet files and saved data sets have them. Out: the same values under
types that an Arrow file holds whatever the row group. Dictionaries (categoricals) become their
values, since a file of record batches allows a column one dictionary and Parquet one a row group;
decimals become numbers; dates and times become text; an extension becomes its storage.
"""

from collections.abc import Callable

import pyarrow as pa

_MAX_WHOLE_DIGITS = 18
"""Of a decimal that fits 64 bits."""


def plain_type(given: pa.DataType) -> pa.DataType:
    """Return the type that values of a type are read as; the same where it is plain."""
    for holds, plain in _RULES:
        if holds(given):
            return plain(given)
    return given


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with plain types; its metadata stays."""
    return pa.schema([_plain_field(field) for field in schema], metadata=schema.metadata)


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch under its plain schema.

    Raises:
        ArrowException: a value does not fit.
    """
    columns = [
        column if column.type.equals(field.type) else _plain_array(column, field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.record_batch(columns, schema)


def _plain_array(column: pa.Array, target: pa.DataType) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        return _plain_array(column.storage, target)
    if isinstance(column, pa.DictionaryArray):
        return _plain_array(column.dictionary.take(column.indices), target)
    if isinstance(column, pa.RunEndEncodedArray):
        from pyarrow.compute import call_function

        return _plain_array(call_function("run_end_decode", [column]), target)
    return column if column.type.equals(target) else column.cast(target)


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, plain_type(field.type), field.nullable, field.metadata)


def _plain_struct(given: pa.StructType) -> pa.DataType:
    return pa.struct([_plain_field(given.field(place)) for place in range(given.num_fields)])


def _plain_decimal(given: pa.Decimal128Type) -> pa.DataType:
    is_whole = given.scale == 0 and given.precision <= _MAX_WHOLE_DIGITS
    return pa.int64() if is_whole else pa.float64()


def _listed(given: pa.ListType) -> pa.Field:
    return _plain_field(given.value_field)


_TEMPORAL = (pa.types.is_date, pa.types.is_timestamp, pa.types.is_time, pa.types.is_duration)
_RULES: tuple[tuple[Callable[[pa.DataType], bool], Callable[..., pa.DataType]], ...] = (
    (
        lambda given: isinstance(given, pa.BaseExtensionType),
        lambda given: plain_type(given.storage_type),
    ),
    (pa.types.is_dictionary, lambda given: plain_type(given.value_type)),
    (pa.types.is_run_end_encoded, lambda given: plain_type(given.value_type)),
    (pa.types.is_struct, _plain_struct),
    (pa.types.is_list, lambda given: pa.list_(_listed(given))),
    (pa.types.is_large_list, lambda given: pa.large_list(_listed(given))),
    (pa.types.is_fixed_size_list, lambda given: pa.list_(_listed(given), given.list_size)),
    (pa.types.is_list_view, lambda given: pa.list_view(_listed(given))),
    (pa.types.is_large_list_view, lambda given: pa.large_list_view(_listed(given))),
    (
        pa.types.is_map,
        lambda given: pa.map_(plain_type(given.key_type), plain_type(given.item_type)),
    ),
    (pa.types.is_decimal, _plain_decimal),
    *((is_temporal, lambda _: pa.string()) for is_temporal in _TEMPORAL),
)
"""What a type is, and what it is read as."""
