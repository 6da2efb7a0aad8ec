"""`smolvlm check`: every kind of bad row is found, named and counted, and good rows are left in
peace."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.check import check_rows

GOOD = ("coffee", "rocket", "chelsea")


def asks(number: int, **more: Any) -> dict[str, Any]:
    return {"question": f"Question {number}?", "answer": f"answer {number}", **more}


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """Good rows, a row of every kind that is bad, and held-out rows that leak."""
    for name in GOOD:
        shutil.copy(photos[name], tmp_path / f"{name}{photos[name].suffix}")
    names = {name: f"{name}{photos[name].suffix}" for name in GOOD}
    whole = photos["coffee"].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "renamed.png").write_bytes(photos["rocket"].read_bytes())
    good = [asks(number, image=names[name]) for number, name in enumerate(GOOD)] + [asks(3)]
    bad = [
        asks(10, image="gone.png"),
        asks(11, image="cut.png"),
        asks(12, image="empty.jpg"),
        asks(13, image="../coffee.png"),
        {
            "conversations": [
                {"from": "human", "value": "<image><image>"},
                {"from": "gpt", "value": "x"},
            ],
            "image": "a.png",
        },
        asks(15, answer=" "),
        {"messages": [{"role": "robot", "content": "hi"}]},
        asks(17, question="why " * 5000),
        asks(3),
        asks(1, image="renamed.png"),
        "no object",
        asks(19, question="<video>Which?"),
    ]
    held_out = [asks(20), asks(3), asks(21, image=names["chelsea"])]
    for name, rows in {"good": good, "bad": bad, "held": held_out}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump([{"path": f"{name}.jsonl"}]))
    (tmp_path / "both.yaml").write_text(
        yaml.safe_dump([{"path": "good.jsonl"}, {"path": "bad.jsonl"}])
    )
    return tmp_path


def test_good_rows_are_left_in_peace(
    folder: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    outcome = smolvlm_command(
        "check", folder / "good.yaml", "--model", settings["model"]["path"], "--json"
    )
    assert (outcome.status, outcome.objects) == (0, [])
    assert "4 rows, 3 pictures and 0 clips decoded: 0 errors, 0 warnings" in outcome.messages


@pytest.mark.parametrize("workers", [1, 2])
def test_every_kind_of_bad_row_is_found(
    folder: Path,
    settings: dict[str, Any],
    smolvlm_command: Any,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_rows, "PART_ROWS", 4)
    model = settings["model"]["path"]
    arguments = [
        "--model",
        model,
        "--held-out",
        folder / "held.yaml",
        "--workers",
        workers,
        "--json",
    ]
    outcome = smolvlm_command("check", folder / "both.yaml", *arguments)
    assert outcome.status == 1
    found = [(own["where"], own["severity"], own["kind"]) for own in outcome.objects]
    assert found == [
        ("bad.jsonl:1", "error", "missing_media"),
        ("bad.jsonl:2", "error", "corrupt_media"),
        ("bad.jsonl:3", "error", "empty_media"),
        ("bad.jsonl:4", "error", "outside_root"),
        ("bad.jsonl:5", "error", "placeholder_mismatch"),
        ("bad.jsonl:6", "error", "empty_row"),
        ("bad.jsonl:7", "error", "role"),
        ("bad.jsonl:8", "error", "over_budget"),
        ("bad.jsonl:11", "error", "bad_row"),
        ("bad.jsonl:12", "warning", "mark_without_media"),
        ("bad.jsonl:9", "warning", "duplicate_row"),
        ("bad.jsonl:10", "warning", "duplicate_row"),
        ("held.jsonl:2", "error", "leaked_row"),
        ("held.jsonl:3", "warning", "leaked_picture"),
    ]
    messages = {own["where"]: own["message"] for own in outcome.objects}
    assert messages["bad.jsonl:10"].startswith("the same words and media as good.jsonl:2"), (
        "a picture is its bytes"
    )
    assert "good.jsonl:4" in messages["held.jsonl:2"]
    assert "good.jsonl:3" in messages["held.jsonl:3"]


def test_the_page_and_its_twin(
    folder: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    page = folder / "out" / "check.html"
    page.parent.mkdir()
    outcome = smolvlm_command(
        "check", folder / "both.yaml", "--model", settings["model"]["path"], "--html", page
    )
    assert outcome.status == 1
    assert outcome.output == ""
    text = page.read_text()
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "Pictures and clips that cannot be read" in text
    assert text.count("bad.jsonl:2<") == 1
    twin = json.loads(page.with_suffix(".json").read_text())
    assert {own["kind"] for own in twin} >= {"missing_media", "corrupt_media", "duplicate_row"}


def test_a_row_longer_than_the_models_context_is_found(
    tmp_path: Path, settings: dict[str, Any], smolvlm_command: Any, write_yaml: Any
) -> None:
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(asks(1)) + "\n" + json.dumps(asks(2, question="why " * 9000))
    )
    data = {"mixture": [{"path": "rows.jsonl"}], "max_tokens_per_pack": 16384}
    run = write_yaml(
        tmp_path / "long.yaml",
        {"model": settings["model"], "data": data, "train": {"output_dir": "out"}},
    )
    outcome = smolvlm_command("check", run, "--json")
    assert outcome.status == 1
    (found,) = outcome.objects
    assert (Path(found["where"]).name, found["kind"]) == ("rows.jsonl:2", "over_context")
    assert "the model's context is 8192" in found["message"]
    assert smolvlm_command("check", run, "model.rope_scaling={type: linear, factor: 2}").status == 0


@pytest.mark.parametrize("command", ["check", "prepare", "inspect", "train"])
def test_the_largest_picture_is_a_setting_of_every_command(
    folder: Path, settings: dict[str, Any], smolvlm_command: Any, write_yaml: Any, command: str
) -> None:
    run = {"data": {"mixture": "good.yaml"}, "train": {"output_dir": str(folder / "run")}}
    run_file = write_yaml(folder / "large.yaml", {"model": settings["model"], **run})
    outcome = smolvlm_command(command, run_file, "data.max_image_pixels=1000")
    said = " ".join((outcome.output + outcome.messages).split())
    assert "is larger than the limit of 1000 pixels" in said
    assert outcome.status == 1
    assert "raise `data.max_image_pixels`" in said


def test_a_run_file_brings_its_held_out_set_and_its_budget(
    folder: Path, settings: dict[str, Any], smolvlm_command: Any, write_yaml: Any
) -> None:
    data = {"mixture": "good.yaml", "eval_mixture": "held.yaml", "max_tokens_per_pack": 4096}
    run_file = write_yaml(folder / "run.yaml", {**settings, "data": data})
    outcome = smolvlm_command("check", run_file, "--json", "data.longest_edge_px=64")
    assert {own["kind"] for own in outcome.objects} == {"leaked_row", "leaked_picture"}
    small = smolvlm_command(
        "check", run_file, "--json", "data.longest_edge_px=64", "data.max_tokens_per_pack=30"
    )
    assert "over_budget" in {own["kind"] for own in small.objects}


@pytest.fixture
def check_lines(tmp_path: Path, settings: dict[str, Any], smolvlm_command: Any) -> Any:
    """Check rows and return the lines of the terminal and the JSON objects."""

    def check(rows: list[Any], **entry: Any) -> tuple[list[str], list[dict[str, Any]]]:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        mixture = tmp_path / "mixture.yaml"
        mixture.write_text(yaml.safe_dump([{"path": "rows.jsonl", **entry}]))
        model = settings["model"]["path"]
        outcome = smolvlm_command("check", mixture, "--model", model, "--json")
        return [" ".join(line.split()) for line in outcome.messages.splitlines()], outcome.objects

    return check


def test_a_cause_is_one_line_of_the_terminal_however_many_rows_it_hits(check_lines: Any) -> None:
    rows = [asks(number, image=f"gone-{number}.png") for number in range(200)]
    rows += [asks(number, start_s=3, end_s=2, video="a.mp4") for number in (201, 202)]
    rows += [asks(203, image=["a.png", 4]), asks(204, image=7), asks(205, answer=[["x"], 4])]
    lines, objects = check_lines(rows)
    text = " ".join(lines)
    assert len(objects) == 205, "the objects name every row"
    assert [f"rows.jsonl:{number}:" in text for number in (1, 2, 200, 201, 202)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert "(and 199 more rows like it)" in text
    assert "(and 1 more row like it)" in text


def test_causes_beyond_the_third_are_counted(check_lines: Any) -> None:
    strange = [{**asks(1), f"photo_{name}": "a.png"} for name in "abcdefg"]
    lines, objects = check_lines(strange)
    assert [item["kind"] for item in objects] == ["unread_media"] * 7
    assert "and 4 of other causes every row by itself: --json" in " ".join(lines)
    assert len(lines) < 20


def test_duplicates_that_differ_in_keys_that_are_not_read_are_named_so(check_lines: Any) -> None:
    rows = [
        {**asks(1), "id": 1, "source": "web"},
        {**asks(1), "id": 2, "source": "web"},
        asks(2),
        asks(2),
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {
            "messages": [
                {"role": "user", "content": "a", "name": "Ann"},
                {"role": "assistant", "content": "b"},
            ],
            "note": 3,
        },
        {**asks(3), "extra": 1},
        {**asks(3), "extra": 2},
    ]
    _, objects = check_lines(rows, not_read=["extra"])
    found = {item["where"]: item["message"] for item in objects if item["kind"] == "duplicate_row"}
    begin = "the same words and media as rows.jsonl:{}"
    one, two = "(they differ only in {}, which is not read)", "which are not read)"
    assert found["rows.jsonl:2"].startswith(f"{begin.format(1)} {one.format('`id`')}; take")
    assert found["rows.jsonl:4"].startswith(f"{begin.format(3)}; take one out")
    assert f"`messages[].name`, `note`, {two}" in found["rows.jsonl:6"]
    assert one.format("`extra`") in found["rows.jsonl:8"]


def test_a_new_token_that_no_row_holds_is_warned_of(
    tmp_path: Path, settings: dict[str, Any], smolvlm_command: Any, write_yaml: Any
) -> None:
    rows = [asks(1), {"question": "Where?", "answer": "<box>here</box>"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = settings["model"] | {"new_tokens": ["<box>", "</box>", "<bbox>"]}
    content = {
        "model": model,
        "data": {"mixture": [{"path": "rows.jsonl"}]},
        "train": {"output_dir": "out"},
    }
    run = write_yaml(tmp_path / "run.yaml", content | {"adapters": {"language": "lora"}})
    outcome = smolvlm_command("check", run, "--json")
    assert outcome.status == 0, outcome.messages
    (found,) = outcome.objects
    assert (found["where"], found["kind"], found["severity"]) == (
        "model.new_tokens",
        "unused_token",
        "warning",
    )
    assert found["message"].startswith("'<bbox>' stands in no row")
