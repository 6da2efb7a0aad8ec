"""What is wrong with the settings and mixtures of a command, found before anything heavy is
imported.

Opens the settings files and the mixtures that they name, and looks for the files of rows; rows and
models are not opened. A mistake is named within half a second of CPU, and those of the settings and
of the mixtures at once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError

Check = Callable[[], object]
"""Raises ConfigError for what is wrong."""


def check_run_file(run_file: Path, overrides: Sequence[str]) -> None:
    """Raise ConfigError for what is wrong with a run file and its mixtures, all of it at once."""
    _run_all(_checks_of_run(run_file, overrides))


def check_ranks(run_file: Path, overrides: Sequence[str], *, num_ranks: int) -> None:
    """Raise ConfigError for a run that so many ranks cannot share.

    Args:
        run_file: whose settings are right.
        overrides: of the run file.
        num_ranks: over all machines.
    """
    from smolvlm.config.context_ranks import data_ranks
    from smolvlm.config.load import load_run_config

    train = load_run_config(run_file, overrides).train
    data_ranks(train, num_ranks=num_ranks)
    if train.engine == "fsdp2" and num_ranks == 1:
        raise ConfigError(
            "one process has nothing to shard over",
            where="train.engine=fsdp2",
            fix="start several (--nproc), or take the setting out",
        )


def check_mixture_or_run(
    target: Path, overrides: Sequence[str], *, model: str | None, held_out: Path | None = None
) -> None:
    """Raise ConfigError for what is wrong with a mixture or a run file.

    Args:
        target: a mixture's YAML, or a run file's.
        overrides: of the run file.
        model: takes the place of the run file's.
        held_out: another mixture.
    """
    checks: list[Check] = [] if held_out is None else [lambda: _check_mixture(held_out)]
    if _is_run_file(target):
        changes = [*overrides, *([f"model.path={model}"] if model else [])]
        checks = [*_checks_of_run(target, changes), *checks]
    else:
        checks = [lambda: _check_mixture(target), *checks]
    _run_all(checks)


def check_evaluated(target: str, overrides: Sequence[str], *, mixture: Path | None) -> None:
    """Raise ConfigError for what is wrong with what is evaluated.

    Args:
        target: a run folder, a run file, a checkpoint or a hub id.
        overrides: of the run file.
        mixture: takes the place of the run file's held-out one.
    """
    from smolvlm.runs.evaluation_settings import evaluated_config

    def check() -> None:
        data = evaluated_config(target, overrides, mixture=mixture).data
        if data.eval_mixture is None:
            raise ConfigError(
                "nothing to evaluate on", where="data.eval_mixture", fix="give --mixture FILE"
            )
        if mixture is None:
            _check_named(data.eval_mixture, data.base_dir, f"{target}: data.eval_mixture")

    _run_all([check, *([] if mixture is None else [lambda: _check_mixture(mixture)])])


def _run_all(checks: Iterable[Check]) -> None:
    """Run checks that do not depend on each other, and raise what they raise as one error."""
    from smolvlm.config.problems import joined_errors

    errors: list[ConfigError] = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise joined_errors(errors)


def _checks_of_run(run_file: Path, overrides: Sequence[str]) -> list[Check]:
    """Return what is to be checked of a run file: its settings, and each mixture that it names."""
    from smolvlm.config.load import load_run_config
    from smolvlm.config.named_mixtures import named_mixtures

    checks: list[Check] = [lambda: load_run_config(run_file, overrides)]
    for name, mixture, base_dir in named_mixtures(run_file, overrides):
        where = f"{run_file}: data.{name}"
        checks.append(partial(_check_named, mixture, base_dir, where))
    return checks


def _is_run_file(target: Path) -> bool:
    from smolvlm.config.schema import SECTIONS
    from smolvlm.config.settings_file import refuse_rows
    from smolvlm.config.yaml_text import read_yaml

    refuse_rows(target, wanted="a mixture or a run file")
    content = read_yaml(target)
    sections = content if isinstance(content, dict) else {}
    return any(name in SECTIONS and isinstance(value, dict) for name, value in sections.items())


def _check_mixture(path: Path) -> None:
    _check_named(path.absolute(), path.absolute().parent, "")


def _check_named(mixture: Path | list[Any] | dict[str, Any], base_dir: Path, where: str) -> None:
    from smolvlm.datasets.rows.mixture import load_mixture

    load_mixture(mixture, base_dir=base_dir, name=where)
