"""The values of a row, of a turn and of a block, and which of them were read.

A reader takes the keys that it knows; what remains when the row is finished is judged at one place
(`unread.py`). So a key can be read, refused or named as not read, and none is lost.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError


class Fields:
    """Values by key; null, an empty list and an empty object count as absent."""

    __slots__ = ("_given", "_read", "_values", "place")

    def __init__(
        self, values: Mapping[str, object], *, place: str, not_read: Collection[str] = ()
    ) -> None:
        """
        Args:
            values: as the file gives them.
            place: what stands before a key in messages: empty for the row, `messages[].`.
            not_read: keys that the source says to leave alone.
        """
        self.place = place
        self._values = values
        self._given = {
            key: value
            for key, value in values.items()
            if not is_absent(value) and key not in not_read
        }
        self._read: set[str] = set()

    def take(self, key: str) -> object:
        """Return a key's value and count it as read; None where it is absent."""
        self._read.add(key)
        return self._given.get(key)

    def peek(self, key: str) -> object:
        """Return a key's value as the file gives it, without counting it as read."""
        return self._values.get(key)

    def has(self, key: str) -> bool:
        """Say whether a key has a value; it is not read by that."""
        return key in self._given

    def taken(self) -> frozenset[str]:
        """Return the keys with a value that was read."""
        return frozenset(self._given.keys() & self._read)

    def given(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Return those keys that have a value, in their order."""
        if self._given.keys().isdisjoint(keys):
            return ()
        return tuple(key for key in keys if key in self._given)

    def take_one(self, keys: Iterable[str], *, what: str) -> tuple[str, object]:
        """Return (key, value) of the one key among several spellings; ("", None) without any.

        Raises:
            SampleError: several of them have a value.
        """
        found = self.given(keys)
        if len(found) > 1:
            names = " and ".join(f"`{self.place}{key}`" for key in found)
            raise SampleError(f"{names} both give {what}", fix="keep one of them")
        return (found[0], self.take(found[0])) if found else ("", None)

    def unread(self) -> Iterator[tuple[str, object]]:
        """Yield (key, value) of each value that nobody read."""
        for key, value in self._given.items():
            if key not in self._read:
                yield str(key), value

    def __iter__(self) -> Iterator[str]:
        return iter(map(str, self._values))


def is_absent(value: object) -> bool:
    """Say whether a value says nothing: null, `[]`, `{}`."""
    return value is None or (isinstance(value, list | dict | tuple) and not value)


@dataclass(slots=True)
class Reading:
    """One row while it is read: its source, and what was opened of it."""

    spec: SourceSpec
    opened: list[Fields] = field(default_factory=list)
    file_names: set[str] = field(default_factory=set)
    """Last parts of the names of media that were read: the same picture under another key is not
    lost."""
    options: list[str] = field(default_factory=list)
    """Those that were joined to the question, lettered, in order."""
    asked_in: str | None = None
    """The column that the question is, in formats that have it as a column."""
    has_clip: bool = False
    left_out: set[str] = field(default_factory=set)
    """Keys that the source's `not_read` left out."""
    doubts: list[str] = field(default_factory=list)
    """What may be meant otherwise than it is read, in words."""

    def fields(self, values: Mapping[str, object], place: str = "") -> Fields:
        """Return an object's values; whatever is not taken from them will be judged.

        Keys of `not_read` are no part of them.
        """
        not_read = self.spec.not_read if place else frozenset[str]()
        if not not_read.isdisjoint(values):
            self.left_out.update(not_read.intersection(values))
        fields = Fields(values, place=place, not_read=not_read)
        self.opened.append(fields)
        return fields
