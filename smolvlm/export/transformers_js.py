"""What transformers.js answers to the prompts of a proof, in node.

In: an exported folder. Out: a `Proof`; where node or the package `@huggingface/transformers` is not
here, one that says so. The package is looked for from the folder that the command is given in, as
node does.

transformers.js resizes pictures in another way (bilinear, where the model's processor has Lanczos),
so its pixels differ by some levels of 255, and the bound is wider than the graphs' own.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from smolvlm.errors import ConfigError
from smolvlm.export.exported import Exported
from smolvlm.export.proof import MAX_NEW_TOKENS, TOP, Answer, Proof, compare
from smolvlm.export.proof_prompts import proof_prompts
from smolvlm.export.reference import reference_answers
from smolvlm.parent_process import Parent

NAME = "transformers.js"
BOUND = 0.2
"""On log-probabilities, in nats: what other pixels do besides."""
INSTALL = "npm install @huggingface/transformers"
_SCRIPT = Path(__file__).with_name("browser.mjs")
_VERSION = (
    "const at = require('path').dirname(require.resolve('@huggingface/transformers'));"
    "console.log(JSON.parse(require('fs').readFileSync(at + '/../package.json')).version)"
)


def installed_version() -> str | None:
    """Return transformers.js' version as node finds it from here; None where it does not."""
    if shutil.which("node") is None:
        return None
    found = subprocess.run(
        ["node", "--eval", _VERSION], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else None


def prove_browser(exported: Exported, folder: Path, *, staged: Path) -> Proof:
    """Compare what transformers.js answers with what the stock model does.

    Args:
        exported: what was exported.
        folder: holds `onnx/`.
        staged: the stock model, and the small files that belong beside the graphs.

    Raises:
        ConfigError: transformers.js does not load the folder.
    """
    version = installed_version()
    if version is None:
        missing = "node" if shutil.which("node") is None else "@huggingface/transformers"
        reason = f"{missing} is not here ({INSTALL}, in the folder that you export from)"
        return Proof(runtime=NAME, bound=BOUND, not_run=reason)
    asked = proof_prompts(exported.new_tokens)
    references = reference_answers(staged, exported.base.processor, exported.prompt, asked)
    with TemporaryDirectory() as work:
        shown = Path(work, "model")
        shown.mkdir()
        (shown / "onnx").symlink_to((folder / "onnx").resolve())
        for path in staged.glob("*.json"):
            shutil.copyfile(path, shown / path.name)
        prompts: list[dict[str, Any]] = []
        for each in asked:
            picture = Path(work, f"{each.name}.png")
            picture.write_bytes(each.png)
            prompts.append(
                {
                    "question": each.question,
                    "picture": str(picture),
                    "is_picture_first": each.is_picture_first,
                }
            )
        task = {"folder": str(shown), "prompts": prompts}
        task |= {"top": TOP, "max_new_tokens": MAX_NEW_TOKENS}
        answers = [
            answer_from(reply, end_of_turn=exported.prompt.tokens.end_of_turn)
            for reply in _run(Path(work), task)
        ]
    return Proof(
        runtime=f"{NAME} {version}",
        bound=BOUND,
        comparisons=tuple(
            compare(each, reference, answer, bound=BOUND)
            for each, reference, answer in zip(asked, references, answers, strict=True)
        ),
    )


def answer_from(reply: Mapping[str, Any], *, end_of_turn: int) -> Answer:
    """Return what `browser.mjs` writes of one prompt, up to the end of the turn."""
    token_ids = [int(token) for token in reply["token_ids"]]
    if end_of_turn in token_ids:
        token_ids = token_ids[: token_ids.index(end_of_turn)]
    steps = reply["steps"][: len(token_ids)]
    return Answer(
        num_prompt_tokens=int(reply["num_prompt_tokens"]),
        token_ids=tuple(token_ids),
        top_logprobs=tuple({int(token): float(value) for token, value in step} for step in steps),
    )


def _run(work: Path, task: dict[str, Any]) -> list[dict[str, Any]]:
    given, result = work / "task.json", work / "result.json"
    given.write_text(json.dumps(task), encoding="utf-8")
    finished = subprocess.run(
        Parent.here().command(["node", str(_SCRIPT), str(given), str(result)]),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if finished.returncode != 0 or not result.is_file():
        lines = [line for line in finished.stderr.splitlines() if "Error" in line]
        raise ConfigError(
            f"transformers.js ended with status {finished.returncode}: "
            f"{lines[0] if lines else 'it said nothing'}",
            where="--to browser",
            fix="try another version of @huggingface/transformers, or --no-proof",
        )
    return json.loads(result.read_text(encoding="utf-8"))
