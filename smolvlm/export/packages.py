"""The optional packages that an export needs: asked for before any work."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from smolvlm.errors import ConfigError

_NEEDED = {
    "gguf": (["sentencepiece"], ["xllamacpp"]),
    "onnx": (["onnx", "onnxscript"], ["onnxruntime"]),
    "browser": (["onnx", "onnxscript"], []),
}
"""Form -> what writes it, and what runs it."""
INSTALL = 'pip install "smolvlm[export]"'


def check_form(form: str, *, proves: bool) -> None:
    """Raise ConfigError that names what an export lacks.

    Args:
        form: `gguf`, `onnx` or `browser`.
        proves: whether it is run too.
    """
    writing, running = _NEEDED[form]
    check_packages([*writing, *(running if proves else [])], where=f"--to {form}")


def check_packages(names: Sequence[str], *, where: str) -> None:
    """Raise ConfigError that names the packages which are not installed.

    Args:
        names: modules, called as their packages are.
        where: what needs them.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{' and '.join(missing)} {verb} not installed", where=where, fix=INSTALL)


def with_version(name: str) -> str:
    """Return a package's name and version, or the name alone where it is not installed."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name
