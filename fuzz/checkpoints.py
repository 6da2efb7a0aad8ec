"""Checkpoints' files as fuzzed inputs: configurations, tokenizers, templates, headers of weights.

In: a seeded generator and an empty folder. Out: a folder of files of which one is changed, as JSON
or as bytes. What is accepted has to encode a conversation, or to give the tensors that safetensors
itself reads from the file, each with the values of its name.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from fuzz.checked import Checker
from fuzz.damage import damaged
from fuzz.row_changes import EDITS
from smolvlm.build.configs import published_config
from smolvlm.build.processor import PictureSettings, write_processor
from smolvlm.build.weights_folder import open_weights
from smolvlm.checkpoints.load import load_processor
from smolvlm.checkpoints.weight_files import read_tensors
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.errors import ConfigError, SampleError
from smolvlm.records import Conversation, Turn

TENSORS = ("model.a.weight", "model.b.weight", "lm_head.weight", "model.norm.bias")
WEIGHTS = 0.9
"""Share of weight files; a processor takes a second to load."""
ROW = Conversation(
    turns=(Turn(role="user", blocks=("What?",)), Turn(role="assistant", blocks=("This.",))),
    where="rows.jsonl:1",
    source="rows",
)


@lru_cache(maxsize=1)
def processor_files() -> Mapping[str, bytes]:
    """Return the files of a released model's processor by their names."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        published_config("256M", model_type="smolvlm").save_pretrained(path)
        write_processor(
            path,
            model_type="smolvlm",
            tile_side_px=512,
            tokens_per_tile=64,
            pictures=PictureSettings(longest_edge_px=2048),
        )
        return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def fuzz_checkpoints(random: Random, folder: Path, _: Checker) -> tuple[list[str], int]:
    """Make a checkpoint's files, read them, and return faults and whether they were accepted."""
    judge = _weights if random.random() < WEIGHTS else _processor
    return _judged(judge, random, folder)


def _judged(
    judge: Callable[[Random, Path], Iterator[str]], random: Random, folder: Path
) -> tuple[list[str], int]:
    try:
        return list(judge(random, folder)), 1
    except (ConfigError, SampleError) as error:
        str(error)
        return [], 0


def _processor(random: Random, folder: Path) -> Iterator[str]:
    files = dict(processor_files())
    name = random.choice(list(files))
    files[name] = _changed(files[name], random)
    for own, data in files.items():
        (folder / own).write_bytes(data)
    prompt = read_prompt_settings(load_processor(str(folder)))
    lengths = prompt.encoder().lengths(ROW, layouts=[])
    if not 0 < lengths.num_supervised_tokens < lengths.num_tokens:
        yield f"a conversation has {lengths.num_supervised_tokens} of {lengths.num_tokens} tokens"


def _changed(data: bytes, random: Random) -> bytes:
    """Return a file after a change of its values, where it is JSON, or of its bytes."""
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict) or random.random() < 0.3:
        return damaged(data, random)
    content = copy.deepcopy(content)
    random.choice(EDITS)(content, random)
    return json.dumps(content).encode()


def _weights(random: Random, folder: Path) -> Iterator[str]:
    tensors = {
        name: np.full((number + 2, 3), number + 1, dtype=np.float32)
        for number, name in enumerate(TENSORS)
    }
    data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    path = folder / "model.safetensors"
    path.write_bytes(_changed_weights(data, random))
    opened = open_weights(folder)
    read = opened.read({name: name for name in opened.files})
    whole = read_tensors(path)
    reference = safetensors.torch.load(path.read_bytes())
    if not read.keys() == whole.keys() == reference.keys():
        yield f"tensors {sorted(read)} are read, and {sorted(reference)} are there"
        return
    for name, tensor in reference.items():
        is_equal = torch.equal(whole[name].nan_to_num(), tensor.nan_to_num())
        if not is_equal or not torch.equal(read[name].nan_to_num(), tensor.float().nan_to_num()):
            yield f"the values of {name} are other than safetensors'"


def _changed_weights(data: bytes, random: Random) -> bytes:
    """Return a weight file after a change of its header's values, or of any bytes."""
    if random.random() < 0.4:
        return damaged(data, random)
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    name = random.choice([own for own in header if own != "__metadata__"])
    draw = random.randrange(6)
    if draw == 0:
        header[name]["dtype"] = random.choice(("I8", "F64", "BF16", "F8_E4M3", "x", 1, None))
    elif draw == 1:
        header[name]["shape"] = random.choice(([], [6], [-1], [2**62, 4], [0, 9], "x", [3, 2]))
    elif draw == 2:
        header[name]["data_offsets"] = [random.choice((-1, 0, 24, 2**63)), random.randrange(99)]
    elif draw == 3:
        header[random.choice(("x", "", "__metadata__", "é"))] = header.pop(name)
    elif draw == 4:
        other = random.choice([own for own in header if own != "__metadata__"])
        header[name], header[other] = header[other], header[name]
    else:
        random.choice(EDITS)(header, random)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
