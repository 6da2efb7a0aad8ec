"""`smolvlm push` sends a model with its card, and nothing else, to a hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.errors import ConfigError
from smolvlm.publish.push import planned_upload
from tests.publish.upload_server import REPO, UploadHub, upload_hub

TIMEOUT_S = 300


def pushed(hub: UploadHub, *arguments: object, token: str = "hf_right") -> tuple[int, str, str]:
    """Call the command in a process that knows this hub alone."""
    settings = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "smolvlm", "push", *map(str, arguments)],
        env=os.environ | settings | {"HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_what_arrives_is_a_model_with_its_card_and_nothing_else(
    full_run: Path, tmp_path: Path
) -> None:
    with upload_hub() as hub:
        status, _, messages = pushed(hub, full_run, REPO, "--private", "--message", "First")
    assert status == 0, messages
    assert messages.splitlines()[-1] == f"{hub.address}/{REPO}"
    assert hub.messages == ["First"]
    (created,) = hub.created
    assert created["name"] == "tuned"
    assert created.get("visibility") == "private" or created.get("private") is True
    for name, content in hub.files.items():
        assert (full_run / name).read_bytes() == content
        (tmp_path / name).write_bytes(content)
    assert {"README.md", "model.safetensors", "tokenizer.json"} <= hub.files.keys()
    left = {"run.yaml", "predictions.jsonl", "report.html", "metrics.jsonl", "training_args.bin"}
    assert not left & hub.files.keys()
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    assert model.num_parameters() > 0
    AutoProcessor.from_pretrained(tmp_path)


def test_a_dry_run_sends_nothing(full_run: Path) -> None:
    with upload_hub() as hub:
        status, output, messages = pushed(hub, full_run, REPO, "--dry-run", "--json")
    assert status == 0, messages
    listed = [json.loads(line) for line in output.splitlines()]
    assert {"name": "README.md", "bytes": (full_run / "README.md").stat().st_size} in listed
    assert "nothing was sent" in messages
    assert (hub.files, hub.created) == ({}, [])


def test_a_wrong_token_is_said(full_run: Path) -> None:
    with upload_hub() as hub:
        status, _, messages = pushed(hub, full_run, REPO, token="hf_wrong")
    assert status == 1
    assert "the hub refuses (401)" in messages
    assert "hf auth login" in messages
    assert hub.files == {}


def test_a_hub_out_of_reach_is_said(full_run: Path) -> None:
    with upload_hub() as hub:
        pass
    status, _, messages = pushed(hub, full_run, REPO)
    assert status == 1
    assert "the hub is out of reach" in messages
    assert "Traceback" not in messages


def test_an_adapter_whose_base_is_a_folder_is_refused(adapter_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the adapter's base is a folder of this machine"):
        planned_upload(adapter_run, REPO, is_private=False)
    folder = tmp_path / "adapter"
    shutil.copytree(adapter_run, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "HuggingFaceTB/SmolVLM-256M-Instruct"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    names = {path.name for path in planned_upload(folder, REPO, is_private=False).files}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= names


@pytest.mark.parametrize("repo_id", ["tuned", "a/b/c", "../b", "/a/b", ""])
def test_names_that_no_repository_has(full_run: Path, repo_id: str) -> None:
    with pytest.raises(ConfigError, match="no OWNER/NAME"):
        planned_upload(full_run, repo_id, is_private=False)


def test_a_folder_without_a_model_or_with_a_path_of_here(full_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model here"):
        planned_upload(tmp_path, REPO, is_private=False)
    folder = tmp_path / "model"
    shutil.copytree(full_run, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "note": [str(tmp_path)]}))
    with pytest.raises(ConfigError, match="a path of this machine"):
        planned_upload(folder, REPO, is_private=False)
