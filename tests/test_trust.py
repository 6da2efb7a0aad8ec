"""What docs/security.md says of our own code: nothing that it reads can make it run a program."""

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig

from smolvlm.build.weights_folder import open_weights
from smolvlm.checkpoints.load import load_checkpoint, load_processor, read_model_config
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


NUMBERS_ALONE = "torch.load"
"""Allowed with `weights_only=True`: tests/train/test_foreign_state.py gives it real payloads."""


def _loads_numbers(call: ast.Call) -> bool:
    return any(
        keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True"
        for keyword in call.keywords
    )


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
            if name in FORBIDDEN_CALLS and not (name == NUMBERS_ALONE and _loads_numbers(node)):
                yield name
            yield from (
                str(keyword.arg)
                for keyword in node.keywords
                if keyword.arg in FORBIDDEN_ARGUMENTS and ast.unparse(keyword.value) != "False"
            )


def test_the_package_reads_no_pickle_and_runs_no_text() -> None:
    found = {
        str(path.relative_to(ROOT)): what
        for path in sorted((ROOT / "smolvlm").rglob("*.py"))
        for what in found_in(ast.parse(path.read_text(encoding="utf-8")))
    }
    # What one rank of a run hands the others, over the connections that carry its gradients.
    assert found == {"smolvlm/train/ranks/computed_once.py": "pickle"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("torch.load(path, weights_only=True)", []),
        ("torch.load(path, weights_only=x)", ["torch.load"]),
        ("torch.load(path)", ["torch.load"]),
        ("eval(path, weights_only=True)", ["eval"]),
        ("model.from_pretrained(path, trust_remote_code=True)", ["trust_remote_code"]),
        ("model.from_pretrained(path, trust_remote_code=x)", ["trust_remote_code"]),
        ("model.from_pretrained(path, trust_remote_code=False)", []),
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


def test_auto_classes_are_told_to_run_nothing() -> None:
    """Where transformers is left to decide, it asks at a terminal; a wrong key runs the code."""
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "smolvlm").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".from_pretrained")
        and ast.unparse(node.func).startswith("Auto")
        and not any(keyword.arg == "trust_remote_code" for keyword in node.keywords)
    ]
    assert missing == []


def edited(copy: Path, **edits: Any) -> str:
    """Change a checkpoint's configuration; keys are dotted."""
    content = json.loads((copy / "config.json").read_text())
    for name, value in edits.items():
        *parts, last = name.split(".")
        holder = content
        for part in parts:
            holder = holder[part]
        holder[last] = value
    (copy / "config.json").write_text(json.dumps(content))
    return str(copy)


def test_an_unknown_type_is_refused_before_transformers_sees_it(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("transformers was asked about it")

    monkeypatch.setattr(AutoConfig, "from_pretrained", asked)
    with pytest.raises(ConfigError, match="model type evil is not of the SmolVLM family"):
        read_model_config(edited(copy, model_type="evil", auto_map={"AutoConfig": "evil.Evil"}))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("part", ["", "text_config.", "vision_config."])
def test_attention_kernels_that_a_checkpoint_names_are_not_fetched(
    copy: Path, key: str, part: str
) -> None:
    path = edited(copy, **{f"{part}{key}": "somebody/flash-attention"})
    model = load_checkpoint(path).model
    used = {model.config._attn_implementation}
    used |= {model.config.get_text_config()._attn_implementation}
    used |= {model.config.vision_config._attn_implementation}
    assert used <= {"sdpa", "smolvlm_tiles", "smolvlm_scope"}


SIZES = [
    *(("text_config.num_hidden_layers", 10**9), ("text_config.hidden_size", -4)),
    *(("vision_config.image_size", 10**7), ("text_config.vocab_size", "49280")),
    *(("vision_config.num_attention_heads", 0), ("text_config.intermediate_size", 1.5)),
]


@pytest.mark.parametrize(("key", "value"), SIZES)
def test_impossible_sizes_are_refused_before_they_are_built(
    copy: Path, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=f"{key} is .*, no size between 1 and"):
        read_model_config(edited(copy, **{key: value}))


FILES = (
    *("config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer_config.json", "generation_config.json", "model.safetensors.index.json"),
)


@pytest.mark.parametrize("damage", ['{"a":' + "[" * 100_000, "", "[]", "\xff\xfe", '{"a": NaN'])
@pytest.mark.parametrize("file", FILES)
def test_damaged_files_are_a_sentence(copy: Path, file: str, damage: str) -> None:
    if file == "model.safetensors.index.json":
        (copy / "model.safetensors").unlink()
    (copy / file).write_text(damage, encoding="latin-1")
    if file in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        with pytest.raises(ConfigError, match="fix: "):
            load_checkpoint(str(copy))
        return
    with suppress(ConfigError):  # some of these files are not needed
        load_checkpoint(str(copy))


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/outside.safetensors", "a/b", "..", ""]
)
def test_an_index_names_files_of_its_own_folder(copy: Path, name: str) -> None:
    whole = copy / "model.safetensors"
    shutil.copy(whole, copy.parent / "outside.safetensors")
    with safe_open(whole, framework="pt") as tensors:
        listed = dict.fromkeys(tensors.keys(), name)
    whole.unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(ConfigError, match="it names a file outside its folder"):
        load_checkpoint(str(copy))
    with pytest.raises(ConfigError, match="it names a file outside its folder"):
        open_weights(copy)
