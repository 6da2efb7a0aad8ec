"""The commands' options: what `--help` says of them, and settings of the run file written as
options.

Trainers elsewhere take every setting as an option (`--output_dir x`). Here settings are overrides
(`train.output_dir=x`), so a setting that is written as an option is answered with the override.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from smolvlm.terminal import say

if TYPE_CHECKING:
    from smolvlm.config.problems import Problem

WRONG_USAGE = 2

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]


class Command(TyperCommand):
    """A command whose `--help` names no type beside flags, which take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_types(super().get_params(ctx))


class Group(TyperGroup):
    """The same for the command line as a whole."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_types(super().get_params(ctx))


class RunFileCommand(Command):
    """A command that takes overrides; names the override for a setting written as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {
            name: not param.is_flag
            for param in self.get_params(ctx)
            if param.param_type_name == "option"
            for name in (*param.opts, *param.secondary_opts)
        }
        unknown = list(unknown_options(args, options))
        if unknown:
            from smolvlm.config.problems import problems_error

            problems = [_answer(name, value, options) for name, value in unknown]
            say(f"error: {problems_error(problems, where=f'smolvlm {self.name}')}")
            ctx.exit(WRONG_USAGE)
        return super().parse_args(ctx, args)


def unknown_options(
    arguments: Sequence[str], options: Mapping[str, bool]
) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the value of every `--option` that the command does not have.

    Args:
        arguments: as written behind the command.
        options: the command's own -> whether a value follows.
    """
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            continue
        if name in options:
            if options[name] and not equals and rest:
                rest.pop(0)
        elif equals:
            yield name, value
        else:
            yield name, rest.pop(0) if rest and _can_be_value_of(name, rest[0]) else None


def _can_be_value_of(option: str, text: str) -> bool:
    """Say whether the argument behind an unknown option is its value, and no argument by itself."""
    from smolvlm.config.names import is_switch

    if is_switch(_setting(option)):
        return text.lower() in ("true", "false")
    is_override = "." in text.partition("=")[0] and "=" in text
    return not text.startswith("--") and not is_override and not text.endswith((".yaml", ".yml"))


def _answer(option: str, value: str | None, options: Mapping[str, bool]) -> "Problem":
    """Return what to write in place of an option that the command does not have."""
    from smolvlm.config.names import is_known, override_for, shown_setting
    from smolvlm.config.problems import Problem
    from smolvlm.config.suggestions import did_you_mean

    near_option = None if is_known(_setting(option)) else did_you_mean(option, options)
    fix = near_option or override_for(_setting(option), "true" if value is None else value)
    is_setting = near_option is None and fix is not None
    what = (
        "no such option; settings are written section.key=value"
        if is_setting
        else "no such option or setting"
    )
    shown = None if value is None else shown_setting(_setting(option), value)
    return Problem(key=option, value=shown, what=what, fix=fix)


def _setting(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _without_flag_types(params: Sequence[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):  # arguments have none
            param.metavar = ""
    return list(params)
