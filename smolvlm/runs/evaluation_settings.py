"""The settings that a trained model is evaluated with, from what a user names: nothing heavy is
imported."""

from collections.abc import Sequence
from pathlib import Path

from smolvlm.config.load import config_from, load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.config.settings_file import refuse_rows
from smolvlm.errors import ConfigError


def evaluated_config(
    target: str, overrides: Sequence[str], *, mixture: Path | None = None
) -> RunConfig:
    """Return the settings that something is evaluated with.

    Args:
        target: a run folder or one of its checkpoints (its own weights stand in place of the
            base's), a run file, a checkpoint's folder or a hub id.
        overrides: `section.key=value`.
        mixture: the held-out rows; the run's `eval_mixture` by default.

    Raises:
        ConfigError: there is nothing of that name, or nothing to evaluate on.
    """
    path = Path(target)
    if mixture is not None:
        overrides = [*overrides, f"data.eval_mixture={mixture.absolute()}"]
    config = trained_config(path, overrides)
    if config is None and path.suffix in (".yaml", ".yml") and path.is_file():
        config = load_run_config(path, overrides)
    if config is None and path.is_file():
        refuse_rows(path, wanted="a run folder, a run file or a checkpoint")
    if config is None and mixture is None:
        missing = "" if path.exists() else f"no such folder ({path.absolute()}): "
        raise ConfigError(
            f"{missing}neither a run folder nor a run file, so there is no eval_mixture",
            where=target,
            fix="give a run folder, or --mixture FILE with a checkpoint or a hub id",
        )
    return bare_config(target, overrides) if config is None else config


def trained_config(folder: Path, overrides: Sequence[str] = ()) -> RunConfig | None:
    """Return a run's settings with the weights of its folder, or of a checkpoint in it.

    None where there is no run.
    """
    run_file = _run_file_of(folder)
    if run_file is None:
        return None
    return load_run_config(run_file, [*overrides, f"model.path={folder.absolute()}"])


def config_of_base(folder: Path) -> RunConfig | None:
    """Return the settings of the run whose folder, or whose checkpoint, this is, with the weights
    that it began from; None without one."""
    run_file = _run_file_of(folder)
    return None if run_file is None else load_run_config(run_file)


def base_of_trained(folder: Path) -> str | None:
    """Return the `model.path` of the run whose folder, or whose checkpoint, this is; None without
    one."""
    config = config_of_base(folder)
    return None if config is None else config.model.path


def _run_file_of(folder: Path) -> Path | None:
    run_files = (folder / "run.yaml", folder.parent / "run.yaml")
    return next((file for file in run_files if folder.is_dir() and file.is_file()), None)


def bare_config(model_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return settings for a checkpoint alone: the defaults, and the overrides over them.

    Raises:
        ConfigError: it names a place in a folder that is here, and is not there.
    """
    place = Path(model_path)
    if not place.exists() and place.parent != Path() and place.parent.is_dir():
        raise ConfigError(
            f"no such folder; {place.parent}, which is here, has no {place.name}",
            where=model_path,
            fix="name one that is there; for the hub's model of that name start elsewhere",
        )
    folder_or_id = str(Path(model_path).absolute()) if Path(model_path).exists() else model_path
    content = {
        "model": {"path": folder_or_id},
        "data": {"mixture": []},
        "train": {"output_dir": "."},
    }
    return config_from(content, overrides, where=model_path)
