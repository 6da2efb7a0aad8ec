"""Write docs/cli.md from the command line itself: `python scripts/cli_page.py`, in an environment
that has this package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from smolvlm.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
GROUPS = {
    "Look at the data": ("check", "prepare", "inspect"),
    "Plan and train": ("plan", "train", "launch", "watch", "report", "quickstart"),
    "Use what was trained": ("eval", "chat", "demo", "serve", "export", "push"),
    "Models and settings": ("build", "settings"),
}
"""The page's order; a command that stands in no group is an error."""
_HEAD = """# The command line

Written by `python scripts/cli_page.py` from `smolvlm/cli/`; `smolvlm COMMAND --help` says the same
in the terminal.

Settings of the run file are no options: any of them may stand behind a command as
`section.key=value` (`train.connector_lr=5e-5`), over what the file says. A setting written as an
option (`--learning-rate 1e-4`) is answered with the override to write instead. Every setting:
[settings.md](settings.md).

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | a bad row, file or setting, or the system refused something: what, where, and how to fix it |
| 2 | wrong usage |
| 3 | a self-check that failed: `inspect --verify`, `export`'s proof, `quickstart --check` |
| 130, 143 | stopped by Ctrl-C or SIGTERM; the message says what is kept, and how to go on |

With `--json` standard output holds one JSON object a line, and everything for people goes to
standard error."""


def cli_page() -> str:
    """Return docs/cli.md.

    Raises:
        ValueError: `GROUPS` lacks a command, or names one that is not there.
    """
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(commands):
        raise ValueError(f"GROUPS of {__file__} and the commands differ: {sorted(commands)}")
    lines = [_HEAD]
    for group, names in GROUPS.items():
        lines += ["", f"## {group}"]
        for name in names:
            lines += ["", *_section(name, commands[name])]
    return "\n".join([*lines, ""])


def _section(name: str, command: Any) -> Iterator[str]:
    parameters = list(command.params)
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    usage = " ".join(["smolvlm", name, *map(_argument, arguments)])
    options = " [OPTIONS]" if len(arguments) < len(parameters) else ""
    yield from (f"### smolvlm {name}", "", f"    {usage}{options}", "")
    yield " ".join(command.help.split())
    if parameters:
        yield from ("", "| argument or option | default | meaning |", "|---|---|---|")
    for one in parameters:
        meaning = " ".join((one.help or "").split()).replace("|", "\\|")
        yield f"| `{_spelling(one)}` | {_default(one)} | {meaning} |"


def _argument(one: Any) -> str:
    word = one.name.upper() + ("..." if one.nargs == -1 else "")
    return word if one.required else f"[{word}]"


def _spelling(one: Any) -> str:
    if one.param_type_name == "argument":
        return _argument(one)
    value = "" if one.is_flag else f" {one.name.upper()}"
    names = ", ".join([*one.opts, *one.secondary_opts])
    return names + value + (" ..." if one.multiple else "")


def _default(one: Any) -> str:
    if one.required:
        return "**required**"
    is_shown = one.default is not None and not getattr(one, "is_flag", False)
    return f"`{one.default}`" if is_shown else ""


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
