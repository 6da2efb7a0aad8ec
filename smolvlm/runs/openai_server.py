"""`transformers serve` for one folder: its name is listed, answers begin with their first word.

In: the command's arguments. Out: a server until a signal ends it. The stock server (transformers
5.23) lists what lies in the hub's cache, which a run's folder does not, and returns the space that
a chat template leaves for the answer to begin with; both are changed here, where the stock classes
keep them (tests/cli/test_serve.py fails if they move).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolvlm.train.cpu_ways import computing_as_trained


def run_server(arguments: Sequence[str], folder: str, *, device: str) -> None:
    """Serve a folder; returns, or raises what a signal's handler does, when a signal came.

    Args:
        arguments: of `transformers serve`.
        folder: as clients name the model.
        device: `auto`, or where it computes.
    """
    from transformers.cli.transformers import app

    list_one_model(folder)
    begin_with_a_word()
    # Where it is "auto" a GPU may be taken: its operands stay with torch.
    with computing_as_trained(folder, "cpu" if device == "auto" else device):
        app([*arguments], standalone_mode=False)


def list_one_model(folder: str) -> None:
    """Let `/v1/models` name a folder, by the name that requests take."""
    from transformers.cli.serving.model_manager import ModelManager

    created = int((Path(folder) / "config.json").stat().st_mtime)
    entry = {"id": folder, "object": "model", "created": created, "owned_by": "smolvlm"}
    stock: Any = ModelManager
    stock.get_gen_models = staticmethod(lambda: [entry])


def begin_with_a_word() -> None:
    """Take the white space from the beginning of answers, streamed ones too."""
    from transformers.cli.serving.utils import DirectStreamer, GenerateManager

    whole, piece = GenerateManager.generate_non_streaming, DirectStreamer._enqueue

    async def stripped(self: Any, *args: Any, **settings: Any) -> Any:
        text, *others = await whole(self, *args, **settings)
        return text.lstrip(), *others

    def strip_first(self: Any, item: Any) -> None:
        is_text = isinstance(item, str)
        if is_text and not getattr(self, "has_begun", False):
            item = type(item)(item.lstrip())
            if not item:
                return
            self.has_begun = True
        piece(self, item)

    manager, streamer = GenerateManager, DirectStreamer
    manager.generate_non_streaming = stripped  # pyright: ignore[reportAttributeAccessIssue]
    streamer._enqueue = strip_first
