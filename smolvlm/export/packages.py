"""The optional packages that an export needs: asked for before any work."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from smolvlm.errors import ConfigError

INSTALL = 'pip install "smolvlm[export]"'


def check_packages(names: Sequence[str], *, where: str, fix: str = INSTALL) -> None:
    """Raise ConfigError that names the packages which are not installed.

    Args:
        names: modules, called as their packages are.
        where: what needs them.
        fix: what to do about it.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{' and '.join(missing)} {verb} not installed", where=where, fix=fix)


def with_version(name: str) -> str:
    """Return a package's name and version, or the name alone where it is not installed."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name
