"""Which checkpoint folders are whole, what is said of the others, and which are deleted."""

import json
import os
from pathlib import Path

import pytest

from smolvlm.disk.atomic_files import write_json
from smolvlm.train.checkpoint_folder import (
    MARKER,
    changed_content,
    clear,
    damage_of,
    delete_oldest,
    mark_whole,
    missing_state,
    passed_over,
    whole_checkpoints,
)

CONTENT = {"step": 5, "settings": {}, "plan": "digest"}
FILES = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def checkpoint(output_dir: Path, name: str) -> Path:
    folder = output_dir / name
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text("content")
    mark_whole(folder, CONTENT)
    return folder


def test_a_whole_one_has_no_damage_and_may_gain_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "checkpoint-5")
    (folder / "notes.txt").touch()
    assert damage_of(folder) is None
    assert missing_state(folder) == []
    assert whole_checkpoints(tmp_path) == [folder]
    assert passed_over(tmp_path) == []


def test_each_stranger_and_each_damaged_one_is_passed_over_and_says_why(tmp_path: Path) -> None:
    whole = [checkpoint(tmp_path, f"checkpoint-{step}") for step in (2, 10)]
    for name in ("checkpoint-best", "checkpoint-12-old", "checkpoint-20", "checkpoint-21"):
        checkpoint(tmp_path, name)
    (tmp_path / "checkpoint-20" / MARKER).write_text("")
    (tmp_path / "checkpoint-21" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-21" / "model.safetensors").unlink()
    (tmp_path / "checkpoint-7").touch()
    (tmp_path / "checkpoint-30").mkdir()
    (checkpoint(tmp_path, "checkpoint-22") / "model.safetensors").write_text("pointer")
    (tmp_path / "checkpoint-22" / "model.safetensors").write_text("of git-lfs")
    assert whole_checkpoints(tmp_path) == whole
    reasons = {
        "12-old": "its name is not checkpoint-<step>",
        "20": "its smolvlm.json is empty or damaged",
        "21": "model.safetensors, optimizer.pt are missing",
        "22": "model.safetensors changed in size since it was written",
        "30": "not a whole checkpoint of this program: it has no smolvlm.json",
        "7": "it is a file, not a folder",
        "best": "its name is not checkpoint-<step>",
    }
    assert passed_over(tmp_path) == [
        f"note: {tmp_path}/checkpoint-{name} is passed over: {why}" for name, why in reasons.items()
    ]


def test_any_files_are_vouched_for_by_size_and_content(tmp_path: Path) -> None:
    """As engines name them, in folders of their own too."""
    folder = tmp_path / "checkpoint-5"
    shard = folder / "global_step5" / "bf16_zero_pp_rank_0_optim_states.pt"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"some weights" * 1000)
    mark_whole(folder, CONTENT)
    assert changed_content(folder) is None
    with shard.open("r+b") as file:
        file.seek(600)
        file.write(b"\0" * 64)
    assert damage_of(folder) is None, "its size is the same"
    name = "global_step5/bf16_zero_pp_rank_0_optim_states.pt"
    assert changed_content(folder) == f"{name} changed since it was written"
    shard.write_bytes(b"")
    assert damage_of(folder) == f"{name} changed in size since it was written"


def test_a_marker_of_an_earlier_version_has_no_digests(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "checkpoint-5")
    marker = json.loads((folder / MARKER).read_text())
    del marker["sha256"]
    (folder / MARKER).write_text(json.dumps(marker))
    (folder / "optimizer.pt").write_text("CONTENT")
    assert damage_of(folder) is changed_content(folder) is None


def test_files_and_names_are_on_the_disk_before_the_marker_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        real_sync(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}/"))

    def replace(self: Path, target: Path) -> Path:
        synced.append("the marker's name")
        return real_replace(self, target)

    folder = tmp_path / "out" / "checkpoint-5"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (folder / name).write_text("content")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    mark_whole(folder, CONTENT)
    before, after = synced[: synced.index("the marker's name")], synced[-1]
    assert {f"out/checkpoint-5{name}" for name in ("", "/a", "/deep", "/deep/b")} < set(before)
    assert "out" in before
    assert before[-1].startswith(f"out/checkpoint-5/.{MARKER}."), "the marker's own content"
    assert after == "out/checkpoint-5"


def test_a_folder_that_is_written_anew_keeps_nothing_of_a_killed_writer(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "checkpoint-5")
    (folder / ".tmpXa81").write_bytes(bytes(26_000))
    clear(folder)
    assert not folder.exists()
    clear(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": []}', '{"settings": {}}'])
def test_a_damaged_marker(tmp_path: Path, text: str) -> None:
    folder = checkpoint(tmp_path, "checkpoint-5")
    (folder / MARKER).write_text(text)
    assert damage_of(folder) == "its smolvlm.json is empty or damaged"


def test_weights_alone_lack_their_state(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "checkpoint-5")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (folder / name).unlink()
    assert missing_state(folder) == [
        "the optimizer's state",
        "the schedule's state",
        "the state of the random numbers",
        "the trainer's state (trainer_state.json)",
    ]


def test_the_oldest_are_deleted_and_strangers_stay(tmp_path: Path) -> None:
    for age, name in enumerate(["9", "best", "12-old", "1", "2", "3"]):
        os.utime(checkpoint(tmp_path, f"checkpoint-{name}"), (age, age))
    delete_oldest(tmp_path, limit=2, best=None)
    left = {path.name.removeprefix("checkpoint-") for path in tmp_path.iterdir()}
    assert left == {"best", "12-old", "2", "3"}, "9 is of an earlier run, and older"
    delete_oldest(tmp_path, limit=1, best=str(tmp_path / "checkpoint-2"))
    delete_oldest(tmp_path, limit=None, best=None)
    assert (tmp_path / "checkpoint-2").is_dir()
    delete_oldest(tmp_path, limit=1, best=None)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-best",
        "checkpoint-12-old",
        "checkpoint-3",
    }


class Unwritable:
    """Stands in the middle of what is to be written, and cannot be."""


def test_a_marker_that_is_cut_off_is_no_marker_and_spoils_no_former_one(tmp_path: Path) -> None:
    """As where the process ends while it writes: a part is on disk, under a name that nobody
    reads."""
    half_written = [*range(5000), Unwritable()]
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(TypeError):
        write_json(tmp_path / "checkpoint-5" / MARKER, half_written)
    assert whole_checkpoints(tmp_path) == []
    mark_whole(tmp_path / "checkpoint-5", CONTENT)
    before = (tmp_path / "checkpoint-5" / MARKER).read_text()
    with pytest.raises(TypeError):
        write_json(tmp_path / "checkpoint-5" / MARKER, half_written)
    assert (tmp_path / "checkpoint-5" / MARKER).read_text() == before
