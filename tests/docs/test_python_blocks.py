"""Python on the pages: what it imports is there. docs/python.md runs in tests/test_api.py, the
README's program in test_commands.py."""

import ast
import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest

from smolvlm import api
from tests.docs.conftest import ROOT, blocks_of

BLOCKS = [
    (path.relative_to(ROOT).as_posix(), block)
    for pattern in ("*.md", "docs/**/*.md", "gpu_check/*.md")
    for path in sorted(ROOT.glob(pattern))
    for block in blocks_of(path, "python")
]


def missing_imports(text: str) -> Iterator[str]:
    """Yield the modules and names that a block imports, or takes from `api`, in vain."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            yield from (
                f"{node.module}.{alias.name}"
                for alias in node.names
                if not hasattr(module, alias.name) and not _is_module(module, alias.name)
            )
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "api":
            yield from [] if node.attr in api.__all__ else [f"api.{node.attr}"]


def _is_module(package: ModuleType, name: str) -> bool:
    return (
        hasattr(package, "__path__")
        and importlib.util.find_spec(f"{package.__name__}.{name}") is not None
    )


@pytest.mark.filterwarnings("ignore")  # of the libraries, as they are imported
@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[page for page, _ in BLOCKS])
def test_what_it_imports_is_there(page: str, block: str) -> None:
    try:
        assert list(missing_imports(block)) == []
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "smolvlm":
            raise
        pytest.skip(f"{error.name} is not installed")


def test_which_imports_are_missing() -> None:
    text = "from smolvlm import api\nfrom smolvlm.home import nothing\napi.trian()\napi.train()"
    assert list(missing_imports(text)) == ["smolvlm.home.nothing", "api.trian"]
