"""GGUF files for llama.cpp, proved by running them in llama.cpp.

In: a checkpoint. Out: a folder with the language model (`model-DTYPE.gguf`), vision tower and
connector (`mmproj-f16.gguf`, or f32), and `proof.json`. What llama.cpp cannot show as the model was
trained is refused before any work.
"""

import shutil
from pathlib import Path

from smolvlm.checkpoints.new_folder import check_new_folder, new_folder
from smolvlm.datasets.encoding.encode import image_block
from smolvlm.errors import ConfigError
from smolvlm.export.exported import Exported
from smolvlm.export.gguf_converter import convert, fetch_converter
from smolvlm.export.gguf_template import mended_template
from smolvlm.export.llama_cpp import PACKAGE, llama_cpp_answers
from smolvlm.export.packages import check_form, with_version
from smolvlm.export.proof import MAX_NEW_TOKENS, Proof, compare, write_proof
from smolvlm.export.proof_prompts import proof_prompts
from smolvlm.export.reference import reference_answers
from smolvlm.export.staged import TEXT_ARCHITECTURES, stage, template_of
from smolvlm.records import Grid

BOUNDS = {"f32": 0.03, "f16": 0.06, "q8_0": 0.2}
"""Type of the language model's weights -> the bound on log-probabilities, in nats."""
_CONTEXT_STEP = 256
"""llama.cpp's contexts are multiples of it."""
_ROPES = ("default", "linear", "yarn", "llama3")


def export_gguf(exported: Exported, out: Path, *, dtype: str, proves: bool) -> Proof:
    """Write the files and their proof.

    Args:
        exported: what was read of the checkpoint.
        out: folder to make.
        dtype: of the language model's weights: `f32`, `f16` or `q8_0`.
        proves: run the files in llama.cpp; without it `proof.json` says that nobody did.

    Raises:
        ConfigError: the model is not one that llama.cpp can show, a package is missing, or the
            converter refuses it.
    """
    check_gguf(exported, proves=proves)
    check_new_folder(out)
    fetch_converter()
    asked = proof_prompts(exported.new_tokens)
    template = template_of(exported.base.processor)
    with new_folder(out) as folder:
        staged = folder / "staged"
        staged.mkdir()
        stage(exported, staged, template=mended_template(template))
        vision_dtype = "f32" if dtype == "f32" else "f16"
        text_file = folder / f"model-{dtype}.gguf"
        mmproj_file = folder / f"mmproj-{vision_dtype}.gguf"
        convert(staged, text_file, dtype=dtype, is_mmproj=False)
        convert(staged, mmproj_file, dtype=vision_dtype, is_mmproj=True)
        if proves:
            proof = prove_gguf(exported, text_file, mmproj_file, staged=staged, dtype=dtype)
        else:
            proof = Proof(runtime=PACKAGE, bound=BOUNDS[dtype], not_run="--no-proof was given")
        write_proof(folder, proof, asked)
        shutil.rmtree(staged)
    return proof


def prove_gguf(
    exported: Exported, text_file: Path, mmproj_file: Path, *, staged: Path, dtype: str
) -> Proof:
    """Compare what two GGUF files answer with what the stock model does.

    Args:
        exported: what they were made from.
        text_file: the language model.
        mmproj_file: vision tower and connector.
        staged: the stock model.
        dtype: of the language model's weights.
    """
    asked = proof_prompts(exported.new_tokens)
    processor, prompt = exported.base.processor, exported.prompt
    references = reference_answers(staged, processor, prompt, asked)
    longest = max(reference.num_prompt_tokens for reference in references) + MAX_NEW_TOKENS
    context_tokens = (longest // _CONTEXT_STEP + 1) * _CONTEXT_STEP
    answers = llama_cpp_answers(
        text_file,
        mmproj_file,
        asked,
        context_tokens=context_tokens,
        end_of_turn=prompt.tokens.end_of_turn,
    )
    bound = BOUNDS[dtype]
    return Proof(
        runtime=with_version(PACKAGE),
        bound=bound,
        comparisons=tuple(
            compare(each, reference, answer, bound=bound)
            for each, reference, answer in zip(asked, references, answers, strict=True)
        ),
    )


def check_gguf(exported: Exported, *, proves: bool) -> None:
    """Refuse what llama.cpp would show otherwise than the model was trained, or cannot hold.

    Raises:
        ConfigError: says what, and what to do instead.
    """
    text = exported.base.config.text_config
    where = str(exported.folder)
    if text.model_type not in TEXT_ARCHITECTURES:
        raise ConfigError(
            f"llama.cpp's converter takes SmolVLM with a Llama language model, and this one's is "
            f"of type {text.model_type}",
            where=where,
            fix="export --to onnx or --to browser",
        )
    if (rope := text.rope_parameters["rope_type"]) not in _ROPES:
        raise ConfigError(
            f"llama.cpp has no rotary scaling of type {rope}",
            where=where,
            fix="export --to onnx or --to browser",
        )
    if exported.average_frames > 1:
        raise ConfigError(
            f"the run averaged {exported.average_frames} frames a place "
            "(data.average_frames), and llama.cpp shows each by itself",
            where=where,
            fix="train with data.average_frames: 1",
        )
    _check_pictures(exported)
    check_form("gguf", proves=proves)


def _check_pictures(exported: Exported) -> None:
    pictures, tokens = exported.prompt.media.pictures, exported.prompt.tokens
    is_cut = pictures.longest_edge_px > pictures.tile_side_px
    if pictures.image_splitting == "overview" or (pictures.image_splitting and is_cut):
        return
    one_tile, shown = (len(image_block(tokens, Grid(rows=n, columns=n))) for n in (0, 1))
    raise ConfigError(
        "it was trained on one tile a picture, and llama.cpp always shows tiles and an overview: "
        f"{shown} tokens in place of {one_tile}, which changes answers (docs/exporting.md: drift)",
        where=str(exported.folder),
        fix="train with data.image_splitting: overview (one tile and its overview), or export "
        "--to onnx or --to browser",
    )
