"""What is wrong with the settings and mixtures of a command, found before anything heavy is
imported.

Opens the settings files and the mixtures that they name, and looks for the files of rows; rows and
models are not opened. A mistake is named within half a second of CPU.
"""

from collections.abc import Sequence
from pathlib import Path

from smolvlm.errors import ConfigError


def check_run_file(run_file: Path, overrides: Sequence[str]) -> None:
    """Raise ConfigError for what is wrong with a run file and its mixtures."""
    from smolvlm.config.load import load_run_config
    from smolvlm.datasets.rows.mixture import load_mixture

    data = load_run_config(run_file, overrides).data
    for name, mixture in (("mixture", data.mixture), ("eval_mixture", data.eval_mixture)):
        if mixture is not None:
            load_mixture(mixture, base_dir=data.base_dir, name=f"{run_file}: data.{name}")


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
    from smolvlm.config.schema import SECTIONS
    from smolvlm.config.settings_file import refuse_rows
    from smolvlm.config.yaml_text import read_yaml

    refuse_rows(target, wanted="a mixture or a run file")
    content = read_yaml(target)
    sections = content if isinstance(content, dict) else {}
    if any(name in SECTIONS and isinstance(value, dict) for name, value in sections.items()):
        check_run_file(target, [*overrides, *([f"model.path={model}"] if model else [])])
    else:
        _check_mixture(target)
    if held_out is not None:
        _check_mixture(held_out)


def check_evaluated(target: str, overrides: Sequence[str], *, mixture: Path | None) -> None:
    """Raise ConfigError for what is wrong with what is evaluated.

    Args:
        target: a run folder, a run file, a checkpoint or a hub id.
        overrides: of the run file.
        mixture: takes the place of the run file's held-out one.
    """
    from smolvlm.datasets.rows.mixture import load_mixture
    from smolvlm.runs.evaluation_settings import evaluated_config

    if mixture is not None:
        _check_mixture(mixture)
    data = evaluated_config(target, overrides, mixture=mixture).data
    if data.eval_mixture is None:
        raise ConfigError(
            "nothing to evaluate on", where="data.eval_mixture", fix="give --mixture FILE"
        )
    load_mixture(data.eval_mixture, base_dir=data.base_dir, name=f"{target}: data.eval_mixture")


def _check_mixture(path: Path) -> None:
    from smolvlm.datasets.rows.mixture import load_mixture

    load_mixture(path.absolute(), base_dir=path.absolute().parent)
