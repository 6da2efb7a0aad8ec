"""bfloat16 weights under float32 masters compute, learn and are saved as weights under autocast."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from smolvlm.model.cpu_choices import STOCK_CHOICES, using_choices
from smolvlm.train import master_weights
from smolvlm.train.master_weights import MasterWeights
from tests.train.conftest import FinishedRun, TrainRun, WriteRun, json_rows
from tests.train.runs_apart import problem_of, runs_apart
from tests.waits import inputs_for

BF16 = {"train.bf16": True, "train.vision_tower_lr": 2e-4, "train.num_train_epochs": 1}
MASTERS = {"train.master_weights": True}
FROZEN = {"train.vision_tower_lr": 0}
LORA = {"adapters.language": {"type": "lora", "r": 4, "lr": 1e-2}, **FROZEN}
SAVED = {"train.save_strategy": "steps", "train.save_steps": 1}
NUM_RANKS = 2


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: value
        for path in sorted(folder.glob("*model*.safetensors"))
        for name, value in load_file(path).items()
    }


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype == torch.float32
        assert torch.equal(value, theirs[name]), name


def assert_same_steps(one: Path, other: Path) -> None:
    lines = [
        [(row["loss"], row["grad_norm"]) for row in rows if "loss" in row]
        for rows in (json_rows(run / "metrics.jsonl") for run in (one, other))
    ]
    assert len(lines[0]) > 2
    assert lines[0] == lines[1]


@pytest.fixture(scope="module")
def twin(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The run under autocast; a checkpoint a step; not to be written to."""
    return train_run(tmp_path_factory.mktemp("twin"), BF16 | SAVED)


@pytest.fixture(scope="module")
def masters_run(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The same with master weights."""
    return train_run(tmp_path_factory.mktemp("masters"), BF16 | SAVED | MASTERS)


def test_a_run_equals_its_twin_under_autocast_to_the_bit(
    masters_run: FinishedRun, twin: FinishedRun
) -> None:
    assert_same_steps(masters_run.folder, twin.folder)
    assert_same_weights(masters_run.folder, twin.folder)
    assert_same_weights(masters_run.folder / "checkpoint-2", twin.folder / "checkpoint-2")
    facts = json.loads((masters_run.folder / "run.json").read_text())
    assert facts["kernels"]["master_weights"] is True


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(FROZEN, id="frozen tower"),
        pytest.param({"train.max_grad_norm": 0.0, "train.optim": "sgd"}, id="unclipped"),
        pytest.param({"train.activation_checkpointing": True}, id="checkpointing"),
        pytest.param(LORA, id="lora"),
        pytest.param(LORA | {"adapters.language": {"type": "pissa", "r": 2}}, id="pissa"),
        pytest.param({"freeze.language_layers": [0, 1]}, id="frozen layer"),
    ],
)
def test_so_do_runs_of_other_kinds(
    train_run: TrainRun, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain = train_run(tmp_path / "plain", BF16 | changes)
    run = train_run(tmp_path / "masters", BF16 | changes | MASTERS)
    assert_same_steps(run.folder, plain.folder)
    assert_same_weights(run.folder, plain.folder)


def test_while_it_trains_linear_layers_are_bfloat16_and_afterwards_float32(
    train_run: TrainRun, write_run: WriteRun, rows_folder: Path, tmp_path: Path
) -> None:
    seen: list[dict[str, torch.dtype]] = []

    def make(*_: object) -> Any:
        def evaluate(model: Any) -> dict[str, float]:
            seen.append({name: value.dtype for name, value in model.named_parameters()})
            return {"score": 1.0}

        return evaluate

    evaluated = {
        "data.eval_mixture": [{"json_path": str(rows_folder / "words.jsonl")}],
        "train.eval_strategy": "steps",
        "train.eval_steps": 2,
    }
    run = train_run(tmp_path, BF16 | MASTERS | evaluated, make_evaluate=make)
    model: Any = run.trained.checkpoint.model
    linears = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if type(module) is nn.Linear and name != "lm_head"
        for part, _ in module.named_parameters()
    }
    assert len(linears) > 20
    for dtypes in seen:
        found = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
        assert found == linears
    assert seen
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert_same_weights(run.folder, _saved(model, tmp_path / "model"))


def _saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_a_resumed_run_equals_one_that_was_not_stopped(
    masters_run: FinishedRun, twin: FinishedRun, train_run: TrainRun, tmp_path: Path
) -> None:
    """With masters from the first step, and from the checkpoint of a run without them."""
    for number, before in enumerate((masters_run, twin)):
        folder = tmp_path / str(number)
        kept = folder / "out" / "checkpoint-2"
        shutil.copytree(before.folder / "checkpoint-2", kept)
        resumed = train_run(folder, BF16 | SAVED | MASTERS)
        assert resumed.trained.trainer.state.global_step > 2
        assert_same_weights(resumed.folder, masters_run.folder)
        assert [row["loss"] for row in resumed.steps] == masters_run.losses[2:]


def test_the_best_model_is_taken_up_as_it_was_stepped(
    train_run: TrainRun, rows_folder: Path, tmp_path: Path
) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    best = {
        "data.eval_mixture": [{"json_path": str(rows_folder / "words.jsonl")}],
        "train.eval_strategy": "steps",
        "train.eval_steps": 1,
        "eval.best_by": "exact_match",
    }
    run = train_run(
        tmp_path,
        BF16 | SAVED | MASTERS | best,
        make_evaluate=lambda *_: lambda _model: {"exact_match": next(scores)},
    )
    step = run.trained.trainer.state.best_global_step
    assert_same_weights(run.folder, run.folder / f"checkpoint-{step}")


@pytest.mark.parametrize("reference", ["precomputed", "copy", "adapter_off"])
def test_preferences_are_learned_alike(train_run: TrainRun, tmp_path: Path, reference: str) -> None:
    """Also where a frozen copy of the model is asked in each step."""
    rows = [
        {"prompt": f"{n} and 2?", "chosen": f"{n + 2}", "rejected": f"It is {n + 2}."}
        for n in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dpo = {
        "data.mixture": [{"json_path": str(tmp_path / "rows.jsonl")}],
        "train.method": "dpo",
        "train.beta": 0.5,
        "train.num_train_epochs": 3,
        "train.reference": reference,
        **(LORA | {"train.connector_lr": 0} if reference == "adapter_off" else {}),
    }
    plain = train_run(tmp_path / "plain", BF16 | dpo)
    run = train_run(tmp_path / "masters", BF16 | dpo | MASTERS)
    assert_same_steps(run.folder, plain.folder)
    assert_same_weights(run.folder, plain.folder)


def test_two_ranks_equal_two_under_autocast(
    write_run: WriteRun, rows_folder: Path, tmp_path: Path
) -> None:
    """Through DDP, and without it: gradients are averaged in the same type and order.

    Killed and resumed on the way; with answers evaluated; and with packs that both ranks hold."""
    evaluated = {
        "data.eval_mixture": [{"json_path": str(rows_folder / "words.jsonl")}],
        "train.eval_strategy": "steps",
        "train.eval_steps": 2,
        "eval.max_rows": 4,
        "eval.max_new_tokens": 3,
    }
    ranks = BF16 | {"train.packs_per_step": 2, "train.ddp_backend": "gloo"}
    whole = ranks | evaluated | SAVED
    shared = ranks | {"train.context_ranks": 2}
    files = {
        "plain": write_run(tmp_path / "plain", whole),
        "masters": write_run(tmp_path / "masters", whole | MASTERS),
        "shared_plain": write_run(tmp_path / "shared_plain", shared),
        "shared_masters": write_run(tmp_path / "shared_masters", shared | MASTERS),
    }
    jobs: list[dict[str, Any]] = [{"run": str(file), "ranks": NUM_RANKS} for file in files.values()]
    jobs.insert(1, {"run": str(files["masters"]), "ranks": NUM_RANKS, "dies_in_step": 4})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = "engines/engine_runs.py"
    with runs_apart(script, tmp_path / "jobs.json", logs=tmp_path, timeout_s=400):
        pass
    for file in files.values():
        assert problem_of(file.parent) is None
    log = (tmp_path / "masters" / "rank-0.log").read_text()
    assert "are stepped in float32" in log
    assert "resum" in log
    for kind in ("", "shared_"):
        ours, theirs = (tmp_path / f"{kind}{name}" / "out" for name in ("masters", "plain"))
        assert_same_steps(ours, theirs)
        assert_same_weights(ours, theirs)
    scores = [scores_of(tmp_path / name / "out") for name in ("masters", "plain")]
    assert len(scores[0]) > 1
    assert scores[0] == scores[1]


def scores_of(folder: Path) -> list[dict[str, float]]:
    """Return what each evaluation said, but for what it took."""
    return [
        {name: value for name, value in row.items() if not name.endswith(("_s", "seconds"))}
        for row in json_rows(folder / "metrics.jsonl")
        if any(name.startswith("eval_") for name in row)
    ]


def test_gradients_are_as_far_from_float32_as_under_autocast_and_nearer_than_all_in_bfloat16(
    masters_run: FinishedRun,
) -> None:
    """Why norms, embeddings and what is added up from layer to layer stay float32."""
    trained = masters_run.trained
    stock: Any = trained.checkpoint.model
    packs = [trained.trainer.train_dataset[number] for number in range(6)]
    pack = next(pack for pack in packs if len(pack.tiles))

    def gradients(way: str) -> dict[str, torch.Tensor]:
        config = copy.deepcopy(stock.config)
        config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers = 8, 6
        torch.manual_seed(0)
        model = type(stock)(config)
        model.set_pixel_scaling(stock.pixel_scaling)
        model.use_scope_attention()
        masters = MasterWeights(model) if way == "masters" else None
        if way == "bfloat16":
            model.to(torch.bfloat16)
        is_autocast = way in ("autocast", "masters")
        with (
            using_choices(STOCK_CHOICES),
            torch.autocast("cpu", torch.bfloat16, enabled=is_autocast),
        ):
            loss = model(pack=inputs_for(pack, "cpu"), normalizer=10.0).loss
        loss.backward()
        if masters is not None:
            masters.add_gradients()
        of: Any = model if masters is None else masters.stepped
        return {name: value.grad.float() for name, value in of.named_parameters()}

    exact = gradients("float32")
    size = sum(value.square().sum() for value in exact.values())
    errors = {
        way: float(sum((found - exact[name]).square().sum() for name, found in own.items()) / size)
        ** 0.5
        for way, own in ((way, gradients(way)) for way in ("autocast", "masters", "bfloat16"))
    }
    print(errors)
    assert errors["masters"] == errors["autocast"] < errors["bfloat16"] / 1.2


# ---- the masters by themselves


class Tiny(nn.Module):
    """Layers of every kind that matters; `second` does not train."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(5, 4)
        self.first, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.second = nn.Linear(4, 4).requires_grad_(False)
        self.lm_head = nn.Linear(4, 5, bias=False)
        for value in self.parameters():
            value.data.copy_(torch.randn(value.shape, generator=random))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.second(self.norm(self.first(self.embedding(ids)))))


def backward(model: Tiny, number: int) -> None:
    ids = torch.tensor([[number % 5, (number + 1) % 5]])
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids).float().square().sum()
    loss.backward()


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
def test_gradients_of_several_packs_are_summed_in_float32(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master_weights, "CHUNK_BYTES", chunk_bytes)
    plain, model = Tiny(), Tiny()
    masters = MasterWeights(model)
    for number in range(3):
        backward(plain, number)
        backward(model, number)
        waiting = model.first.weight.grad
        assert waiting is None if chunk_bytes == 1 else waiting.dtype == torch.bfloat16
        masters.add_gradients()
        assert model.first.weight.grad is None, "a pack's gradients are freed"
    stepped = dict(masters.stepped.named_parameters())
    for name, value in plain.named_parameters():
        gradient = stepped[name].grad
        if name.startswith("second"):
            assert gradient is None
            continue
        assert value.grad is not None
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, value.grad), name


def test_weights_follow_their_masters_behind_a_step() -> None:
    model = Tiny()
    masters = MasterWeights(model)
    optimizer = torch.optim.SGD(
        [value for value in masters.stepped.parameters() if value.requires_grad], lr=1e-4
    )
    optimizer.register_step_post_hook(masters.round_again)
    before = model.first.weight.detach().clone()
    for number in range(200):
        backward(model, number)
        masters.add_gradients()
        optimizer.step()
        model.zero_grad()
    stepped = dict(masters.stepped.named_parameters())["first.weight"]
    assert stepped.grad is None
    assert not torch.equal(before, model.first.weight)
    assert torch.equal(stepped.detach().bfloat16(), model.first.weight)
    assert not torch.equal(stepped.detach(), model.first.weight.float()), "it holds more"


@pytest.mark.parametrize("keeps_frozen", [True, False])
def test_what_is_saved_was_never_rounded(keeps_frozen: bool) -> None:
    plain, model = Tiny(), Tiny()
    for whole in (plain, model):  # one that bfloat16 holds exactly beside one that it does not
        whole.second.bias.data = whole.second.bias.data.bfloat16().float()
    masters = MasterWeights(model, keeps_frozen=keeps_frozen)
    rounded = {name: value.clone() for name, value in model.state_dict().items()}
    with masters.in_float32():
        inside = {name: value.clone() for name, value in model.state_dict().items()}
        with masters.in_float32():  # as where the best model is loaded from an adapter's folder
            pass
    for name, value in plain.state_dict().items():
        if keeps_frozen or not name.startswith("second"):
            assert inside[name].dtype == torch.float32
            assert torch.equal(inside[name], value), name
    after = model.state_dict()
    assert all(after[name].dtype == value.dtype for name, value in rounded.items())
    assert all(torch.equal(after[name], value) for name, value in rounded.items())
    masters.release()
    if keeps_frozen:
        released = model.state_dict()
        assert all(torch.equal(released[name], value) for name, value in plain.state_dict().items())


def test_what_is_loaded_into_the_model_reaches_masters_and_weights() -> None:
    model, other = Tiny(), Tiny()
    with torch.no_grad():
        other.first.weight += 0.001
    masters = MasterWeights(model)
    with masters.in_float32():
        model.load_state_dict(other.state_dict())
    stepped = dict(masters.stepped.named_parameters())["first.weight"]
    assert torch.equal(stepped.detach(), other.first.weight.detach())
    assert torch.equal(model.first.weight, other.first.weight.bfloat16())


def test_ranks_average_every_gradient_and_a_missing_one_counts_as_zero() -> None:
    """One sum stands for that of two ranks of which the other has nothing."""
    model = Tiny()
    masters = MasterWeights(model)
    backward(model, 0)
    masters.add_gradients()
    stepped = {n: v for n, v in masters.stepped.named_parameters() if v.requires_grad}
    model.norm.bias.grad = None
    before = {name: value.grad for name, value in stepped.items()}
    before = {name: None if value is None else value.clone() for name, value in before.items()}
    masters.mean_over_ranks(lambda _: None, num_ranks=2)
    for name, value in stepped.items():
        was = before[name]
        assert value.grad is not None
        assert torch.equal(value.grad, torch.zeros_like(value) if was is None else was / 2)
