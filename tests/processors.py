"""Processors that a folder's tests load once, or, where reads are counted, anew each time.

Loading one takes as long as a tiny model's steps. What is patched for a whole session stays patched
for the tests of other folders that run behind it in the same process.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import smolvlm.checkpoints.base
import smolvlm.checkpoints.load

MODULES = (smolvlm.checkpoints.load, smolvlm.checkpoints.base)
NAME = "load_processor"


@contextmanager
def loaded_once() -> Iterator[None]:
    """Load each folder's processor once while the context is open."""
    load_once = functools.cache(smolvlm.checkpoints.load.load_processor)
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, NAME, load_once)
        yield


def loaded_anew(patch: pytest.MonkeyPatch) -> None:
    """Load a processor whenever it is asked for, whoever keeps them."""
    for module in MODULES:
        patch.setattr(module, NAME, inspect.unwrap(getattr(module, NAME)))
