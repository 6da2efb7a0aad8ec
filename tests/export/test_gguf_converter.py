"""The converter runs as a program of its own, and what it refuses is an error that says so."""

from pathlib import Path

import pytest

from smolvlm.errors import ConfigError
from smolvlm.export import gguf_converter
from smolvlm.export.gguf_converter import convert

_WRITES = """import os, sys
assert os.environ["HF_HUB_OFFLINE"] == "1" and sys.stdin.read() == ""
out = sys.argv[sys.argv.index("--outfile") + 1]
open(out, "w").write(" ".join(sys.argv[1:]))
"""
_REFUSES = "import sys; print('first', file=sys.stderr); sys.exit('Model X is not supported')"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A converter that a test writes."""
    file = tmp_path / "converter.py"
    monkeypatch.setattr(gguf_converter, "fetch_converter", lambda: file)
    return file


@pytest.mark.parametrize("is_mmproj", [True, False])
def test_it_is_told_the_type_the_file_and_the_part(
    script: Path, tmp_path: Path, is_mmproj: bool
) -> None:
    script.write_text(_WRITES)
    out = tmp_path / "out.gguf"
    convert(tmp_path, out, dtype="q8_0", is_mmproj=is_mmproj)
    expected = f"{tmp_path} --outtype q8_0 --outfile {out}" + " --mmproj" * is_mmproj
    assert out.read_text() == expected


@pytest.mark.parametrize(
    ("is_mmproj", "part"), [(True, "the vision tower and connector"), (False, "the language model")]
)
def test_what_it_refuses_is_said_in_its_words(
    script: Path, tmp_path: Path, is_mmproj: bool, part: str
) -> None:
    script.write_text(_REFUSES)
    with pytest.raises(ConfigError) as error:
        convert(tmp_path, tmp_path / "out.gguf", dtype="f16", is_mmproj=is_mmproj)
    assert f"converter does not take {part}: Model X is not supported" in str(error.value)


def test_an_end_without_a_file_is_an_error_too(script: Path, tmp_path: Path) -> None:
    script.write_text("")
    with pytest.raises(ConfigError, match="it gave no reason"):
        convert(tmp_path, tmp_path / "out.gguf", dtype="f16", is_mmproj=False)
