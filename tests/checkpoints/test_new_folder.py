"""Where a new checkpoint is written to."""

from pathlib import Path

import pytest

from smolvlm.checkpoints.new_folder import check_new_folder
from smolvlm.errors import ConfigError


def test_a_folder_is_new_or_empty(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "new")
    check_new_folder(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(
            ConfigError, match="there is something in it already\n  fix: give --out another folder"
        ):
            check_new_folder(path)
