"""Scores a run on the field's benchmarks: lmms-eval asks, `smolvlm serve` answers.

    python scripts/eval/lmms_eval.py runs/first --tasks docvqa_val,chartqa --make-env
    python scripts/eval/lmms_eval.py runs/first --tasks drawn_shapes --offline

In: a run's folder, or any that `smolvlm serve` takes; names of lmms-eval's tasks. Out: its results
and samples in `RUN/lmms-eval`, and the scores as a table. lmms-eval has an environment of its own
(`runs/lmms-eval`, some 7 GB), since it asks for other releases than smolvlm of what both use; it
knows the model by its address alone, so nothing of it has to know SmolVLM.

Exit status 3 where questions were not answered: lmms-eval notes the error as the answer and scores
it, so such scores are none.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("lmms-eval==0.7.3", "filelock<4")
"""filelock: 0.7.3 imports a module of it that 4 has no more."""
REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / "runs" / "lmms-eval"
TASKS = REPOSITORY / "scripts" / "eval" / "tasks"
"""Tasks of our own."""
FAILED = "[LMMS_EVAL_REQUEST_FAILED"
"""How lmms-eval begins the answer to a question that the server did not answer."""
START_S = 600
STOP_S = 60


class EvalError(Exception):
    """What a user is told: what went wrong, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A served model."""

    base_url: str
    model: str


def environment_python(folder: Path, *, may_make: bool) -> Path:
    """Return the interpreter of lmms-eval's environment.

    Args:
        folder: of the environment.
        may_make: whether to make it where it is not there.

    Raises:
        EvalError: it is not there, or cannot be made.
    """
    python = folder / "bin" / "python"
    if (folder / "bin" / "lmms-eval").exists():
        return python
    if not may_make:
        raise EvalError(f"no lmms-eval in {folder}; give --make-env to install it (some 7 GB)")
    print(f"installing {PACKAGES[0]} into {folder}", file=sys.stderr)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
    if subprocess.run(pip, check=False).returncode:
        raise EvalError(f"{PACKAGES[0]} was not installed; pip says why above")
    return python


def lmms_command(
    python: Path, endpoint: Endpoint, *, tasks: str, out: Path, limit: int | None
) -> list[str]:
    """Return the command that asks the served model.

    Args:
        python: of lmms-eval's environment.
        endpoint: the served model.
        tasks: their names, separated by commas.
        out: folder for results and samples.
        limit: questions a task; None is all.

    Raises:
        EvalError: the model's name cannot be written in lmms-eval's form.
    """
    if "," in endpoint.model or "=" in endpoint.model:
        what = f"lmms-eval parts its arguments at ',' and '=', which are in {endpoint.model!r}"
        raise EvalError(f"{what}; rename the folder, or evaluate a link to it")
    arguments = {
        "model_version": endpoint.model,
        "base_url": endpoint.base_url,
        "api_key": "none",
        "num_cpus": 1,  # questions at a time: the server answers one after the other
        "timeout": 3600,
        "max_retries": 2,
    }
    command = [str(python), "-m", "lmms_eval", "eval", "--model", "async_openai"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())]
    command += ["--tasks", tasks, "--include_path", str(TASKS), "--batch_size", "1"]
    command += ["--output_path", str(out), "--log_samples"]
    return command if limit is None else [*command, "--limit", str(limit)]


def lmms_settings(*, is_offline: bool) -> dict[str, str]:
    """Return the environment variables of lmms-eval; the served model is never asked through a
    proxy."""
    settings = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "TOKENIZERS_PARALLELISM": "false"}
    if is_offline:
        settings |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return settings


@contextmanager
def served(run: Path, log: Path, *, device: str) -> Iterator[Endpoint]:
    """Serve a run on a free port of this machine until the block ends.

    Args:
        run: what `smolvlm serve` takes.
        log: file for what the server says.
        device: see `smolvlm serve`.

    Raises:
        EvalError: it ends, or is not there within `START_S`.
    """
    port = free_port()
    command = [sys.executable, "-m", "smolvlm", "serve", str(run), "--port", str(port)]
    with log.open("w", encoding="utf-8") as said:
        server = subprocess.Popen([*command, "--device", device], stdout=said, stderr=said)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while not is_healthy(address):
            if server.poll() is not None or time.monotonic() > end:
                raise EvalError(f"smolvlm serve did not start ({log}):\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield Endpoint(base_url=f"{address}/v1", model=served_name(log.read_text()))
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_healthy(address: str) -> bool:
    """Say whether the server answers; a proxy of the environment is passed over."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/health", timeout=5) as answer:
            return json.load(answer).get("status") == "ok"
    except (OSError, ValueError):
        return False


def served_name(said: str) -> str:
    """Return what clients call the model: `smolvlm serve` prints it.

    Raises:
        EvalError: it did not.
    """
    names = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("model ")]
    if not names:
        raise EvalError("smolvlm serve did not say what the model is called")
    return names[0].strip()


def newest_results(out: Path) -> Path:
    """Return the file of results that was written last.

    Raises:
        EvalError: there is none.
    """
    files = sorted(out.rglob("*_results.json"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        raise EvalError(f"lmms-eval left no results in {out}")
    return files[-1]


def scores_of(results: dict[str, Any]) -> list[tuple[str, str, float, int]]:
    """Return (task, metric, value, questions) of lmms-eval's results, groups among them."""
    scores = []
    for task, values in results["results"].items():
        num_asked = results.get("n-samples", {}).get(task, {}).get("effective", 0)
        for name, value in values.items():
            metric = name.partition(",")[0]
            is_score = isinstance(value, int | float) and not isinstance(value, bool)
            if is_score and not metric.endswith(("_stderr", "_stderr_clt", "_stderr_clustered")):
                scores.append((task, metric, float(value), num_asked))
    return scores


def failed_questions(results: Path) -> tuple[int, int]:
    """Return how many questions were not answered, and how many were asked.

    Args:
        results: the file of results; the samples lie beside it, under the same date.
    """
    date = results.name.removesuffix("_results.json")
    num_failed = num_asked = 0
    for file in results.parent.glob(f"{date}_samples_*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            num_asked += 1
            num_failed += FAILED in line  # in `resps`, or in `filtered_resps` where both are equal
    return num_failed, num_asked


def table(scores: Sequence[tuple[str, str, float, int]]) -> str:
    """Return scores as a table, a line each."""
    lines = [f"{'task':24} {'metric':24} {'score':>8} {'questions':>9}"]
    lines += [
        f"{task:24} {metric:24} {value:8.4f} {asked:9}" for task, metric, value, asked in scores
    ]
    return "\n".join(lines)


def evaluate(arguments: argparse.Namespace) -> int:
    """Serve, ask, and say what came of it; returns the exit status.

    Raises:
        EvalError: something on the way did not work.
    """
    run = arguments.run.absolute()
    if not run.is_dir():
        raise EvalError(f"no such folder: {run}; give a run's output_dir")
    python = environment_python(arguments.env.absolute(), may_make=arguments.make_env)
    out = (arguments.out or run / "lmms-eval").absolute()
    out.mkdir(parents=True, exist_ok=True)
    settings = os.environ | lmms_settings(is_offline=arguments.offline)
    settings.pop("PYTHONPATH", None)  # of this environment, not of lmms-eval's
    with served(run, out / "server.log", device=arguments.device) as endpoint:
        command = lmms_command(
            python, endpoint, tasks=arguments.tasks, out=out, limit=arguments.limit
        )
        began = time.time_ns()
        status = subprocess.run(command, cwd=REPOSITORY, env=settings, check=False).returncode
    if status:
        raise EvalError(f"lmms-eval ended with status {status}; it says why above")
    results = newest_results(out)
    if results.stat().st_mtime_ns < began:
        raise EvalError(f"lmms-eval left no new results in {out}; it says why above")
    print(table(scores_of(json.loads(results.read_text(encoding="utf-8")))))
    print(f"results: {results}", file=sys.stderr)
    num_failed, num_asked = failed_questions(results)
    if num_failed:
        what = f"{num_failed} of {num_asked} questions were not answered: these are no scores"
        print(f"error: {what}; {out / 'server.log'} says why", file=sys.stderr)
        return 3
    return 0


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Score a run with lmms-eval.")
    parser.add_argument("run", type=Path, help="a run's output_dir, or any folder that is served")
    parser.add_argument("--tasks", required=True, help="lmms-eval's names, separated by commas")
    parser.add_argument("--limit", type=int, help="questions a task; all by default")
    parser.add_argument("--out", type=Path, help="folder for results; RUN/lmms-eval by default")
    parser.add_argument("--env", type=Path, default=ENVIRONMENT, help="lmms-eval's environment")
    parser.add_argument("--make-env", action="store_true", help="install it where it is missing")
    parser.add_argument("--offline", action="store_true", help="fetch no data set")
    parser.add_argument("--device", default="auto", help="of the server: cpu, cuda:0, ...")
    try:
        sys.exit(evaluate(parser.parse_args()))
    except EvalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
