"""Every engine on every number of ranks is the run of one rank: losses, weights, answers.

Plain gradient descent where all trains, since Adam would hide a gradient that is scaled wrong.
`make engines` (`--engines`) goes through all of `GRID`; `make test` takes a part.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from smolvlm.checkpoints.peft_layers import ADAPTER_WEIGHTS
from smolvlm.config.checkpointing import Checkpointing
from tests.train.runs_apart import problem_of, runs_apart, selected_keys

TIMEOUT_S = 3600
"""For all runs of the grid together that one call of pytest makes."""
CHECKPOINT, DIES_IN_STEP = 2, 4
EPOCHS, GRID_EPOCHS = 3, 7
"""Nine steps, and 21."""
HAS_DEEPSPEED = find_spec("deepspeed") is not None
Changes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained."""

    changes: Changes
    weights_file: str = "model.safetensors"
    chunk_targets: int | None = None
    max_weight_error: float = 1e-5
    """Of a tensor, relative to its norm. Where gradients are clipped, their norm bounds it: torch's
    own over one large tensor is off by 2e-6, over its shards by less."""


SHARED: tuple[tuple[str, str, int], ...] = (
    ("full", "fsdp2", 2),
    ("full", "ddp", 4),
    ("adapters", "fsdp2", 2),
    ("dpo", "fsdp2", 2),
    ("adapters", "ddp+2ring", 2),
)
"""(case, engine, ranks) that `make test` runs; behind a + stands how many ranks hold a pack
together, and whether keys and values go round in a ring."""
GRID: tuple[tuple[str, str, int], ...] = tuple(
    (case, engine, ranks)
    for engines, cases in (
        (
            ("ddp", "fsdp2"),
            ("full", "frozen", "adapters", "dpo", "checkpointing", "language_again", "tower_again"),
        ),
        # An optional package, which builds an operator first (make env-deepspeed).
        (("zero2",) if HAS_DEEPSPEED else (), ("frozen", "adapters", "dpo", "checkpointing")),
        (("zero3",) if HAS_DEEPSPEED else (), ("checkpointing", "alone")),
    )
    for engine in engines
    for case in cases
    for ranks in (2, 4)
) + tuple(
    (case, f"{engine}+{context}", ranks)
    for engine in ("ddp", "fsdp2")
    for case, shares in (
        ("full", (("2", 2), ("4", 4), ("2", 4), ("2ring", 2), ("4ring", 4))),
        *((case, (("2", 4), ("4ring", 4))) for case in ("frozen", "adapters", "checkpointing")),
        ("averaged", (("2", 2),)),
    )
    for context, ranks in shares
)


@pytest.fixture(scope="module")
def cases(
    rows_folder: Path,
    photos: dict[str, Path],
    clips: dict[str, Path],
    tmp_path_factory: Any,
    request: pytest.FixtureRequest,
) -> Mapping[str, Case]:
    folder = tmp_path_factory.mktemp("engine-rows")
    epochs = GRID_EPOCHS if request.config.getoption("--engines") else EPOCHS
    shown = [
        {"video": str(clips[name]), "question": "What is shown?", "answer": f"a {name} clip"}
        for name in ("steady", "uneven", "frames")
    ]
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
    preferences = [
        {"image": str(path), "prompt": "<image>What is it?", "chosen": name, "rejected": "Nothing."}
        for name, path in photos.items()
    ]
    preferences += [
        {"prompt": f"{n} and 2?", "chosen": f"{n + 2}", "rejected": "It is so."} for n in range(6)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in preferences))
    sources = [
        {"json_path": str(rows_folder / f"{name}.jsonl"), "name": name}
        for name in ("photos", "pairs", "words")
    ]
    mixed = [*sources, {"json_path": str(folder / "clips.jsonl"), "name": "clips"}]
    full: Changes = {
        "data.mixture": mixed,
        "data.max_frames": 3,
        "data.max_tokens_per_pack": 160,
        "data.eval_mixture": [sources[0], sources[2]],
        "eval.max_rows": 5,
        "eval.max_new_tokens": 3,
        "train.optim": "sgd",
        "train.language_model_lr": 0.05,
        "train.connector_lr": 0.05,
        "train.vision_tower_lr": 0.01,
        "train.packs_per_step": 4,
        "train.num_train_epochs": epochs,
    }
    unclipped = {
        "train.max_grad_norm": 0.0,
        "train.language_model_lr": 0.01,
        "train.connector_lr": 0.01,
    }
    frozen = full | {"train.vision_tower_lr": 0.0, "data.eval_mixture": None}

    def checkpointing_of(choice: Checkpointing) -> Changes:
        return {"train.activation_checkpointing": choice, "data.eval_mixture": None}

    checkpointing = checkpointing_of(True)
    adapters = {
        "adapters.language": "lora",
        "train.optim": "adamw_torch",
        "train.language_model_lr": 1e-3,
        "train.connector_lr": 1e-3,
    }
    dpo = {
        "train.method": "dpo",
        "train.num_train_epochs": 3 * epochs,
        "data.mixture": [{"json_path": str(folder / "pairs.jsonl")}],
        "data.eval_mixture": None,
    }
    return {
        "full": Case(full | unclipped, chunk_targets=16, max_weight_error=1e-6),
        "frozen": Case(frozen | unclipped, max_weight_error=1e-6),
        "checkpointing": Case(full | unclipped | checkpointing, max_weight_error=1e-6),
        "language_again": Case(
            full | unclipped | checkpointing_of("language_model"), max_weight_error=1e-6
        ),
        "tower_again": Case(
            full | unclipped | checkpointing_of("vision_tower"), max_weight_error=1e-6
        ),
        "averaged": Case(
            full | unclipped | {"data.average_frames": 2, "data.eval_mixture": None},
            max_weight_error=1e-6,
        ),
        "alone": Case(full | unclipped | {"data.eval_mixture": None}, max_weight_error=1e-6),
        "adapters": Case(
            frozen | checkpointing | adapters, weights_file=ADAPTER_WEIGHTS, max_weight_error=1e-4
        ),
        "dpo": Case(full | dpo),
    }


@dataclass(frozen=True, slots=True)
class EngineRuns:
    """Finished runs, by (case, engine, ranks); one rank is the run that the others are held to."""

    folders: Mapping[tuple[str, str, int], Path]
    moved: Path
    """Of the case `full`: two ranks of FSDP2, then four of DDP, two of which hold a pack together,
    then one."""
    unmoved: Path
    """The same settings on one rank, never stopped."""


@pytest.fixture(scope="module")
def runs(
    cases: Mapping[str, Case],
    write_run: Any,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> EngineRuns:
    root = tmp_path_factory.mktemp("engines")
    wanted = selected_keys(request, "shared")
    wanted = [*((case, "ddp", 1) for case in dict.fromkeys(key[0] for key in wanted)), *wanted]
    jobs: list[dict[str, Any]] = []

    def job(folder: Path, case: str, engine: str, ranks: int, **more: Any) -> None:
        engine, _, context = engine.partition("+")
        settings = cases[case].changes | {
            "train.engine": {"type": "deepspeed", "config": f"{engine}.json"}
            if engine.startswith("zero")
            else engine,
            **({"train.context_ranks": int(context.removesuffix("ring"))} if context else {}),
            **({"train.context_exchange": "ring"} if context.endswith("ring") else {}),
            **({"train.ddp_backend": "gloo"} if ranks > 1 else {}),
            **more.pop("changes", {}),
        }
        written = {"run": str(write_run(folder, settings)), "ranks": ranks, **more}
        if (chunk := cases[case].chunk_targets) is not None:
            written["chunk_targets"] = chunk
        jobs.append(written)

    for case, engine, ranks in wanted:
        job(root / f"{case}-{engine}-{ranks}", case, engine, ranks)
    saved = {
        "train.optim": "adamw_torch",
        "train.language_model_lr": 1e-3,
        "train.connector_lr": 1e-3,
        "train.save_strategy": "steps",
        "train.save_steps": CHECKPOINT,
        "data.eval_mixture": None,
    }
    job(root / "unmoved", "full", "ddp", 1, changes=saved)
    for number, (engine, ranks) in enumerate((("fsdp2", 2), ("ddp+2", 4), ("ddp", 1))):
        dies = {"dies_in_step": DIES_IN_STEP + CHECKPOINT * number} if ranks > 1 else {}
        folder = root / f"moved-{number}"
        output = {"train.output_dir": str(root / "moved" / "out")}
        job(folder, "full", engine, ranks, changes=saved | output, **dies)
    (root / "jobs.json").write_text(json.dumps(jobs))
    with runs_apart("engines/engine_runs.py", root / "jobs.json", logs=root, timeout_s=TIMEOUT_S):
        pass
    folders = {key: root / f"{key[0]}-{key[1]}-{key[2]}" / "out" for key in wanted}
    return EngineRuns(folders, moved=root / "moved" / "out", unmoved=root / "unmoved" / "out")


@pytest.fixture(autouse=True)
def ended_well(request: pytest.FixtureRequest, runs: EngineRuns) -> None:
    """Hold a test's runs to have ended as they should, with what they said otherwise."""
    if "shared" in request.fixturenames:
        shared = request.getfixturevalue("shared")
        found = [runs.folders[key] for key in (shared, (shared[0], "ddp", 1))]
    else:
        moved = runs.moved.parents[1]
        found = [runs.unmoved, *(moved / f"moved-{number}" / "out" for number in range(3))]
    for folder in found:
        assert problem_of(folder.parent) is None, problem_of(folder.parent)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shared" in metafunc.fixturenames:
        wanted = GRID if metafunc.config.getoption("--engines") else SHARED
        metafunc.parametrize("shared", wanted, ids=lambda key: "-".join(map(str, key)))


def weight_errors(one: Path, other: Path, name: str) -> dict[str, float]:
    ours, theirs = load_file(other / name), load_file(one / name)
    assert ours.keys() == theirs.keys()
    return {
        key: float((ours[key] - value).norm() / value.norm().clamp_min(1e-6))
        for key, value in theirs.items()
        if not key.endswith("k_proj.bias")  # softmax cancels it: its gradient is rounding alone
    }


def test_losses_rows_and_counts_are_those_of_one_rank(
    runs: EngineRuns, shared: tuple[str, str, int]
) -> None:
    one, other = runs.folders[shared[0], "ddp", 1], runs.folders[shared]
    assert rows(other / "samples.jsonl") == rows(one / "samples.jsonl")
    ours, theirs = (
        [row for row in rows(folder / "metrics.jsonl") if "loss" in row] for folder in (other, one)
    )
    assert len(theirs) >= 6
    for our, their in zip(ours, theirs, strict=True):
        assert our["loss"] == pytest.approx(their["loss"], rel=1e-6)
        assert our["grad_norm"] == pytest.approx(their["grad_norm"], rel=1e-4)
        for name in ("num_tokens", "num_supervised_tokens", "num_tiles", "num_samples", "epoch"):
            assert our[name] == their[name]


def test_the_weights_are_those_of_one_rank(
    runs: EngineRuns, cases: Mapping[str, Case], shared: tuple[str, str, int]
) -> None:
    case = cases[shared[0]]
    one, other = runs.folders[shared[0], "ddp", 1], runs.folders[shared]
    errors = weight_errors(one, other, case.weights_file)
    assert max(errors.values()) < case.max_weight_error, sorted(errors.items(), key=lambda e: -e[1])


def test_answers_and_held_out_loss_are_those_of_one_rank(
    runs: EngineRuns, cases: Mapping[str, Case], shared: tuple[str, str, int]
) -> None:
    one, other = runs.folders[shared[0], "ddp", 1], runs.folders[shared]
    is_evaluated = cases[shared[0]].changes["data.eval_mixture"] is not None
    assert (one / "predictions.jsonl").is_file() == is_evaluated
    if is_evaluated:
        shared, alone = rows(other / "predictions.jsonl"), rows(one / "predictions.jsonl")
        for row, expected in zip(shared, alone, strict=True):
            assert row == expected | {"loss": pytest.approx(expected["loss"], rel=1e-5)}


def test_the_end_is_a_whole_stock_model(
    runs: EngineRuns, cases: Mapping[str, Case], shared: tuple[str, str, int]
) -> None:
    if cases[shared[0]].weights_file == ADAPTER_WEIGHTS:
        assert (runs.folders[shared] / "adapter_config.json").is_file()
        return
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(runs.folders[shared])
    assert not any(name.startswith("FSDP") for name in model.config.architectures)


def test_the_engine_says_what_it_holds(runs: EngineRuns, shared: tuple[str, str, int]) -> None:
    case, engine, ranks = shared
    engine = engine.partition("+")[0]
    logs = [(runs.folders[shared].parent / f"rank-{rank}.log").read_text() for rank in range(ranks)]
    assert [log.count("engine fsdp2: ") for log in logs] == [engine == "fsdp2", *[0] * (ranks - 1)]
    facts = json.loads((runs.folders[shared] / "run.json").read_text())
    assert facts["device"]["engine"] == ("deepspeed" if engine.startswith("zero") else engine)
    if engine == "fsdp2" and case == "full":
        assert f"engine fsdp2: 59 of 59 parameters in shards over {ranks} ranks" in logs[0]


def test_a_run_moves_between_engines_and_numbers_of_ranks(runs: EngineRuns) -> None:
    """AdamW's moments and the schedule move too; the weights would tell."""
    log = (runs.moved.parents[1] / "moved-1" / "rank-0.log").read_text()
    assert f"resuming from {runs.moved / f'checkpoint-{CHECKPOINT}'}" in log
    log = (runs.moved.parents[1] / "moved-2" / "rank-0.log").read_text()
    assert f"resuming from {runs.moved / f'checkpoint-{2 * CHECKPOINT}'}" in log
    ours, theirs = (
        [row for row in rows(folder / "metrics.jsonl") if "loss" in row]
        for folder in (runs.moved, runs.unmoved)
    )
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-6)
    assert [row["learning_rate_connector"] for row in ours] == [
        row["learning_rate_connector"] for row in theirs
    ]
    errors = weight_errors(runs.unmoved, runs.moved, "model.safetensors")
    assert max(errors.values()) < 1e-5, errors
