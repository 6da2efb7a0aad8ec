"""Tiny checkpoints in memory, for the tests of this room."""

from tests.tiny_models import checkpoint, folder, loaded, model_type  # noqa: F401 - fixtures
