"""`smolvlm settings`: what a run file may say, and what it means."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

import typer

from smolvlm.cli.options import WRONG_USAGE, Json


def settings(
    name: Annotated[
        str | None, typer.Argument(help="A setting (data.fps, fps), or a section (data).")
    ] = None,
    json: Json = False,
) -> None:
    """Say what a run file may set: type, default, meaning."""
    from smolvlm.config.names import hint_instead_of
    from smolvlm.config.reference import SettingFacts, all_settings
    from smolvlm.config.training_arguments import argument_types
    from smolvlm.terminal import say, say_json

    every = list(all_settings())
    found = [facts for facts in every if name is None or _is_named(facts.key, name)]
    argument = (name or "").removeprefix("train.")
    instead = hint_instead_of(name or "")
    if instead is not None:
        say(
            f"{f'of another trainer, {name}' if found else f'{name} is no setting here'}: {instead}"
        )
    if not found and instead is not None:
        raise typer.Exit(WRONG_USAGE)
    if not found and argument in argument_types():
        meaning = "A setting of transformers.TrainingArguments, as its documentation says."
        found = [SettingFacts(key=f"train.{argument}", type="", default="", meaning=meaning)]
    if not found:
        known = [facts.key for facts in every]
        say(f"error: no setting {name}{_nearest(str(name), known)}; `smolvlm settings` lists all")
        raise typer.Exit(WRONG_USAGE)
    for facts in found:
        if json:
            fields = {"key": facts.key, "type": facts.type, "default": facts.default}
            say_json({**fields, "meaning": facts.meaning})
            continue
        default = "required" if facts.default is None else f"default {facts.default}"
        kind = f"  {facts.type}; {default}" if facts.type else ""
        say(f"{facts.key}{kind}", to=sys.stdout)
        say(f"    {facts.meaning}", to=sys.stdout)


def _is_named(key: str, name: str) -> bool:
    return key == name or key.endswith(f".{name}") or key.startswith(f"{name}.")


def _nearest(name: str, known: Sequence[str]) -> str:
    by_last = {key.rpartition(".")[2]: key for key in known}
    close = get_close_matches(name, known, 1) or [
        by_last[last] for last in get_close_matches(name.rpartition(".")[2], by_last, 1)
    ]
    return f"; did you mean {close[0]}?" if close else ""
