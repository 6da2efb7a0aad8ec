"""Commands on the pages: all of them are commands of this release, those of the quickstart and the
README run.

Only parsed, not run: what needs a released checkpoint, a GPU, a cluster, the hub, an optional
program, or a server that runs until Ctrl-C.
"""

import io
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from smolvlm.cli.main import app
from smolvlm.config.names import is_known
from smolvlm.config.reference import all_settings
from tests.command_line import call_smolvlm
from tests.docs.conftest import PAGE, ROOT, blocks_of, make_reader_folder
from tests.markdown_blocks import commands

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
MISTAKES = ("docs/troubleshooting.md", "docs/cli.md")
"""Pages whose commands are wrong on purpose (test_troubleshooting.py runs them), or patterns."""
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "gpu_check/*.md")
    for page in (path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
    if page not in MISTAKES
)
HISTORY = ("docs/results.md", "CHANGELOG.md")
"""Pages whose sentences may name options that are gone."""
SERVERS = ("watch", "serve")
"""Commands that run until Ctrl-C; tests/cli starts them and stops them."""
_INLINE = re.compile(r"(?<!`)`smolvlm ([a-z][^`]*)`(?!`)")
_OVERRIDE = re.compile(r"^([a-z_]+)\.([a-z_0-9]+)(?:\.[\w.]+)?=")
_RECIPE = re.compile(r"^# +(smolvlm \S.*?)(?:  .*)?$", re.MULTILINE)


def wrong_in(words: list[str]) -> str | None:
    """Return what is wrong with a command line of `smolvlm`, or None; nothing is run."""
    if len(words) < 2 or words[1] not in COMMANDS:
        return f"no command {words[1:2]}"
    command = COMMANDS[words[1]]
    try:
        context = command.make_context(words[1], list(words[2:]), resilient_parsing=False)
    except BaseException as error:  # whatever of click's this release of typer raises
        return f"{type(error).__name__}: {error}"
    overrides = context.params.get("overrides") or []
    wrong = [word for word in overrides if not _is_override(word)]
    return f"no setting: {wrong}" if wrong else None


def _is_override(word: str) -> bool:
    found = _OVERRIDE.match(word)
    keys = {facts.key for facts in all_settings()}
    return bool(found) and (
        f"{found[1]}.{found[2]}" in keys or (found[1] == "train" and is_known(found[2]))
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_parses(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    wrong = {shlex.join(words): wrong_in(words) for words in commands(text, "smolvlm")}
    assert {line: what for line, what in wrong.items() if what} == {}


@pytest.mark.parametrize("page", [*(page for page in PAGES if page not in HISTORY), MISTAKES[0]])
def test_commands_in_sentences_name_options_that_are_there(page: str) -> None:
    """They may leave out what a command needs; what they say has to exist."""
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    for line in _INLINE.findall(text):
        name, *words = line.split()
        assert name in COMMANDS, f"smolvlm {line}"
        there = {option for one in COMMANDS[name].params for option in one.opts} | {"--help"}
        named = {word.partition("=")[0] for word in words if word.startswith("--")}
        mistakes = {"--learning-rate"} if page == "docs/troubleshooting.md" else set()
        assert named - there - mistakes == set(), f"smolvlm {line}"


def recipe_commands() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "scripts" / "runs").glob("*.yaml")):
        for line in _RECIPE.findall(path.read_text(encoding="utf-8")):
            yield path.name, line


@pytest.mark.parametrize(("recipe", "line"), list(recipe_commands()))
def test_the_recipes_commands_parse(recipe: str, line: str) -> None:
    assert wrong_in(shlex.split(line)) is None, recipe


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("smolvlm train run.yaml train.fp16=true data.fps=2", None),
        ("smolvlm trian run.yaml", "no command"),
        ("smolvlm train", "MissingParameter"),
        ("smolvlm report run --htlm x", "NoSuchOption"),
        ("smolvlm eval runs/first --bse", "Exit"),
        ("smolvlm train run.yaml data.fsp=2", "no setting"),
        ("smolvlm train run.yaml fps=2", "no setting"),
    ],
)
def test_which_lines_are_wrong(line: str, wrong: str | None) -> None:
    found = wrong_in(line.split())
    assert found is None if wrong is None else wrong in str(found)


def test_make_targets_and_extras_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    for page in [*PAGES, *MISTAKES]:
        text = (ROOT / page).read_text(encoding="utf-8")
        made = {
            word for words in commands(text, "make") for word in words[1:] if "=" not in word
        } | set(re.findall(r"`make ([a-z][a-z-]*)", text))
        assert made <= targets, page
        named = re.findall(r"(?:smolvlm|\.)\[([a-z,]+)\]", text)
        assert {extra for names in named for extra in names.split(",")} <= extras, page


def _run_all(lines: Iterator[list[str]], patch: pytest.MonkeyPatch) -> list[str]:
    """Run commands in the working folder; return the names of those that were run."""
    names = []
    for words in lines:
        if words[1] in SERVERS:
            continue
        patch.setattr(sys, "stdin", io.StringIO(""))  # a chat without questions ends
        outcome = call_smolvlm(*words[1:])
        assert outcome.status == 0, f"{shlex.join(words)}\n{outcome.messages}"
        names.append(words[1])
    return names


def test_the_quickstart_runs(reader_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, as a reader would type it; a tiny model stands in for the released one."""
    names = _run_all(commands(PAGE.read_text(encoding="utf-8"), "smolvlm"), monkeypatch)
    assert {"check", "prepare", "inspect", "train", "eval", "chat", "export"} <= {*names}
    assert (reader_folder / "look.html").is_file()
    assert (reader_folder / "runs" / "first" / "report.html").is_file()
    assert (reader_folder / "first" / "model.safetensors").is_file()


def test_the_readmes_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"breakfast.jpg": "coffee.png", "a.png": "rocket.jpg", "b.png": "chelsea.png"}
    make_reader_folder(tmp_path, ROOT / "README.md", names)
    monkeypatch.chdir(tmp_path)
    (block,) = (text for text in blocks_of(ROOT / "README.md", "bash") if "smolvlm train" in text)
    ran = _run_all(commands(f"```bash\n{block}\n```", "smolvlm"), monkeypatch)
    assert {"check", "inspect", "plan", "train", "eval"} <= {*ran}
    (program,) = (text for text in blocks_of(ROOT / "README.md", "python") if "runs/first" in text)
    exec(compile(program, "README.md", "exec"), {})  # the run's folder, in plain transformers
    assert capsys.readouterr().out.strip()
