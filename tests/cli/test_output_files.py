"""A file that cannot be written is refused before a command does its work."""

from pathlib import Path

import pytest

from smolvlm.cli.output_files import check_output_file
from smolvlm.errors import ConfigError
from tests.small_disks import memory_disk, run


def test_what_can_be_written_is_let_through_and_not_made(tmp_path: Path) -> None:
    check_output_file(None, "--html")
    check_output_file(tmp_path / "new.html", "--html")
    check_output_file(Path("/dev/null"), "--html")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_is_refused_by_its_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--html {tmp_path}: is a folder, not a file"):
        check_output_file(tmp_path, "--html")
    missing = tmp_path / "missing" / "new.html"
    with pytest.raises(ConfigError, match=f"{missing}: there is no folder {missing.parent}\n"):
        check_output_file(missing, "--html")
    with memory_disk(tmp_path / "disk", size_mb=1) as disk:
        run("mount", "-o", "remount,ro", disk)
        with pytest.raises(ConfigError, match="may not be written"):
            check_output_file(disk / "new.html", "--html")


@pytest.mark.parametrize("command", [("eval", "m", "--predictions"), ("check", "m", "--html")])
def test_commands_ask_before_they_begin(
    smolvlm_command: object, tmp_path: Path, command: tuple[str, ...]
) -> None:
    outcome = smolvlm_command(*command, tmp_path / "no" / "file")  # type: ignore[operator]
    assert outcome.status == 1
    assert outcome.messages.startswith(f"error: {command[-1]} {tmp_path / 'no' / 'file'}: there is")
