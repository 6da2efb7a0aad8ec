"""What users install: a wheel and an sdist, built alike twice, and at work in an environment that
has no checkout of this repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 600
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "smolvlm")


def run(*command: object, **environment: str) -> str:
    """Call a command outside the checkout, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(folder: Path) -> dict[str, Path]:
    """Build both from a copy of the tree; return them by their endings."""
    tree = folder / "tree"
    tree.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, tree / name)
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", tree)
    run(*command, SOURCE_DATE_EPOCH="1767225600", PYTHONPATH="")
    shutil.rmtree(tree)
    return {path.suffix: path for path in (folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return built(tmp_path_factory.mktemp("built"))


def test_a_wheel_built_again_is_the_same_bytes(
    distributions: dict[str, Path], tmp_path: Path
) -> None:
    again = built(tmp_path)
    assert again[".whl"].read_bytes() == distributions[".whl"].read_bytes()


def test_the_wheel_has_the_package_and_its_data_alone(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        names = {name for name in wheel.namelist() if not name.split("/")[0].endswith("dist-info")}
    inside = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "smolvlm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == inside
    with tarfile.open(distributions[".gz"]) as sdist:
        assert any(name.endswith("/pyproject.toml") for name in sdist.getnames())


def test_the_wheel_works_where_there_is_no_checkout(
    distributions: dict[str, Path], tmp_path: Path
) -> None:
    """The other packages are this environment's: a folder on the path, whose links to the checkout
    are not read there."""
    place = tmp_path / "empty"
    run(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", distributions[".whl"])
    packages = {"PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(tmp_path)}
    there = "import smolvlm; print(smolvlm.__file__)"
    assert str(place) in run(python, "-c", there, **packages)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    command = place / "bin" / "smolvlm"
    assert run(command, "--version", **packages) == f"smolvlm {version}\n"
    tiny = tmp_path / "tiny"
    make = f"from smolvlm.build.tiny import tiny_model; tiny_model({str(tiny)!r})"
    run(python, "-c", make, PYTHONPATH=packages["PYTHONPATH"])
    (tmp_path / "rows.jsonl").write_text('{"question": "One and one?", "answer": "two"}\n')
    (tmp_path / "run.yaml").write_text(
        f"model: {{path: {tiny}}}\n"
        "data: {mixture: [{json_path: rows.jsonl}], max_tokens_per_pack: 64}\n"
        f"train: {{output_dir: {tmp_path / 'out'}, language_model_lr: 1e-3, packs_per_step: 1, "
        "max_steps: 1, use_cpu: true}\n"
    )
    run(command, "train", tmp_path / "run.yaml", **packages)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.startswith("<!doctype html>"), "the templates are in the wheel"
    assert (tmp_path / "out" / "README.md").is_file()
