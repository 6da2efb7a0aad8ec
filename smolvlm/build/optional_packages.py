"""Packages that parts of the package index are read with, and that nothing else needs.

`pip install "smolvlm[quickstart]"` brings them; `make env` does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from smolvlm.errors import ConfigError


@contextmanager
def read_with(package: str) -> Iterator[None]:
    """Import a package in the block.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        what = f"the package {package}, which such weights are read with, is not installed"
        raise ConfigError(what, where=package, fix='pip install "smolvlm[quickstart]"') from error
