"""Small disks of their own: a file system in a file, or in memory; skipped where nothing may be
mounted."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest

TIMEOUT_S = 60


def run(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=TIMEOUT_S)


@contextmanager
def mounted(source: object, place: Path, *options: str) -> Iterator[Path]:
    """Mount for as long as the context is open; skip the test where that is not allowed."""
    place.mkdir(exist_ok=True)
    try:
        run("mount", *options, source, place)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", b"") or str(error).encode()
        pytest.skip(f"no file system can be mounted here: {why.decode().strip()}")
    try:
        yield place
    finally:
        run("umount", "--lazy", place)


@contextmanager
def memory_disk(place: Path, *, size_mb: float, inodes: int = 1000) -> Iterator[Path]:
    """A file system in memory of so many megabytes."""
    size = f"size={int(size_mb * 1024)}k,nr_inodes={inodes}"
    with mounted("tmpfs", place, "-t", "tmpfs", "-o", size) as folder:
        yield folder


@contextmanager
def image_disk(place: Path, image: Path, *, size_mb: int) -> Iterator[Path]:
    """An ext4 file system in a file, made anew."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 here")
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    run("mkfs.ext4", "-q", "-F", image)
    with mounted(image, place, "-o", "loop") as folder:
        yield folder


@contextmanager
def after_power_cut(image: Path, place: Path) -> Iterator[Path]:
    """What a file system's image would hold if its machine had lost power now.

    The device's content is copied, without what the system keeps in memory alone, and mounted.
    """
    copied = image.with_name("copied.img")
    run("cp", "--sparse=always", image, copied)
    try:
        with mounted(copied, place, "-o", "loop") as folder:
            yield folder
    finally:
        copied.unlink()


Unprivileged = Callable[[], None]


def become_nobody() -> None:
    """Give up root's rights, which no permission holds back; for `preexec_fn`."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def fill(path: Path) -> None:
    """Write a file that takes what is free of a disk."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        write_for_ever(file)


def write_for_ever(file: FileIO) -> None:
    while True:
        file.write(bytes(1 << 16))
