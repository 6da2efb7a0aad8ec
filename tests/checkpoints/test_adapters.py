"""Adapters stand where they were asked, and what is saved is what peft loads onto the untouched
base."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints.adapter_targets import target_layers
from smolvlm.checkpoints.adapters import Adapters, TrainedBeside, attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, check_checkpoint_weights, load_checkpoint
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS, merge_adapter
from smolvlm.config.adapters import AdapterConfig
from smolvlm.errors import ConfigError
from smolvlm.model.towers import TOWERS, Tower, is_adapter, tower_of

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

TYPES = ("lora", "dora", "rslora", "pissa")
LINEAR = {
    "language_model": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "vision_tower": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
RATE = 1e-2


def of_type(kind: Any, **settings: Any) -> AdapterConfig:
    return AdapterConfig(type=kind, **settings)


def attach(
    checkpoint: Checkpoint, adapters: Mapping[Tower, AdapterConfig], **settings: Any
) -> Adapters:
    """Attach to a tiny model and freeze the rest; the connector trains whole unless it has an
    adapter."""
    towers: tuple[Tower, ...] = ("connector",)
    whole = [tower for tower in towers if tower not in adapters]
    attached = attach_adapters(
        checkpoint.model,
        adapters,
        base=checkpoint.path,
        seed=3,
        beside=TrainedBeside(whole=whole),
        **settings,
    )
    freeze(
        checkpoint.model,
        LearningRates(full=dict.fromkeys(whole, RATE), adapter=dict.fromkeys(adapters, RATE)),
    )
    return attached


def inputs_of(processor: Any, photos: Mapping[str, Path]) -> Any:
    text = "User:<image>What is it?<end_of_utterance>\nAssistant: A cat.<end_of_utterance>\n"
    from PIL import Image

    return processor(text=text, images=[[Image.open(photos["coffee"])]], return_tensors="pt")


def learn(model: Any, inputs: Any, *, steps: int = 2) -> None:
    """Take steps of plain descent, so that no matrix is what it began as."""
    optimizer = torch.optim.SGD(
        [value for value in model.parameters() if value.requires_grad], lr=0.3
    )
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
    model.eval()


def learn_and_save(
    checkpoint: Checkpoint,
    adapters: Mapping[Tower, AdapterConfig],
    photos: Mapping[str, Path],
    folder: Path,
) -> tuple[Adapters, Any, torch.Tensor]:
    """Attach adapters, take steps and save them; return them, the inputs and what is then said."""
    attached, inputs = attach(checkpoint, adapters), inputs_of(checkpoint.processor, photos)
    learn(checkpoint.model, inputs)
    attached.save(checkpoint.model, folder)
    return attached, inputs, logits(checkpoint.model, inputs)


def differing(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors that are not equal to the bit."""
    return [name for name in theirs if not torch.equal(ours[name], theirs[name])]


def change_config(folder: Path, **changes: Any) -> None:
    """Write other values into an adapter's settings."""
    content = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(content | changes))


def refusal(folder: Path) -> ConfigError:
    """Return what is said of an adapter that is not loaded."""
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(str(folder))
    return caught.value


def logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def stock(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def test_by_default_every_linear_layer_of_a_tower_but_the_head_is_hit(
    checkpoint: Checkpoint,
) -> None:
    for tower, kinds in LINEAR.items():
        names = target_layers(checkpoint.model, tower, None)
        assert len(names) == 2 * len(kinds)
        assert {name.rsplit(".", 1)[-1] for name in names} == set(kinds)
        assert {tower_of(f"{name}.weight") for name in names} == {tower}
    assert target_layers(checkpoint.model, "connector", None) == [
        "model.connector.modality_projection.proj"
    ]


@pytest.mark.parametrize(
    ("tower", "patterns", "num_hits"),
    [
        ("language_model", ["*.q_proj", "*.v_proj"], 4),
        ("vision_tower", ["*.q_proj", "*.[qkv]_proj"], 6),
        ("language_model", ["model.text_model.layers.1.mlp.*_proj"], 3),
        ("language_model", ["lm_head", "*embed_tokens"], 2),
        ("vision_tower", ["*position_embedding"], 1),
    ],
)
def test_a_pattern_hits_layers_of_its_own_tower_alone(
    checkpoint: Checkpoint, tower: Tower, patterns: list[str], num_hits: int
) -> None:
    names = target_layers(checkpoint.model, tower, patterns)
    assert len(names) == num_hits
    attached = attach(checkpoint, {tower: of_type("lora", targets=patterns)})
    assert attached.num_layers == {tower: num_hits}
    held = {
        name.partition(".lora_")[0]
        for name, _ in checkpoint.model.named_parameters()
        if is_adapter(name)
    }
    assert held == set(names)
    assert str(attached).endswith(f"lora of rank 8 in {num_hits} layers")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["q_proj"], "`q_proj` names no layer of the language model"),
        (
            ["*.v_proj", "*.fc1"],
            "`*.fc1` names no layer of the language model, but 2 of another tower",
        ),
        (["model.vision_model.*"], "names no layer of the language model, but"),
        (
            ["*.input_layernorm"],
            "model.text_model.layers.0.input_layernorm is a LlamaRMSNorm, which takes no adapter",
        ),
    ],
)
def test_a_pattern_that_hits_nothing_or_no_layer_is_an_error(
    checkpoint: Checkpoint, patterns: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        target_layers(checkpoint.model, "language_model", patterns)
    assert message in str(caught.value)
    assert "model.text_model.layers.0.self_attn.q_proj" in (caught.value.fix or "")


def test_exactly_adapters_and_whole_towers_train(checkpoint: Checkpoint) -> None:
    attach(checkpoint, {"vision_tower": of_type("dora"), "language_model": of_type("dora")})
    trained = {name for name, value in checkpoint.model.named_parameters() if value.requires_grad}
    assert {name for name in trained if not is_adapter(name)} == {
        "model.connector.modality_projection.proj.weight"
    }
    assert sum(is_adapter(name) for name in trained) == 3 * (12 + 14)


def test_the_first_values_follow_from_the_seed(checkpoint: Checkpoint, folder: Path) -> None:
    torch.manual_seed(0)
    attach(checkpoint, {"language_model": of_type("lora")})
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    other = load_checkpoint(str(folder))
    attach(other, {"language_model": of_type("lora")})
    assert all(
        torch.equal(ours, value)
        for ours, value in zip(checkpoint.model.parameters(), other.model.parameters(), strict=True)
    )
    torch.manual_seed(0)
    assert torch.equal(state, torch.random.get_rng_state()), (
        "the run's own randomness was not touched"
    )


def test_another_seed_gives_other_first_values(checkpoint: Checkpoint, folder: Path) -> None:
    first = []
    for own, seed in ((checkpoint, 1), (load_checkpoint(str(folder)), 2)):
        attach_adapters(own.model, {"connector": of_type("lora")}, base="", seed=seed)
        layer: Any = own.model.get_submodule("model.connector.modality_projection.proj")
        first.append(layer.lora_A["default"].weight)
    assert not torch.equal(*first)


@pytest.mark.parametrize("kind", TYPES)
def test_peft_loads_onto_the_stock_base_what_was_trained(
    checkpoint: Checkpoint, folder: Path, photos: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    adapters: dict[Tower, AdapterConfig] = {
        "language_model": of_type(kind, r=4, alpha=6),
        "vision_tower": of_type(kind, r=2, alpha=4),
    }
    _, inputs, trained = learn_and_save(checkpoint, adapters, photos, tmp_path)
    base = stock(folder)
    assert (trained - logits(base, inputs)).abs().max() > 0.01, "nothing was learned"
    theirs = PeftModel.from_pretrained(base, str(tmp_path))
    tolerance = (
        1e-5 if kind == "pissa" else 0.0
    )  # the base's weights, taken apart, are added up again
    torch.testing.assert_close(logits(theirs, inputs), trained, rtol=0, atol=tolerance)
    content = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert content["base_model_name_or_path"] == str(folder)
    assert content["modules_to_save"] == ["connector"]
    assert len(content["target_modules"]) == 12 + 14
    assert "base_model.model.model.connector.modality_projection.proj.weight" in load_file(
        tmp_path / ADAPTER_WEIGHTS
    )


@pytest.mark.parametrize("kind", TYPES)
def test_ours_loads_it_too_and_merged_is_adapted(
    checkpoint: Checkpoint, photos: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    adapters: dict[Tower, AdapterConfig] = {
        tower: of_type(kind, r=3, dropout=0.2) for tower in TOWERS
    }
    _, inputs, trained = learn_and_save(checkpoint, adapters, photos, tmp_path)
    loaded = load_checkpoint(str(tmp_path)).model.eval()  # its processor is the base's
    tolerance = 1e-5 if kind == "pissa" else 0.0
    torch.testing.assert_close(logits(loaded, inputs), trained, rtol=0, atol=tolerance)
    merge_adapter(loaded)
    torch.testing.assert_close(logits(loaded, inputs), trained, rtol=0, atol=1e-5)
    assert not [
        name for name, _ in loaded.named_parameters() if is_adapter(name) or "base_layer" in name
    ]


@pytest.mark.parametrize("whole", ["vision_tower", "language_model"])
def test_a_whole_tower_beside_an_adapter_is_saved_with_it(
    checkpoint: Checkpoint, folder: Path, photos: dict[str, Path], tmp_path: Path, whole: Tower
) -> None:
    other: Tower = "language_model" if whole == "vision_tower" else "vision_tower"
    inputs = inputs_of(checkpoint.processor, photos)
    attached = attach_adapters(
        checkpoint.model,
        {other: of_type("lora")},
        base=str(folder),
        seed=0,
        beside=TrainedBeside(whole=[whole]),
    )
    freeze(checkpoint.model, LearningRates(full={whole: RATE}, adapter={other: RATE}))
    learn(checkpoint.model, inputs)
    attached.save(checkpoint.model, tmp_path)
    trained = logits(checkpoint.model, inputs)
    assert torch.equal(
        logits(PeftModel.from_pretrained(stock(folder), str(tmp_path)), inputs), trained
    )
    assert torch.equal(logits(load_checkpoint(str(tmp_path)).model.eval(), inputs), trained)


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_before_the_first_step_the_model_is_its_base(
    checkpoint: Checkpoint, folder: Path, photos: dict[str, Path], kind: str
) -> None:
    inputs = inputs_of(checkpoint.processor, photos)
    attach(checkpoint, {tower: of_type(kind) for tower in TOWERS})
    assert torch.equal(logits(checkpoint.model.eval(), inputs), logits(stock(folder), inputs))


@pytest.mark.parametrize("kind", TYPES)
def test_a_run_that_goes_on_has_the_same_bits(
    checkpoint: Checkpoint, folder: Path, photos: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    adapters: dict[Tower, AdapterConfig] = {
        "language_model": of_type(kind, r=3),
        "vision_tower": of_type(kind, r=2),
    }
    attached, inputs, _ = learn_and_save(checkpoint, adapters, photos, tmp_path)
    again = load_checkpoint(str(folder))
    resumed = attach(again, adapters, resume=tmp_path)
    torch.testing.assert_close(
        logits(again.model.eval(), inputs), logits(stock(folder), inputs), rtol=0, atol=1e-5
    )
    resumed.restore(again.model, tmp_path)
    assert differing(checkpoint.model.state_dict(), again.model.state_dict()) == []
    learn(checkpoint.model, inputs)
    learn(again.model, inputs)
    resumed.save(again.model, tmp_path / "again")
    attached.save(checkpoint.model, tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / name / ADAPTER_WEIGHTS) for name in ("again", "whole"))
    assert differing(ours, theirs) == []


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_bfloat16_weights_have_float32_adapters(
    folder: Path, photos: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    half = load_checkpoint(str(folder), dtype=torch.bfloat16)
    adapters: dict[Tower, AdapterConfig] = {"language_model": of_type(kind)}
    _, inputs, trained_logits = learn_and_save(half, adapters, photos, tmp_path)
    loaded = load_checkpoint(str(tmp_path), dtype=torch.bfloat16).model.eval()
    assert torch.equal(logits(loaded, inputs), trained_logits)
    trained = {
        name: value.dtype for name, value in half.model.named_parameters() if is_adapter(name)
    }
    assert set(trained.values()) == {torch.float32}


def test_pissa_refuses_bfloat16_weights(folder: Path) -> None:
    with pytest.raises(ConfigError, match="bfloat16 weights would not survive"):
        attach(
            load_checkpoint(str(folder), dtype=torch.bfloat16), {"vision_tower": of_type("pissa")}
        )


def test_pissa_refuses_what_it_cannot_take_apart(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"rank 33 is more than .* has \(32\)"):
        attach(checkpoint, {"vision_tower": of_type("pissa", r=33)})
    with pytest.raises(ConfigError, match="pissa knows no embedding"):
        attach(checkpoint, {"language_model": of_type("pissa", targets=["*embed_tokens"])})


@pytest.mark.parametrize(
    "spoil", ["other type", "other base", "no weights", "other shapes", "no name"]
)
def test_a_folder_that_does_not_fit_says_why(
    checkpoint: Checkpoint, folder: Path, tmp_path: Path, spoil: str
) -> None:
    attach(checkpoint, {"language_model": of_type("lora")}).save(checkpoint.model, tmp_path)
    changes, message = {
        "other type": ({"peft_type": "IA3"}, "adapters of type IA3 are not known here"),
        "other base": ({"target_modules": ["no_such_layer"]}, "peft cannot place it"),
        "other shapes": ({"r": 5}, "tensors of the adapter do not fit the model"),
        "no name": ({"base_model_name_or_path": None}, "it names no base model"),
        "no weights": ({}, f"no {ADAPTER_WEIGHTS} here"),
    }[spoil]
    change_config(tmp_path, **changes)
    if spoil == "no weights":
        (tmp_path / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(str(tmp_path))


def test_an_adapter_on_an_adapter_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    attached = attach(checkpoint, {"connector": of_type("lora")})
    for name in ("first", "second"):
        attached.save(checkpoint.model, tmp_path / name)
    change_config(tmp_path / "second", base_model_name_or_path=str(tmp_path / "first"))
    with pytest.raises(ConfigError, match="is an adapter too"):
        load_checkpoint(str(tmp_path / "second"))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_each_tower_has_its_own_rank_scale_and_dropout(checkpoint: Checkpoint, kind: str) -> None:
    """The scale is alpha / r, of rsLoRA alpha / sqrt(r) (Kalajdzievski 2023); peft reads both from
    one saved file, so what is loaded again could be as wrong as what was trained."""
    adapters: dict[Tower, AdapterConfig] = {
        "language_model": of_type(kind, r=4, alpha=6, dropout=0.1),
        "vision_tower": of_type(kind, r=9, alpha=3, dropout=0.3),
        "connector": of_type(kind, r=2, alpha=2.5),
    }
    attach(checkpoint, adapters)
    layers = {name: own for name, own in checkpoint.model.named_modules() if hasattr(own, "lora_A")}
    assert {tower_of(f"{name}.weight") for name in layers} == set(adapters)
    for name, layer in layers.items():
        own: Any = layer
        wanted = adapters[tower_of(f"{name}.weight")]
        assert (
            own.lora_A["default"].weight.shape[0]
            == own.lora_B["default"].weight.shape[1]
            == wanted.r
        )
        root = wanted.r**0.5 if kind == "rslora" else wanted.r
        assert own.scaling["default"] == pytest.approx(wanted.alpha / root), name
        assert getattr(own.lora_dropout["default"], "p", 0.0) == wanted.dropout, name


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_what_an_adapter_adds_is_its_scale_times_its_product(
    checkpoint: Checkpoint, kind: str
) -> None:
    attach(
        checkpoint,
        {"connector": of_type(kind, r=4, alpha=6), "language_model": of_type(kind, r=9, alpha=3)},
    )
    for name, scale in (
        ("model.connector.modality_projection.proj", 6 / (2 if kind == "rslora" else 4)),
        ("model.text_model.layers.0.mlp.up_proj", 3 / (3 if kind == "rslora" else 9)),
    ):
        layer: Any = checkpoint.model.eval().get_submodule(name)
        matrix_a, matrix_b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.nn.init.normal_(matrix_b, generator=torch.Generator().manual_seed(0))
        inputs = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            added = layer(inputs) - layer.get_base_layer()(inputs)
            torch.testing.assert_close(
                added, scale * inputs @ matrix_a.T @ matrix_b.T, rtol=1e-4, atol=1e-4
            )


def test_layers_are_pefts_own(checkpoint: Checkpoint) -> None:
    """The seam: what `peft_layers` reads and sets on a layer is there."""
    attach(checkpoint, {"connector": of_type("lora", r=2, alpha=6, dropout=0.5)})
    layer: Any = checkpoint.model.get_submodule("model.connector.modality_projection.proj")
    assert layer.scaling == {"default": 3.0}
    assert isinstance(layer.lora_dropout["default"], nn.Dropout)
    assert layer.lora_dropout["default"].p == 0.5
    assert isinstance(layer.get_base_layer(), nn.Linear)


def saved_adapter(checkpoint: Checkpoint, folder: Path) -> Path:
    attach(checkpoint, {"language_model": of_type("lora")}).save(checkpoint.model, folder)
    return folder


def test_a_tower_that_is_said_to_be_saved_whole_is_not_silently_the_bases(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = saved_adapter(checkpoint, tmp_path / "adapter")
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    connector = [name for name in tensors if ".connector." in name]
    assert connector
    kept = {name: value for name, value in tensors.items() if name not in connector}
    save_file(kept, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"the first {connector[0]}"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"{"])
def test_an_adapters_damaged_weights_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, content: bytes
) -> None:
    folder = saved_adapter(checkpoint, tmp_path / "adapter")
    (folder / ADAPTER_WEIGHTS).write_bytes(content)
    assert refusal(folder).where == str(folder / ADAPTER_WEIGHTS)
    with pytest.raises(ConfigError):
        check_checkpoint_weights(str(folder), checkpoint.model.config)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_an_adapters_damaged_settings_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, text: str
) -> None:
    folder = saved_adapter(checkpoint, tmp_path / "adapter")
    (folder / ADAPTER_CONFIG).write_text(text)
    assert refusal(folder).where == str(folder / ADAPTER_CONFIG)
