"""Which ways a run takes where its CPU can compute a thing in several: measured and kept.

In: a run's folder. Out: a context in which the model computes as chosen. A machine's ways are
measured in about a second when a run trains on its CPU, and kept in the cache folder; once two
measurements in succession agree, nothing is measured any more: a single one could have been taken
while the machine did other things, and would be wrong for good. A run's ways are kept in its own
folder (`cpu_choices.json`), so that a resumed run takes the same, and the first rank chooses for
all. `SMOLVLM_MEASURE_CPU=0` measures nothing: what the CPU's units suggest is taken.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import TrainingArguments

from smolvlm.disk.atomic_files import write_text
from smolvlm.home import cache_dir
from smolvlm.model.attention.products import attend_by_products
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, default_choices, using_choices
from smolvlm.model.onednn import has_onednn, linear_by_onednn, onednn_products
from smolvlm.train.bf16_units import has_bf16_units
from smolvlm.train.cpu_sizes import SIZES, best_seconds, best_sizes

RUN_FILE = "cpu_choices.json"
MIN_GAIN = 1.15
"""A way is taken that is so many times as fast as torch's own, and not for less: timings move."""
NUM_ROUNDS = 4
ENOUGH_AGREE = 2
"""Measurements in succession that choose the same ways."""
_AGREEING = "agreeing_measurements"
_PATCHES, _WIDTH, _HEADS = 1024, 768, 4


@contextmanager
def computing_as_chosen(arguments: TrainingArguments, *, resume: Path | None) -> Iterator[None]:
    """Let a run's model compute in the ways that were chosen for it; on a GPU there is one of each.

    Args:
        arguments: of the run.
        resume: the checkpoint that it resumes from.
    """
    if arguments.device.type != "cpu":
        yield
        return
    chosen: list[Any] = [None]
    if arguments.process_index == 0:
        chosen = [_choices_of_run(Path(str(arguments.output_dir)), resume=resume)]
    if arguments.world_size > 1:
        broadcast_object_list(chosen)
    with using_choices(chosen[0]), onednn_products("cpu"):
        yield


@contextmanager
def computing_as_trained(
    path: str, device: torch.device | str, *, num_ranks: int = 1
) -> Iterator[None]:
    """Let a trained model answer in the ways that its run took, so that it says what it said there;
    another model answers in this machine's.

    Args:
        path: the model's: a run's folder, one of its checkpoints, another folder or a hub id.
        device: that it answers on; on a GPU there is one way of each.
        num_ranks: processes that answer together, which are joined; the first one's ways are taken.
    """
    if torch.device(device).type != "cpu":
        yield
        return
    chosen: list[Any] = [_choices_of_model(Path(path))]
    if num_ranks > 1:
        broadcast_object_list(chosen)
    with using_choices(chosen[0]), onednn_products("cpu"):
        yield


def _choices_of_model(folder: Path) -> CpuChoices:
    for place in (folder, folder.absolute().parent):
        if (kept := _read(place / RUN_FILE)) is not None:
            return kept
    return machine_choices()


def _choices_of_run(folder: Path, *, resume: Path | None) -> CpuChoices:
    """Return a run's choices, and keep them beside it.

    A checkpoint's are looked for in its run's folder first, which may be another one.
    """
    places = [] if resume is None else [resume.parent, folder]
    kept = [choices for place in places if (choices := _read(place / RUN_FILE)) is not None]
    choices = kept[0] if kept else machine_choices()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RUN_FILE, _as_json(choices))
    return choices


def machine_choices() -> CpuChoices:
    """Return what was measured on this machine, measuring it until two measurements agree."""
    if os.environ.get("SMOLVLM_MEASURE_CPU", "1") == "0":
        return default_choices()
    path = cache_dir() / "cpu_choices" / f"{_fingerprint()}.json"
    kept, number = _read(path), _agreeing(path)
    if kept is not None and number >= ENOUGH_AGREE:
        return kept
    found = measure()
    if kept is not None and _ways(kept) == _ways(found):
        found, number = kept, number + 1  # its sizes too: they hardly matter, and runs stay equal
    else:
        number = 1
    with suppress(OSError):  # measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(found) | {_AGREEING: number}, indent=1) + "\n")
    return found


def _ways(choices: CpuChoices) -> dict[str, Any]:
    return {name: value for name, value in asdict(choices).items() if name not in _LATER}


def _agreeing(path: Path) -> int:
    """Return how many measurements in succession a machine's file stands for; its content is
    sound, or not looked at."""
    try:
        number = json.loads(path.read_text(encoding="utf-8"))[_AGREEING]
    except (OSError, ValueError, LookupError, TypeError):
        return 1
    return number if type(number) is int else 1


def measure() -> CpuChoices:
    """Measure this CPU's ways and sizes, on as many threads as torch has; takes about a second."""
    found = CpuChoices(
        bf16_products=has_bf16_units() and _gain(*_attentions()) > MIN_GAIN,
        onednn_products=has_onednn() and _gain(*_linears()) > MIN_GAIN,
    )
    return best_sizes(found)


def _attentions() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return torch's attention within a tile in bfloat16, and ours."""
    shape = (1, _HEADS, _PATCHES, _WIDTH // 12)
    states = [torch.ones(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    upstream = torch.ones(shape, dtype=torch.bfloat16)

    def both_passes(attend: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(attend(*states), states, upstream)

    return both_passes(scaled_dot_product_attention), both_passes(attend_by_products)


def _linears() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return torch's float32 linear layer, and oneDNN's."""
    states = torch.ones(_PATCHES, _WIDTH, requires_grad=True)
    weight = torch.ones(_WIDTH, _WIDTH, requires_grad=True)
    upstream = torch.ones(_PATCHES, _WIDTH)

    def both_passes(multiply: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(multiply(states, weight), (states, weight), upstream)

    return both_passes(linear), both_passes(linear_by_onednn)


def _gain(torchs: Callable[[], Any], ours: Callable[[], Any]) -> float:
    """Return how many times as fast ours is."""
    first, second = best_seconds([torchs, ours], num_rounds=NUM_ROUNDS)
    return first / second


def _fingerprint() -> str:
    """Name this machine's CPU, torch and threads."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    parts = (platform.machine(), platform.processor(), sorted(capabilities.items()))
    facts = f"{parts} {torch.__version__} {torch.get_num_threads()} {sorted(_NAMES)}"
    return blake2b(facts.encode(), digest_size=8).hexdigest()


_NAMES = frozenset(field.name for field in fields(CpuChoices))
_LATER = frozenset(SIZES)
"""What files of earlier versions lack: those runs took the defaults."""


def _as_json(choices: CpuChoices) -> str:
    return json.dumps(asdict(choices), indent=1) + "\n"


def _read(path: Path) -> CpuChoices | None:
    """Return the choices of a file, None where there is none, or one of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(content, dict):
        content.pop(_AGREEING, None)
    if not isinstance(content, dict) or not _NAMES - _LATER <= content.keys() <= _NAMES:
        return None
    if any(type(value) is not _KINDS[name] for name, value in content.items()):
        return None
    return CpuChoices(**content)


_KINDS = {field.name: type(getattr(STOCK_CHOICES, field.name)) for field in fields(CpuChoices)}
