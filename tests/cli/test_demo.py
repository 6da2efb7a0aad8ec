"""`smolvlm demo`: what is missing is named, and the base stands beside where it is known."""

from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from smolvlm.cli import demo
from smolvlm.errors import ConfigError
from smolvlm.runs.chat import Chat, open_chat


def test_a_missing_extra_is_named(
    out: Path, smolvlm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    outcome = smolvlm_command("demo", out)
    assert outcome.status == 1
    assert 'gradio is not installed\n  fix: pip install "smolvlm[demo]"' in outcome.messages


def test_a_missing_checkpoint_is_named(
    smolvlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: ModuleSpec(name, None))
    outcome = smolvlm_command("demo", tmp_path / "none", "--no-base")
    assert outcome.status == 1
    assert str(tmp_path / "none") in outcome.messages


@pytest.mark.parametrize("options", [["--max-files", "0"], ["--max-file-mb", "0"], ["--port", "0"]])
def test_wrong_usage(out: Path, smolvlm_command: Any, options: list[str]) -> None:
    assert smolvlm_command("demo", out, *options).status == 2


def test_the_base_stands_beside_where_it_is_known(
    out: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bare = settings["model"]["path"]
    run_chat, bare_chat = open_chat(out, device="cpu"), open_chat(bare, device="cpu")
    assert isinstance(demo.base_beside(run_chat, str(out), is_wanted=None), Chat)
    assert demo.base_beside(run_chat, str(out), is_wanted=False) is None
    assert capsys.readouterr().err == ""
    assert demo.base_beside(bare_chat, bare, is_wanted=None) is None
    assert "note: no base beside it (no run.yaml here or above" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"no run\.yaml"):
        demo.base_beside(bare_chat, bare, is_wanted=True)
