"""In which keys that are not read two rows differ, whose words and media are the same."""

from collections.abc import Sequence

from smolvlm.check.between_rows import CheckedRow
from smolvlm.datasets.rows.conversations import OpenSource

_LIST = "[]"


def differing_keys(
    sources: Sequence[OpenSource], one: CheckedRow, other: CheckedRow
) -> tuple[str, ...]:
    """Return the keys, sorted, as `Conversation.unread_keys` writes them: `id`, `messages[].name`.

    Args:
        sources: all that are checked.
        one: a row that can be trained on.
        other: another one.
    """
    keys: set[str] = set()
    values: list[object] = []
    for row in (one, other):
        source = sources[row.number]
        keys.update(source.all_rows()[row.row].unread_keys, source.spec.not_read)
        values.append(source.table[row.row])
    first, second = values
    return tuple(
        sorted(key for key in keys if _at(first, key.split(".")) != _at(second, key.split(".")))
    )


def _at(value: object, path: Sequence[str]) -> object:
    """Return what stands at a path; of a list in it, what stands there in each member."""
    if not path:
        return value
    name, is_list = path[0].removesuffix(_LIST), path[0].endswith(_LIST)
    inner = value.get(name) if isinstance(value, dict) else None
    if not is_list:
        return _at(inner, path[1:])
    return [_at(member, path[1:]) for member in inner] if isinstance(inner, list) else None
