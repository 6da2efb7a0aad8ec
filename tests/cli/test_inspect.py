"""`smolvlm inspect`: what the model will see and learn, as JSON, as pixels, as a page, and
checked."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor

from smolvlm.inspect import verify
from smolvlm.model import modeling_smolvlm
from smolvlm.model.attention.rule import make_scope

KEYS = {
    "where",
    "input_ids",
    "position_ids",
    "scope_end",
    "targets",
    "num_tiles",
    "frame_times_s",
    "text",
}
MODEL_TYPES = ("smolvlm", "idefics3")


@pytest.fixture(scope="module")
def page_and_pixels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inspected")
    return folder / "page.html", folder / "pixels.safetensors"


@pytest.fixture(scope="module")
def inspected(run_file: Path, smolvlm_command: Any, page_and_pixels: tuple[Path, Path]) -> Any:
    page, pixels = page_and_pixels
    return smolvlm_command(
        "inspect", run_file, "--rows", "0:6", "--json", "--html", page, "--pixels", pixels
    )


def test_a_sample_is_an_object_with_exactly_the_published_keys(inspected: Any) -> None:
    assert inspected.status == 0
    assert len(inspected.objects) == 6
    for sample in inspected.objects:
        assert sample.keys() == KEYS
        assert len(sample["input_ids"]) == len(sample["position_ids"]) == len(sample["scope_end"])
        assert sample["frame_times_s"] == []
        assert all(len(target) == 3 for target in sample["targets"])


def test_a_tree_counts_once_and_holds_what_its_rows_say(
    inspected: Any, processors: dict[str, Any]
) -> None:
    trees, texts = inspected.objects[:4], inspected.objects[4:]
    assert [[where.rsplit(":")[-1] for where in tree["where"]] for tree in trees] == [
        ["1", "2"],
        ["3", "4"],
        ["5", "6"],
        ["7", "8"],
    ]
    assert all(
        tree["num_tiles"] > 0 and min(tree["scope_end"]) < len(tree["scope_end"]) for tree in trees
    )
    assert all(text["num_tiles"] == 0 and len(text["where"]) == 1 for text in texts)
    decode = processors["smolvlm"].tokenizer.decode
    for sample in inspected.objects:
        assert sample["text"] == decode(sample["input_ids"])
    learned = [target_id for _, target_id, _ in trees[0]["targets"]]
    assert decode(learned) == " coffee<end_of_utterance> yes<end_of_utterance>"


def test_pixels_are_the_stock_processors(
    settings: dict[str, Any],
    photos: dict[str, Path],
    page_and_pixels: tuple[Path, Path],
    inspected: Any,
) -> None:
    written = load_file(page_and_pixels[1])
    assert sorted(written) == ["sample_0", "sample_1", "sample_2", "sample_3"]
    processor: Any = AutoProcessor.from_pretrained(settings["model"]["path"])
    for number, name in enumerate(("coffee", "rocket", "chelsea", "horse")):
        with Image.open(photos[name]) as photo:
            picture = photo.convert("RGB")
        batch = processor(
            text="<image>", images=[[picture]], size={"longest_edge": 64}, return_tensors="pt"
        )
        ours = written[f"sample_{number}"]
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, batch["pixel_values"][0], rtol=0, atol=1e-6)
        assert len(ours) == inspected.objects[number]["num_tiles"]


def test_the_page_is_written_and_stands_alone(
    page_and_pixels: tuple[Path, Path], inspected: Any
) -> None:
    page = page_and_pixels[0].read_text()
    assert page.startswith("<!doctype html>")
    assert "photos.jsonl:1" in page
    assert "data:image/" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert f"page: {page_and_pixels[0]}" in inspected.messages


def test_without_json_it_is_for_people(run_file: Path, smolvlm_command: Any) -> None:
    outcome = smolvlm_command("inspect", run_file, "--rows", "1")
    assert outcome.status == 0
    assert outcome.output == ""
    assert "photos.jsonl:3" in outcome.messages
    assert "photos.jsonl:1" not in outcome.messages
    assert re.search(r"\n1 of \d+ samples ", outcome.messages)


@pytest.mark.parametrize(("rows", "status"), [("a:b", 2), ("x", 2), ("900:901", 1)])
def test_rows_that_are_none(run_file: Path, smolvlm_command: Any, rows: str, status: int) -> None:
    outcome = smolvlm_command("inspect", run_file, "--rows", rows)
    assert outcome.status == status
    assert "Traceback" not in outcome.messages


@pytest.fixture
def verified(
    settings: dict[str, Any],
    sources: list[dict[str, Any]],
    checkpoint_folders: dict[str, Path],
    smolvlm_command: Any,
    tmp_path: Path,
) -> Any:
    """Verifies one pack of samples with a tiny model of a type."""

    def run(model_type: str, *overrides: str) -> Any:
        repeated = [
            {**source, "repeat": 2} if source["name"] == "words" else source for source in sources
        ]
        data = {
            "mixture": repeated,
            "longest_edge_px": 64,
            "max_tokens_per_pack": 1024,
            "loss_weighting": "sqrt",
        }
        data["allow_outside_root"] = True
        train = {"output_dir": str(tmp_path / "out")}
        path = tmp_path / "run.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "model": {"path": str(checkpoint_folders[model_type])},
                    "data": data,
                    "train": train,
                }
            )
        )
        return smolvlm_command("inspect", path, "--rows", "2:8", "--verify", *overrides)

    return run


def test_what_is_compared_and_what_is_not_is_said(verified: Any) -> None:
    plain = verified("smolvlm").messages
    assert "  gradients  vision_tower     does not train\n" in plain
    assert "  not covered: data.vision_cache (every tile is encoded anew)\n" in plain
    assert "  compared " not in plain
    adapted = verified(
        "smolvlm",
        "adapters.language={type: lora, r: 4, dropout: 0.1}",
        "quantization.bits=4",
        "data.vision_cache=false",
    )
    assert adapted.status == 0, adapted.messages
    assert "  compared   language_model  14 layers in 4 bits" in adapted.messages
    assert "  compared   language_model  lora of rank 4 in 14 layers\n" in adapted.messages
    left_out = "  not covered: dropout of the adapters (language): it is off on both sides\n"
    assert left_out in adapted.messages
    assert "data.vision_cache" not in adapted.messages


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_one_tile_and_its_overview_are_verified(verified: Any, model_type: str) -> None:
    chosen = ("data.image_splitting=overview", "data.longest_edge_px=null")
    outcome = verified(model_type, *chosen)
    assert outcome.status == 0, outcome.messages
    assert "packed = alone" in outcome.messages


def test_preference_rows_are_verified_with_their_loss(verified: Any, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{number} plus 1?", "chosen": str(number + 1), "rejected": "I forgot."}
        for number in range(3)
    ]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    outcome = verified(
        "smolvlm",
        f"data.mixture=[{{name: pairs, json_path: {path}}}]",
        "data.loss_weighting=token",
        "train.method=dpo",
        "train.loss_type=ipo",
        "--rows",
        "0:3",
    )
    assert outcome.status == 0, outcome.messages
    assert "packed = alone, on 3 pairs of answers" in outcome.messages
    assert "  compared   dpo, loss ipo, reference precomputed\n" in outcome.messages


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_packed_is_alone_on_both_families(verified: Any, model_type: str) -> None:
    outcome = verified(model_type)
    assert outcome.status == 0, outcome.messages
    assert "packed = alone, on 8 conversations" in outcome.messages
    assert "ids        equal" in outcome.messages
    assert outcome.messages.rstrip().endswith("  holds")


def test_conversations_that_see_each_other_are_found_out(
    verified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        modeling_smolvlm,
        "make_scope",
        lambda scope_end, _: make_scope(torch.full_like(scope_end, len(scope_end))),
    )
    outcome = verified("smolvlm")
    assert outcome.status == 3
    assert "ids        equal" in outcome.messages
    assert "  DOES NOT HOLD: do not train on this" in outcome.messages


def test_a_literal_marker_is_named_and_left_out(verified: Any, tmp_path: Path) -> None:
    rows = [
        {"question": "What does <image> stand for?", "answer": "a picture's place"},
        {"question": "And <end_of_utterance>?", "answer": "an end"},
        {"question": "And this?", "answer": "nothing"},
    ]
    path = tmp_path / "markers.json"
    path.write_text(json.dumps(rows))
    source = f"data.mixture=[{{name: markers, json_path: {path}}}]"
    outcome = verified("smolvlm", source, "--rows", "0:3")
    assert outcome.status == 0, outcome.messages
    assert "markers.json:1: not compared: its text has <image>" in outcome.messages
    assert "markers.json:2: not compared: its text has <end_of_utterance>" in outcome.messages
    assert "packed = alone, on 1 conversations" in outcome.messages
    outcome = verified("smolvlm", source, "--rows", "0:2")
    assert outcome.status == 1
    assert "none of these samples can be compared" in outcome.messages


def test_no_error_at_all_is_too_much_to_ask(verified: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "GRADIENT_TOLERANCE", 0.0)
    assert verified("smolvlm").status == 3
