"""A checkpoint as other programs' converters want to find it: whole weights, flat files.

In: an `Exported`. Out: a folder that plain transformers loads too. Weights are linked; an adapter
is merged into its base first, and weights in another form than safetensors are saved anew. What
would have a converter run code that lies beside a checkpoint (`auto_map`) is left out.

Three things are written otherwise than transformers writes them, each since some converter reads it
only so: `text_config.architectures`, the picture settings themselves in
`preprocessor_config.json`, and a tokenizer class that takes tokenizer.json as it stands.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.processor_files import PROCESSOR_FILES
from smolvlm.datasets.encoding.jinja_template import RELEASED_TEMPLATE
from smolvlm.export.exported import Exported
from smolvlm.export.merge import MODEL_FILES, SHARDS, write_merged
from smolvlm.protocols import JsonObject, Processor

TEXT_ARCHITECTURES = {"llama": "LlamaForCausalLM"}
"""Model type of a language model -> its class; those that a converter is known for."""

_FOREIGN_CODE = "auto_map"


def stage(exported: Exported, folder: Path, *, template: str) -> None:
    """Write a checkpoint into an empty folder.

    Args:
        exported: what was read of it.
        folder: on the same machine for as long as the weights are needed.
        template: its chat template.
    """
    files = _model_files(exported.folder)
    if exported.is_adapter or not any(path.suffix == ".safetensors" for path in files):
        write_merged(exported.folder, folder)
    else:
        for path in files:
            if path.suffix == ".safetensors":
                (folder / path.name).symlink_to(path.resolve())
            else:
                shutil.copyfile(path, folder / path.name)
    for name in PROCESSOR_FILES:
        if (exported.folder / name).is_file():
            shutil.copyfile(exported.folder / name, folder / name)
    _complete_config(folder / "config.json")
    write_processor_files(folder, exported.base.processor, template=template)


def write_processor_files(folder: Path, processor: Processor, *, template: str) -> None:
    """Rewrite a processor's files flat; the picture settings are those that transformers read.

    Args:
        folder: holds the files.
        processor: what transformers read of them.
        template: the chat template, which is written to `tokenizer_config.json` and
            `chat_template.jinja`.
    """
    pictures = processor.image_processor.to_dict()
    kind = str(pictures["image_processor_type"]).removesuffix("Fast").removesuffix("Pil")
    pictures.pop(_FOREIGN_CODE, None)
    pictures |= {"image_processor_type": kind, "processor_class": type(processor).__name__}
    _write(folder / "preprocessor_config.json", pictures)
    shared = {"processor_class": type(processor).__name__, "image_seq_len": processor.image_seq_len}
    _write(folder / "processor_config.json", shared)
    (folder / "chat_template.json").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = read_object(path) if path.is_file() else {}
    settings.pop(_FOREIGN_CODE, None)
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    _write(path, settings)


def template_of(processor: Processor) -> str:
    """Return a processor's chat template, or the family's."""
    template: Any = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return str(template or RELEASED_TEMPLATE)


def _model_files(folder: Path) -> list[Path]:
    named = [folder / name for name in MODEL_FILES if (folder / name).is_file()]
    return [*named, *sorted(folder.glob(SHARDS))]


def _complete_config(path: Path) -> None:
    content = read_object(path)
    content.pop(_FOREIGN_CODE, None)
    text = content.setdefault("text_config", {})
    architecture = TEXT_ARCHITECTURES.get(text.get("model_type", "llama"))
    if architecture is not None:
        text.setdefault("architectures", [architecture])
        text["architectures"] = text["architectures"] or [architecture]
    _write(path, content)


def _write(path: Path, content: JsonObject) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
