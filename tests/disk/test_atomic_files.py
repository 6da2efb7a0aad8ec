"""A file is the former one or the new one, whatever happens to its writer."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm.disk.atomic_files import (
    append_line,
    replacing,
    sync_tree,
    working_folder,
    write_json,
    write_text,
)
from tests.small_disks import memory_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_text_is_replaced_with_its_line_ends_and_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one\r\ntwo\nğ\n")
    assert (tmp_path / "a.txt").read_bytes() == "one\r\ntwo\nğ\n".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert names(tmp_path) == ["a.txt"]


def test_a_writer_that_raises_leaves_the_former_content_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", [*range(5000), object()])
    assert (tmp_path / "a.json").read_text() == "[\n 1\n]"
    assert names(tmp_path) == ["a.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from smolvlm.disk.atomic_files import replacing
with replacing(Path(sys.argv[1])) as path:
    path.write_text("half")
    if len(sys.argv) > 2:
        print("writing", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_file_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a [1].txt"
    write_text(file, "former")
    command = [sys.executable, "-c", KILLED, str(file)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    living = subprocess.Popen([*command, "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert living.stdout is not None
    assert living.stdin is not None
    with living.stdin, living.stdout:
        assert living.stdout.readline() == b"writing\n"
        (unfinished,) = set(names(tmp_path)) - {file.name}
        write_text(file, "new")
        assert names(tmp_path) == sorted([file.name, unfinished])
    living.wait()
    write_text(file, "newer")
    assert names(tmp_path) == [file.name]


def test_a_link_is_followed_and_a_pipe_is_written_itself(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "text"
    write_text(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()


def append_until_full(path: Path, line: str) -> None:
    while True:
        append_line(path, line)


def test_a_full_disk_keeps_the_former_content_and_whole_lines(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", size_mb=0.25) as disk:
        write_text(disk / "kept", "former")
        with pytest.raises(OSError, match="No space left") as caught:
            append_until_full(disk / "lines", "x" * 5000)
        assert caught.value.filename == str(disk / "lines")
        lines = (disk / "lines").read_text()
        assert lines.endswith("x\n")
        assert set(lines.splitlines()) == {"x" * 5000}
        with pytest.raises(OSError, match="No space left") as caught:
            write_text(disk / "kept", 300_000 * "y")
        assert caught.value.filename == str(disk / "kept")
        assert (disk / "kept").read_text() == "former"
        assert names(disk) == ["kept", "lines"]


def test_a_file_that_may_not_grow_is_named(tmp_path: Path) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
    try:
        append_line(tmp_path / "lines", 500 * "x")
        with pytest.raises(OSError, match="lines"):
            append_line(tmp_path / "lines", 800 * "x")
        with pytest.raises(OSError, match="text"):
            write_text(tmp_path / "text", 2000 * "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert (tmp_path / "lines").read_text() == 500 * "x" + "\n"
    assert names(tmp_path) == ["lines"]


def test_without_locks_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.disk.file_lock.fcntl", None)
    (tmp_path / ".a.0.tmp").touch()
    write_text(tmp_path / "a", "text")
    assert names(tmp_path) == [".a.0.tmp", "a"], "nobody knows whether its writer lives"


def test_a_tree_is_synced_whatever_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    sync_tree(tmp_path)
    with replacing(tmp_path / "c", is_synced=False) as path:
        path.touch()
    assert names(tmp_path) == ["a", "c"]


WORKS = """
import os, signal, sys
from pathlib import Path
from smolvlm.disk.atomic_files import working_folder
with working_folder(Path(sys.argv[1])) as folder:
    (folder / "half.whl").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_working_folder_is_gone_at_its_end_and_so_are_those_of_the_dead(tmp_path: Path) -> None:
    target = tmp_path / "a.whl"
    killed = subprocess.run([sys.executable, "-c", WORKS, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with working_folder(target) as folder, working_folder(target) as other:
        assert names(tmp_path) == sorted([folder.name, other.name])
    assert names(tmp_path) == []
