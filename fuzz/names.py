"""How inputs are named and shared out: `rows:1234` of a seed is the same input for ever.

An input is made by a generator that is seeded with its name and the campaign's seed alone, so it
depends on no other input and on no number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import get_args

from fuzz.kinds import SHARES, Kind


@dataclass(frozen=True, order=True, slots=True)
class Name:
    """What an input is called."""

    kind: Kind
    number: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"

    def random(self, seed: int) -> Random:
        """Return the generator that makes the input."""
        return Random(f"{seed}/{self.kind}/{self.number}")


def parse_name(text: str) -> Name:
    """Return the input that `rows:1234` names.

    Raises:
        ValueError: there is no such kind, or no number.
    """
    kind, _, number = text.partition(":")
    return Name(parse_kind(kind), int(number))


def parse_kind(text: str) -> Kind:
    """Return a kind by its name.

    Raises:
        ValueError: there is none of it.
    """
    for kind in get_args(Kind):
        if kind == text:
            return kind
    raise ValueError(f"{text!r} is none of {', '.join(get_args(Kind))}")


def shared_out(num_inputs: int, kinds: Sequence[Kind]) -> list[Name]:
    """Return so many names, each kind with its share, numbered from 0.

    100 of rows and tar, whose shares are 40 and 15, are `rows:0` to `rows:72`, `tar:0` to `tar:26`.
    """
    total = sum(SHARES[kind] for kind in kinds)
    names: list[Name] = []
    done = 0
    for kind in kinds:
        done += SHARES[kind]
        end = round(num_inputs * done / total)
        names += [Name(kind, number) for number in range(end - len(names))]
    return names
