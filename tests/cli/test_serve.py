"""`smolvlm serve` answers OpenAI's client as the run itself does: pictures, streamed, merged."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm import api
from smolvlm.cli import serve as serve_command

NEW_TOKENS, START_S = 6, 240
needs_server = pytest.mark.skipif(
    find_spec("fastapi") is None or find_spec("uvicorn") is None or find_spec("openai") is None,
    reason='the server is an extra: pip install "smolvlm[serve]"',
)


@contextmanager
def served(
    folder: Path, log: Path, *, ended_by: signal.Signals = signal.SIGTERM
) -> Iterator[tuple[str, str]]:
    """Serve a folder on the loopback interface; give the address and the model's name."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with log.open("w") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "smolvlm", "serve", str(folder), *on_loopback(port)],
            env=os.environ | {"SMOLVLM_HOME": str(log.parent / "home")},
            stderr=messages,
            stdout=messages,
        )
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while not is_healthy(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)
        names = [
            line.split(maxsplit=1)[1]
            for line in log.read_text().splitlines()
            if line.startswith("model ")
        ]
        yield f"{address}/v1", names[0]
        process.send_signal(ended_by)
        assert process.wait(60) == 128 + ended_by, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def on_loopback(port: int) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]


def is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return json.load(answer).get("status") == "ok"
    except (urllib.error.URLError, OSError):
        return False


def asked(address: str, model: str, question: str, picture: Path) -> tuple[str, str]:
    """Return the answer at once, and the pieces of a streamed one together."""
    from openai import OpenAI

    data = base64.b64encode(picture.read_bytes()).decode()
    content: Any = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": question},
    ]
    settings: Any = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": NEW_TOKENS,
        "temperature": 0.0,
    }
    client = OpenAI(base_url=address, api_key="none", max_retries=0)
    answer = client.chat.completions.create(**settings)
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**settings, stream=True)
        if chunk.choices
    ]
    return answer.choices[0].message.content or "", "".join(pieces)


def listed(address: str) -> list[str]:
    """Return the names of the models that a client is told."""
    from openai import OpenAI

    client = OpenAI(base_url=address, api_key="none", max_retries=0)
    return [model.id for model in client.models.list().data]


@needs_server
def test_openais_client_is_answered_as_the_run_answers(
    out: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    said = api.load(out, device="cpu").ask(
        "What is shown?", photos["coffee"], max_new_tokens=NEW_TOKENS
    )
    with served(out, tmp_path / "log", ended_by=signal.SIGINT) as (address, model):
        answers = asked(address, model, "What is shown?", photos["coffee"])
        assert tuple(answer.rstrip() for answer in answers) == (said, said)
        assert listed(address) == [model]
    assert "stopped by Ctrl-C" in (tmp_path / "log").read_text()


@needs_server
def test_an_adapter_is_merged_first(
    settings: dict[str, Any], smolvlm_command: Any, photos: dict[str, Path], tmp_path: Path
) -> None:
    train = settings["train"] | {"output_dir": str(tmp_path / "run"), "max_steps": 2}
    del train["num_train_epochs"]
    adapters = {"language": {"type": "lora", "r": 4, "lr": 1e-2}}
    content = settings | {"train": train, "adapters": adapters, "eval": {"at_end": False}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    assert smolvlm_command("train", tmp_path / "run.yaml").status == 0
    said = api.load(tmp_path / "run", device="cpu").ask(
        "What is shown?", photos["coffee"], max_new_tokens=NEW_TOKENS
    )
    with served(tmp_path / "run", tmp_path / "log") as (address, model):
        assert asked(address, model, "What is shown?", photos["coffee"])[0].rstrip() == said


def test_what_is_missing_is_named(
    out: Path, smolvlm_command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serve_command, "_NEEDED", ("nobody_has_this",))
    outcome = smolvlm_command("serve", out)
    assert outcome.status == 1
    assert (
        'nobody_has_this is not installed\n  fix: pip install "smolvlm[serve]"' in outcome.messages
    )
    monkeypatch.setattr(serve_command, "_NEEDED", ())
    outcome = smolvlm_command("serve", tmp_path)
    assert outcome.status == 1
    assert "no config.json here" in outcome.messages
