"""Which checkpoint a run resumes from: the newest whole one of the same run, and no other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolvlm.config.load import config_from
from smolvlm.datasets.packing.lengths import Budget, LengthTable
from smolvlm.datasets.packing.plan import Plan, PlanSettings, plan_training
from smolvlm.errors import ConfigError
from smolvlm.train.checkpoint_folder import mark_whole
from smolvlm.train.resuming import RunIdentity, find_checkpoint, resume_notes, run_identity

SETTINGS: dict[str, Any] = {
    "model": {"path": "some/model"},
    "data": {
        "max_tokens_per_pack": 64,
        "mixture": [{"json_path": "rows.jsonl"}],
        "vision_cache": True,
    },
    "train": {
        "output_dir": "out",
        "language_model_lr": 1e-4,
        "arguments": {"seed": 1, "save_steps": 5},
    },
    "eval": {"batch_size": 8},
}


STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def planned(num_rows: int = 12, *, seed: int = 1) -> Plan:
    lengths = np.full(num_rows, 10, np.int32)
    table = LengthTable(
        num_tokens=lengths,
        num_tiles=lengths * 0,
        num_supervised_tokens=lengths,
        prefix_tokens=lengths * 0,
        prefix_tiles=lengths * 0,
        prefix_group=lengths * 0 - 1,
        repeats=np.ones(num_rows, np.float32),
    )
    budget = Budget(max_tokens=20, max_tiles=1)
    settings = PlanSettings(
        budget=budget, packs_per_step=2, share_media=True, max_branches=4, seed=seed
    )
    return plan_training(table, settings)


def identity(changes: dict[str, Any] | None = None, *, plan: Plan | None = None) -> RunIdentity:
    settings = json.loads(json.dumps(SETTINGS))
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        section = settings
        for own in sections:
            section = section[own]
        section[name] = value
    return run_identity(settings, plan or planned())


def checkpoint(output_dir: Path, step: int, run: RunIdentity | None = None) -> Path:
    """Make a checkpoint folder, marked as whole for a run."""
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    if run is not None:
        for name in STATE:
            (folder / name).write_text("state")
        mark_whole(folder, run.as_marker(step=step))
    return folder


def test_the_newest_whole_checkpoint_is_found_and_one_cut_off_is_passed_over(
    tmp_path: Path,
) -> None:
    folders = [checkpoint(tmp_path, step, identity()) for step in (5, 10, 100)]
    cut_off = checkpoint(tmp_path, 200)
    (cut_off / ".smolvlm.json").write_text("{")
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) == folders[-1]


def test_a_checkpoint_of_damaged_content_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path, step, identity()) for step in (5, 10, 15)]
    for folder in folders[1:]:
        (folder / "optimizer.pt").write_text("\0\0\0\0\0")
    resume = find_checkpoint("auto", output_dir=tmp_path, identity=identity())
    assert resume == folders[0]
    assert resume_notes("auto", output_dir=tmp_path, resume=resume) == [
        f"note: {folder} is passed over: optimizer.pt changed since it was written"
        for folder in folders[1:]
    ]
    with pytest.raises(ConfigError, match=r"optimizer\.pt changed since it was written"):
        find_checkpoint(folders[1], output_dir=tmp_path, identity=identity())
    (folders[0] / "optimizer.pt").write_text("\0\0\0\0\0")
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) is None
    notes = resume_notes("auto", output_dir=tmp_path, resume=None)
    assert len(notes) == 4
    assert notes[-1] == "note: the run begins at its first step"


def test_without_a_whole_checkpoint_or_on_false_the_run_starts_fresh(tmp_path: Path) -> None:
    assert find_checkpoint("auto", output_dir=tmp_path / "none", identity=identity()) is None
    checkpoint(tmp_path, 5)
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) is None
    checkpoint(tmp_path, 10, identity())
    assert find_checkpoint(False, output_dir=tmp_path, identity=identity()) is None


def test_a_checkpoint_can_be_named(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "other", 5, identity())
    checkpoint(tmp_path / "other", 10, identity())
    assert find_checkpoint(first, output_dir=tmp_path, identity=identity()) == first


def test_naming_one_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        find_checkpoint(tmp_path / "missing", output_dir=tmp_path, identity=identity())
    with pytest.raises(ConfigError, match="not a whole checkpoint of this program"):
        find_checkpoint(checkpoint(tmp_path, 5), output_dir=tmp_path, identity=identity())


def test_every_setting_that_differs_is_named_with_both_values(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5, identity())
    changes = {
        "train.language_model_lr": 2e-4,
        "data.max_tokens_per_pack": 128,
        "train.arguments.weight_decay": 0.1,
    }
    with pytest.raises(ConfigError) as caught:
        find_checkpoint("auto", output_dir=tmp_path, identity=identity(changes))
    assert caught.value.where == str(folder)
    assert caught.value.what.splitlines() == [
        "the checkpoint belongs to another run:",
        "- data.max_tokens_per_pack: 64 there, 128 here",
        "- train.weight_decay: (not set) there, 0.1 here",
        "- train.language_model_lr: 0.0001 there, 0.0002 here",
    ]


def test_settings_that_do_not_shape_the_training_may_differ(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5, identity())
    changes = {
        "train.output_dir": "elsewhere",
        "train.arguments.save_steps": 7,
        "train.arguments.logging_steps": 1,
        "train.arguments.dataloader_num_workers": 2,
        "data.vision_cache": False,
        "data.vision_cache_max_gb": 2.0,
        "data.eval_mixture": "eval.yaml",
        "eval.batch_size": 1,
        "train.activation_checkpointing": "language_model",
    }
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity(changes)) == folder


def test_checkpointing_that_an_earlier_version_held_to_shape_the_run_may_differ(
    tmp_path: Path,
) -> None:
    now = identity({"train.activation_checkpointing": False})
    before = {**now.settings, "train.arguments.activation_checkpointing": True}
    folder = checkpoint(tmp_path, 5, RunIdentity(settings=before, plan=now.plan))
    assert find_checkpoint("auto", output_dir=tmp_path, identity=now) == folder


@pytest.mark.parametrize(
    ("sections", "written_before"),
    [
        (
            {"train": {"method": "sft"}},
            {"train.loss_type": "sigmoid", "train.beta": 0.1, "train.reference_model": None},
        ),
        (
            {"train": {"method": "dpo", "beta": 0.3}},
            {"train.beta": 0.3, "train.loss_type": "sigmoid"},
        ),
        (
            {},
            {
                "quantization.bits": None,
                "quantization.towers": None,
                "quantization.double_quant": None,
            },
        ),
        (
            {"quantization": {"bits": 8}},
            {"quantization.quant_type": None, "quantization.towers": None},
        ),
    ],
)
def test_a_checkpoint_of_an_earlier_version_which_wrote_every_setting_is_the_same_run(
    tmp_path: Path, sections: dict[str, Any], written_before: dict[str, Any]
) -> None:
    required = {
        "model": {"path": "some/model"},
        "data": {"mixture": []},
        "adapters": {"language": "lora"},
    }
    train = {"output_dir": "out", **sections.get("train", {})}
    config = config_from({**required, **sections, "train": train}, where="settings")
    now = run_identity(config.model_dump(mode="json"), planned())
    before = RunIdentity(settings={**now.settings, **written_before}, plan=now.plan)
    folder = checkpoint(tmp_path, 5, before)
    assert find_checkpoint("auto", output_dir=tmp_path, identity=now) == folder
    other = RunIdentity(
        settings={**now.settings, "train.method": "dpo", "train.beta": 0.4}, plan=now.plan
    )
    with pytest.raises(ConfigError, match=r"- train\.beta: "):
        find_checkpoint("auto", output_dir=tmp_path, identity=other)


@pytest.mark.parametrize(
    "plan", [planned(13), planned(seed=2)], ids=["another row", "another order"]
)
def test_other_rows_are_refused(tmp_path: Path, plan: Plan) -> None:
    checkpoint(tmp_path, 5, identity())
    with pytest.raises(
        ConfigError, match="the rows: their order, or the sizes of their media, changed since"
    ):
        find_checkpoint("auto", output_dir=tmp_path, identity=identity(plan=plan))


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        (("open", True), ("open", True), True),
        (
            ("open", True),
            ("open", False),
            True,
        ),  # begun on a GPU, resumed on a CPU that leaves it open too
        (("open", False), ("open", True), True),
        (("open", True), (True, False), True),  # and on a CPU that is told to keep it
        (("open", False), (False, False), True),
        ((True, False), ("open", True), True),
        (("open", True), (False, False), False),
        (("open", False), (True, False), False),
        ((True, False), ("open", False), False),
        ((True, False), (False, False), False),
    ],
)
def test_a_precision_that_the_device_chose_may_change_and_one_that_is_written_may_not(
    tmp_path: Path, before: tuple[Any, bool], after: tuple[Any, bool], is_same: bool
) -> None:
    """Each is what the run file says of bf16, and whether the device chose it."""
    first, second = (
        run_identity(with_bf16(written), planned(), is_bf16_default=is_chosen)
        for written, is_chosen in (before, after)
    )
    folder = checkpoint(tmp_path, 5, first)
    if is_same:
        assert find_checkpoint("auto", output_dir=tmp_path, identity=second) == folder
        return
    with pytest.raises(ConfigError, match=r"\n- train\.bf16: .* there, .* here\n"):
        find_checkpoint("auto", output_dir=tmp_path, identity=second)


def with_bf16(written: Any) -> dict[str, Any]:
    settings = json.loads(json.dumps(SETTINGS))
    if written != "open":
        settings["train"]["arguments"]["bf16"] = written
    return settings


def test_the_marker_says_what_the_checkpoint_is(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5, identity())
    content = json.loads((folder / "smolvlm.json").read_text())
    assert content["step"] == 5
    assert content["settings"]["model.path"] == "some/model"
    assert "train.output_dir" not in content["settings"]
    assert content["files"] == dict.fromkeys(sorted(STATE), len("state"))
    assert {path.name for path in folder.iterdir()} == {"smolvlm.json", *STATE}


def test_a_newer_one_that_is_damaged_is_passed_over_and_said(tmp_path: Path) -> None:
    older = checkpoint(tmp_path, 5, identity())
    newest = checkpoint(tmp_path, 10, identity())
    (newest / "optimizer.pt").write_text("")
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) == older
    assert resume_notes("auto", output_dir=tmp_path, resume=older) == [
        f"note: {newest} is passed over: optimizer.pt changed in size since it was written"
    ]
    assert resume_notes(older, output_dir=tmp_path, resume=older) == []


def test_a_run_that_begins_anew_beside_a_damaged_checkpoint_says_so(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) is None
    notes = resume_notes("auto", output_dir=tmp_path, resume=None)
    assert notes[0].startswith(f"note: {tmp_path}/checkpoint-5 is passed over: not a whole")
    assert notes[1:] == ["note: the run begins at its first step"]
    assert resume_notes("auto", output_dir=tmp_path / "none", resume=None) == []


@pytest.mark.parametrize("is_named", [False, True])
def test_nothing_is_resumed_from_weights_alone(tmp_path: Path, is_named: bool) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    for name in ("model.safetensors", "trainer_state.json"):
        (folder / name).touch()
    mark_whole(folder, identity().as_marker(step=5))
    choice = folder if is_named else "auto"
    with pytest.raises(ConfigError) as caught:
        find_checkpoint(choice, output_dir=tmp_path, identity=identity())
    assert str(caught.value) == (
        f"{folder}: nothing can be resumed from it: it lacks the optimizer's state, the schedule's "
        "state, the state of the random numbers (train.save_only_model: true saves none of them)\n"
        f"  fix: to train on with an optimizer begun anew, set model.path: {folder} and another "
        "train.output_dir; to begin this run anew, set train.resume_from_checkpoint: false"
    )
    older = checkpoint(tmp_path, 3, identity())
    if not is_named:
        assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) == older


@pytest.mark.parametrize("lost", STATE)
def test_one_lost_file_of_the_state_is_named(tmp_path: Path, lost: str) -> None:
    folder = checkpoint(tmp_path, 5, identity())
    (folder / lost).unlink()
    with pytest.raises(ConfigError, match=rf"checkpoint-5: {lost} is missing\n  fix: choose"):
        find_checkpoint(folder, output_dir=tmp_path, identity=identity())


@pytest.mark.parametrize("lost", STATE)
def test_a_lost_file_is_found_where_an_earlier_version_listed_none(
    tmp_path: Path, lost: str
) -> None:
    folder = checkpoint(tmp_path, 5, identity())
    marker = json.loads((folder / "smolvlm.json").read_text())
    del marker["files"], marker["sha256"]
    (folder / "smolvlm.json").write_text(json.dumps(marker))
    assert find_checkpoint("auto", output_dir=tmp_path, identity=identity()) == folder
    (folder / lost).unlink()
    with pytest.raises(ConfigError, match="nothing can be resumed from it: it lacks the"):
        find_checkpoint("auto", output_dir=tmp_path, identity=identity())


def test_a_run_that_is_moved_with_its_data_and_model_is_the_same(tmp_path: Path) -> None:
    def run(root: Path, mixture: str = "rows/mix.yaml") -> RunIdentity:
        sources = [{"json_path": str(root / "rows/a.jsonl"), "path": "pictures"}]
        changes = {
            "train.output_dir": str(root / "runs/first"),
            "data.mixture": str(root / mixture),
            "data.extra": sources,
            "model.path": str(root / "model"),
        }
        return identity(changes)

    saved = run(tmp_path / "before")
    folder = checkpoint(tmp_path / "out", 5, saved)
    moved = run(tmp_path / "after" / "deeper")
    assert moved.settings != saved.settings
    assert find_checkpoint(folder, output_dir=tmp_path, identity=moved) == folder
    other = run(tmp_path / "after", mixture="rows/other.yaml")
    with pytest.raises(ConfigError, match=r"data\.mixture: .*before.* there, .*other\.yaml here"):
        find_checkpoint(folder, output_dir=tmp_path, identity=other)


def test_a_setting_that_came_later_is_its_default_in_earlier_checkpoints(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5, identity())
    same = identity({"data.supervise": "assistant", "data.mark_newlines": "drop"})
    assert find_checkpoint(folder, output_dir=tmp_path, identity=same) == folder
    with pytest.raises(ConfigError, match=r"data\.supervise: \(not set\) there, text here"):
        find_checkpoint(folder, output_dir=tmp_path, identity=identity({"data.supervise": "text"}))
