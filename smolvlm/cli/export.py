"""`smolvlm export`: a checkpoint for other programs."""

from pathlib import Path

from smolvlm.errors import ConfigError
from smolvlm.terminal import say

UNAVAILABLE = ("gguf", "onnx")


def run_export(checkpoint: Path, *, to: str, out: Path, merge: bool) -> None:
    """Write a checkpoint in another form.

    Raises:
        ConfigError: the form or the checkpoint is not one that can be written.
    """
    if to in UNAVAILABLE:
        raise ConfigError(
            "not available in this version", where=f"--to {to}", fix="use --to transformers"
        )
    from smolvlm.export.merge import export_for_transformers

    written = export_for_transformers(checkpoint, out, merge=merge)
    size_mb = sum(path.stat().st_size for path in written) / 1e6
    say(f"{out}: {len(written)} files, {size_mb:,.1f} MB")
