"""llama.cpp's own converter, out of the source archive of `llama-cpp-python` on the package index.

The archive is fetched once and pinned; only the converter and its libraries are taken out of it,
into the cache folder. It runs as a program of its own and is never imported here.
"""

import os
import subprocess
import sys
from pathlib import Path

from smolvlm.errors import ConfigError
from smolvlm.package_index import SourceArchive, fetch_tree
from smolvlm.parent_process import Parent

LLAMA_CPP_PYTHON = SourceArchive(
    name="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    size_mb=77,
)
_ROOT = "vendor/llama.cpp"
_SCRIPT = "convert_hf_to_gguf.py"
_PARTS = (_SCRIPT, "conversion", "gguf-py/gguf", "LICENSE")


def fetch_converter() -> Path:
    """Return the converter's file, fetched on the first call; raises ConfigError as
    `fetch_archive`."""
    return fetch_tree(LLAMA_CPP_PYTHON, _ROOT, _PARTS) / _SCRIPT


def convert(model: Path, out: Path, *, dtype: str, is_mmproj: bool) -> None:
    """Convert the language model of a folder, or its vision tower and connector, to one GGUF file.

    Args:
        model: folder as `staged` writes it.
        out: the file to write.
        dtype: `f32`, `f16` or `q8_0`.
        is_mmproj: whether tower and connector are wanted.

    Raises:
        ConfigError: the converter could not be fetched, or refuses the model.
    """
    command = [sys.executable, str(fetch_converter()), str(model), "--outtype", dtype]
    command += ["--outfile", str(out), *(["--mmproj"] if is_mmproj else [])]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    result = subprocess.run(
        Parent.here().command(command),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,  # transformers would ask whether to run a stranger's code
        env=os.environ | offline,
    )
    if result.returncode != 0 or not out.is_file():
        lines = result.stderr.strip().splitlines() or ["it gave no reason"]
        part = "the vision tower and connector" if is_mmproj else "the language model"
        raise ConfigError(
            f"llama.cpp's converter does not take {part}: {lines[-1]}",
            where="--to gguf",
            fix="export --to onnx, or give a checkpoint of SmolVLM's own language model and "
            "tokenizer",
        )
