"""One folder, one run: what may not lie in a run's output folder before it begins."""

from pathlib import Path

from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError

_ANOTHER = "give train.output_dir another folder"


def check_run_folder(config: RunConfig) -> None:
    """Refuse an output folder in which this run would mix with, or destroy, something else.

    Raises:
        ConfigError: it is the folder of the model that the run begins from, or a run of whole
            weights ended in it and this one saves adapters: they would lie side by side, and
            readers take the whole weights.
    """
    folder, model = Path(config.train.output_dir), Path(config.model.path)
    if model.is_dir() and folder.resolve() == model.resolve():
        what = "this is the folder of the model itself, which would be written over"
        raise ConfigError(what, where=f"train.output_dir={folder}", fix=_ANOTHER)
    saves_adapters = any(entry.is_adapter for _, entry in config.adapters.entries())
    saves_adapters |= config.token_rows_lr > 0
    whole = sorted(folder.glob("model*.safetensors")) if folder.is_dir() else []
    if saves_adapters and whole:
        what = f"a run of whole weights ended here ({whole[0].name}), and this one saves an adapter"
        raise ConfigError(what, where=f"train.output_dir={folder}", fix=_ANOTHER)
