"""`smolvlm push`: a model on the Hugging Face hub, with what belongs to it and nothing else.

In: a run's folder, a checkpoint's or an export's. Out: what goes up, first as a list
(`planned_upload`), then sent (`push`). Weights, processor and card go; optimizer, rows, answers,
reports and caches stay. An adapter that names its base by a folder of this machine would load
nowhere else, and is refused, as are files that hold a path of this machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.peft_layers import (
    ADAPTER_CONFIG,
    MERGE_COMMAND,
    is_adapter_folder,
)
from smolvlm.checkpoints.processor_files import PROCESSOR_FILES
from smolvlm.config.paths import can_be_hub_id
from smolvlm.errors import ConfigError
from smolvlm.publish.model_card import CARD, write_model_card

MODEL_FILES = (
    CARD,
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    ADAPTER_CONFIG,
    "adapter_model.safetensors",
    *PROCESSOR_FILES,
)
SHARDS = "model-*-of-*.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """What goes to the hub."""

    folder: Path
    repo_id: str
    files: tuple[Path, ...]
    is_private: bool

    @property
    def num_bytes(self) -> int:
        """How much it is."""
        return sum(path.stat().st_size for path in self.files)


def planned_upload(folder: Path, repo_id: str, *, is_private: bool) -> Upload:
    """Return what would go to the hub; the card is written where a run left what it says.

    Raises:
        ConfigError: there is no model, the name is none of the hub's, or a file names a path of
            this machine.
    """
    if not can_be_hub_id(repo_id) or "/" not in repo_id:
        raise ConfigError("no OWNER/NAME", where=repo_id, fix="name the repository as the hub does")
    has_weights = any(folder.glob("*.safetensors"))
    if not has_weights or not ((folder / "config.json").is_file() or is_adapter_folder(folder)):
        fix = "give a run's output_dir, or what `smolvlm export` wrote"
        raise ConfigError("no model here", where=str(folder), fix=fix)
    if (folder / "run.yaml").is_file():
        write_model_card(folder, title=repo_id.rpartition("/")[2])
    names = [folder / name for name in MODEL_FILES]
    files = tuple(path for path in (*names, *sorted(folder.glob(SHARDS))) if path.is_file())
    for path in files:
        _check_paths(path)
    return Upload(folder=folder, repo_id=repo_id, files=files, is_private=is_private)


def push(upload: Upload, *, message: str) -> str:
    """Send a model to the hub, in one commit; return the address of its page.

    Args:
        upload: of `planned_upload`.
        message: of the commit.

    Raises:
        ConfigError: the hub refuses, or is out of reach.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        page = api.create_repo(upload.repo_id, private=upload.is_private, exist_ok=True)
        api.upload_folder(
            folder_path=upload.folder,
            repo_id=upload.repo_id,
            allow_patterns=[path.name for path in upload.files],
            commit_message=message,
        )
    except LocalTokenNotFoundError as error:
        what = "this machine has no token for the hub"
        raise ConfigError(what, where=upload.repo_id, fix="hf auth login") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        what = f"the hub refuses ({status}): {' '.join(str(error).split())[:300]}"
        login = "log in with a token that may write: hf auth login"
        fix = login if status in (401, 403) else "check the name; try again later"
        raise ConfigError(what, where=upload.repo_id, fix=fix) from error
    except Exception as error:  # of whatever library the hub's client asks by
        reason = " ".join(str(error).split()) or type(error).__name__
        fix = "check the network; with HF_HUB_OFFLINE=1 nothing is sent"
        what = f"the hub is out of reach: {reason}"
        raise ConfigError(what, where=upload.repo_id, fix=fix) from error
    return str(page)


def _check_paths(path: Path) -> None:
    """Refuse a JSON file that names a folder of this machine."""
    if path.suffix != ".json" or path.name in ("tokenizer.json", "vocab.json"):
        return
    for key, value in _texts(read_object(path)):
        is_base = path.name == ADAPTER_CONFIG and key == "base_model_name_or_path"
        if is_base and not can_be_hub_id(value):
            fix = f"write the base's hub id there, or merge it: {MERGE_COMMAND}"
            what = f"the adapter's base is a folder of this machine: {value}"
            raise ConfigError(what, where=f"{path}: {key}", fix=fix)
        if value.startswith(("/", "~/")) and Path(value).expanduser().exists():
            what = f"a path of this machine: {value}"
            raise ConfigError(what, where=f"{path}: {key}", fix="take it out")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in a JSON value, with the key that it stands at."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
