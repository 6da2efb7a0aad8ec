"""docs/cli.md says what the command line says."""

import pytest

from scripts import cli_page
from scripts.cli_page import GROUPS, PAGE


def test_the_page_is_the_command_lines() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == cli_page.cli_page(), "run python scripts/cli_page.py"


def test_it_names_options_defaults_and_what_is_required() -> None:
    page = cli_page.cli_page()
    assert "| `--rows ROWS` | `0:4` |" in page
    assert "| `--out OUT` | **required** |" in page
    assert "| `--add-token ADD_TOKEN ...` |" in page
    assert "    smolvlm chat CHECKPOINT [MEDIA...] [OPTIONS]" in page


def test_a_command_in_no_group_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_page, "GROUPS", dict(list(GROUPS.items())[1:]))
    with pytest.raises(ValueError, match="differ"):
        cli_page.cli_page()
