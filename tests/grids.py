"""Families of alike tests: some run in any case, the others with `make grids`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def part_of(family: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """Return a family for `parametrize`, all but the kept members marked as `grid`.

    Raises:
        AssertionError: one that is to be kept is no member.
    """
    members = list(family)
    assert all(one in members for one in kept), (members, kept)
    return [one if one in kept else as_grid(one) for one in members]


def as_grid(member: Any) -> Any:
    """Return one member, or a tuple of several values, marked as `grid`."""
    values = member if isinstance(member, tuple) else (member,)
    return pytest.param(*values, marks=pytest.mark.grid)
