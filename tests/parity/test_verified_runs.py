"""Packed = alone on what runs really train: adapters, quantised weights, preference losses, token
rows, checkpoints that are resumed from.

Each run is verified as `smolvlm inspect --verify` does it, on real pictures and text. That the
comparison can fail is tested too: what a run computes is changed, and the change is seen.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from smolvlm import api
from smolvlm.build.tiny import tiny_model
from smolvlm.checkpoints import adapters
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, Verification
from smolvlm.model import modeling_smolvlm
from smolvlm.model.attention.rule import make_scope
from smolvlm.train.methods import preference_losses
from tests.grids import as_grid, part_of
from tests.packs import verified_pack

MakeRun = Callable[..., RunConfig]
LORA = {"adapters.language": "lora", "train.connector_lr": 0.0}
EVERYWHERE = {
    "train.vision_tower_lr": 1e-4,
    "quantization.towers": ["language", "vision", "connector"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SmolVLM; not to be written to."""
    return tiny_model(tmp_path_factory.mktemp("verified") / "tiny", longest_edge_px=64)


@pytest.fixture(scope="module")
def answers(photos: dict[str, Path]) -> list[dict[str, Any]]:
    """Two questions about one picture, one about another, and text."""
    coffee, horse = str(photos["coffee"]), str(photos["horse"])
    return [
        {"question": "<image>What is it?", "answer": "A cup.", "image": coffee},
        {"question": "<image>And this?", "answer": "The same, I think.", "image": coffee},
        {"question": "<image>Which animal?", "answer": "A horse.", "image": horse},
        {"question": "What is 5 plus 7?", "answer": "12"},
    ]


@pytest.fixture(scope="module")
def pairs(photos: dict[str, Path]) -> list[dict[str, Any]]:
    """A pair about a picture, and one of text alone."""
    return [
        {
            "prompt": "<image>What is it?",
            "chosen": "A cup.",
            "rejected": "It is a dog, I think.",
            "image": str(photos["coffee"]),
        },
        {"prompt": "What is 2 plus 2?", "chosen": "4", "rejected": "It is 5."},
    ]


@pytest.fixture
def make_run(
    base: Path, answers: list[dict[str, Any]], pairs: list[dict[str, Any]], tmp_path: Path
) -> MakeRun:
    """Makes a run's settings of changes to a plain one's; of `train.method: dpo` over pairs."""

    def make(changes: dict[str, Any], *, rows: list[dict[str, Any]] | None = None) -> RunConfig:
        settings: dict[str, Any] = {
            "model": {"path": str(base)},
            "data": {"allow_outside_root": True, "vision_cache": False},
            "train": {"output_dir": str(tmp_path / "run"), "max_steps": 2, "packs_per_step": 1},
        }
        settings["train"] |= {"use_cpu": True, "save_steps": 2}
        for key, value in changes.items():
            section, _, name = key.partition(".")
            settings.setdefault(section, {})[name] = value
        of_method = pairs if changes.get("train.method") == "dpo" else answers
        return api.load_config(settings, rows=rows or of_method)

    return make


def adapted(kind: str) -> dict[str, Any]:
    return {f"adapters.{part}": kind for part in ("language", "connector", "vision")}


def holds(config: RunConfig) -> Verification:
    verification = verified_pack(config).verification
    assert verification.holds, verification
    return verification


@pytest.mark.parametrize("kind", part_of(("lora", "dora", "rslora", "pissa"), ("lora", "pissa")))
def test_fresh_adapters_on_all_towers(make_run: MakeRun, kind: str) -> None:
    found = holds(make_run(adapted(kind) | {"train.vision_tower_lr": 1e-4}))
    assert set(found.gradient_error) == {"vision_tower", "connector", "language_model"}
    filled = [line for line in found.compared if "begin at 0" in line]
    assert bool(filled) == (kind != "pissa"), "PiSSA begins at the weights"
    assert any(line.startswith(f"connector       {kind} of rank 8") for line in found.compared)
    assert found.not_covered == ()


def test_an_adapter_beside_a_whole_tower_and_frozen_parts(make_run: MakeRun) -> None:
    changes = {
        "adapters.vision": "lora",
        "train.vision_tower_lr": 1e-4,
        "freeze.embeddings": True,
        "freeze.language_layers": [0, 1],
    }
    assert len(holds(make_run(changes)).gradient_error) == 3


def test_a_frozen_head_over_embeddings_that_train(make_run: MakeRun) -> None:
    assert len(holds(make_run({"freeze.output_head": True})).gradient_error) == 2


@pytest.mark.parametrize("trains_vision", [False, True], ids=["whole", "beside an adapter"])
def test_a_head_that_is_tied_to_the_embeddings(
    make_run: MakeRun, base: Path, tmp_path: Path, trains_vision: bool
) -> None:
    """peft copies the two apart where the language model trains whole beside an adapter."""
    folder = tmp_path / "tied"
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    content["tie_word_embeddings"] = content["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(content))
    changes: dict[str, Any] = {"model.path": str(folder)}
    if trains_vision:
        changes |= {"adapters.vision": "lora", "train.vision_tower_lr": 1e-4}
    holds(make_run(changes))


def test_adapters_in_embeddings_and_head(make_run: MakeRun) -> None:
    targets = ["*.q_proj", "model.text_model.embed_tokens", "lm_head"]
    holds(make_run({"adapters.language": {"type": "lora", "targets": targets, "r": 2}}))


def test_towers_that_do_not_train_are_not_compared(make_run: MakeRun) -> None:
    assert set(holds(make_run(LORA)).gradient_error) == {"language_model"}
    assert set(holds(make_run({})).gradient_error) == {"connector", "language_model"}


def test_what_the_rows_do_not_reach_is_said(make_run: MakeRun) -> None:
    text = [{"question": "What is 5 plus 7?", "answer": "12"}]
    changes = {"train.vision_tower_lr": 1e-4}
    assert holds(make_run(changes, rows=text)).not_covered == (
        "gradients of the vision tower: these rows give it none",
        "gradients of the connector: these rows give it none",
    )
    pair = [{"prompt": "2 + 2?", "chosen": "4", "rejected": "It is 5, I am sure."}]
    hinge = {"train.method": "dpo", "train.loss_type": "hinge", "train.beta": 1e4}
    lines = [holds(make_run(LORA | hinge, rows=rows)).not_covered for rows in (pair, swapped(pair))]
    assert ("gradients of the language model: these rows give it none",) in lines
    assert () in lines, "one of the two is on the wrong side of the hinge"


def swapped(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs]


def test_token_rows_beside_a_frozen_language_model(make_run: MakeRun) -> None:
    changes = {
        "train.language_model_lr": 0.0,
        "train.trainable_tokens": ["<fake_token_around_image>", "<end_of_utterance>"],
    }
    found = holds(make_run(changes))
    assert "token rows      2 of lm_head" in found.compared


@pytest.mark.parametrize(
    ("quantization", "kind"),
    [
        ({"quantization.bits": 8}, "lora"),
        as_grid(({"quantization.bits": 8}, "dora")),
        as_grid(({"quantization.bits": 4}, "lora")),
        ({"quantization.bits": 4, "model.dtype": "bfloat16"}, "dora"),
        as_grid(({"quantization.bits": 4, "quantization.quant_type": "fp4"}, "rslora")),
    ],
)
def test_quantised_bases(make_run: MakeRun, quantization: dict[str, Any], kind: str) -> None:
    found = holds(make_run(adapted(kind) | quantization | EVERYWHERE))
    bits = quantization["quantization.bits"]
    assert sum(f"layers in {bits} bits" in line for line in found.compared) == 3


@pytest.mark.parametrize(
    "loss",
    [
        {"loss_type": "sigmoid", "label_smoothing": 0.1, "sft_weight": 0.2},
        as_grid({"loss_type": "robust", "label_smoothing": 0.1}),
        as_grid({"loss_type": "hinge"}),
        {"loss_type": "ipo"},
        as_grid({"loss_type": "simpo", "margin": 0.3}),
        {"loss_type": "orpo"},
    ],
    ids=lambda loss: loss["loss_type"],
)
def test_preference_losses(make_run: MakeRun, loss: dict[str, Any]) -> None:
    changes = {f"train.{name}": value for name, value in loss.items()}
    found = holds(make_run({"train.method": "dpo", "train.beta": 0.5} | LORA | changes))
    reference = (
        "no reference" if loss["loss_type"] in ("simpo", "orpo") else "reference precomputed"
    )
    assert f"dpo, loss {loss['loss_type']}, {reference}" in found.compared
    assert found.num_tokens_alone > found.num_tokens_packed, "the prompts are shared"


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_clips_whose_frames_are_averaged(
    make_run: MakeRun, clips: dict[str, Path], method: str
) -> None:
    clip = {"video": str(clips["uneven"])}
    answer = {"question": "<video>What moves?", "answer": "A cup, 2 frames."}
    pair = {"prompt": "<video>What moves?", "chosen": "A cup.", "rejected": "A dog, I think."}
    changes = {"data.average_frames": 2, "train.method": method, "train.vision_tower_lr": 1e-4}
    row = answer if method == "sft" else pair
    config = make_run(adapted("lora") | changes, rows=[row | clip])
    assert len(holds(config).gradient_error) == 3


@pytest.mark.parametrize("reference", part_of(("precomputed", "adapter_off", "copy"), ("copy",)))
def test_references_that_are_the_model_itself(make_run: MakeRun, reference: str) -> None:
    changes = {"train.method": "dpo", "train.beta": 0.5, "train.reference": reference}
    found = holds(make_run(changes | LORA))
    assert abs(found.loss_packed - 0.6931) > 1e-3, "the model is some way from its reference"
    quantised = {"quantization.bits": 4}
    assert holds(make_run(changes | LORA | quantised)).loss_packed != found.loss_packed


def test_a_reference_that_is_another_model(make_run: MakeRun, tmp_path: Path) -> None:
    api.train(make_run(LORA | {"train.output_dir": str(tmp_path / "other")}))
    other = tiny_model(tmp_path / "whole", longest_edge_px=64, seed=5)
    changes = {"train.method": "dpo", "train.beta": 0.5}
    losses = [
        holds(make_run(changes | {"train.reference_model": str(path)})).loss_packed
        for path in (other, tmp_path / "other")
    ]
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        adapted("lora") | {"train.vision_tower_lr": 1e-4},
        adapted("pissa") | {"train.vision_tower_lr": 1e-4},
        LORA | {"quantization.bits": 4},
        LORA | {"train.method": "dpo", "train.beta": 0.5},
        {"train.vision_tower_lr": 1e-4},
        {"train.method": "dpo", "train.beta": 0.5, "train.language_model_lr": 1e-3},
    ],
    ids=["lora", "pissa", "qlora", "lora dpo", "whole", "whole dpo"],
)
def test_a_run_that_is_resumed_is_compared_at_its_checkpoint(
    make_run: MakeRun, changes: dict[str, Any], tmp_path: Path
) -> None:
    config = make_run(changes)
    before = holds(config)
    api.train(config)
    after = holds(config)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert f"weights of {checkpoint}, which the run resumes from" in after.compared
    assert not any("begin at 0" in line for line in after.compared)
    assert after.loss_packed != before.loss_packed


def test_another_runs_checkpoint_is_said_or_refused(make_run: MakeRun, tmp_path: Path) -> None:
    api.train(make_run(LORA))
    found = holds(make_run(LORA | {"train.packs_per_step": 2}))
    (line,) = found.not_covered
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert line == (
        "resuming, which training would refuse: the checkpoint belongs to another run "
        f"({checkpoint}); compared at the run's start"
    )
    changes = {"train.packs_per_step": 2, "train.resume_from_checkpoint": str(checkpoint)}
    with pytest.raises(ConfigError, match="the checkpoint belongs to another run"):
        verified_pack(make_run(LORA | changes))


def test_what_training_refuses_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    api.train(make_run(LORA))
    with pytest.raises(ConfigError, match="training begins at a model, and this is an adapter"):
        verified_pack(make_run({"model.path": str(tmp_path / "run")} | LORA))


def see_each_other(patch: pytest.MonkeyPatch) -> None:
    scope = lambda ends, _: make_scope(torch.full_like(ends, len(ends)))  # noqa: E731
    patch.setattr(modeling_smolvlm, "make_scope", scope)


def scale_adapters_twice(patch: pytest.MonkeyPatch) -> None:
    attach = adapters.inject

    def attach_scaled(model: Any, *args: Any, **kwargs: Any) -> None:
        attach(model, *args, **kwargs)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] *= 2

    patch.setattr(adapters, "inject", attach_scaled)


def prefer_the_rejected(patch: pytest.MonkeyPatch) -> None:
    right = preference_losses._difference
    patch.setattr(preference_losses, "_difference", lambda pairs: -right(pairs))


def forget_the_reference(patch: pytest.MonkeyPatch) -> None:
    def without(pairs: Any) -> torch.Tensor:
        return pairs.chosen - pairs.rejected

    patch.setattr(preference_losses, "_difference", without)


@pytest.mark.parametrize(
    ("mistake", "changes"),
    [
        (see_each_other, LORA),
        (see_each_other, LORA | {"quantization.bits": 8}),
        (see_each_other, LORA | {"train.method": "dpo"}),
        (scale_adapters_twice, LORA),
        (prefer_the_rejected, LORA | {"train.method": "dpo", "train.beta": 0.5}),
        (forget_the_reference, LORA | {"train.method": "dpo", "train.beta": 0.5}),
    ],
)
def test_a_mistake_is_seen(
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[pytest.MonkeyPatch], None],
    changes: dict[str, Any],
) -> None:
    config = make_run(changes)
    mistake(monkeypatch)
    verification = verified_pack(config).verification
    assert not verification.holds
    assert verification.ids_differ == ()
    assert verification.gradient_error["language_model"] > 10 * GRADIENT_TOLERANCE
