"""Every weight comes from the checkpoint: what is missing, too many, misshaped or damaged is
refused by name, and nothing is drawn at random."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import smolvlm
from smolvlm.checkpoints.base import read_base
from smolvlm.checkpoints.load import check_checkpoint_weights, load_checkpoint, read_model_config
from smolvlm.checkpoints.whole_weights import MAY_HAVE_BESIDES, MAY_LACK
from smolvlm.errors import ConfigError

CONNECTOR = "model.connector.modality_projection.proj.weight"
HEAD, EMBEDDINGS = "lm_head.weight", "model.text_model.embed_tokens.weight"
WHOLE = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 538090408\n"
Spoil = Callable[[dict[str, Tensor]], object]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of the test's own."""
    return shutil.copytree(folder, tmp_path / "copy")


def rewrite(folder: Path, spoil: Spoil) -> None:
    tensors = load_file(folder / WHOLE)
    spoil(tensors)
    save_file(tensors, folder / WHOLE, metadata={"format": "pt"})


def refusal(folder: Path) -> str:
    """Return what the headers alone are refused for, and see that loading says the same."""
    with pytest.raises(ConfigError) as early:
        check_checkpoint_weights(str(folder), read_model_config(str(folder)))
    with pytest.raises(ConfigError) as late:
        load_checkpoint(str(folder))
    assert str(early.value) == str(late.value)
    return str(early.value)


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda own: own.pop(CONNECTOR), f"- 1 missing: {CONNECTOR}"),
        (
            lambda own: [own.pop(name) for name in [*own] if "text_model.layers.1" in name],
            "- 9 missing: model.text_model.layers.1.input_layernorm.weight, "
            "model.text_model.layers.1.mlp.down_proj.weight, "
            "model.text_model.layers.1.mlp.gate_proj.weight and 6 more",
        ),
        (
            lambda own: own.update({"score.weight": torch.zeros(3)}),
            "- 1 that the model has no place for: score.weight",
        ),
        (
            lambda own: own.update({CONNECTOR: torch.zeros(2, 3)}),
            f"- 1 of another shape: {CONNECTOR} 2x3 instead of 64x128",
        ),
    ],
)
def test_what_is_missing_too_many_or_misshaped_is_named(
    copy: Path, spoil: Spoil, line: str
) -> None:
    rewrite(copy, spoil)
    what, lines, fix = refusal(copy).split("\n")
    assert what.startswith(f"{copy}: the weights are not those of the model")
    assert lines == line
    assert fix.startswith("  fix: download weights and config.json again")


def test_a_model_of_another_class_is_told_by_its_name(copy: Path) -> None:
    rewrite(copy, lambda own: own.pop(HEAD))
    rewrite(copy, lambda own: own.update({"custom_text_proj.weight": torch.zeros(3)}))
    edit_config(copy, architectures=["ColIdefics3"])
    text = refusal(copy)
    assert f"- 1 missing: {HEAD}\n- 1 that the model has no place for: custom_text_proj" in text
    assert "fix: config.json names ColIdefics3; save the model as SmolVLMFor" in text


@pytest.mark.parametrize(
    "model_type", ["llava", "llama", "colidefics3", "qwen2_vl", "no_such_type_at_all"]
)
def test_a_model_of_another_type_is_refused_before_its_weights(copy: Path, model_type: str) -> None:
    edit_config(copy, model_type=model_type)
    with pytest.raises(ConfigError):
        read_base(str(copy))


def test_an_untied_head_is_never_made_up(copy: Path) -> None:
    rewrite(copy, lambda own: own.pop(HEAD))
    text = refusal(copy)
    assert f"- 1 missing: {HEAD}\n" in text
    assert "set tie_word_embeddings: true in config.json" in text


def test_a_tied_head_may_be_left_out_and_is_the_embeddings(copy: Path) -> None:
    rewrite(copy, lambda own: own.pop(HEAD))
    text_config = json.loads((copy / "config.json").read_text())["text_config"]
    edit_config(
        copy, tie_word_embeddings=True, text_config=text_config | {"tie_word_embeddings": True}
    )
    check_checkpoint_weights(str(copy), read_model_config(str(copy)))
    model = load_checkpoint(str(copy)).model
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model.lm_head.weight, load_file(copy / WHOLE)[EMBEDDINGS])


def test_what_older_releases_saved_besides_does_no_harm(copy: Path, checkpoint) -> None:
    besides = {
        "model.text_model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.vision_model.embeddings.position_ids": torch.arange(4),
    }
    rewrite(copy, lambda own: own.update(besides))
    check_checkpoint_weights(str(copy), read_model_config(str(copy)))
    ours, theirs = load_checkpoint(str(copy)).model.state_dict(), checkpoint.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_each_exception_says_why() -> None:
    assert all(one.why for one in (*MAY_LACK, *MAY_HAVE_BESIDES))


def test_a_file_that_was_cut_off(copy: Path) -> None:
    content = (copy / WHOLE).read_bytes()
    for kept in (len(content) - 100, len(content) // 2, 100, 4, 0):
        (copy / WHOLE).write_bytes(content[:kept])
        text = refusal(copy)
        assert text.startswith(f"{copy / WHOLE}: not a readable safetensors file: ")
        assert "fix: download the file again" in text


def test_a_pointer_of_git_lfs(copy: Path) -> None:
    (copy / WHOLE).write_text(POINTER)
    assert refusal(copy) == (
        f"{copy / WHOLE}: a git-lfs pointer stands here in place of the file\n"
        "  fix: run `git lfs pull` in the repository that it was cloned from, or download the file"
    )


@pytest.fixture
def sharded(copy: Path) -> Path:
    tensors = load_file(copy / WHOLE)
    names, weight_map = sorted(tensors), {}
    for number in (1, 2, 3):
        file = f"model-0000{number}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[number - 1 :: 3]}
        save_file(part, copy / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (copy / WHOLE).unlink()
    content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (copy / f"{WHOLE}.index.json").write_text(json.dumps(content))
    return copy


def test_shards(sharded: Path, checkpoint) -> None:
    ours, theirs = load_checkpoint(str(sharded)).model.state_dict(), checkpoint.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_shard_that_is_missing(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert refusal(sharded).startswith(
        f"{sharded}: 1 of the 3 weight files are missing: model-00002-of-00003.safetensors\n"
    )


@pytest.mark.parametrize("text", [POINTER, "{", "{}", "[]", '{"weight_map": []}'])
def test_an_index_that_is_none(sharded: Path, text: str) -> None:
    (sharded / f"{WHOLE}.index.json").write_text(text)
    assert refusal(sharded).startswith(f"{sharded / WHOLE}.index.json: ")


def test_a_shard_without_a_tensor_that_the_index_promises(sharded: Path) -> None:
    path = sharded / "model-00001-of-00003.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    assert f"- 1 missing: {name}\n" in refusal(sharded)


@pytest.fixture
def pickled(copy: Path) -> Path:
    torch.save(load_file(copy / WHOLE), copy / "pytorch_model.bin")
    (copy / WHOLE).unlink()
    return copy


def test_a_pickle_loads(pickled: Path, checkpoint) -> None:
    ours, theirs = load_checkpoint(str(pickled)).model.state_dict(), checkpoint.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_pickle_that_lacks_a_tensor(pickled: Path) -> None:
    tensors = torch.load(pickled / "pytorch_model.bin")
    del tensors[CONNECTOR]
    torch.save(tensors, pickled / "pytorch_model.bin")
    assert f"- 1 missing: {CONNECTOR}\n" in refusal(pickled)


@pytest.mark.parametrize("kept", [-100, 1000, 0])
def test_a_pickle_that_was_cut_off(pickled: Path, kept: int) -> None:
    path = pickled / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(pickled).startswith(f"{pickled}: cannot load the weights: ")


@pytest.mark.parametrize("content", [b"not weights at all", b"\x80\x02]q\x00.", b"PK\x03\x04"])
def test_a_bin_that_is_no_pickle_of_weights(pickled: Path, content: bytes) -> None:
    (pickled / "pytorch_model.bin").write_bytes(content)
    assert refusal(pickled).startswith(f"{pickled}: cannot load the weights: ")


def test_a_pickle_that_is_a_pointer(pickled: Path) -> None:
    (pickled / "pytorch_model.bin").write_text(POINTER)
    assert "git lfs pull" in refusal(pickled)


def test_transformers_own_table_is_not_shown_beside_the_refusal(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(copy, lambda own: own.pop(CONNECTOR))
    refusal(copy)
    assert not caplog.records


def test_models_are_loaded_in_one_place() -> None:
    """`from_pretrained` of a model elsewhere would let missing weights be drawn at random."""
    loads = re.compile(r"(MODEL_CLASSES\[|AutoModel\w*|ForConditionalGeneration|model_class)\S*\.?")
    allowed = {
        "checkpoints/whole_weights.py",
        "build/grow_vocabulary.py",  # asserts that nothing is missing
        "cli/quickstart.py",  # shows that plain transformers loads what the run before it saved
        "export/onnx_folder.py",  # loads what the export has just written
        "export/reference.py",  # likewise
        "publish/loading.py",  # lines of a card
    }
    root = Path(smolvlm.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if "from_pretrained(" in line and loads.search(line)
    }
    assert found <= allowed
    assert "checkpoints/whole_weights.py" in found


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_were_quantised_without_a_word_are_refused(
    copy: Path, dtype: torch.dtype
) -> None:
    def quantise(tensors: dict[str, Tensor]) -> None:
        tensors[CONNECTOR] = (tensors[CONNECTOR] * 100).to(dtype)

    rewrite(copy, quantise)
    assert f"{CONNECTOR} is stored as " in refusal(copy)
    assert "quantised, and nothing says how" in refusal(copy)
