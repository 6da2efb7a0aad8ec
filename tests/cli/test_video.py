"""Clips through every command: looked at, checked, trained on, answered about; two workers
decode."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path], photos: dict[str, Path]
) -> Path:
    """Rows about clips, and one about a picture and a clip, with a text between; a damaged clip in
    a file apart."""
    folder = tmp_path_factory.mktemp("video")
    rows = [
        {"video": str(clips["steady"]), "question": "What is it?", "answer": "A cup."},
        {"video": str(clips["steady"]), "question": "Does it move?", "answer": "Yes."},
        {
            "video": str(clips["uneven"]),
            "question": "And this?",
            "answer": "A cup too.",
            "start_s": 1,
            "end_s": 4,
        },
        {"video": str(clips["frames"]), "question": "And these?", "answer": "Frames."},
        {"question": "Hi?", "answer": "Ho."},
        {
            "conversations": [
                {"from": "human", "value": "Is <image> in <video>?"},
                {"from": "gpt", "value": "No."},
            ],
            "image": str(photos["horse"]),
            "video": str(clips["steady"]),
        },
    ]
    bad = {"video": str(clips["cut"]), "question": "What is it?", "answer": "Broken."}
    for name, own in {"rows": rows, "bad": [*rows, bad]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return folder


@pytest.fixture(scope="module")
def run_file(folder: Path, settings: dict[str, dict[str, Any]]) -> Path:
    """Four steps, answers at the end."""
    sources = [{"name": "clips", "json_path": str(folder / "rows.jsonl"), "source_fps": 4}]
    data = settings["data"] | {
        "mixture": sources,
        "eval_mixture": sources,
        "max_tokens_per_pack": 400,
        "fps": 2,
    }
    own = {"output_dir": str(folder / "out"), "dataloader_num_workers": 2, "num_train_epochs": 2}
    train = settings["train"] | own | {"eval_strategy": "no"}
    evaluation = settings["eval"] | {"max_rows": 6, "at_start": False}
    (folder / "run.yaml").write_text(
        yaml.safe_dump(settings | {"data": data, "train": train, "eval": evaluation})
    )
    return folder / "run.yaml"


def test_inspect_shows_frames_with_their_times(
    run_file: Path, folder: Path, smolvlm_command: Any
) -> None:
    outcome = smolvlm_command(
        "inspect", run_file, "--rows", "0:5", "--json", "--html", folder / "page.html"
    )
    assert outcome.status == 0, outcome.messages
    tree, uneven, frames, text, both = outcome.objects
    assert tree["frame_times_s"] == pytest.approx([0.0, 0.56, 1.16, 1.76, 2.36, 2.96])
    assert tree["num_tiles"] == 6
    assert len(tree["where"]) == 2
    assert (
        "following series of six frames from a 0:00:03 [H:MM:SS] video.\n\nFrame from 00:00:"
        in tree["text"]
    )
    assert uneven["frame_times_s"] == pytest.approx([1.0, 1.01, 2.3, 2.31, 3.0])
    assert frames["frame_times_s"] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.75])
    assert text["frame_times_s"] == []
    assert both["num_tiles"] == 5 + len(both["frame_times_s"])
    page = (folder / "page.html").read_text()
    assert "6 frames of 3.00 s" in page
    assert "0.56 s" in page


def test_inspect_shows_which_frames_are_averaged(
    run_file: Path, folder: Path, smolvlm_command: Any
) -> None:
    arguments = ("inspect", run_file, "data.average_frames=4", "--rows", "0:5")
    outcome = smolvlm_command(*arguments, "--json", "--html", folder / "averaged.html")
    assert outcome.status == 0, outcome.messages
    tree, uneven, _, _, both = outcome.objects
    assert tree["frame_times_s"] == pytest.approx([0.0, 0.56, 1.16, 1.76, 2.36, 2.96]), (
        "every frame's, one by one"
    )
    assert tree["num_tiles"] == 6
    assert (
        "following series of two frames from a 0:00:03 [H:MM:SS] video.\n\nFrame from 00:00:"
        in tree["text"]
    )
    assert [len(own["text"].split("Frame from")) - 1 for own in (tree, uneven, both)] == [2, 2, 2]
    assert both["text"].count("<image>") == 4 * (5 + 2)
    page = (folder / "averaged.html").read_text()
    assert "6 frames of 3.00 s, averaged in 2 groups" in page
    assert page.count('<div class="groups">') == 4  # a clip of each sample but the text's
    shown = smolvlm_command(*arguments)
    assert shown.status == 0, shown.messages
    assert "4 x &lt;image&gt; (mean of 4 frames, 0.00 to 1.76 s)" in page
    assert "4 x <image> (mean of 4 frames, 0.00 to 1.76 s)" in re.sub(
        r"[\s│├└─]+", " ", shown.messages
    )


@pytest.mark.parametrize("average_frames", [1, 2])
def test_packed_equals_alone_holds(
    run_file: Path, smolvlm_command: Any, average_frames: int
) -> None:
    more = [f"data.average_frames={average_frames}", "data.max_tokens_per_pack=1000"]
    outcome = smolvlm_command("inspect", run_file, *more, "--rows", "0:5", "--verify")
    assert outcome.status == 0, outcome.messages
    assert "ids        equal" in outcome.messages


def test_training_and_answering(run_file: Path, folder: Path, smolvlm_command: Any) -> None:
    outcome = smolvlm_command("train", run_file)
    assert outcome.status == 0, outcome.messages
    lines = [
        json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    predictions = [
        json.loads(line) for line in (folder / "out" / "predictions.jsonl").read_text().splitlines()
    ]
    assert {Path(name).name for own in predictions for name in own["images"]} == {
        "steady.mp4",
        "uneven.mp4",
        "frames",
        "horse.png",
    }


def test_training_with_averaged_frames(run_file: Path, folder: Path, smolvlm_command: Any) -> None:
    own = (run_file, f"train.output_dir={folder / 'averaged'}")
    outcome = smolvlm_command("train", *own, "data.average_frames=2")
    assert outcome.status == 0, outcome.messages
    assert (
        "note: 2 frames of a clip share one place (data.average_frames), which plain"
        in outcome.messages
    )
    assert len((folder / "averaged" / "predictions.jsonl").read_text().splitlines()) == 6
    answers = smolvlm_command("eval", folder / "averaged", "--json")
    assert answers.status == 0, answers.messages
    loss = {metric["name"]: metric["value"] for metric in answers.objects}["loss"]
    lines = [
        json.loads(line)
        for line in (folder / "averaged" / "metrics.jsonl").read_text().splitlines()
    ]
    (logged,) = (line["eval_loss"] for line in lines if "eval_loss" in line)
    assert loss == pytest.approx(logged, rel=1e-5), (
        "evaluated apart, the run's frames are averaged as in training"
    )
    plain = smolvlm_command("eval", folder / "averaged", "--json", "data.average_frames=1")
    assert {metric["name"]: metric["value"] for metric in plain.objects}["loss"] != pytest.approx(
        logged, rel=1e-3
    )
    again = smolvlm_command("train", *own, "data.average_frames=4")
    assert again.status == 1
    assert "data.average_frames: 2 there, 4 here" in again.messages


def test_prepare_counts_clips(folder: Path, settings: dict[str, Any], smolvlm_command: Any) -> None:
    (folder / "mixture.yaml").write_text(yaml.safe_dump([{"path": "rows.jsonl", "source_fps": 4}]))
    outcome = smolvlm_command(
        "prepare",
        folder / "mixture.yaml",
        "--json",
        "--model",
        settings["model"]["path"],
        "data.allow_outside_root=true",
        "data.max_tokens_per_pack=400",
    )
    assert outcome.status == 0, outcome.messages
    (source,) = outcome.objects
    assert (source["modality"], source["modalities"]) == ("video", {"text": 1, "video": 5})


def test_check_decodes_every_clip(
    folder: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    (folder / "bad.yaml").write_text(yaml.safe_dump([{"path": "bad.jsonl", "source_fps": 4}]))
    page = folder / "check.html"
    outcome = smolvlm_command(
        "check",
        folder / "bad.yaml",
        "--json",
        "--html",
        page,
        "--model",
        settings["model"]["path"],
        "data.allow_outside_root=true",
    )
    assert outcome.status == 1
    (found,) = outcome.objects
    assert (found["where"], found["kind"], found["severity"]) == (
        "bad.jsonl:7",
        "corrupt_media",
        "error",
    )
    assert "cut.mp4" in found["message"]
    assert "1 picture and 3 clips decoded: 1 error" in outcome.messages
    assert "Length of a clip" in page.read_text()


def test_preferences_are_inspected_verified_and_prepared(
    tmp_path: Path,
    settings: dict[str, Any],
    photos: dict[str, Path],
    clips: dict[str, Path],
    smolvlm_command: Any,
) -> None:
    rows = [
        {
            "prompt": "What is it?",
            "chosen": "7 cups.",
            "rejected": "A cup of coffee.",
            "image": str(photos["coffee"]),
        },
        {
            "prompt": "And here?",
            "chosen": "Coffee.",
            "rejected": "A film of it.",
            "video": str(clips["uneven"]),
        },
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {key: value for key, value in settings["data"].items() if key != "eval_mixture"}
    data |= {"mixture": [{"json_path": str(tmp_path / "pairs.jsonl")}], "max_tokens_per_pack": 400}
    train = {"output_dir": str(tmp_path / "out"), "method": "dpo", "use_cpu": True}
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump({"model": settings["model"], "data": data, "train": train})
    )
    inspected = smolvlm_command(
        "inspect", tmp_path / "run.yaml", "--rows", "0:2", "--json", "--verify"
    )
    assert inspected.status == 0, inspected.messages
    names = [[Path(where).name for where in own["where"]] for own in inspected.objects]
    assert names == [["pairs.jsonl:1"] * 2, ["pairs.jsonl:2"] * 2]
    assert (
        "<end_of_utterance>\nAssistant: 7 cups.<end_of_utterance>" in inspected.objects[0]["text"]
    )
    prepared = smolvlm_command("prepare", tmp_path / "run.yaml", "--json")
    assert prepared.status == 0, prepared.messages
    assert prepared.objects[0]["modalities"] == {"image": 1, "video": 1}
    checked = smolvlm_command("check", tmp_path / "run.yaml", "--json")
    assert (checked.status, checked.objects) == (0, [])
    averaged = smolvlm_command(
        "inspect", tmp_path / "run.yaml", "data.average_frames=2", "--rows", "0:2", "--verify"
    )
    assert averaged.status == 0, averaged.messages
    more = ["data.average_frames=2", "train.num_train_epochs=8", "train.logging_steps=1"]
    trained = smolvlm_command("train", tmp_path / "run.yaml", *more, "train.language_model_lr=1e-2")
    assert trained.status == 0, trained.messages
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.3
