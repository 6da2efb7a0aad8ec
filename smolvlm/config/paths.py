"""Where relative paths start: what is read, from the run file's folder; what is written, from the
current one.

Every path comes out absolute, so that the resolved settings mean the same wherever they are read
again. `model.path` is looked for beside the run file, then in the current folder (where an earlier
run's output is); a name that is no folder is a hub id.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from smolvlm.config.deepspeed_file import shipped_file
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import EMBEDDED_MODEL
from smolvlm.config.yaml_text import Settings

_HUB_ID = re.compile(r"^[\w\-.]+/[\w\-.]+$", re.ASCII)
_WRITTEN = (
    ("train", "output_dir"),
    ("train", "resume_from_checkpoint"),
    ("data", "vision_cache_dir"),
)
_MODELS = (("model", "path"), ("train", "reference_model"))
_READ_ARGUMENTS = ("deepspeed", "fsdp_config")


def resolve_paths(
    sections: Mapping[str, Mapping[str, object]], *, run_dir: Path, problems: list[Problem]
) -> dict[str, Settings]:
    """Return the sections with absolute paths; missing files go to `problems`.

    Args:
        sections: section -> settings; what is not text is left for the types to judge.
        run_dir: folder of the run file, absolute.
        problems: receives missing files.
    """
    resolved: dict[str, Settings] = {
        section: dict(content) for section, content in sections.items()
    }
    _resolve_rows(resolved["data"], run_dir=run_dir, problems=problems)
    for section, name in _WRITTEN:
        value = resolved[section].get(name)
        if isinstance(value, str) and value and value != "auto":
            resolved[section][name] = _under(Path.cwd(), value)
    train = resolved["train"]
    checkpoint = train.get("resume_from_checkpoint")
    if isinstance(checkpoint, Path) and not checkpoint.is_dir():
        fix = "name a checkpoint folder, `auto` or `false`"
        problems.append(
            Problem(
                key="train.resume_from_checkpoint",
                value=shown_value(str(checkpoint)),
                what="no such folder",
                fix=fix,
            )
        )
    for name in _READ_ARGUMENTS:
        if isinstance(written := train.get(name), str):
            path = _under(run_dir, written)
            train[name] = str(path if path.exists() else shipped_file(written) or path)
    for section, name in _MODELS:
        value = resolved[section].get(name)
        if isinstance(value, str) and value:
            resolved[section][name] = _model_path(
                value, key=f"{section}.{name}", run_dir=run_dir, problems=problems
            )
    return resolved


def _resolve_rows(data: Settings, *, run_dir: Path, problems: list[Problem]) -> None:
    """Make mixtures' paths absolute, in place; they start from `base_dir`, where it is set."""
    written = data.get("base_dir")
    base_dir = _under(run_dir, written) if isinstance(written, str) and written else run_dir
    if written is None or isinstance(written, str):
        data["base_dir"] = base_dir
    for name in ("mixture", "eval_mixture"):
        if isinstance(data.get(name), str) and data[name]:
            data[name] = _existing_file(
                data[name], key=f"data.{name}", base_dir=base_dir, problems=problems
            )


def _under(folder: Path, path: str) -> Path:
    return (folder / os.path.expanduser(path)).absolute()


def _existing_file(written: str, *, key: str, base_dir: Path, problems: list[Problem]) -> Path:
    path = _under(base_dir, written)
    if not os.path.isfile(path):
        what = f"{'this is a folder' if os.path.isdir(path) else 'no such file'}: {path}"
        problems.append(
            Problem(
                key=key,
                value=shown_value(written),
                what=what,
                fix=f"relative paths start from {base_dir}",
            )
        )
    return path


def can_be_hub_id(path: str) -> bool:
    """Say whether a text can be OWNER/NAME on the hub, and need not be a folder."""
    return not path.startswith((".", "~", "/")) and _HUB_ID.match(path) is not None


def _model_path(written: str, *, key: str, run_dir: Path, problems: list[Problem]) -> str:
    """Return an absolute folder, or the hub id or the word as written."""
    if written == EMBEDDED_MODEL:
        return written
    for folder in (run_dir, Path.cwd()):
        candidate = _under(folder, written)
        if os.path.isdir(candidate):
            return str(candidate)
    if not can_be_hub_id(written):
        fix = "give a folder with a model in it, a hub id (OWNER/NAME), or `embedded`"
        looked = dict.fromkeys(str(_under(folder, written)) for folder in (run_dir, Path.cwd()))
        what = f"no such folder, and no hub id; looked for {' and '.join(looked)}"
        problems.append(Problem(key=key, value=shown_value(written), what=what, fix=fix))
    return written
