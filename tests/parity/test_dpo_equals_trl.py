"""The law of preferences: loss, rewards, log-probabilities and gradients equal those of TRL's
`DPOTrainer`.

TRL gets rows rendered beforehand ("standard" format: prompt, then each answer with its
`<end_of_utterance>`), so that both learn the same tokens; on conversational rows it would learn the
template's newline too. It runs every sequence by itself, padded, with a second model for the
reference; ours runs trees and keeps what the reference says in a file, or asks it in the step. With
adapters TRL's reference is the model with its adapters switched off, and ours any of the three.
Pictures, two of them in one row, and text alone; float32 on CPU.
"""

import copy
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.tiny import tiny_model
from smolvlm.checkpoints.adapters import Adapters, attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.checkpoints.peft_layers import PREFIX
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.method import DpoMethod
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.datasets.packing.columns import PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.plan import Plan
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, gradient_errors
from smolvlm.model.towers import TOWERS, Tower, is_adapter
from smolvlm.records import Conversation, ImageRef, Turn
from smolvlm.train.methods.method import Preference
from smolvlm.train.methods.online_reference import OnlineReference, frozen_copy
from smolvlm.train.methods.reference import reference_logps
from tests.memory_rows import measured_rows

trl = pytest.importorskip("trl", reason="the peer: in the extra `dev`")
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning"
)  # the peer's own

LOSS_TOLERANCE = 1e-5
COIN = 0.693147
ROWS: list[tuple[tuple[int, ...], str, str, str]] = [
    ((0,), "What is it?", "A blur.", "It is a very nice picture of a cat."),
    ((0,), "How many?", "7", "Seven or eight."),
    ((1,), "Which colour?", "Grey, mostly.", "Blue"),
    ((1, 0), "Which is darker?", "The second one.", "The first"),
    ((), "Say hello.", "Hello there!", "No."),
]
"""Numbers of pictures, question, better and worse answer."""
KINDS: dict[Tower, AdapterConfig] = {
    "language_model": AdapterConfig(r=4, alpha=8),
    "connector": AdapterConfig(r=2, alpha=8),
    "vision_tower": AdapterConfig(r=3, alpha=8),
}
Tensors = dict[str, torch.Tensor]


def picture(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 80, (40, 70, 3)) + random.integers(0, 176, 3)
    return Image.fromarray(pixels.astype(np.uint8))


def image_ref(seed: int) -> ImageRef:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def our_row(number: int) -> Conversation:
    seeds, question, better, worse = ROWS[number]
    prompt = Turn(role="user", blocks=(*map(image_ref, seeds), question))
    turns, rejected = (
        (prompt, Turn(role="assistant", blocks=(answer,))) for answer in (better, worse)
    )
    return Conversation(
        turns=turns, rejected=rejected, where=f"rows.jsonl:{number + 1}", source="rows"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("dpo") / "tiny", longest_edge_px=64)


def moved(state: Tensors) -> Tensors:
    """Return tensors some way off these."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: value + 0.02 * torch.randn(value.shape, generator=generator)
        for name, value in state.items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What is trained in both, and how far it already is: all weights, or adapters in all
    towers."""

    state: Tensors
    """Values by our names, moved off those that the reference has."""
    adapters: Adapters | None = None

    @property
    def rates(self) -> LearningRates:
        everywhere = dict.fromkeys(TOWERS, 1.0)
        return (
            LearningRates(full=everywhere)
            if self.adapters is None
            else LearningRates(adapter=everywhere)
        )


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Trained]:
    model = load_checkpoint(str(folder)).model
    whole = Trained(state=moved(model.state_dict()))
    adapters = attach_adapters(model, KINDS, base=str(folder), seed=0)
    own = {name: value for name, value in model.state_dict().items() if is_adapter(name)}
    return {
        "whole": whole,
        "adapters": Trained(state=moved(own), adapters=adapters),
        "adapters at the start": Trained(state=own, adapters=adapters),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one step says, and the gradients of what trains, by our names."""

    loss: float
    metrics: dict[str, float]
    gradients: dict[str, torch.Tensor | None]


def dataset_of(checkpoint: Checkpoint) -> PackDataset:
    """Return one pack of all rows."""
    prompt = read_prompt_settings(checkpoint.processor)
    measured = measured_rows([our_row(number) for number in range(len(ROWS))], prompt)
    samples = tuple((number,) for number in range(len(ROWS)))
    packs = PlannedPacks.of([PlannedPack(samples=samples, num_tokens=0, num_tiles=0)])
    plan = Plan(
        packs=packs,
        packs_per_step=1,
        epoch_ends=(1,),
        budget=Budget(max_tokens=10_000, max_tiles=1000),
    )
    return PackDataset(measured, plan, encoder=prompt.encoder(), settings=prompt.media)


def ours(
    folder: Path,
    trained: Trained,
    settings: DpoMethod,
    tmp_path: Path,
    *,
    reference: str = "precomputed",
) -> Step:
    """Return our step over all rows in one pack."""
    checkpoint = load_checkpoint(str(folder))
    model, dataset = checkpoint.model.eval(), dataset_of(checkpoint)
    if trained.adapters is not None:
        attach_adapters(model, KINDS, base=str(folder), seed=0)
    freeze(model, trained.rates)
    copied = frozen_copy(model) if reference == "copy" else None
    live = OnlineReference(copied=copied, has_frozen_tower=False, compute_dtype=torch.float32)
    if reference == "precomputed":
        dataset.reference_logps = reference_logps(model, dataset, folder=tmp_path, identity="base")
        again = reference_logps(
            copy.deepcopy(model).apply(spoil), dataset, folder=tmp_path, identity="base"
        )
        assert np.array_equal(again, dataset.reference_logps), "read from the file"
    missing = model.load_state_dict(trained.state, strict=False).missing_keys
    assert missing == [name for name in model.state_dict() if name not in trained.state]
    pack: Any = dataset[0].model_tensors()
    method = Preference(settings=settings)
    if reference != "precomputed":
        pack = live.judge(model, pack).tensors
    output = model(pack=pack, normalizer=float(len(ROWS)), loss_of=method.loss)
    output.loss.backward()
    return Step(
        loss=output.loss.item(),
        metrics={name: value.item() / len(ROWS) for name, value in output.metrics.items()},
        gradients={
            name: value.grad for name, value in model.named_parameters() if value.requires_grad
        },
    )


def spoil(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.zero_()


def theirs(folder: Path, trained: Trained, settings: DpoMethod, tmp_path: Path) -> Step:
    """Return the same of TRL's trainer."""
    processor = AutoProcessor.from_pretrained(folder)
    model, reference = (
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32) for _ in range(2)
    )
    peft_config = None
    if trained.adapters is not None:
        reference, peft_config = None, copy.deepcopy(trained.adapters.peft_config)
        peft_config.inference_mode = False
    rows = []
    for seeds, question, better, worse in ROWS:
        content = [{"type": "image"}] * len(seeds) + [{"type": "text", "text": question}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        answers = {
            "chosen": f" {better}<end_of_utterance>",
            "rejected": f" {worse}<end_of_utterance>",
        }
        rows.append({"prompt": prompt, "images": [picture(seed) for seed in seeds], **answers})
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        per_device_train_batch_size=len(rows),
        beta=settings.beta,
        loss_type=[settings.loss_type],
        label_smoothing=settings.label_smoothing,
        max_length=None,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        peft_config=peft_config,
    )
    prefix = "" if peft_config is None else PREFIX
    state = {f"{prefix}{name}": value for name, value in trained.state.items()}
    assert not trainer.model.load_state_dict(state, strict=False).unexpected_keys
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([dict(row) for row in rows]))
    loss.backward()
    metrics = {
        name: sum(values) / len(values) for name, values in trainer._metrics["train"].items()
    }
    gradients = {
        name.removeprefix(prefix): value.grad
        for name, value in trainer.model.named_parameters()
        if value.requires_grad
    }
    return Step(loss=loss.item(), metrics=metrics, gradients=gradients)


LOSSES = (
    DpoMethod(loss_type="sigmoid", beta=0.1),
    DpoMethod(loss_type="ipo", beta=0.2),
    DpoMethod(loss_type="hinge", beta=0.5),
    DpoMethod(loss_type="robust", beta=0.3, label_smoothing=0.1),
)


def check_equal(own: Step, other: Step) -> None:
    assert own.loss == pytest.approx(other.loss, abs=LOSS_TOLERANCE)
    pairs = {
        "logps_chosen": "logps/chosen",
        "logps_rejected": "logps/rejected",
        "rewards_chosen": "rewards/chosen",
        "rewards_rejected": "rewards/rejected",
        "rewards_margin": "rewards/margins",
        "rewards_accuracy": "rewards/accuracies",
    }
    for name, named in pairs.items():
        assert own.metrics[name] == pytest.approx(
            other.metrics[named], rel=1e-5, abs=LOSS_TOLERANCE
        ), name
    assert own.gradients.keys() == other.gradients.keys()
    errors = gradient_errors(own.gradients, other.gradients)
    assert max(errors.values()) <= GRADIENT_TOLERANCE, errors


@pytest.mark.parametrize("settings", LOSSES, ids=lambda settings: settings.loss_type)
def test_loss_rewards_and_gradients_are_trls(
    folder: Path, trained: dict[str, Trained], settings: DpoMethod, tmp_path: Path
) -> None:
    arguments = (folder, trained["whole"], settings, tmp_path)
    check_equal(ours(*arguments), theirs(*arguments))


def test_with_adapters_they_are_trls_wherever_the_reference_comes_from(
    folder: Path, trained: dict[str, Trained], tmp_path: Path
) -> None:
    arguments = (folder, trained["adapters"], DpoMethod(loss_type="sigmoid", beta=0.5), tmp_path)
    other = theirs(*arguments)
    assert abs(other.loss - COIN) > 1e-3, "the adapters have moved"
    assert all(value is not None and value.any() for value in other.gradients.values())
    for reference in ("precomputed", "adapter_off", "copy"):
        own = ours(*arguments, reference=reference)
        check_equal(own, other)
        assert all(is_adapter(name) for name in own.gradients)


def test_the_first_loss_is_that_of_a_coin(folder: Path, tmp_path: Path) -> None:
    own = ours(folder, Trained(state={}), DpoMethod(loss_type="sigmoid", beta=0.1), tmp_path)
    assert own.loss == pytest.approx(COIN, abs=1e-6)
    assert own.metrics["rewards_margin"] == pytest.approx(0, abs=1e-5)


def test_the_first_step_of_adapters_is_trls_too(
    folder: Path, trained: dict[str, Trained], tmp_path: Path
) -> None:
    settings = DpoMethod(loss_type="sigmoid", beta=0.1)
    arguments = (folder, trained["adapters at the start"], settings, tmp_path)
    own = ours(*arguments, reference="adapter_off")
    assert own.loss == pytest.approx(COIN, abs=1e-6)
    check_equal(own, theirs(*arguments))
