"""The notebooks run from their first cell to their last, on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm.build.processor import ModelType

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
TIMEOUT_S = 400


def code_of(notebook: Path) -> str:
    """Return the code cells as one script; each last expression is shown, as a notebook would."""
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(f"show({source!r})" for source in sources)


SHOW = """
import ast, sys
names = {"__name__": "__main__"}
def show(source):
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        html = getattr(value, "_repr_html_", None)
        print((html() if html else repr(value))[:2000])
"""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(
    name: str, checkpoint_folders: dict[ModelType, Path], tmp_path: Path
) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(SHOW + code_of(EXAMPLES / f"{name}.ipynb"))
    model = {"EXAMPLE_MODEL": str(checkpoint_folders["smolvlm"]), "EXAMPLE_STEPS": "2"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | model | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs").is_dir()
    assert done.stdout.strip(), "the last cells show something"


def test_they_are_the_four_that_the_docs_name_and_hold_no_outputs() -> None:
    assert NOTEBOOKS == ["export", "own_pictures", "preferences", "video"]
    for name in NOTEBOOKS:
        content = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
        assert all(not cell.get("outputs") for cell in content["cells"])
