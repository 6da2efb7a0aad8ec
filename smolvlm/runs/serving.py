"""What `transformers serve` is given for a run: a folder that its stock classes load.

In: a run's folder, a checkpoint's, an adapter's. Out: the folder itself, or of an adapter the
merged model, made once and kept in the cache folder by a digest of the adapter.
"""

from hashlib import blake2b
from pathlib import Path

from smolvlm.checkpoints.load import check_place
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter_folder
from smolvlm.export.merge import export_for_transformers
from smolvlm.home import cache_dir


def served_folder(checkpoint: Path) -> Path:
    """Return the folder to serve.

    Raises:
        ConfigError: there is no model, or the adapter cannot be merged.
    """
    if not is_adapter_folder(checkpoint):
        check_place(str(checkpoint))
        return checkpoint.absolute()
    digest = blake2b(digest_size=12)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        digest.update((checkpoint / name).read_bytes())
    folder = cache_dir() / "served" / f"{checkpoint.absolute().name}-{digest.hexdigest()}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        export_for_transformers(checkpoint, folder, merge=True)
    return folder
