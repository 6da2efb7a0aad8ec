"""A row in the file's names, in; the row in our names, out.

Columns are renamed and joined as the source's `columns` says, keys of its `not_read` are left out,
`constants` fill what the rows lack, and lists that are written as text become lists.
"""

from collections.abc import Mapping, Sequence

from smolvlm.config.problems import shown_text, shown_value
from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.fields import Reading, is_absent
from smolvlm.datasets.rows.keys import LIST_COLUMNS
from smolvlm.datasets.rows.options import lettered, options_of, refuse_picture
from smolvlm.datasets.rows.sources import SourceSpec, file_columns
from smolvlm.datasets.rows.texts import as_text
from smolvlm.datasets.rows.written_lists import may_be_list, written_list
from smolvlm.errors import SampleError

_LISTS = frozenset({"conversations", "messages", "texts", "answers", "history"})
"""Columns that are lists: their text must write one out."""
_MAYBE_LISTS = frozenset({"image", "images", "video", "videos"})
"""Columns whose text is a name, unless it writes out a list or an object."""
_MAYBE_TURNS = frozenset({"prompt", "chosen", "rejected"})
"""Columns whose text is said as it stands, unless it writes out messages."""
_EVERY_LIST = _LISTS | _MAYBE_LISTS | _MAYBE_TURNS


def with_our_names(row: Mapping[str, object], reading: Reading) -> Mapping[str, object]:
    """Return a row with our column names.

    A column of ours that the source reads from another one stays to be judged: if it holds a
    picture, that picture would be lost.

    Raises:
        SampleError: a column that `columns` names is missing, or values that cannot be joined; a
            value beside the source's constant; text in a list's place.
    """
    spec = reading.spec
    row = _unpacked(row)
    if spec.not_read:
        left_out = row.keys() & spec.not_read
        reading.left_out.update(left_out)
        row = {key: value for key, value in row.items() if key not in left_out}
    if spec.columns:
        row = _renamed(row, reading)
    for key in _EVERY_LIST & row.keys():
        if isinstance(value := row[key], str) and may_be_list(value):
            row = {**row, key: _as_list(key, value)}
    return _with_constants(row, spec) if spec.constants else row


def _unpacked(row: Mapping[str, object]) -> Mapping[str, object]:
    """Return the row of a shard that became columns (`__key__`, `json`) with its JSON's fields.

    Raises:
        SampleError: a field and a column of one name say different things.
    """
    content = row.get("json")
    if "__key__" not in row or not isinstance(content, dict):
        return row
    columns = {key: value for key, value in row.items() if key != "json"}
    for key in content.keys() & columns.keys():
        if is_absent(columns[key]):
            del columns[key]
        elif not is_absent(content[key]) and content[key] != columns[key]:
            what = f"the row's `json` and a column beside it both give `{shown_text(key)}`"
            raise SampleError(what, fix="keep one of the two, or give it another name")
    return {**content, **columns}


def _renamed(row: Mapping[str, object], reading: Reading) -> Mapping[str, object]:
    columns = reading.spec.columns
    theirs = {name for ours in columns for name in file_columns(columns, ours)}
    row = {**{name: reading.spec.constants[name] for name in joined_constants(reading.spec)}, **row}
    renamed = {key: value for key, value in row.items() if key not in theirs}
    if replaced := {key: value for key, value in renamed.items() if key in columns}:
        reading.fields(replaced)
    for ours, names in columns.items():
        for name in file_columns(columns, ours):
            if name not in row:
                fix = did_you_mean(name, row) or "write it as null where a row has none"
                raise SampleError(f"no column `{name}`, which `columns` names as `{ours}`", fix=fix)
        if isinstance(names, str):
            renamed[ours] = row[names]
        elif ours in LIST_COLUMNS:
            renamed[ours] = _listed([row[name] for name in names])
        else:
            renamed[ours] = _joined(ours, names, row, reading)
    return renamed


def _listed(values: Sequence[object]) -> list[object]:
    members: list[object] = []
    for value in values:
        if isinstance(value, str):
            listed = written_list(value)
            value = value if listed is None else listed
        if not is_absent(value):
            members += value if isinstance(value, list) else [value]
    return members


def _joined(ours: str, names: Sequence[str], row: Mapping[str, object], reading: Reading) -> str:
    """Return several columns as one text, on lines of their own.

    A list of texts is written as lettered options: `A. cat`, `B. dog`; so are columns that are an
    option each (`A`, `B`, `option_c`).
    """
    lines: list[str] = []
    for name in names:
        options = options_of(name, row[name])
        if options is not None:
            lines += lettered(options, reading)
        elif not _is_missing(row[name]) and (text := as_text(row[name], f"a column of `{ours}`")):
            refuse_picture(text, f"`{name}`, a column of `{ours}`,")
            lines.append(text)
    return "\n".join(lines)


def _is_missing(value: object) -> bool:
    """Say whether a joined column has nothing to say: absent, or pandas' word for it."""
    return is_absent(value) or (isinstance(value, str) and value.lower() == "nan")


def _as_list(key: str, text: str) -> object:
    value = written_list(text)
    if value is None and key in _LISTS:
        what = f"the text of `{key}` is no list, in JSON or as Python prints one"
        raise SampleError(f"{what}: {shown_value(text)}", fix="write it as JSON")
    is_turns = isinstance(value, list) and all(isinstance(member, dict) for member in value)
    return text if value is None or (key in _MAYBE_TURNS and not is_turns) else value


def joined_constants(spec: SourceSpec) -> frozenset[str]:
    """Return the constants that `columns` joins to others, which are no columns of their own."""
    names = {name for ours in spec.columns for name in file_columns(spec.columns, ours)}
    return frozenset(names & spec.constants.keys())


def _with_constants(row: Mapping[str, object], spec: SourceSpec) -> Mapping[str, object]:
    joined = joined_constants(spec)
    constants = {key: text for key, text in spec.constants.items() if key not in joined}
    for key in constants:
        if not is_absent(row.get(key)) and row[key] != "":
            what = f"the row has a `{key}`, and the source's `constants` another"
            fix = "leave out one of the two: `not_read` passes the row's over"
            raise SampleError(what, fix=fix)
    return {**row, **constants}
