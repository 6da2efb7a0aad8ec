"""What SECURITY.md says of our own code: nothing that it reads can make it run a program."""

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.checkpoints.load import load_checkpoint, load_processor
from smolvlm.errors import ConfigError

ROOT = Path(__file__).parents[1]
FORBIDDEN_IMPORTS = (
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "runpy",
)
FORBIDDEN_CALLS = (
    "torch.load",
    "np.load",
    "numpy.load",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "compile",
)
FORBIDDEN_ARGUMENTS = ("trust_remote_code", "shell", "allow_pickle")


def found_in(tree: ast.Module) -> Iterator[str]:
    """Yield what a module does that could run what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS
            )
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS
        ):
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS:
                yield name
            yield from (
                str(keyword.arg) for keyword in node.keywords if keyword.arg in FORBIDDEN_ARGUMENTS
            )


def test_the_package_reads_no_pickle_and_runs_no_text() -> None:
    found = {
        str(path.relative_to(ROOT)): what
        for path in sorted((ROOT / "smolvlm").rglob("*.py"))
        for what in found_in(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("torch.load(path, weights_only=True)", ["torch.load"]),
        ("model.from_pretrained(path, trust_remote_code=True)", ["trust_remote_code"]),
        ("model.eval(); re.compile(x); eval(y)", ["eval"]),
    ],
)
def test_what_is_looked_for(text: str, found: list[str]) -> None:
    assert list(found_in(ast.parse(text))) == found


class Evil:
    """A pickle of it makes a folder where it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.mkdir, (self.folder,)  # type: ignore[return-value]


@pytest.fixture
def copy(checkpoint_folders: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folders["smolvlm"], tmp_path / "copy"))


def test_weights_in_a_pickle_run_nothing(copy: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    (copy / "model.safetensors").unlink()
    torch.save({"x": Evil(proof)}, copy / "pytorch_model.bin")
    with pytest.raises((ConfigError, pickle.UnpicklingError)):
        load_checkpoint(str(copy))
    assert not proof.exists()
    torch.load(copy / "pytorch_model.bin", weights_only=False)
    assert proof.exists(), "the pickle was a dangerous one"


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_beside_a_checkpoint_is_not_run(copy: Path, tmp_path: Path, file: str) -> None:
    proof = tmp_path / "it_ran"
    (copy / "evil.py").write_text(f"from pathlib import Path\nPath({str(proof)!r}).mkdir()\n")
    content = json.loads((copy / file).read_text()) if (copy / file).exists() else {}
    names = (
        "AutoConfig",
        "AutoModelForImageTextToText",
        "AutoProcessor",
        "AutoTokenizer",
        "AutoImageProcessor",
    )
    content["auto_map"] = dict.fromkeys(names, "evil.Evil")
    if file == "config.json":
        content["model_type"] = "evil"
    (copy / file).write_text(json.dumps(content))
    try:
        load_processor(str(copy))
        load_checkpoint(str(copy))
    except ConfigError:
        assert file == "config.json"
    assert not proof.exists()
