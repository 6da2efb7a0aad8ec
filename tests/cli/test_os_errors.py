"""What the system refuses is a sentence: which file, why, what is kept, what to do; never a
traceback, and no row is blamed."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.build.tiny import tiny_model
from smolvlm.cli.os_errors import explained, says_what_is_safe
from smolvlm.train.checkpoint_folder import whole_checkpoints
from tests.small_disks import become_nobody, fill, memory_disk

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
NUM_STEPS = 40


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a run of 40 steps that saves every second one; `output_dir` is missing."""
    folder = tmp_path_factory.mktemp("full")
    rows = "".join(f'{{"question": "{n} plus 1?", "answer": "{n + 1}"}}\n' for n in range(24))
    (folder / "rows.jsonl").write_text(rows)
    return {
        "model": {"path": str(tiny_model(folder / "tiny", hidden_size=32))},
        "data": {"mixture": [{"json_path": str(folder / "rows.jsonl")}]},
        "train": {
            "language_model_lr": 1e-3,
            "use_cpu": True,
            "max_steps": NUM_STEPS,
            "logging_steps": 1,
            "packs_per_step": 1,
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": 2,
        },
    }


def written(settings: dict[str, Any], out: Path, run_file: Path) -> Path:
    train = settings["train"] | {"output_dir": str(out)}
    run_file.write_text(yaml.safe_dump(settings | {"train": train}))
    return run_file


def smolvlm(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "smolvlm", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **options,
    )


def after_first_checkpoint(
    process: subprocess.Popen[str], out: Path, do: Callable[[], None]
) -> str:
    """Do something while a run stands still behind its first checkpoint; return its messages."""
    end = time.monotonic() + TIMEOUT_S
    while not whole_checkpoints(out):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    try:
        do()
    finally:
        process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=TIMEOUT_S)[1]


def assert_says(messages: str, *words: str) -> None:
    assert "Traceback" not in messages, messages
    assert "rows.jsonl" not in messages, "no row is blamed"
    for each in words:
        assert each in messages, messages


def test_a_disk_that_fills_while_training_ends_the_run_and_loses_nothing(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with memory_disk(tmp_path / "disk", size_mb=150) as disk:
        out, other = disk / "out", disk / "other"
        run_file = written(settings, out, tmp_path / "run.yaml")
        process = smolvlm("train", run_file)
        messages = after_first_checkpoint(process, out, lambda: fill(other))
        assert process.returncode == 1
        assert_says(messages, f"error: {out}/", "no space is left on the disk", "of 157 MB free)")
        (kept,) = [line for line in messages.splitlines() if "kept: " in line]
        last = f"{whole_checkpoints(out)[-1]}, the last whole checkpoint"
        assert kept == f"  kept: {last}; the steps after it are done again"
        assert "  fix: free some room there, then give the same command again\n" in messages
        other.unlink()
        again = smolvlm("train", run_file)
        messages = again.communicate(timeout=TIMEOUT_S)[1]
        assert again.returncode == 0, messages
        assert "resuming from" in messages
        lines = (out / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == [*range(1, NUM_STEPS + 1)]


def test_a_file_above_the_limit_of_the_shell_is_named(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))

    run_file = written(settings, tmp_path / "out", tmp_path / "run.yaml")
    process = smolvlm("train", run_file, preexec_fn=limit)
    messages = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 1
    assert_says(
        messages,
        f"error: {tmp_path}/out/checkpoint-2",
        "the file would be larger than is allowed (ulimit -f, or the file system)",
        f"  kept: no checkpoint, none was whole yet in {tmp_path}/out; the run begins anew",
    )
    assert not (tmp_path / "out" / "checkpoint-2").exists(), "what was half written is gone"


def test_an_export_and_answers_on_a_full_disk(settings: dict[str, Any], tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", size_mb=5) as disk:
        process = smolvlm(
            "export", settings["model"]["path"], "--to", "transformers", "--out", disk / "new"
        )
        messages = process.communicate(timeout=TIMEOUT_S)[1]
        assert process.returncode == 1
        assert_says(messages, f"error: {disk}/new/", "no space is left on the disk", "fix: free")
        assert list(disk.iterdir()) == [], "a half export takes no room"


def test_nobody_may_not_write_to_roots_folder() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        become_nobody()
        try:
            os.open("/etc/smolvlm-test", os.O_CREAT | os.O_WRONLY)
        except OSError as error:
            os.write(writing, explained(error).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as messages:
        assert messages.read() == (
            "/etc/smolvlm-test: user nobody may not do this here (Permission denied)\n"
            "  fix: change the permissions, or name another folder, then give the same command "
            "again"
        )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.EMFILE, "Too many open files", "/a"),
            r"^/a: too many files are open \(the ",
        ),
        (OSError(errno.EDQUOT, "Quota", "/tmp/a"), r"^/tmp/a: no space is left on the disk \("),
        (OSError(errno.EROFS, "Read-only", "/a"), r"^/a: its disk is mounted read-only\n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), r"^the system has no memory left\n"),
        (OSError(errno.EIO, "Input/output error", b"/a"), r"^/a: the disk reports an error\n"),
        (OSError("We have no connection to the hub"), r"^We have no connection to the hub\n"),
        (
            OSError("Caught one in a worker\nOSError: [Errno 24] Too many open files: '/b'\n"),
            r"^/b: too many files are open",
        ),
    ],
)
def test_each_refusal_says_file_reason_and_remedy(error: OSError, words: str) -> None:
    def fail() -> None:
        with says_what_is_safe(lambda: "kept: checkpoint-4"):
            raise error

    with pytest.raises(OSError) as caught:
        fail()
    text = explained(caught.value)
    assert re.match(words, text), text
    assert "\n  kept: checkpoint-4\n  fix: " in text
