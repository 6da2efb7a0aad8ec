"""Tiny checkpoints and held-out rows about photographs, for the tests of this room."""

from tests.held_out import loaded, rows, stock  # noqa: F401 - fixtures
