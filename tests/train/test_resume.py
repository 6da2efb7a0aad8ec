"""A run that is killed and started again with the same command is the run that was never
stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.checkpoint_folder import MARKER, whole_checkpoints
from smolvlm.train.log import MEASURED_KEYS
from smolvlm.train.train import train

KILLED_IN_STEP, CHECKPOINT = 9, 6


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module", params=["cached", "workers"])
def stopped(forked_runs: Any, request: pytest.FixtureRequest) -> Any:
    """A run with a frozen tower and cached features; one that trains all towers, with two loader
    workers."""
    return forked_runs.stopped[request.param]


def test_it_was_killed_after_a_checkpoint_and_went_on_from_there(stopped: Any) -> None:
    assert f"step {KILLED_IN_STEP - 1}/" in stopped.messages_before
    assert f"step {KILLED_IN_STEP}/" not in stopped.messages_before
    assert f"resuming from {stopped.resumed / f'checkpoint-{CHECKPOINT}'}\n" in stopped.messages
    assert f"step {CHECKPOINT + 1}/" in stopped.messages
    assert f"step {CHECKPOINT}/" not in stopped.messages


def test_losses_rates_and_counts_are_equal_to_the_last_bit(stopped: Any) -> None:
    lines = [row for row in rows(stopped.resumed / "metrics.jsonl") if "loss" in row]
    for ours, theirs in zip(lines, stopped.whole.steps, strict=True):
        assert {key: ours[key] for key in ours.keys() - MEASURED_KEYS} == {
            key: theirs[key] for key in theirs.keys() - MEASURED_KEYS
        }


def test_the_same_rows_were_learned_from_in_every_step(stopped: Any) -> None:
    assert rows(stopped.resumed / "samples.jsonl") == rows(stopped.whole.folder / "samples.jsonl")


def test_the_weights_are_equal_to_the_last_bit(stopped: Any) -> None:
    ours, theirs = (
        load_file(folder / "model.safetensors")
        for folder in (stopped.resumed, stopped.whole.folder)
    )
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_the_resumed_run_leaves_what_any_run_leaves(stopped: Any) -> None:
    assert (stopped.resumed / "report.html").stat().st_size > 0
    last = len(stopped.whole.steps)
    assert [path.name for path in whole_checkpoints(stopped.resumed)][-1] == f"checkpoint-{last}"


def test_both_starts_are_kept_and_the_newest_stands_on_top(stopped: Any) -> None:
    content = json.loads((stopped.resumed / "run.json").read_text())
    earlier = content.pop("earlier")
    assert [start["step"] for start in (*earlier, content)] == [0, CHECKPOINT]
    assert earlier[0].keys() | {"seconds"} == content.keys(), "the killed one never ended"
    assert earlier[0]["started_at"] <= content["started_at"]
    assert stopped.messages.count("\nruns on         cpu (") == 1
    assert "goes on in" not in stopped.messages, "the precision is the same"


def changed(run: Any, **changes: Any) -> Any:
    """Return the settings of a finished run, some changed, as `section__key=value`."""
    file = run.resumed.parent / "run.yaml"
    return load_run_config(
        file, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    )


def test_changed_settings_are_refused_and_each_is_named(stopped: Any) -> None:
    config = changed(
        stopped, train__connector_lr=3e-4, data__max_tokens_per_pack=256, train__weight_decay=0.5
    )
    with pytest.raises(ConfigError, match="belongs to another run") as caught:
        train(config)
    assert "- train.connector_lr: 0.0005 there, 0.0003 here" in caught.value.what
    assert "- data.max_tokens_per_pack: 128 there, 256 here" in caught.value.what
    assert "- train.weight_decay: (not set) there, 0.5 here" in caught.value.what
    assert caught.value.what.count("\n- ") == 3


def test_changed_rows_are_refused(stopped: Any) -> None:
    words = Path(
        yaml.safe_load((stopped.resumed / "run.yaml").read_text())["data"]["mixture"][2][
            "json_path"
        ]
    )
    before = words.read_text()
    words.write_text(
        before.replace(
            '"What is 3 plus 3?"', '"What is the sum of three and three, if you please?"'
        )
    )
    try:
        with pytest.raises(ConfigError, match=r"words.jsonl:4: another text, or other media"):
            train(changed(stopped))
    finally:
        words.write_text(before)


def test_false_starts_afresh_and_writes_over_what_was_there(
    forked_runs: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = forked_runs.stopped["cached"]
    changes = {"train__resume_from_checkpoint": "false", "train__num_train_epochs": 0.5}
    fresh = train(changed(run, **changes))
    assert "resuming from" not in capsys.readouterr().err
    lines = rows(run.resumed / "metrics.jsonl")
    last = fresh.planned.plan.num_steps
    assert [row["step"] for row in lines] == list(range(1, last + 1))
    assert json.loads((run.resumed / f"checkpoint-{last}" / MARKER).read_text())["step"] == last
    assert json.loads((run.resumed / "run.json").read_text())["earlier"] == []
