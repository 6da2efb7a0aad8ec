"""The law of preferences: loss, rewards, log-probabilities and gradients equal those of TRL's `DPOTrainer`.

TRL gets rows rendered beforehand ("standard" format: prompt, then each answer with its `<end_of_utterance>`), so that
both learn the same tokens; on conversational rows it would learn the template's newline too. It runs every sequence by
itself, padded, with a second model for the reference; ours runs trees and keeps what the reference says in a file.
Float32 on CPU.
"""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.datasets.dataset import SupervisedDataset
from smolvlm.datasets.lengths import Budget
from smolvlm.datasets.plan import Plan
from smolvlm.datasets.planned_packs import PlannedPack, PlannedPacks
from smolvlm.encoding.prompts import read_prompt_settings
from smolvlm.model.load import load_checkpoint
from smolvlm.model.parts.tiny import tiny_model
from smolvlm.records import Conversation, ImageRef, Turn
from smolvlm.train.methods import Preference
from smolvlm.train.preference import PreferenceSettings
from smolvlm.train.reference import reference_logps
from smolvlm.train.verify import GRADIENT_TOLERANCE, gradient_errors
from tests.memory_rows import measured_rows

trl = pytest.importorskip("trl", reason="the peer: in the extra `dev`")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # the peer's own

LOSS_TOLERANCE = 1e-5
ROWS = [
    (0, "What is it?", "A blur.", "It is a very nice picture of a cat."),
    (0, "How many?", "7", "Seven or eight."),
    (1, "Which colour?", "Grey, mostly.", "Blue"),
    (None, "Say hello.", "Hello there!", "No."),
]


def picture(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 80, (40, 70, 3)) + random.integers(0, 176, 3)
    return Image.fromarray(pixels.astype(np.uint8))


def image_ref(seed: int) -> ImageRef:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def our_row(number: int) -> Conversation:
    seed, question, better, worse = ROWS[number]
    blocks = (question,) if seed is None else (image_ref(seed), question)
    prompt = Turn(role="user", blocks=blocks)
    turns, rejected = ((prompt, Turn(role="assistant", blocks=(answer,))) for answer in (better, worse))
    return Conversation(turns=turns, rejected=rejected, where=f"rows.jsonl:{number + 1}", source="rows")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("dpo") / "tiny", longest_edge_px=64)


@pytest.fixture(scope="module")
def moved(folder: Path) -> dict[str, torch.Tensor]:
    """Weights some way off the reference's."""
    torch.manual_seed(1)
    state = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    return {name: value + 0.02 * torch.randn_like(value) for name, value in state.items()}


def ours(folder: Path, moved: dict[str, torch.Tensor], settings: PreferenceSettings, tmp_path: Path) -> Any:
    """Return (loss, metrics, gradients) of all rows in one pack."""
    checkpoint = load_checkpoint(str(folder))
    prompt = read_prompt_settings(checkpoint.processor)
    measured = measured_rows([our_row(number) for number in range(len(ROWS))], prompt)
    samples = tuple((number,) for number in range(len(ROWS)))
    packs = PlannedPacks.of([PlannedPack(samples=samples, num_tokens=0, num_tiles=0)])
    plan = Plan(packs=packs, packs_per_step=1, epoch_ends=(1,), budget=Budget(max_tokens=10_000, max_tiles=1000))
    dataset = SupervisedDataset(measured, plan, encoder=prompt.encoder(), settings=prompt.media)
    model = checkpoint.model.eval()
    dataset.reference_logps = reference_logps(model, dataset, folder=tmp_path, identity="base")
    again = reference_logps(copy.deepcopy(model).apply(spoil), dataset, folder=tmp_path, identity="base")
    assert np.array_equal(again, dataset.reference_logps), "read from the file"
    model.load_state_dict(moved)
    pack = dataset[0]
    method = Preference(settings=settings)
    output = model(pack=pack.model_tensors(), normalizer=float(len(ROWS)), loss_of=method.loss)
    output.loss.backward()
    metrics = {name: value.item() / len(ROWS) for name, value in output.metrics.items()}
    return output.loss.item(), metrics, {name: value.grad for name, value in model.named_parameters()}


def spoil(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.zero_()


def theirs(folder: Path, moved: dict[str, torch.Tensor], settings: PreferenceSettings, tmp_path: Path) -> Any:
    """Return the same of TRL's trainer."""
    processor = AutoProcessor.from_pretrained(folder)
    model, reference = (AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    model.load_state_dict(moved)
    rows = []
    for seed, question, better, worse in ROWS:
        content = [{"type": "image"}] * (seed is not None) + [{"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        answers = {"chosen": f" {better}<end_of_utterance>", "rejected": f" {worse}<end_of_utterance>"}
        rows.append({"prompt": prompt, "images": [] if seed is None else [picture(seed)], **answers})
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
    )
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([dict(row) for row in rows]))
    loss.backward()
    metrics = {name: sum(values) / len(values) for name, values in trainer._metrics["train"].items()}
    return loss.item(), metrics, {name: value.grad for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [
        PreferenceSettings(loss_type="sigmoid", beta=0.1),
        PreferenceSettings(loss_type="ipo", beta=0.2),
        PreferenceSettings(loss_type="hinge", beta=0.5),
        PreferenceSettings(loss_type="robust", beta=0.3, label_smoothing=0.1),
    ],
    ids=lambda settings: settings.loss_type,
)
def test_loss_rewards_and_gradients_are_trls(
    folder: Path, moved: dict[str, torch.Tensor], settings: PreferenceSettings, tmp_path: Path
) -> None:
    loss, metrics, gradients = ours(folder, moved, settings, tmp_path)
    other_loss, other_metrics, other_gradients = theirs(folder, moved, settings, tmp_path)
    assert loss == pytest.approx(other_loss, abs=LOSS_TOLERANCE)
    pairs = {
        "logps_chosen": "logps/chosen",
        "logps_rejected": "logps/rejected",
        "rewards_chosen": "rewards/chosen",
        "rewards_rejected": "rewards/rejected",
        "rewards_margin": "rewards/margins",
        "rewards_accuracy": "rewards/accuracies",
    }
    for name, other in pairs.items():
        assert metrics[name] == pytest.approx(other_metrics[other], rel=1e-5, abs=LOSS_TOLERANCE), name
    errors = gradient_errors(gradients, other_gradients)
    assert max(errors.values()) <= GRADIENT_TOLERANCE, errors


def test_the_first_loss_is_that_of_a_coin(folder: Path, tmp_path: Path) -> None:
    same = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
    loss, metrics, _ = ours(folder, same, PreferenceSettings(loss_type="sigmoid", beta=0.1), tmp_path)
    assert loss == pytest.approx(0.693147, abs=1e-6)
    assert metrics["rewards_margin"] == pytest.approx(0, abs=1e-5)
