"""What the stages train on: real ids and sizes, rows that the product takes, and no package that a
bare machine lacks.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gpu_check.material.tokenizer import synthetic_vocabulary
from gpu_check.stage_list import STAGES
from smolvlm.build.tokenizer import (
    END_OF_UTTERANCE_ID,
    IMAGE_TOKEN_ID,
    PAD_TOKEN_ID,
    START_ID,
    TEXT_VOCABULARY_SIZE,
    VOCABULARY_SIZE,
    added_special_tokens,
)

ROOT = Path(__file__).parents[2]
BARE_MACHINE = (
    *("torch", "torchvision", "transformers", "accelerate", "peft", "numpy", "pyarrow", "pandas"),
    *("pillow", "matplotlib", "onnx", "rich", "typer", "jinja2", "jaxtyping", "regex", "pytest"),
    *("xxhash", "httpx", "fsspec", "psutil"),
)
"""Distributions on a GPU machine's image; what they depend on is there too."""
IMPORT_ALL = """
import importlib, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

allowed = set(sys.argv[1].split())
plain = lambda name: re.sub(r"[-_.]+", "_", name).lower()
found = packages_distributions()
there = {top for top, names in found.items() if any(plain(name) in allowed for name in names)}
refused = set(found) - there - {"smolvlm"}

class OfTheMachine(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in refused else super().find_spec(name, path, target)

sys.meta_path = [OfTheMachine if finder is PathFinder else finder for finder in sys.meta_path]
sys.path_importer_cache.clear()
assert "av" in refused and importlib.util.find_spec("av") is None
for module in sys.argv[2:]:
    importlib.import_module(module)
"""


def test_the_synthetic_tokenizer_has_the_released_ids() -> None:
    from tokenizers import Tokenizer

    vocabulary = synthetic_vocabulary()
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer_json)
    assert tokenizer.get_vocab_size() == VOCABULARY_SIZE
    ids = {
        "<|im_start|>": START_ID,
        "<|im_end|>": PAD_TOKEN_ID,
        "<image>": IMAGE_TOKEN_ID,
        "<end_of_utterance>": END_OF_UTTERANCE_ID,
        **{token: TEXT_VOCABULARY_SIZE + n for n, token in enumerate(added_special_tokens())},
    }
    assert {token: tokenizer.token_to_id(token) for token in ids} == ids
    assert vocabulary.ids.vocabulary_size == VOCABULARY_SIZE


@pytest.mark.parametrize("text", ["A small boat?", "naïve  日本語\n\tx", "<|im_start|>User: hi"])
def test_any_text_comes_back(text: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(synthetic_vocabulary().tokenizer_json)
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Return distributions with all that they need, names as imports write them."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        plain = re.sub(r"[-_.]+", "_", name).lower()
        if plain in found:
            continue
        found.add(plain)
        with suppress(PackageNotFoundError):
            needed = map(Requirement, requires(name) or ())
            left += [own.name for own in needed if "extra" not in str(own.marker)]
    return found


def test_stages_import_nothing_that_the_machine_and_the_wheels_lack() -> None:
    """Also not av, which reads clip files and whose wheel is not carried."""
    lines = (ROOT / "gpu_check" / "wheels.txt").read_text().splitlines()
    wheels = {line.split("==")[0].replace("-", "_") for line in lines if not line.startswith("#")}
    there = with_dependencies(BARE_MACHINE) | wheels
    modules = dict.fromkeys(stage.module for stage in STAGES)
    others = ("benchmarks.worker", "benchmarks.trl_trainer", "gpu_check.stages.dying_run")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, " ".join(there), *modules, *others],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
