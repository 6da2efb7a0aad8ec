"""How deeply lists and objects of a row may lie in each other.

What reads a row goes down into it, a few calls for each level; a row from a file may be as deep as
its writer likes. So depth is bounded once, where a row's text becomes values, and whatever is
behind that may recurse. Arrow's files are bounded by Arrow itself, at the same depth.
"""

from smolvlm.errors import SampleError

MAX_DEPTH = 64
"""Lists and objects, each in the one before; a conversation with its blocks has five."""


def is_too_deep(value: object) -> bool:
    """Say whether lists and objects lie more than `MAX_DEPTH` deep in each other."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [member for holder in level for member in _holders_in(holder)]
        if not level:
            return False
    return True


def _holders_in(value: object) -> list[object]:
    members = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return []
    return [member for member in members if isinstance(member, dict | list | tuple)]  # pyright: ignore[reportGeneralTypeIssues]


def says_nothing(value: object) -> bool:
    """Say whether there is nothing in a value but nulls, empty lists and empty objects.

    A level is a call: only for values of a row that was read.
    """
    if isinstance(value, dict):
        return all(map(says_nothing, value.values()))
    return value is None or (isinstance(value, list | tuple) and all(map(says_nothing, value)))


def too_deep() -> SampleError:
    """Return what is wrong with a row that is."""
    what = f"nested too deeply to read: more than {MAX_DEPTH} lists and objects in each other"
    return SampleError(what, fix="write the row flatter: nothing that is read lies so deep")
