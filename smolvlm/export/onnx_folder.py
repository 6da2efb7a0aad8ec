"""ONNX graphs with the processor beside them, proved by running them.

In: a checkpoint. Out: a folder as transformers.js loads it: `onnx/` with the graphs, the
configuration, the processor's files, and `proof.json`. For `onnx` the proof runs them in
onnxruntime; for `browser` it is transformers.js in node.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints.new_folder import check_new_folder, new_folder
from smolvlm.errors import ConfigError
from smolvlm.export.exported import Exported
from smolvlm.export.onnx_models import MAX_INLINE_BYTES, write_graphs
from smolvlm.export.onnx_run import PACKAGE, OnnxModel
from smolvlm.export.packages import check_form, with_version
from smolvlm.export.proof import Proof, compare, write_proof
from smolvlm.export.proof_prompts import proof_prompts
from smolvlm.export.reference import reference_answers, stock_tensors
from smolvlm.export.staged import stage, template_of
from smolvlm.export.transformers_js import prove_browser

BOUND = 1e-3
"""On log-probabilities, in nats; the graphs are float32 as the stock model is."""
_CHANGING_ROPES = ("dynamic", "longrope")


def export_onnx(
    exported: Exported, out: Path, *, form: Literal["onnx", "browser"], proves: bool
) -> Proof:
    """Write graphs, processor and proof.

    Args:
        exported: what was read of the checkpoint.
        out: folder to make.
        form: where they are to run.
        proves: run them; without it `proof.json` says that nobody did.

    Raises:
        ConfigError: the model cannot be shown there as it was trained, or a package is missing.
    """
    check_onnx(exported, form=form, proves=proves)
    check_new_folder(out)
    asked = proof_prompts(exported.new_tokens)
    with new_folder(out) as folder:
        staged = folder / "staged"
        staged.mkdir()
        stage(exported, staged, template=template_of(exported.base.processor))
        model: Any = AutoModelForImageTextToText.from_pretrained(
            staged, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        ).eval()
        _check_size(model, form=form)
        (folder / "onnx").mkdir()
        write_graphs(model, folder / "onnx")
        del model
        if not proves:
            proof = Proof(runtime=form, bound=BOUND, not_run="--no-proof was given")
        elif form == "onnx":
            proof = prove_onnx(exported, folder / "onnx", staged=staged)
        else:
            proof = prove_browser(exported, folder, staged=staged)
        for path in sorted(staged.iterdir()):
            if path.suffix != ".safetensors" and ".safetensors." not in path.name:
                shutil.move(path, folder / path.name)
        write_proof(folder, proof, asked)
        shutil.rmtree(staged)
    return proof


def prove_onnx(exported: Exported, graphs: Path, *, staged: Path) -> Proof:
    """Compare what graphs answer in onnxruntime with what the stock model does.

    Args:
        exported: what they were made from.
        graphs: folder of the graphs.
        staged: the stock model.
    """
    asked, processor = proof_prompts(exported.new_tokens), exported.base.processor
    references = reference_answers(staged, processor, exported.prompt, asked)
    model = OnnxModel(graphs, exported.base.config)
    end = exported.prompt.tokens.end_of_turn
    answers = [
        model.answer(stock_tensors(processor, exported.prompt, each), end_of_turn=end)
        for each in asked
    ]
    return Proof(
        runtime=with_version(PACKAGE),
        bound=BOUND,
        comparisons=tuple(
            compare(each, reference, answer, bound=BOUND)
            for each, reference, answer in zip(asked, references, answers, strict=True)
        ),
    )


def check_onnx(exported: Exported, *, form: Literal["onnx", "browser"], proves: bool) -> None:
    """Refuse what a graph cannot hold, or transformers.js would show otherwise than in training.

    Raises:
        ConfigError: says what, and what to do instead.
    """
    where = str(exported.folder)
    rope = exported.base.config.text_config.rope_parameters["rope_type"]
    if rope in _CHANGING_ROPES:
        raise ConfigError(
            f"its rotary scaling, of type {rope}, changes with the length, and a graph's does not",
            where=where,
            fix="export --to transformers",
        )
    if form == "browser" and exported.prompt.media.pictures.image_splitting == "overview":
        raise ConfigError(
            "transformers.js shows one tile without its overview, which the model was trained with",
            where=where,
            fix="export --to gguf or --to onnx, or train with data.image_splitting: false",
        )
    if form == "browser" and exported.average_frames > 1:
        raise ConfigError(
            f"the run averaged {exported.average_frames} frames a place (data.average_frames), and "
            "transformers.js shows each by itself",
            where=where,
            fix="train with data.average_frames: 1",
        )
    check_form(form, proves=proves)


def _check_size(model: Any, *, form: str) -> None:
    num_bytes = sum(each.numel() for each in model.model.text_model.parameters()) * 4
    if form == "browser" and num_bytes > MAX_INLINE_BYTES:
        raise ConfigError(
            f"its language model takes {num_bytes / 1e9:.1f} GB in float32, and a browser's file "
            "holds 2",
            where="--to browser",
            fix="export --to onnx, or take a smaller model",
        )
