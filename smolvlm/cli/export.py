"""`smolvlm export`: a checkpoint for other programs, and whether it answers there as it does
here."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from smolvlm.errors import ConfigError
from smolvlm.terminal import say

if TYPE_CHECKING:
    from smolvlm.export.proof import Proof
    from smolvlm.publish.loading import Form

FORMS = ("transformers", "gguf", "onnx", "browser")
DTYPES = {"gguf": ("f16", "f32", "q8_0"), "onnx": ("f32",), "browser": ("f32",)}
"""Form -> the types of weights that it can have, the default first."""
DRIFTED = 3
"""Exit status where the runtime answers otherwise than transformers."""


def run_export(
    checkpoint: Path, *, to: str, out: Path, merge: bool, dtype: str | None, proves: bool
) -> None:
    """Write a checkpoint in another form; exit with 3 if what was written answers otherwise.

    Raises:
        ConfigError: the form or the checkpoint is not one that can be written.
    """
    if to == "transformers":
        if dtype is not None or not proves:
            name = "--no-proof" if dtype is None else f"--dtype {dtype}"
            raise ConfigError("has no effect with --to transformers", where=name, fix="take it out")
        from smolvlm.export.merge import export_for_transformers

        written = export_for_transformers(checkpoint, out, merge=merge)
        _say_written(out, [*written, *_card(checkpoint, out, "transformers")])
        return
    if merge:
        what = f"has no effect with --to {to}, which always merges an adapter"
        raise ConfigError(what, where="--merge", fix="take it out")
    allowed = DTYPES[to]
    if dtype is not None and dtype not in allowed:
        fix = f"give one of {', '.join(allowed)}"
        raise ConfigError(f"--to {to} has no such weights", where=f"--dtype {dtype}", fix=fix)
    from smolvlm.export.proof import proof_text

    proof = _export_with_proof(checkpoint, to, out, dtype=dtype or allowed[0], proves=proves)
    _card(checkpoint, out, cast("Form", to))
    _say_written(out, [path for path in sorted(out.rglob("*")) if path.is_file()])
    say(proof_text(proof))
    if proof.holds is False:
        raise typer.Exit(DRIFTED)


def _export_with_proof(
    checkpoint: Path, to: str, out: Path, *, dtype: str, proves: bool
) -> "Proof":
    from smolvlm.export.packages import check_form

    check_form(to, proves=proves)  # before what takes seconds to import
    from smolvlm.export.exported import read_exported

    exported = read_exported(checkpoint)
    if to == "gguf":
        from smolvlm.export.gguf import export_gguf

        return export_gguf(exported, out, dtype=dtype, proves=proves)
    from smolvlm.export.onnx_folder import export_onnx

    return export_onnx(exported, out, form="onnx" if to == "onnx" else "browser", proves=proves)


def _card(checkpoint: Path, out: Path, form: "Form") -> list[Path]:
    """Write the card, of a run's model; return its path."""
    from smolvlm.publish.model_card import write_export_card

    card = write_export_card(checkpoint, out, form)
    return [] if card is None else [card]


def _say_written(out: Path, written: list[Path]) -> None:
    size_mb = sum(path.stat().st_size for path in written) / 1e6
    say(f"{out}: {len(written)} files, {size_mb:,.1f} MB")
