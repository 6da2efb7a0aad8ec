"""`smolvlm export`: a checkpoint for other programs, and whether it answers there as it does
here."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from smolvlm.terminal import say

if TYPE_CHECKING:
    from smolvlm.publish.loading import ExportForm

DRIFTED = 3
"""Exit status where the runtime answers otherwise than transformers."""


def run_export(
    checkpoint: Path, *, to: "ExportForm", out: Path, merge: bool, dtype: str | None, proves: bool
) -> None:
    """Write a checkpoint in another form; exit with 3 if what was written answers otherwise.

    Raises:
        ConfigError: the form or the checkpoint is not one that can be written.
    """
    from smolvlm.runs.exporting import export_checkpoint

    done = export_checkpoint(checkpoint, out, to=to, merge=merge, dtype=dtype, proves=proves)
    size_mb = sum(path.stat().st_size for path in done.files) / 1e6
    say(f"{out}: {len(done.files)} files, {size_mb:,.1f} MB")
    if done.proof is None:
        return
    from smolvlm.export.proof import proof_text

    say(proof_text(done.proof))
    if done.proof.holds is False:
        raise typer.Exit(DRIFTED)
