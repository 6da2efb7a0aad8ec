"""A checkpoint that answers: a question and pictures or clips in, text out.

It says what `smolvlm eval` would note for the same row, with the run's own settings of pictures and
clips where the folder is a run's.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smolvlm.checkpoints.context import context_tokens
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError, SampleError, SampleKind, located
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.media.kinds import begins_like_picture, ending_of, is_picture_ending
from smolvlm.records import Conversation, ImageRef, Media, Turn, VideoRef
from smolvlm.runs.evaluation_settings import bare_config, trained_config
from smolvlm.train.run_model import load_answering_checkpoint

Shown = Image.Image | np.ndarray | str | Path | bytes
"""A picture or a clip: opened, as an array (height, width, 3) uint8, a file, a folder of frames, or
encoded bytes."""
_FIXES: Mapping[SampleKind, str] = {
    "missing_media": "correct its name; a relative one starts from the working folder",
    "too_large_media": "shrink it, or save it anew",
    "too_slow_media": "shrink it, or write its file anew",
    "outside_root": "show a folder whose frames are files of its own",
    "changed_row": "show it again",
}
"""Kind of an error about a medium -> the fix where no row of a mixture names it."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with its processor, ready to be asked."""

    checkpoint: Checkpoint
    prompt: PromptSettings

    def ask(
        self, question: str, *media: Shown, max_new_tokens: int = 128, system: str | None = None
    ) -> str:
        """Return the model's answer, by greedy decoding.

        Args:
            question: what is asked; the media stand before it.
            media: pictures and clips in their order.
            max_new_tokens: where an answer that does not end is cut.
            system: a system turn before it.

        Raises:
            SampleError: a picture or a clip cannot be read.
            ConfigError: something is neither.
        """
        blocks = (*map(as_media, media), question)
        before = (Turn(role="system", blocks=(system,)),) if system is not None else ()
        turns = (*before, Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=("",)))
        row = Conversation(turns=turns, where="question", source="question")
        settings = GenerationSettings(max_new_tokens=max_new_tokens, batch_size=1)
        with without_rows():
            (answer,) = Generator(self.checkpoint.model, self.prompt, settings).answers([row])
        return answer


def load_model(path: str | Path, *, device: torch.device | str | None = None) -> LoadedModel:
    """Load a run's output folder, one of its checkpoints, a checkpoint's folder or a hub id.

    Args:
        path: see above.
        device: where it computes; None is a GPU where there is one.

    Raises:
        ConfigError: there is no such checkpoint, or it is not of the family.
    """
    return load_answering(trained_config(Path(path)) or bare_config(str(path)), device=device)


def load_answering(config: RunConfig, *, device: torch.device | str | None = None) -> LoadedModel:
    """Load the model that settings name, which shows media as they say.

    Raises:
        ConfigError: as `load_model`.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_answering_checkpoint(config, device=chosen)
    checkpoint.model.eval()
    context = context_tokens(checkpoint.model.config)
    num_rows = checkpoint.model.config.text_config.vocab_size
    with located(config.model.path):
        prompt = read_prompt(
            checkpoint.processor, config.data, context_tokens=context, num_rows=num_rows
        )
    return LoadedModel(checkpoint=checkpoint, prompt=prompt)


@contextmanager
def without_rows() -> Iterator[None]:
    """Give errors about media that leave the block the fix of somebody who has no rows."""
    try:
        yield
    except SampleError as error:
        error.fix = _FIXES.get(error.kind, error.fix)
        raise


def as_media(medium: Shown) -> Media:
    """Return what a row would name; raises as `LoadedModel.ask`."""
    if isinstance(medium, np.ndarray):
        medium = Image.fromarray(medium)
    if isinstance(medium, Image.Image):
        buffer = io.BytesIO()
        medium.save(buffer, "PNG")
        return ImageRef(data=buffer.getvalue())
    if isinstance(medium, bytes):
        return ImageRef(data=medium) if begins_like_picture(medium) else VideoRef(data=medium)
    if isinstance(medium, str | Path):
        path = Path(medium).absolute()
        return ImageRef(path=path) if is_picture_ending(ending_of(path)) else VideoRef(path=path)
    what = f"{type(medium).__name__} is neither a picture nor a clip"
    fix = "give a Pillow image, a uint8 array, a path or encoded bytes"
    raise ConfigError(what, where="ask", fix=fix)
