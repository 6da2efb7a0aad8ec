"""Answers that an evaluation has already, so that one that was stopped goes on where it was.

In: the file that an evaluation writes at its end, and the answers beside it that a stopped one left
(`NAME.partial`). Out: the answer to a prompt, by a digest of all that it depends on: weights,
settings of generation, prompt, and what is seen of which pictures. A batch of answers is appended
in one write, so a killed process loses the batch that it was at.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import escape
from hashlib import blake2b
from pathlib import Path

import torch
import xxhash

from smolvlm.datasets.encoding.encoded import EncodedConversation
from smolvlm.media.medium import open_medium
from smolvlm.media.settings import MediaSettings
from smolvlm.protocols import VisionLanguageModel

PARTIAL = ".partial"
_KEY_BYTES = 16
_IN_MEMORY_ONLY = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
"""What of a model's configuration says nothing of its answers, or stands in its weights."""


class KeptAnswers:
    """Answers by their keys; what is added is on disk when `add` returns."""

    def __init__(self, finished: Path, *, rank: int = 0) -> None:
        """Read what is there, of any number of processes.

        Args:
            finished: the file of an evaluation's rows, there or not.
            rank: of this process, where several answer: each keeps a file.
        """
        self._finished = finished
        suffix = f".{rank}" if rank else ""
        self.partial = finished.with_name(f"{finished.name}{PARTIAL}{suffix}")
        self._answers = dict(_read(finished))
        for partial in self._partials():
            self._answers |= dict(_read(partial))
        self._ends_line = not self.partial.is_file() or self.partial.read_bytes()[-1:] in (
            b"",
            b"\n",
        )
        self.num_used = 0
        """Answers that were taken from here."""

    def get(self, keys: Sequence[str]) -> list[str] | None:
        """Return the answers to a batch of prompts; None unless all are there."""
        if not all(key in self._answers for key in keys):
            return None
        self.num_used += len(keys)
        return [self._answers[key] for key in keys]

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep the answers to a batch of prompts, by key.

        Raises:
            OSError: they cannot be written.
        """
        self._answers |= answers
        lines = "".join(
            json.dumps({"key": key, "prediction": text}) + "\n" for key, text in answers.items()
        )
        start = "" if self._ends_line else "\n"
        self._ends_line = True
        with self.partial.open("ab", buffering=0) as file:
            file.write((start + lines).encode())

    def finish(self) -> None:
        """Delete what a stopped evaluation would go on from, of all processes: the finished file
        has it all."""
        for partial in self._partials():
            partial.unlink(missing_ok=True)

    def _partials(self) -> list[Path]:
        name = f"{self._finished.name}{PARTIAL}"
        return [
            path
            for path in sorted(self._finished.absolute().parent.glob(f"{escape(name)}*"))
            if path.name == name or path.name.removeprefix(f"{name}.").isdecimal()
        ]


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (key, answer) of each line that has both; a line cut short has not."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:  # cut short by a kill; that batch is asked again
                continue
            for prefix in ("", "base_") if isinstance(row, dict) else ():
                key, answer = row.get(f"{prefix}key"), row.get(f"{prefix}prediction")
                if isinstance(key, str) and isinstance(answer, str):
                    yield key, answer


def model_digest(model: VisionLanguageModel) -> bytes:
    """Return a digest of a model's weights and configuration; where it lies does not count."""
    digest = xxhash.xxh3_128()
    config = json.loads(model.config.to_json_string(), object_hook=_lasting)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            bytes_of = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(bytes_of.numpy().data)
    return digest.digest()


def _lasting(config: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if name not in _IN_MEMORY_ONLY}


def answer_key(
    prompt: EncodedConversation, media: MediaSettings, asked_of: Iterable[object]
) -> str:
    """Return the key of a prompt's answer.

    Args:
        prompt: encoded, with its media, whose bytes are read.
        media: how they are cut.
        asked_of: the model's digest, and settings whose text says all of them.

    Raises:
        SampleError: a picture or a clip cannot be read.
    """
    digest = blake2b(digest_size=_KEY_BYTES)
    for part in asked_of:
        digest.update(part if isinstance(part, bytes) else f"{part!r}\0".encode())
    digest.update(prompt.input_ids.tobytes())
    for medium, layout in zip(prompt.media, prompt.layouts, strict=True):
        digest.update(f"{layout!r}\0".encode())
        for key in open_medium(medium, layout, media).tile_keys:
            digest.update(key)
    return digest.hexdigest()


def is_kept(finished: Path) -> bool:
    """Say whether answers can be kept beside a file: not beside a pipe or a device."""
    return not os.path.lexists(finished) or finished.is_file()
