"""What libraries raise on a full disk is an OSError with a file's name; what is the machine's is no
row's."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from smolvlm.disk.system_errors import os_errors_of, raise_of_the_machine
from smolvlm.errors import SampleError
from smolvlm.media.images import read_bytes
from smolvlm.media.picture_errors import unreadable_picture
from smolvlm.records import ImageRef
from tests.small_disks import memory_disk

LARGE = torch.zeros(200_000)


def write_text(path: Path) -> None:
    path.write_text("x" * 800_000)


def save_tensors(path: Path) -> None:
    save_file({"large": LARGE}, path)


def save_pickle(path: Path) -> None:
    torch.save(LARGE, path)


def written(write: Callable[[Path], None], path: Path) -> None:
    with os_errors_of(path):
        write(path)


@pytest.mark.parametrize("write", [write_text, save_tensors, save_pickle])
def test_a_full_disk_is_one_error_whoever_writes(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    with memory_disk(tmp_path / "disk", size_mb=0.3) as disk:
        with pytest.raises(OSError, match="No space left on device") as caught:
            written(write, disk / "file")
        assert caught.value.errno == errno.ENOSPC
        assert str(caught.value.filename).startswith(str(disk))


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes differ"), OSError("a hub")])
def test_other_errors_stay_as_they_are(tmp_path: Path, error: Exception) -> None:
    def fail(_: Path) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        written(fail, tmp_path)
    assert caught.value is error
    assert getattr(error, "filename", None) is None


def test_too_many_open_files_blame_no_picture(photos: dict[str, Path]) -> None:
    ref = ImageRef(path=photos["camera"])
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[Any] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, former[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            open_until_refused(opened)
        with pytest.raises(OSError, match="Too many open files"):
            read_bytes(ref)
    finally:
        for file in opened:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, former)


def open_until_refused(opened: list[Any]) -> None:
    while True:
        opened.append(open(os.devnull))  # noqa: SIM115 - closed by the test


def test_a_files_own_errors_are_its_rows(tmp_path: Path) -> None:
    raise_of_the_machine(ValueError("null byte"))
    raise_of_the_machine(PermissionError(errno.EACCES, "Permission denied"))
    ref = ImageRef(path=tmp_path / "x.png")
    error = unreadable_picture(ref, PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, SampleError)
