"""A checkpoint for other programs: written, run there, compared, and with its card.

In: a checkpoint and a form. Out: the files, and what the comparison found. The command line and
Python ask alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from smolvlm.errors import ConfigError
from smolvlm.publish.loading import ExportForm

if TYPE_CHECKING:
    from smolvlm.export.proof import Proof

FORMS: tuple[ExportForm, ...] = get_args(ExportForm)
DTYPES: Mapping[ExportForm, tuple[str, ...]] = {
    "gguf": ("f16", "f32", "q8_0"),
    "onnx": ("f32",),
    "browser": ("f32",),
}
"""Form -> the types of weights that it can have, the default first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What an export wrote, and whether it answers as the model does."""

    files: tuple[Path, ...]
    proof: "Proof | None"
    """None of a form that transformers itself loads."""


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    to: ExportForm,
    merge: bool = False,
    dtype: str | None = None,
    proves: bool = True,
) -> Exported:
    """Write a checkpoint in another form, and compare its answers in that form's own program.

    Args:
        checkpoint: a run's output folder, one of its checkpoints, or a checkpoint's folder.
        out: folder to write; new or empty.
        to: the form.
        merge: of `transformers`: add an adapter to its base's weights; the other forms always do.
        dtype: of the weights, one of `DTYPES`; None is the form's default.
        proves: whether what was written is run and compared.

    Raises:
        ConfigError: the form or the checkpoint is not one that can be written, a setting has no
            effect with it, or a package is missing.
    """
    if to not in FORMS:
        raise ConfigError(
            f"{to!r} is no form of an export", where="to", fix=f"give one of {', '.join(FORMS)}"
        )
    if to == "transformers":
        if dtype is not None or not proves:
            name = "--no-proof" if dtype is None else f"--dtype {dtype}"
            raise ConfigError("has no effect with --to transformers", where=name, fix="take it out")
        from smolvlm.export.merge import export_for_transformers

        files, proof = export_for_transformers(checkpoint, out, merge=merge), None
        return Exported(files=(*files, *_card(checkpoint, out, to)), proof=proof)
    if merge:
        what = f"has no effect with --to {to}, which always merges an adapter"
        raise ConfigError(what, where="--merge", fix="take it out")
    allowed = DTYPES[to]
    if dtype is not None and dtype not in allowed:
        fix = f"give one of {', '.join(allowed)}"
        raise ConfigError(f"--to {to} has no such weights", where=f"--dtype {dtype}", fix=fix)
    proof = _with_proof(checkpoint, out, to=to, dtype=dtype or allowed[0], proves=proves)
    _card(checkpoint, out, to)
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return Exported(files=tuple(files), proof=proof)


def _card(checkpoint: Path, out: Path, form: ExportForm) -> list[Path]:
    """Write the card of a run's model; return its path."""
    from smolvlm.publish.model_card import write_export_card

    card = write_export_card(checkpoint, out, form)
    return [] if card is None else [card]


def _with_proof(
    checkpoint: Path, out: Path, *, to: ExportForm, dtype: str, proves: bool
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
