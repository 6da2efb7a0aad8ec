"""A card says what the run's files say, in the form that the hub reads, and no path of here."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from smolvlm.publish.model_card import OURS, sources_of, write_model_card


def test_a_run_leaves_a_card_that_the_hub_reads(full_run: Path) -> None:
    card = ModelCard.load(full_run / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.tags == ["smolvlm", "vision-language-model", "sft"]
    assert card.data.base_model is None, "a folder is nobody else's base"
    (result,) = card.data.eval_results or []
    predictions = (full_run / "predictions.jsonl").read_text().splitlines()
    assert result.metric_value == json.loads(predictions[0])["correct"]
    assert "| eval_rows | 1 |" in card.text
    assert "| rows | not stated |" in card.text
    assert "AutoModelForImageTextToText.from_pretrained" in card.text
    assert "| learning rate, language model | 0.001 |" in card.text


def test_a_checkpoint_has_a_card_of_its_step(full_run: Path) -> None:
    (checkpoint,) = full_run.glob("checkpoint-*")
    card = ModelCard.load(checkpoint / "README.md")
    assert card.text.strip().startswith(f"# {checkpoint.name}")
    assert "| steps | 2 |" in card.text
    assert "It was not evaluated" in card.text, "its scores are those of the run's end"


def test_no_path_of_this_machine_is_in_it(full_run: Path, adapter_run: Path) -> None:
    for run in (full_run, adapter_run):
        assert str(run.parents[2]) not in (run / "README.md").read_text()


def test_an_adapter_is_loaded_by_peft(adapter_run: Path) -> None:
    card = ModelCard.load(adapter_run / "README.md")
    assert card.data.library_name == "peft"
    assert "lora" in (card.data.tags or [])
    assert 'PeftModel.from_pretrained(base, "PATH_OR_ID")' in card.text
    assert "| adapters | language: lora |" in card.text


def test_a_base_of_the_hub_and_its_data_are_named(full_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(full_run, run, ignore=shutil.ignore_patterns("checkpoint-*", "README.md"))
    settings = yaml.safe_load((run / "run.yaml").read_text())
    settings["model"]["path"] = "HuggingFaceTB/SmolVLM-256M-Instruct"
    settings["data"]["mixture"] = {
        "charts": [{"hub": "owner/charts", "license": "cc-by-4.0"}],
        "own": [{"json_path": "/home/me/a|b.jsonl.gz"}],
    }
    (run / "run.yaml").write_text(yaml.safe_dump(settings))
    card = ModelCard.load(write_model_card(run))
    assert card.data.base_model == "HuggingFaceTB/SmolVLM-256M-Instruct"
    assert card.data["base_model_relation"] == "finetune"
    assert card.data.datasets == ["owner/charts"]
    assert "| `owner/charts` | cc-by-4.0 |" in card.text
    assert "| a\\|b | not stated |" in card.text
    assert "/home/me" not in card.text


def test_a_private_runs_card_names_no_data_set_of_the_hub(full_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(full_run, run, ignore=shutil.ignore_patterns("checkpoint-*", "README.md"))
    settings = yaml.safe_load((run / "run.yaml").read_text())
    settings["train"]["private"] = True
    settings["data"]["mixture"] = [
        {"hub": "owner/secret"},
        {"hub": "owner/secret", "name": "scans", "license": "other"},
    ]
    (run / "run.yaml").write_text(yaml.safe_dump(settings))
    card = ModelCard.load(write_model_card(run))
    assert "secret" not in card.content
    assert card.data.datasets is None
    assert "| a data set of the hub | not stated |" in card.text
    assert "| scans | other |" in card.text


def test_a_card_that_a_person_took_over_stays(full_run: Path, tmp_path: Path) -> None:
    run = tmp_path / full_run.name
    shutil.copytree(full_run, run, ignore=shutil.ignore_patterns("checkpoint-*"))
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace(OURS, "").replace("## Limits", "## My limits"))
    write_model_card(run)
    assert "## My limits" in (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace("## Limits", "## My limits"))
    write_model_card(run)
    assert (run / "README.md").read_text() == text


@pytest.mark.parametrize("mixture", ["gone.yaml", None, [1, "two"], {"group": None}])
def test_what_is_not_known_is_not_named(mixture: object) -> None:
    assert sources_of({"data": {"mixture": mixture, "base_dir": "/nowhere"}}) == []
