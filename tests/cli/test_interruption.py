"""Commands that are stopped by a signal: real processes, what they say, and that they go on."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smolvlm.cli.interruption import Interrupted, interruptible, says_what_is_kept
from smolvlm.train.checkpoint_folder import damage_of, missing_state
from tests.grids import part_of
from tests.processes import HAS_PROC, children_of

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
LIMIT_S = 120


@pytest.fixture(autouse=True)
def _deaths_of_workers_are_heard_of() -> Iterator[None]:
    """A command that is stopped ends its process; one in this process leaves torch deaf."""
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, handler)


@contextmanager
def process(*arguments: object, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start `smolvlm` as the leader of a process group, as a terminal does; its messages go to a
    file."""
    log = cwd / f"messages-{time.monotonic_ns()}.txt"
    with log.open("w") as stream:
        started = subprocess.Popen(
            [sys.executable, "-m", "smolvlm", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.DEVNULL,
            stderr=stream,
            text=True,
            start_new_session=True,
        )
    try:
        yield started, log
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def wait_until(holds: Callable[[], bool], running: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def stop(running: subprocess.Popen[str], log: Path, number: signal.Signals) -> str:
    """Send a signal as Ctrl-C and as `kill` do; return the messages of the command that ended."""
    if number == signal.SIGINT:
        os.killpg(running.pid, number)
    else:
        running.send_signal(number)
    return messages_of_stopped(running, log, number)


def messages_of_stopped(running: subprocess.Popen[str], log: Path, number: signal.Signals) -> str:
    running.wait(LIMIT_S)
    text = log.read_text()
    assert running.returncode == 128 + number, text
    assert "Traceback" not in text
    assert f"\nstopped by {NAMES[number]}\n" in text
    return text


@pytest.mark.parametrize(
    ("number", "settings_beside", "more"),
    [
        (signal.SIGTERM, {}, ""),
        (
            signal.SIGINT,
            {"resume_from_checkpoint": False, "dataloader_num_workers": 1},
            " train.resume_from_checkpoint=auto",
        ),
    ],
)
def test_a_run_that_is_stopped_says_its_last_checkpoint_and_goes_on_from_it(
    run_file: Path,
    settings: dict[str, Any],
    write_yaml: Any,
    tmp_path: Path,
    number: signal.Signals,
    settings_beside: dict[str, Any],
    more: str,
) -> None:
    steps = {
        "num_train_epochs": 400,
        "save_steps": 3,
        "logging_steps": 1,
        "output_dir": str(tmp_path / "out"),
    }
    content = settings | {"train": settings["train"] | steps | settings_beside}
    content["eval"] = {"at_start": False}
    write_yaml(tmp_path / "run.yaml", content)
    command = ["train", "run.yaml", "data.max_tokens_per_pack=512"]
    with process(*command, cwd=tmp_path) as (running, log):
        wait_until((tmp_path / "out" / "checkpoint-3" / "smolvlm.json").is_file, running, log)
        text = stop(running, log, number)
    *_, kept, again = text.splitlines()
    folder = Path(kept.removeprefix("kept: ").partition(",")[0])
    assert (folder / "smolvlm.json").is_file()
    assert folder.name.startswith("checkpoint-")
    assert again == f"to go on: smolvlm {shlex.join(command)}{more}"
    last = int(folder.name.partition("-")[2])
    words = shlex.split(again.removeprefix("to go on: smolvlm "))
    with process(*words, cwd=tmp_path) as (running, log):
        wait_until(lambda: f"step {last + 1}/" in log.read_text(), running, log)
        assert f"resuming from {folder}\n" in stop(running, log, number)


@pytest.mark.skipif(not HAS_PROC, reason="workers are looked up in /proc")
@pytest.mark.parametrize("number", part_of(NAMES, (signal.SIGTERM,)))
def test_a_signal_to_all_processes_is_no_death_of_a_worker(
    settings: dict[str, Any], write_yaml: Any, tmp_path: Path, number: signal.Signals
) -> None:
    """As a scheduler sends it; the workers hear of it first, which is a matter of chance."""
    beside = {"output_dir": str(tmp_path / "out"), "num_train_epochs": 400}
    beside |= {"save_strategy": "no", "dataloader_num_workers": 2}
    content = settings | {"train": settings["train"] | beside, "eval": {"at_start": False}}
    write_yaml(tmp_path / "run.yaml", content)
    with process("train", "run.yaml", cwd=tmp_path) as (running, log):
        wait_until(lambda: "step 2/" in log.read_text(), running, log)
        for worker in children_of(running.pid):
            os.kill(worker, number)
        time.sleep(0.5)
        running.send_signal(number)
        messages_of_stopped(running, log, number)


@pytest.mark.parametrize("number", part_of(NAMES, (signal.SIGTERM,)))
def test_a_run_that_is_to_be_saved_when_it_is_stopped_is_and_goes_on_from_there(
    settings: dict[str, Any], write_yaml: Any, tmp_path: Path, number: signal.Signals
) -> None:
    beside = {"output_dir": str(tmp_path / "out"), "num_train_epochs": 400}
    beside |= {"save_strategy": "no", "enable_jit_checkpoint": True, "dataloader_num_workers": 1}
    content = settings | {"train": settings["train"] | beside, "eval": {"at_start": False}}
    write_yaml(tmp_path / "run.yaml", content)
    with process("train", "run.yaml", cwd=tmp_path) as (running, log):
        wait_until(lambda: "step 2/" in log.read_text(), running, log)
        text = stop(running, log, number)
    (folder,) = (tmp_path / "out").glob("checkpoint-*")
    assert damage_of(folder) is None
    assert missing_state(folder) == []
    *_, kept, again = text.splitlines()
    assert kept.startswith(f"kept: {folder}, the last whole checkpoint")
    assert again == "to go on: smolvlm train run.yaml"
    assert not (tmp_path / "out" / "model.safetensors").exists(), "no final model: it is not done"
    assert not (tmp_path / "out" / "report.html").exists()
    with process("train", "run.yaml", cwd=tmp_path) as (running, log):
        last = int(folder.name.partition("-")[2])
        wait_until(lambda: f"step {last + 1}/" in log.read_text(), running, log)
        assert f"resuming from {folder}\n" in stop(running, log, number)


def test_a_run_that_is_stopped_before_its_first_checkpoint_says_so(
    settings: dict[str, Any], write_yaml: Any, tmp_path: Path
) -> None:
    out = {"output_dir": str(tmp_path / "out"), "num_train_epochs": 400, "save_steps": 400}
    content = settings | {"train": settings["train"] | out, "eval": {"at_start": False}}
    write_yaml(tmp_path / "run.yaml", content)
    with process("train", "run.yaml", cwd=tmp_path) as (running, log):
        wait_until(lambda: "step 1/" in log.read_text(), running, log)
        text = stop(running, log, signal.SIGTERM)
    *_, kept, hint, again = text.splitlines()
    assert hint == (
        "to keep more: a smaller train.save_steps saves sooner, train.enable_jit_checkpoint=true "
        "when the run is stopped"
    )
    assert kept == (
        f"kept: no checkpoint, none was whole yet in {tmp_path / 'out'}; the run begins anew"
    )
    assert again == "to go on: smolvlm train run.yaml"


@pytest.mark.parametrize("number", part_of(NAMES, (signal.SIGINT,)))
def test_a_preparation_that_is_stopped_keeps_what_it_measured(
    settings: dict[str, Any],
    write_yaml: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    row = json.dumps({"question": "why " * 9, "answer": "so"}) + "\n"
    (tmp_path / "rows.jsonl").write_text(row * 40_000)
    write_yaml(tmp_path / "mixture.yaml", [{"path": "rows.jsonl"}])
    command = ["prepare", "mixture.yaml", "--model", settings["model"]["path"], "--workers", "2"]
    kept = tmp_path / "home" / "lengths"
    with process(*command, cwd=tmp_path) as (running, log):
        # A worker's third part is written once this process has heard of one of the earlier two.
        wait_until(lambda: len(list(kept.glob("*/[0-9]*.parquet"))) >= 3, running, log)
        text = stop(running, log, number)
    *_, said, again = text.splitlines()
    assert said.startswith("kept: the sizes of ")
    assert said.endswith(f" of 40,000 rows, in {kept}")
    assert again == f"to go on: smolvlm {shlex.join(command)}"
    assert 8192 <= int(said.split()[4].replace(",", "")) < 40_000


def test_notes_of_every_level_are_said_and_other_ends_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        with says_what_is_kept(lambda: ["the outer"]), says_what_is_kept(lambda: ["the inner"]):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        interruptible(command)
    assert end.value.code == 130
    assert capsys.readouterr().err == "\nstopped by Ctrl-C\nthe inner\nthe outer\n"
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)


def test_a_signal_that_comes_twice_is_one_signal(capsys: pytest.CaptureFixture[str]) -> None:
    """A scheduler sends it to all processes, and torchrun hands it on."""

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        interruptible(command)
    assert end.value.code == 143
    assert capsys.readouterr().err == "\nstopped by SIGTERM\n"


def test_a_second_signal_later_ends_at_once() -> None:
    program = (
        "import os, signal, time; from smolvlm.cli import interruption as module\n"
        "module._SAME_SIGNAL_S = 0.1\n"
        "def command():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(5)\n"
        "    finally:\n"
        "        time.sleep(0.3)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "module.interruptible(command)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=LIMIT_S, check=False)
    assert done.returncode == -signal.SIGTERM


def test_ranks_but_the_first_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        interruptible(command)
    assert end.value.code == 143
    assert capsys.readouterr().err == ""
